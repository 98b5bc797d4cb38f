//! Back through time.

use rayon::prelude::*;

use super::super::{BackwardRow, Cell, Parts, Recurrent, Returns, Sizes};
use super::{Run, Share, multiply, prepared, shares, split};
use crate::cpu;
use crate::cpu::gemm::{Matrix, gemm, gemm_serial, gemm_strided};
use crate::memory::Block;
use crate::ops::reduction::sum_to;
use crate::ops::{Tensors, exactly};
use crate::tensor::{Real, Tensor};

/// The gradients of the inputs; see [`Recurrent`] for these.
pub(in super::super) fn backward<E: Real, C: Cell>(
    operation: &Recurrent<C>,
    parts: Parts<Tensor>,
    saved: Tensors,
    gradient: Tensor,
    wanted: &[bool],
) -> Parts<Option<Tensor>> {
    let parts = prepared::<E>(parts);
    let run = Run::<E>::new(operation, &parts);
    let Sizes { batch, steps, features, units } = run.sizes;
    let [mut gates, mut extra, h, c] = exactly(saved);
    let gradient = gradient.contiguous::<E>();
    let back = parts.recurrent_kernel.clone().transpose().contiguous::<E>();
    let [gradient, h, c, back] = [&gradient, &h, &c, &back].map(Tensor::elements::<E>);
    let given = Given { returns: operation.returns, gradient, h, c, back };
    let x_width = if wanted[0] { steps * features } else { 0 };
    let [mut entered, mut x] = [steps * units, x_width].map(|width| Block::<E>::uninitialised(batch * width));
    let [mut dh, mut dc, mut factors] = [(); 3].map(|()| vec![E::default(); batch * units]);
    let shares = shares::<C>(run.sizes);
    let walks: Vec<Walk<'_, E>> = split(gates.elements_mut::<E>(), &shares, steps * C::GATES * units)
        .zip(split(extra.elements_mut::<E>(), &shares, steps * C::EXTRA * units))
        .zip(split(&mut entered, &shares, steps * units).zip(split(&mut x, &shares, x_width)))
        .zip(split(&mut dh, &shares, units).zip(split(&mut dc, &shares, units)))
        .zip(split(&mut factors, &shares, units).zip(&shares))
        .map(|((((gates, extra), (entered, x)), (dh, dc)), (factors, &share))| {
            let (run, given) = (&run, &given);
            Walk { run, given, share, gates, extra, entered, x, dh, dc, factors }
        })
        .collect();
    walks.into_par_iter().for_each(Walk::all::<C>);
    let state = |values: Vec<E>| Some(Tensor::from_vec(values, &[batch, units]));
    let products = Products { run: &run, gates: &gates, extra: &extra, entered: &entered };
    Parts {
        x: wanted[0].then(|| Tensor::from_block(x, &[batch, steps, features])),
        kernel: wanted[1].then(|| products.kernel::<C>()),
        recurrent_kernel: wanted[2].then(|| products.recurrent_kernel::<C>()),
        bias: parts.bias.as_ref().map(|_| Some(products.bias::<C>())),
        initial: [dh, dc].map(state).into_iter().take(parts.initial.len()).collect(),
        mask: parts.mask.as_ref().map(|_| None),
        factors: parts.factors.as_ref().map(|_| state(factors)),
    }
}

/// The gradient of the output, and the states after all steps.
struct Given<'a, E> {
    returns: Returns,
    gradient: &'a [E],
    h: &'a [E],
    /// Empty without memory.
    c: &'a [E],
    /// The transpose of the recurrent kernel.
    back: &'a [E],
}

impl<'a, E: Real> Given<'a, E> {
    /// The state after a step; its memory is empty where there is none.
    #[inline(always)]
    fn state(&self, at: usize, units: usize) -> [&'a [E]; 2] {
        let own = at * units..(at + 1) * units;
        [&self.h[own.clone()], self.c.get(own).unwrap_or_default()]
    }

