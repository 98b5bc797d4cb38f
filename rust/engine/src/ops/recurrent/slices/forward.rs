//! Along the sequence.

use rayon::prelude::*;

use super::super::{Cell, Parts, Recurrent, Returns, Row, Sizes};
use super::{Run, Share, multiply, prepared, shares, split};
use crate::cpu;
use crate::memory::Block;
use crate::ops::Evaluation;
use crate::tensor::{Real, Tensor};

/// Saved: the gates, the extra blocks, `h` and `c` of all steps.
pub(in super::super) fn forward<E: Real, C: Cell>(operation: &Recurrent<C>, parts: Parts<Tensor>) -> Evaluation {
    let parts = prepared::<E>(parts);
    let run = Run::<E>::new(operation, &parts);
    let Sizes { batch, steps, units, .. } = run.sizes;
    let widths = [C::GATES, C::EXTRA, 1, usize::from(C::MEMORY)].map(|blocks| blocks * units);
    let [mut gates, mut extra, mut h, mut c] = widths.map(|width| Block::<E>::uninitialised(batch * steps * width));
    let bias = run.bias::<C>();
    let shares = shares::<C>(run.sizes);
    let walks: Vec<Walk<'_, E>> = split(&mut gates, &shares, steps * widths[0])
        .zip(split(&mut extra, &shares, steps * widths[1]))
        .zip(split(&mut h, &shares, steps * widths[2]))
        .zip(split(&mut c, &shares, steps * widths[3]))
        .zip(&shares)
        .map(|((((gates, extra), h), c), &share)| Walk { run: &run, bias: &bias, share, gates, extra, h, c })
        .collect();
    walks.into_par_iter().for_each(Walk::all::<C>);
    let saved = [gates, extra, h, c].map(|values| {
        let width = values.len() / (batch * steps);
        Tensor::from_block(values, &[batch, steps, width])
    });
    let value = match operation.returns {
        Returns::Last => last(&saved[2], run.place(steps - 1)),
        Returns::States if C::MEMORY => Tensor::concatenate(saved[2..].to_vec(), 2),
        Returns::Sequence | Returns::States => saved[2].clone(),
    };
    Evaluation { value, saved: saved.into_iter().collect() }
}

fn last(h: &Tensor, place: usize) -> Tensor {
    let shape = h.shape();
    let one = h.clone().slice(&[0, place, 0], &[shape[0], place + 1, shape[2]], &[1; 3]);
    one.reshape(&[shape[0], shape[2]])
}

/// One share of the batch, and the slices that it writes, of all steps.
struct Walk<'a, E> {
    run: &'a Run<'a, E>,
    bias: &'a [E],
    share: Share,
    gates: &'a mut [E],
    extra: &'a mut [E],
    h: &'a mut [E],
    /// Empty without memory.
    c: &'a mut [E],
}

impl<E: Real> Walk<'_, E> {
    fn all<C: Cell>(mut self) {
        let (run, share) = (self.run, self.share);
        let Sizes { steps, features, units, .. } = run.sizes;
        let mut state = [run.initial(share, 0), run.initial(share, 1)];
        let factors = run.parts.factors.map(|factors| share.of(factors, units));
        let mut scaled = vec![E::default(); if factors.is_some() { state[0].len() } else { 0 }];
        let mut product = Block::<E>::uninitialised(share.count * C::GATES * units);
        // Of all steps, where the gates will be.
        multiply(self.gates, share.of(run.parts.x, steps * features), run.parts.kernel, features);
        for step in 0..steps {
            let entering = enter(&state[0], factors, &mut scaled);
            multiply(&mut product, entering, run.parts.recurrent_kernel, units);
            self.step::<C>(step, &product, &mut state);
        }
    }

    fn step<C: Cell>(&mut self, step: usize, product: &[E], [h, c]: &mut [Vec<E>; 2]) {
        let place = self.run.place(step);
        let Sizes { steps, units, .. } = self.run.sizes;
        let (width, kept, bias) = (C::GATES * units, C::EXTRA * units, self.bias);
        cpu::vectorised!({
            for row in 0..self.share.count {
                if step + 1 < steps {
                    self.ask_for::<C>(row * steps + self.run.place(step + 1));
                }
                let at = row * steps + place;
                let (h, c) = (&mut h[row * units..][..units], &mut c[row * units..][..units]);
                let extra = &mut self.extra[at * kept..][..kept];
                if self.run.is_masked(self.share.first + row, place) {
                    extra.fill(E::default());
                } else {
                    let (gates, product) = (&mut self.gates[at * width..][..width], &product[row * width..][..width]);
                    C::forward_row(self.run.functions, Row { gates, product, bias, extra, h, c });
                }
                self.h[at * units..][..units].copy_from_slice(h);
                if C::MEMORY {
                    self.c[at * units..][..units].copy_from_slice(c);
                }
            }
        });
    }

    /// Asks for what a step reads and writes of a sample, which lies a sequence apart from that of the others.
    #[inline(always)]
    fn ask_for<C: Cell>(&self, at: usize) {
        let units = self.run.sizes.units;
        let (width, kept) = (C::GATES * units, C::EXTRA * units);
        cpu::prefetch(&self.gates[at * width..][..width]);
        cpu::prefetch(&self.extra[at * kept..][..kept]);
        cpu::prefetch(&self.h[at * units..][..units]);
        if C::MEMORY {
            cpu::prefetch(&self.c[at * units..][..units]);
        }
    }
}

/// `h` as it enters the product.
fn enter<'a, E: Real>(h: &'a [E], factors: Option<&[E]>, scaled: &'a mut [E]) -> &'a [E] {
    let Some(factors) = factors else {
        return h;
    };
    for ((scaled, &h), &factor) in scaled.iter_mut().zip(h).zip(factors) {
        *scaled = h * factor;
    }
    scaled
}
