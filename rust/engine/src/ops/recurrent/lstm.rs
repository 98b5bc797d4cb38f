//! Long short-term memory (Hochreiter and Schmidhuber, 1997; forget gate of Gers et al., 2000), gates i, f, g, o:
//! `c' = f·c + i·g`, `h' = o·activation(c')`.

use super::steps::{blocks, joined};
use super::{BackwardRow, Cell, Functions, Row, StepGradient};
use crate::tensor::{Real, Tensor};

#[derive(Debug)]
pub(super) struct Lstm;

/// The blocks of gates.
#[inline(always)]
fn split<E>(gates: &[E], units: usize) -> [&[E]; 4] {
    [0, 1, 2, 3].map(|gate| &gates[gate * units..][..units])
}

/// The blocks of gates for writing.
#[inline(always)]
fn split_mut<E>(gates: &mut [E], units: usize) -> [&mut [E]; 4] {
    let (input_forget, rest) = gates.split_at_mut(2 * units);
    let (input, forget) = input_forget.split_at_mut(units);
    let (candidate, output) = rest.split_at_mut(units);
    [input, forget, candidate, output]
}

/// Extra block: `activation(c')`.
impl Cell for Lstm {
    const GATES: usize = 4;
    const EXTRA: usize = 1;
    const MEMORY: bool = true;
    const APART: bool = false;

    #[inline(always)]
    fn forward_row<E: Real>(functions: Functions, row: Row<'_, E>) {
        let Row { gates, product, bias, extra: active, h, c } = row;
        let units = h.len();
        for ((z, &product), &bias) in gates.iter_mut().zip(product).zip(bias) {
            *z = *z + bias + product;
        }
        functions.recurrent.apply_inline(&mut gates[..2 * units]);
        functions.activation.apply_inline(&mut gates[2 * units..3 * units]);
        functions.recurrent.apply_inline(&mut gates[3 * units..]);
        let [i, f, g, o] = split(gates, units);
        for (((c, active), &i), (&f, &g)) in c.iter_mut().zip(&mut *active).zip(i).zip(f.iter().zip(g)) {
            *c = f * *c + i * g;
            *active = *c;
        }
        functions.activation.apply_inline(active);
        for ((h, &o), &active) in h.iter_mut().zip(o).zip(&*active) {
            *h = o * active;
        }
    }

    #[inline(always)]
    fn backward_row<E: Real>(functions: Functions, row: BackwardRow<'_, E>) {
        let BackwardRow { gates, product, extra: active, before, dh, dc } = row;
        let units = dh.len();
        {
            let [i, f, g, o] = split(gates, units);
            let [di, df, dg, d_o] = split_mut(product, units);
            // The way through the output first; its place is that of the candidate's gradient later.
            for ((((dg, d_o), &dh), &o), &active) in dg.iter_mut().zip(&mut *d_o).zip(&*dh).zip(o).zip(&*active) {
                *dg = dh * o;
                *d_o = dh * active;
            }
            functions.activation.backward_inline(active, dg);
            for (dc, &through) in dc.iter_mut().zip(&*dg) {
                *dc = *dc + through;
            }
            for (((di, dg), &i), (&g, &dc)) in di.iter_mut().zip(dg).zip(i).zip(g.iter().zip(&*dc)) {
                *di = dc * g;
                *dg = dc * i;
            }
            for (((df, dc), &f), &before) in df.iter_mut().zip(dc).zip(f).zip(before[1]) {
                *df = *dc * before;
                *dc = *dc * f;
            }
        }
        functions.recurrent.backward_inline(&mut gates[..2 * units], &mut product[..2 * units]);
        functions.activation.backward_inline(&mut gates[2 * units..3 * units], &mut product[2 * units..3 * units]);
        functions.recurrent.backward_inline(&mut gates[3 * units..], &mut product[3 * units..]);
        dh.fill(E::default());
    }

    fn forward_step(functions: Functions, x: Tensor, product: Tensor, state: &[Tensor]) -> [Vec<Tensor>; 2] {
        let [i, f, g, o] = blocks(x + product);
        let [i, f, o] = [i, f, o].map(|gate| functions.recurrent.value(gate));
        let g = functions.activation.value(g);
        let c = f.clone() * state[1].clone() + i.clone() * g.clone();
        let active = functions.activation.value(c.clone());
        let h = o.clone() * active.clone();
        [vec![i, f, g, o, active], vec![h, c]]
    }

    fn backward_step(functions: Functions, kept: &[Tensor], before: &[Tensor], gradient: &[Tensor]) -> StepGradient {
        let [i, f, g, o, active] = [0, 1, 2, 3, 4].map(|place| kept[place].clone());
        let (dh, dc) = (gradient[0].clone(), gradient[1].clone());
        let dc = dc + functions.activation.backward(Some(active.clone()), dh.clone() * o.clone());
        let di = functions.recurrent.backward(Some(i.clone()), dc.clone() * g.clone());
        let df = functions.recurrent.backward(Some(f.clone()), dc.clone() * before[1].clone());
        let dg = functions.activation.backward(Some(g), dc.clone() * i);
        let d_o = functions.recurrent.backward(Some(o), dh * active);
        let dz = joined(vec![di, df, dg, d_o]);
        StepGradient { x: dz.clone(), product: dz, state: vec![None, Some(dc * f)] }
    }
}
