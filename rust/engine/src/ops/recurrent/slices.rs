//! A cell along the sequences of a batch on the `cpu` device.

use rayon::prelude::*;

use super::{BackwardRow, Cell, Parts, Recurrent, Returns, Row, Sizes};
use crate::cpu;
use crate::cpu::gemm::{Matrix, gemm, gemm_serial, gemm_strided};
use crate::ops::Evaluation;
use crate::ops::reduction::sum_to;
use crate::tensor::{Real, Tensor};

/// Multiply-adds of a whole sequence below which one thread is faster.
const PARALLEL_WORK: usize = 1 << 18;

/// A piece of the batch: its first sample and their number.
#[derive(Clone, Copy)]
struct Share {
    first: usize,
    count: usize,
}

impl Share {
    /// The elements of these samples, `width` each.
    fn of<'a, E>(&self, values: &'a [E], width: usize) -> &'a [E] {
        &values[self.first * width..][..self.count * width]
    }
}

/// The batch in pieces, one a thread where that pays.
fn shares<C: Cell>(sizes: Sizes) -> Vec<Share> {
    let Sizes { batch, steps, units, .. } = sizes;
    let work = batch * steps * units * units * C::GATES;
    let threads = if work < PARALLEL_WORK { 1 } else { rayon::current_num_threads().clamp(1, batch) };
    let most = batch.div_ceil(threads).max(1);
    (0..batch).step_by(most).map(|first| Share { first, count: most.min(batch - first) }).collect()
}

/// Splits elements among shares, `width` a sample.
fn split<'a, E>(mut values: &'a mut [E], shares: &[Share], width: usize) -> Vec<&'a mut [E]> {
    let mut take = |share: &Share| {
        let (head, tail) = std::mem::take(&mut values).split_at_mut(share.count * width);
        values = tail;
        head
    };
    shares.iter().map(&mut take).collect()
}

/// What all shares read.
struct Run<'a, E> {
    sizes: Sizes,
    backwards: bool,
    parts: Parts<&'a [E]>,
}

impl<E: Real> Run<'_, E> {
    fn place(&self, step: usize) -> usize {
        if self.backwards { self.sizes.steps - 1 - step } else { step }
    }

    fn is_masked(&self, sample: usize, place: usize) -> bool {
        self.parts.mask.is_some_and(|mask| mask[sample * self.sizes.steps + place] == E::default())
    }

    /// The state that a share starts from.
    fn initial(&self, share: Share, index: usize) -> Vec<E> {
        let units = self.sizes.units;
        match self.parts.initial.get(index) {
            Some(given) => share.of(given, units).to_vec(),
            None => vec![E::default(); share.count * units],
        }
    }

    /// The bias of the product with the recurrent kernel.
    fn product_bias<C: Cell>(&self) -> Option<&[E]> {
        self.parts.bias.filter(|_| C::APART).map(|bias| &bias[C::GATES * self.sizes.units..])
    }
}

/// The inputs as contiguous tensors of one type, the mask among them.
fn prepared<E: Real>(parts: Parts<Tensor>) -> Parts<Tensor> {
    let contiguous = Tensor::contiguous::<E>;
    Parts {
        x: contiguous(parts.x),
        kernel: contiguous(parts.kernel),
        recurrent_kernel: contiguous(parts.recurrent_kernel),
        bias: parts.bias.map(contiguous),
        initial: parts.initial.into_iter().map(contiguous).collect(),
        mask: parts.mask.map(|mask| contiguous(mask.cast(E::DTYPE))),
        factors: parts.factors.map(contiguous),
    }
}

fn elements<E: Real>(parts: &Parts<Tensor>) -> Parts<&[E]> {
    let slice = Tensor::elements::<E>;
    Parts {
        x: slice(&parts.x),
        kernel: slice(&parts.kernel),
        recurrent_kernel: slice(&parts.recurrent_kernel),
        bias: parts.bias.as_ref().map(slice),
        initial: parts.initial.iter().map(slice).collect(),
        mask: parts.mask.as_ref().map(slice),
        factors: parts.factors.as_ref().map(slice),
    }
}

