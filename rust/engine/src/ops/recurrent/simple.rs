//! The simple recurrent cell (Elman, 1990): `h' = activation(x·W + b + h·U)`.

use super::{BackwardRow, Cell, Functions, Row, StepGradient};
use crate::tensor::{Real, Tensor};

#[derive(Debug)]
pub(super) struct Simple;

impl Cell for Simple {
    const GATES: usize = 1;
    const EXTRA: usize = 0;
    const MEMORY: bool = false;
    const APART: bool = false;

    #[inline(always)]
    fn forward_row<E: Real>(functions: Functions, row: Row<'_, E>) {
        let Row { gates, product, bias, h, .. } = row;
        for ((z, &product), &bias) in gates.iter_mut().zip(product).zip(bias) {
            *z = *z + bias + product;
        }
        functions.activation.apply_inline(gates);
        h.copy_from_slice(gates);
    }

    #[inline(always)]
    fn backward_row<E: Real>(functions: Functions, row: BackwardRow<'_, E>) {
        let BackwardRow { gates, product, dh, .. } = row;
        product.copy_from_slice(dh);
        functions.activation.backward_inline(gates, product);
        dh.fill(E::default());
    }

    fn forward_step(functions: Functions, x: Tensor, product: Tensor, _: &[Tensor]) -> [Vec<Tensor>; 2] {
        let h = functions.activation.value(x + product);
        [vec![h.clone()], vec![h]]
    }

    fn backward_step(functions: Functions, kept: &[Tensor], _: &[Tensor], gradient: &[Tensor]) -> StepGradient {
        let dz = functions.activation.backward(Some(kept[0].clone()), gradient[0].clone());
        StepGradient { x: dz.clone(), product: dz, state: vec![None] }
    }
}
