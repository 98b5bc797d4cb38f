//! The gated recurrent unit (Cho et al., 2014) that resets after the product, gates z, r, n:
//! `n = activation(x·W + b + r·(h·U + b'))`, `h' = z·h + (1 - z)·n`.

use super::steps::{blocks, joined};
use super::{BackwardRow, Cell, Functions, Row, StepGradient};
use crate::Number;
use crate::tensor::{Real, Tensor};

#[derive(Debug)]
pub(super) struct Gru;

/// Extra block: `h·U + b'` of the candidate.
impl Cell for Gru {
    const GATES: usize = 3;
    const EXTRA: usize = 1;
    const MEMORY: bool = false;
    const APART: bool = true;

    #[inline(always)]
    fn forward_row<E: Real>(functions: Functions, row: Row<'_, E>) {
        let Row { gates, product, bias, extra, h, .. } = row;
        let units = h.len();
        let (zr, n) = gates.split_at_mut(2 * units);
        let (bias, product_bias) = bias.split_at(3 * units);
        for ((gate, &product), (&bias, &other)) in zr.iter_mut().zip(product).zip(bias.iter().zip(product_bias)) {
            *gate = *gate + bias + (product + other);
        }
        functions.recurrent.apply_inline(zr);
        let (z, r) = zr.split_at(units);
        for ((extra, &product), &bias) in extra.iter_mut().zip(&product[2 * units..]).zip(&product_bias[2 * units..]) {
            *extra = product + bias;
        }
        for (((n, &r), &product), &bias) in n.iter_mut().zip(r).zip(&*extra).zip(&bias[2 * units..]) {
            *n = *n + bias + r * product;
        }
        functions.activation.apply_inline(n);
        for ((h, &z), &n) in h.iter_mut().zip(z).zip(&*n) {
            *h = n + z * (*h - n);
        }
    }

    #[inline(always)]
    fn backward_row<E: Real>(functions: Functions, row: BackwardRow<'_, E>) {
        let BackwardRow { gates, product, extra, before, dh, .. } = row;
        let units = dh.len();
        let one = E::from_f64(1.0);
        {
            let (zr, n) = gates.split_at_mut(2 * units);
            let (z, r) = zr.split_at(units);
            let (d_zr, dn) = product.split_at_mut(2 * units);
            let (dz, dr) = d_zr.split_at_mut(units);
            for ((dz, (&before, &n)), &dh) in dz.iter_mut().zip(before[0].iter().zip(&*n)).zip(&*dh) {
                *dz = dh * (before - n);
            }
            for ((dn, dh), &z) in dn.iter_mut().zip(dh).zip(z) {
                *dn = *dh * (one - z);
                *dh = *dh * z;
            }
            functions.activation.backward_inline(n, dn);
            for (((dr, extra), &dn), &r) in dr.iter_mut().zip(&mut *extra).zip(&*dn).zip(r) {
                *dr = dn * *extra;
                *extra = dn * r;
            }
            functions.recurrent.backward_inline(zr, d_zr);
        }
        product[2 * units..].copy_from_slice(extra);
    }

    fn forward_step(functions: Functions, x: Tensor, product: Tensor, state: &[Tensor]) -> [Vec<Tensor>; 2] {
        let [xz, xr, xn] = blocks(x);
        let [z, r, product] = blocks(product);
        let z = functions.recurrent.value(xz + z);
        let r = functions.recurrent.value(xr + r);
        let n = functions.activation.value(xn + r.clone() * product.clone());
        let h = n.clone() + z.clone() * (state[0].clone() - n.clone());
        [vec![z, r, n, product], vec![h]]
    }

    fn backward_step(functions: Functions, kept: &[Tensor], before: &[Tensor], gradient: &[Tensor]) -> StepGradient {
        let [z, r, n, product] = [0, 1, 2, 3].map(|place| kept[place].clone());
        let dh = gradient[0].clone();
        let dz = functions.recurrent.backward(Some(z.clone()), dh.clone() * (before[0].clone() - n.clone()));
        let dn = functions.activation.backward(Some(n), dh.clone() * (-z.clone()).plus(1.0));
        let dr = functions.recurrent.backward(Some(r.clone()), dn.clone() * product);
        let x = joined(vec![dz.clone(), dr.clone(), dn.clone()]);
        StepGradient { x, product: joined(vec![dz, dr, dn * r]), state: vec![Some(dh * z)] }
    }
}