/// Saved: the gates, the extra blocks, `h` and `c` of all steps.
pub(super) fn forward<E: Real, C: Cell>(operation: &Recurrent<C>, parts: Parts<Tensor>) -> Evaluation {
    let parts = prepared::<E>(parts);
    let sizes @ Sizes { batch, steps, units, .. } = parts.sizes();
    let run = Run { sizes, backwards: operation.go_backwards, parts: elements::<E>(&parts) };
    let blocks = [C::EXTRA, 1, usize::from(C::MEMORY)];
    let mut gates = projected::<E, C>(&run);
    let [mut extra, mut h, mut c] = blocks.map(|blocks| cpu::uninitialised::<E>(batch * steps * blocks * units));
    let shares = shares::<C>(sizes);
    let pieces: Vec<Forth<'_, E>> = split(&mut gates, &shares, steps * C::GATES * units)
        .into_iter()
        .zip(split(&mut extra, &shares, steps * C::EXTRA * units))
        .zip(split(&mut h, &shares, steps * units))
        .zip(split(&mut c, &shares, steps * blocks[2] * units))
        .map(|(((gates, extra), h), c)| Forth { gates, extra, h, c })
        .collect();
    pieces.into_par_iter().zip(&shares).for_each(|(to, &share)| forward_share(operation, &run, share, to));
    let saved = [(gates, C::GATES), (extra, blocks[0]), (h, blocks[1]), (c, blocks[2])]
        .map(|(values, blocks)| Tensor::from_vec(values, &[batch, steps, blocks * units]));
    let value = match operation.returns {
        Returns::Last => last(&saved[2], operation.place(steps - 1, steps)),
        Returns::States if C::MEMORY => Tensor::concatenate(saved[2..].to_vec(), 2),
        Returns::Sequence | Returns::States => saved[2].clone(),
    };
    Evaluation { value, saved: saved.into() }
}

/// The slices that one share of the batch writes, of all steps.
struct Forth<'a, E> {
    gates: &'a mut [E],
    extra: &'a mut [E],
    h: &'a mut [E],
    /// Empty without memory.
    c: &'a mut [E],
}

fn last(h: &Tensor, place: usize) -> Tensor {
    let shape = h.shape();
    let one = h.clone().slice(&[0, place, 0], &[shape[0], place + 1, shape[2]], &[1; 3]);
    one.reshape(&[shape[0], shape[2]])
}

/// `x · kernel + bias` of all steps.
fn projected<E: Real, C: Cell>(run: &Run<'_, E>) -> Vec<E> {
    let Sizes { batch, steps, features, units } = run.sizes;
    let width = C::GATES * units;
    let mut z = cpu::uninitialised::<E>(batch * steps * width);
    if let Some(bias) = run.parts.bias {
        z.chunks_exact_mut(width).for_each(|row| row.copy_from_slice(&bias[..width]));
    }
    let (x, kernel) = (Matrix::rows(run.parts.x, features), Matrix::rows(run.parts.kernel, width));
    gemm(&mut z, run.parts.bias.is_some(), x, kernel, [batch * steps, features, width]);
    z
}

fn forward_share<E: Real, C: Cell>(operation: &Recurrent<C>, run: &Run<'_, E>, share: Share, to: Forth<'_, E>) {
    let Forth { gates, extra, h, c } = to;
    let Sizes { steps, units, .. } = run.sizes;
    let (width, kept) = (C::GATES * units, C::EXTRA * units);
    let functions = operation.functions();
    let (mut state, mut memory) = (run.initial(share, 0), run.initial(share, 1));
    let factors = run.parts.factors.map(|factors| share.of(factors, units));
    let mut scaled = vec![E::default(); if factors.is_some() { state.len() } else { 0 }];
    let mut product = cpu::uninitialised::<E>(share.count * width);
    for step in 0..steps {
        let place = run.place(step);
        let entering = enter(&state, factors, &mut scaled);
        multiply(&mut product, run.product_bias::<C>(), entering, run.parts.recurrent_kernel, units);
        cpu::vectorised!({
            for row in 0..share.count {
                let at = row * steps + place;
                let (state, memory) = (&mut state[row * units..][..units], &mut memory[row * units..][..units]);
                let extra = &mut extra[at * kept..][..kept];
                if run.is_masked(share.first + row, place) {
                    extra.fill(E::default());
                } else {
                    let (gates, product) = (&mut gates[at * width..][..width], &product[row * width..][..width]);
                    C::forward_row(functions, Row { gates, product, extra, h: state, c: memory });
                }
                h[at * units..][..units].copy_from_slice(state);
                if C::MEMORY {
                    c[at * units..][..units].copy_from_slice(memory);
                }
            }
        });
    }
}

/// `h` as it enters the product.
fn enter<'a, E: Real>(state: &'a [E], factors: Option<&[E]>, scaled: &'a mut [E]) -> &'a [E] {
    let Some(factors) = factors else {
        return state;
    };
    for ((scaled, &state), &factor) in scaled.iter_mut().zip(state).zip(factors) {
        *scaled = state * factor;
    }
    scaled
}