    /// Adds the gradient that reaches the state of a sample's step from outside.
    #[inline(always)]
    fn add<C: Cell>(&self, run: &Run<'_, E>, sample: usize, step: usize, dh: &mut [E], dc: &mut [E]) {
        let units = dh.len();
        let states = 1 + (C::MEMORY && self.returns == Returns::States) as usize;
        let from = match self.returns {
            Returns::Last if step + 1 < run.sizes.steps => return,
            Returns::Last => sample * units,
            Returns::Sequence | Returns::States => (sample * run.sizes.steps + run.place(step)) * states * units,
        };
        let incoming = &self.gradient[from..][..states * units];
        for (dh, &incoming) in dh.iter_mut().zip(incoming) {
            *dh = *dh + incoming;
        }
        for (dc, &incoming) in dc.iter_mut().zip(&incoming[units..]) {
            *dc = *dc + incoming;
        }
    }
}

/// One share of the batch, and the slices that it writes on its way back.
struct Walk<'a, E> {
    run: &'a Run<'a, E>,
    given: &'a Given<'a, E>,
    share: Share,
    /// Of all steps.
    gates: &'a mut [E],
    extra: &'a mut [E],
    /// `h` as it entered the product, of all steps.
    entered: &'a mut [E],
    /// The gradient of x; empty if not wanted.
    x: &'a mut [E],
    /// The gradients of the state; in the end those of the initial one.
    dh: &'a mut [E],
    dc: &'a mut [E],
    /// The gradient of the factors.
    factors: &'a mut [E],
}

impl<E: Real> Walk<'_, E> {
    fn all<C: Cell>(mut self) {
        let Sizes { steps, units, .. } = self.run.sizes;
        let initial = [self.run.initial(self.share, 0), self.run.initial(self.share, 1)];
        let factors = self.run.parts.factors.map(|factors| self.share.of(factors, units));
        let width = C::GATES * units;
        let mut product = Block::<E>::uninitialised(self.share.count * width);
        let mut passed = vec![E::default(); if factors.is_some() { self.dh.len() } else { 0 }];
        for step in (0..steps).rev() {
            self.step::<C>(step, &initial, &mut product);
            if let Some(factors) = factors {
                multiply(&mut passed, &product, self.given.back, width);
                self.pass_factors(self.run.place(step), &passed, factors);
            } else {
                self.pass(&product, width);
            }
        }
        if !self.x.is_empty() {
            self.input::<C>();
        }
    }

    fn step<C: Cell>(&mut self, step: usize, initial: &[Vec<E>; 2], product: &mut [E]) {
        let (run, place) = (self.run, self.run.place(step));
        let Sizes { steps, units, .. } = run.sizes;
        let (width, kept) = (C::GATES * units, C::EXTRA * units);
        cpu::vectorised!({
            for row in 0..self.share.count {
                self.ask_for_next::<C>(step, row);
                let (sample, at, own) = (self.share.first + row, row * steps + place, row * units..(row + 1) * units);
                let (dh, dc) = (&mut self.dh[own.clone()], &mut self.dc[own.clone()]);
                self.given.add::<C>(run, sample, step, dh, dc);
                let before = match step.checked_sub(1) {
                    None => [&initial[0][own.clone()], &initial[1][own]],
                    Some(earlier) => self.given.state(sample * steps + run.place(earlier), units),
                };
                self.entered[at * units..][..units].copy_from_slice(before[0]);
                let (gates, product) = (&mut self.gates[at * width..][..width], &mut product[row * width..][..width]);
                let extra = &mut self.extra[at * kept..][..kept];
                if run.is_masked(sample, place) {
                    [gates, product, extra].into_iter().for_each(|gradient| gradient.fill(E::default()));
                } else {
                    C::backward_row(run.functions, BackwardRow { gates, product, extra, before, dh, dc });
                }
            }
        });
    }

    /// Asks for what the next step reads and writes of a sample, which lies a sequence apart from that of the others.
    #[inline(always)]
    fn ask_for_next<C: Cell>(&self, step: usize, row: usize) {
        let Sizes { steps, units, .. } = self.run.sizes;
        let (width, kept) = (C::GATES * units, C::EXTRA * units);
        if let Some(next) = step.checked_sub(1) {
            let at = row * steps + self.run.place(next);
            cpu::prefetch(&self.gates[at * width..][..width]);
            cpu::prefetch(&self.extra[at * kept..][..kept]);
            cpu::prefetch(&self.entered[at * units..][..units]);
        }
        if let Some(before) = step.checked_sub(2) {
            let at = (self.share.first + row) * steps + self.run.place(before);
            self.given.state(at, units).into_iter().for_each(cpu::prefetch);
        }
    }

    /// Takes the gradient of `h · recurrent_kernel` to `h`.
    fn pass(&mut self, product: &[E], width: usize) {
        let units = self.run.sizes.units;
        let (product, back) = (Matrix::rows(product, width), Matrix::rows(self.given.back, units));
        gemm_serial(self.dh, true, product, back, [self.share.count, width, units]);
    }

    /// Takes the gradient of `h · factors` to both; `entered` is `h` and becomes the product.
    fn pass_factors(&mut self, place: usize, passed: &[E], factors: &[E]) {
        let Sizes { steps, units, .. } = self.run.sizes;
        for row in 0..self.share.count {
            let own = row * units..(row + 1) * units;
            let entered = &mut self.entered[(row * steps + place) * units..][..units];
            let to = entered.iter_mut().zip(&mut self.dh[own.clone()]).zip(&mut self.factors[own.clone()]);
            for (((entered, dh), dfactor), (&passed, &factor)) in to.zip(passed[own.clone()].iter().zip(&factors[own]))
            {
                *dfactor = *dfactor + passed * *entered;
                *dh = *dh + passed * factor;
                *entered = *entered * factor;
            }
        }
    }

    /// The gradient of x, while that of the gates is near.
    fn input<C: Cell>(&mut self) {
        let Sizes { steps, features, units, .. } = self.run.sizes;
        let width = C::GATES * units;
        let (dz, kernel) = (Matrix::rows(self.gates, width), Matrix::rows(self.run.parts.kernel, width).t());
        gemm_serial(self.x, false, dz, kernel, [self.share.count * steps, width, features]);
    }
}