/// `out = a · kernel + bias`, `inner` being the columns of `a`.
fn multiply<E: Real>(out: &mut [E], bias: Option<&[E]>, a: &[E], kernel: &[E], inner: usize) {
    let (rows, width) = (a.len() / inner, kernel.len() / inner);
    if let Some(bias) = bias {
        out.chunks_exact_mut(width).for_each(|row| row.copy_from_slice(bias));
    }
    gemm_serial(out, bias.is_some(), Matrix::rows(a, inner), Matrix::rows(kernel, width), [rows, inner, width]);
}

/// The slices that one share of the batch writes on its way back.
struct Back<'a, E> {
    /// Of all steps.
    gates: &'a mut [E],
    extra: &'a mut [E],
    /// `h` as it entered the product, of all steps.
    entered: &'a mut [E],
    /// The gradients of the state; in the end those of the initial one.
    dh: &'a mut [E],
    dc: &'a mut [E],
    /// The gradient of the factors.
    factors: &'a mut [E],
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

/// Back through time; see [`Recurrent`] for the inputs.
pub(super) fn backward<E: Real, C: Cell>(
    operation: &Recurrent<C>,
    parts: Parts<Tensor>,
    saved: Vec<Tensor>,
    gradient: Tensor,
    wanted: &[bool],
) -> Parts<Option<Tensor>> {
    let parts = prepared::<E>(parts);
    let sizes @ Sizes { batch, steps, units, .. } = parts.sizes();
    let run = Run { sizes, backwards: operation.go_backwards, parts: elements::<E>(&parts) };
    let [mut gates, mut extra, h, c] = <[Tensor; 4]>::try_from(saved).expect("what the forward pass saved");
    let gradient = gradient.contiguous::<E>();
    let back = parts.recurrent_kernel.clone().transpose().contiguous::<E>();
    let mut entered = cpu::uninitialised::<E>(batch * steps * units);
    let state = || vec![E::default(); batch * units];
    let (mut dh, mut dc, mut factors) = (state(), state(), state());
    let given = Given {
        returns: operation.returns,
        gradient: gradient.elements::<E>(),
        h: h.elements::<E>(),
        c: c.elements::<E>(),
        back: back.elements::<E>(),
    };
    let shares = shares::<C>(sizes);
    let pieces: Vec<(Back<'_, E>, Share)> = split(gates.elements_mut::<E>(), &shares, steps * C::GATES * units)
        .into_iter()
        .zip(split(extra.elements_mut::<E>(), &shares, steps * C::EXTRA * units))
        .zip(split(&mut entered, &shares, steps * units))
        .zip(split(&mut dh, &shares, units))
        .zip(split(&mut dc, &shares, units))
        .zip(split(&mut factors, &shares, units))
        .zip(&shares)
        .map(|((((((gates, extra), entered), dh), dc), factors), &share)| {
            (Back { gates, extra, entered, dh, dc, factors }, share)
        })
        .collect();
    pieces.into_par_iter().for_each(|(share, place)| backward_share(operation, &run, &given, place, share));
    let state = |values: Vec<E>| Some(Tensor::from_vec(values, &[batch, units]));
    let initial = [dh, dc].map(state).into_iter().take(parts.initial.len()).collect();
    let products = Products { run: &run, gates: &gates, extra: &extra, entered: &entered };
    Parts {
        x: wanted[0].then(|| products.x::<C>()),
        kernel: wanted[1].then(|| products.kernel::<C>()),
        recurrent_kernel: wanted[2].then(|| products.recurrent_kernel::<C>()),
        bias: parts.bias.as_ref().map(|_| Some(products.bias::<C>())),
        initial,
        mask: parts.mask.as_ref().map(|_| None),
        factors: parts.factors.as_ref().map(|_| state(factors)),
    }
}

fn backward_share<E: Real, C: Cell>(
    operation: &Recurrent<C>,
    run: &Run<'_, E>,
    given: &Given<'_, E>,
    share: Share,
    to: Back<'_, E>,
) {
    let Back { gates, extra, entered, dh, dc, factors: dfactors } = to;
    let Sizes { steps, units, .. } = run.sizes;
    let (width, kept) = (C::GATES * units, C::EXTRA * units);
    let functions = operation.functions();
    let initial = [run.initial(share, 0), run.initial(share, 1)];
    let factors = run.parts.factors.map(|factors| share.of(factors, units));
    let mut product = cpu::uninitialised::<E>(share.count * width);
    let mut passed = vec![E::default(); if factors.is_some() { dh.len() } else { 0 }];
    for step in (0..steps).rev() {
        let place = run.place(step);
        cpu::vectorised!({
            for row in 0..share.count {
                let (at, own) = (row * steps + place, row * units..(row + 1) * units);
                let (dh, dc) = (&mut dh[own.clone()], &mut dc[own.clone()]);
                given.add::<C>(run, share.first + row, step, dh, dc);
                let before = match step.checked_sub(1) {
                    None => [&initial[0][own.clone()], &initial[1][own]],
                    Some(earlier) => given.states((share.first + row) * steps + run.place(earlier), units),
                };
                entered[at * units..][..units].copy_from_slice(before[0]);
                let (gates, product) = (&mut gates[at * width..][..width], &mut product[row * width..][..width]);
                let extra = &mut extra[at * kept..][..kept];
                if run.is_masked(share.first + row, place) {
                    [gates, product, extra].into_iter().for_each(|gradient| gradient.fill(E::default()));
                } else {
                    C::backward_row(functions, BackwardRow { gates, product, extra, before, dh, dc });
                }
            }
        });
        let Some(factors) = factors else {
            multiply_back(dh, true, &product, given.back, width);
            continue;
        };
        multiply_back(&mut passed, false, &product, given.back, width);
        for row in 0..share.count {
            let own = row * units..(row + 1) * units;
            let entered = &mut entered[(row * steps + place) * units..][..units];
            let (dh, dfactors) = (&mut dh[own.clone()], &mut dfactors[own.clone()]);
            pass_factors(&passed[own.clone()], &factors[own], entered, dh, dfactors);
        }
    }
}

/// Takes the gradient of `h · factors` to both; `entered` is `h` and becomes the product.
fn pass_factors<E: Real>(passed: &[E], factors: &[E], entered: &mut [E], dh: &mut [E], dfactors: &mut [E]) {
    let to = entered.iter_mut().zip(dh).zip(dfactors);
    for (((entered, dh), dfactor), (&passed, &factor)) in to.zip(passed.iter().zip(factors)) {
        *dfactor = *dfactor + passed * *entered;
        *dh = *dh + passed * factor;
        *entered = *entered * factor;
    }
}

/// `out += product · back`, or without the addition.
fn multiply_back<E: Real>(out: &mut [E], accumulate: bool, product: &[E], back: &[E], width: usize) {
    let (rows, units) = (product.len() / width, back.len() / width);
    gemm_serial(out, accumulate, Matrix::rows(product, width), Matrix::rows(back, units), [rows, width, units]);
}

impl<'a, E: Real> Given<'a, E> {
    /// The state after a step; its memory is empty where there is none.
    #[inline(always)]
    fn states(&self, at: usize, units: usize) -> [&'a [E]; 2] {
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

    fn x<C: Cell>(&self) -> Tensor {
        let Sizes { batch, steps, features, units } = self.run.sizes;
        let width = C::GATES * units;
        let mut dx = cpu::uninitialised::<E>(self.rows() * features);
        let (dz, kernel) = (self.gates.elements::<E>(), Matrix::rows(self.run.parts.kernel, width));
        gemm(&mut dx, false, Matrix::rows(dz, width), kernel.t(), [self.rows(), width, features]);
        Tensor::from_vec(dx, &[batch, steps, features])
    }

    fn kernel<C: Cell>(&self) -> Tensor {
        let Sizes { features, units, .. } = self.run.sizes;
        let width = C::GATES * units;
        let mut dkernel = cpu::uninitialised::<E>(features * width);
        let (x, dz) = (Matrix::rows(self.run.parts.x, features), self.gates.elements::<E>());
        gemm(&mut dkernel, false, x.t(), Matrix::rows(dz, width), [features, self.rows(), width]);
        Tensor::from_vec(dkernel, &[features, width])
    }

    fn recurrent_kernel<C: Cell>(&self) -> Tensor {
        let units = self.run.sizes.units;
        let width = C::GATES * units;
        let alike = width - units * C::APART as usize;
        let mut out = cpu::uninitialised::<E>(units * width);
        let (h, dz) = (Matrix::rows(self.entered, units).t(), Matrix::rows(self.gates.elements::<E>(), width));
        gemm_strided(&mut out, width, false, h, dz, [units, self.rows(), alike]);
        if C::APART {
            let last = Matrix::rows(self.extra.elements::<E>(), units);
            gemm_strided(&mut out[alike..], width, false, h, last, [units, self.rows(), units]);
        }
        Tensor::from_vec(out, &[units, width])
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