/// The products over all steps at once.
struct Products<'a, E> {
    run: &'a Run<'a, E>,
    /// The gradients of `x · kernel`.
    gates: &'a Tensor,
    /// Those of the last block of `h · recurrent_kernel`, of a cell that is [`Cell::APART`].
    extra: &'a Tensor,
    entered: &'a [E],
}

impl<E: Real> Products<'_, E> {
    fn rows(&self) -> usize {
        self.run.sizes.batch * self.run.sizes.steps
    }

    fn kernel<C: Cell>(&self) -> Tensor {
        let Sizes { features, units, .. } = self.run.sizes;
        let width = C::GATES * units;
        let mut dkernel = Block::<E>::uninitialised(features * width);
        let (x, dz) = (Matrix::rows(self.run.parts.x, features), self.gates.elements::<E>());
        gemm(&mut dkernel, false, x.t(), Matrix::rows(dz, width), [features, self.rows(), width]);
        Tensor::from_block(dkernel, &[features, width])
    }

    fn recurrent_kernel<C: Cell>(&self) -> Tensor {
        let units = self.run.sizes.units;
        let width = C::GATES * units;
        let alike = width - units * C::APART as usize;
        let mut out = Block::<E>::uninitialised(units * width);
        let (h, dz) = (Matrix::rows(self.entered, units).t(), Matrix::rows(self.gates.elements::<E>(), width));
        gemm_strided(&mut out, width, false, h, dz, [units, self.rows(), alike]);
        if C::APART {
            let last = Matrix::rows(self.extra.elements::<E>(), units);
            gemm_strided(&mut out[alike..], width, false, h, last, [units, self.rows(), units]);
        }
        Tensor::from_block(out, &[units, width])
    }

    fn bias<C: Cell>(&self) -> Tensor {
        let units = self.run.sizes.units;
        let width = C::GATES * units;
        let ours = sum_to(self.gates.clone().reshape(&[self.rows(), width]), &[width]);
        if !C::APART {
            return ours;
        }
        let apart = sum_to(self.extra.clone().reshape(&[self.rows(), units]), &[units]);
        let alike = ours.clone().slice(&[0], &[width - units], &[1]);
        Tensor::concatenate(vec![ours, alike, apart], 0).reshape(&[2, width])
    }
}
