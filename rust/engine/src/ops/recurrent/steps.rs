//! A cell along a sequence of tensors, on any device.
//!
//! All steps lie in one matrix, the samples of a step beside each other, so that a step is read where it lies.

use super::super::Tensors;
use super::{Cell, Parts, Recurrent, Returns, Sizes, StepGradient};
use crate::Number;
use crate::ops::Evaluation;
use crate::ops::reduction::sum_to;
use crate::tensor::Tensor;

/// The `N` blocks of columns of a matrix.
pub(super) fn blocks<const N: usize>(x: Tensor) -> [Tensor; N] {
    let [rows, width] = [x.shape()[0], x.shape()[1] / N];
    std::array::from_fn(|block| x.clone().slice(&[0, block * width], &[rows, (block + 1) * width], &[1, 1]))
}

/// Blocks of columns as one matrix.
pub(super) fn joined(blocks: Vec<Tensor>) -> Tensor {
    Tensor::concatenate(blocks, 1)
}

/// A sequence `(batch, steps, width)` as the rows of one matrix, step by step.
fn by_step(sequence: Tensor) -> Tensor {
    let [batch, steps, width] = <[usize; 3]>::try_from(sequence.shape().as_slice()).expect("a sequence");
    sequence.permute(&[1, 0, 2]).reshape(&[steps * batch, width])
}

/// The sequence of which [`by_step`] made rows.
fn by_sample(rows: Tensor, steps: usize) -> Tensor {
    let [count, width] = [rows.shape()[0], rows.shape()[1]];
    rows.reshape(&[steps, count / steps, width]).permute(&[1, 0, 2])
}

/// One step `(batch, width)` of such rows.
fn at(rows: &Tensor, step: usize, batch: usize) -> Tensor {
    let width = rows.shape()[1];
    rows.clone().slice(&[step * batch, 0], &[(step + 1) * batch, width], &[1, 1])
}

/// A row of the bias.
fn bias_row<C: Cell>(bias: &Tensor, row: usize) -> Tensor {
    if !C::APART {
        return bias.clone();
    }
    let width = bias.shape()[1];
    bias.clone().slice(&[row, 0], &[row + 1, width], &[1, 1]).reshape(&[width])
}

/// What a run over the steps reads.
struct Run<'a, C> {
    operation: &'a Recurrent<C>,
    parts: &'a Parts<Tensor>,
    sizes: Sizes,
}

impl<C: Cell> Run<'_, C> {
    /// The state before the first step.
    fn initial(&self) -> Vec<Tensor> {
        if self.operation.initial_state {
            return self.parts.initial.clone();
        }
        vec![self.zeros(); Recurrent::<C>::STATES]
    }

    fn zeros(&self) -> Tensor {
        let x = &self.parts.x;
        Tensor::full(&[self.sizes.batch, self.sizes.units], 0.0, x.dtype(), &x.device())
    }

    /// `(batch, 1)`, true where a step counts.
    fn mask(&self, place: usize) -> Option<Tensor> {
        let batch = self.sizes.batch;
        self.parts.mask.as_ref().map(|mask| mask.clone().slice(&[0, place], &[batch, place + 1], &[1, 1]))
    }

    /// `h` as it enters the product.
    fn entering(&self, h: &Tensor) -> Tensor {
        match &self.parts.factors {
            Some(factors) => h.clone() * factors.clone(),
            None => h.clone(),
        }
    }

    /// `x · kernel + bias` of all steps.
    fn projected(&self) -> Tensor {
        let z = by_step(self.parts.x.clone()).matmul(self.parts.kernel.clone());
        match &self.parts.bias {
            Some(bias) => z + bias_row::<C>(bias, 0),
            None => z,
        }
    }

    /// `h · recurrent_kernel`, plus its own bias.
    fn product(&self, h: &Tensor) -> Tensor {
        let product = self.entering(h).matmul(self.parts.recurrent_kernel.clone());
        match &self.parts.bias {
            Some(bias) if C::APART => product + bias_row::<C>(bias, 1),
            _ => product,
        }
    }

    /// Adds the gradient that reaches the states of a step from outside, of all steps or of the last.
    fn add_incoming(&self, gradient: &Tensor, step: usize, state: &mut [Tensor]) {
        let batch = self.sizes.batch;
        let place = self.operation.place(step, self.sizes.steps);
        let incoming = match self.operation.returns {
            Returns::Last if step + 1 == self.sizes.steps => vec![gradient.clone()],
            Returns::Last => Vec::new(),
            Returns::Sequence => vec![at(gradient, place, batch)],
            Returns::States if C::MEMORY => blocks::<2>(at(gradient, place, batch)).into(),
            Returns::States => vec![at(gradient, place, batch)],
        };
        for (state, incoming) in state.iter_mut().zip(incoming) {
            *state = state.clone() + incoming;
        }
    }

    /// The gradient of a step, nothing of a masked one but what passes through.
    fn backward(&self, place: usize, kept: &[Tensor], before: &[Tensor], gradient: &[Tensor]) -> StepGradient {
        let mut found = C::backward_step(self.operation.functions(), kept, before, gradient);
        let Some(mask) = self.mask(place) else {
            return found;
        };
        let zero = gradient[0].constant(0.0);
        let choose = |a: Tensor, b: Tensor| Tensor::choose(mask.clone(), a, b);
        for (state, after) in found.state.iter_mut().zip(gradient) {
            let inside = state.take().unwrap_or_else(|| self.zeros());
            *state = Some(choose(inside, after.clone()));
        }
        StepGradient { x: choose(found.x, zero.clone()), product: choose(found.product, zero), state: found.state }
    }
}

/// Saved: of each step in order, what the cell keeps, then the state after it.
pub(super) fn forward<C: Cell>(operation: &Recurrent<C>, parts: Parts<Tensor>) -> Evaluation {
    let run = Run { operation, parts: &parts, sizes: parts.sizes() };
    let steps = run.sizes.steps;
    let z = run.projected();
    let mut state = run.initial();
    let (mut saved, mut after) = (Vec::new(), vec![Vec::new(); steps]);
    for step in 0..steps {
        let place = operation.place(step, steps);
        let [kept, mut next] =
            C::forward_step(operation.functions(), at(&z, place, run.sizes.batch), run.product(&state[0]), &state);
        if let Some(mask) = run.mask(place) {
            let choose = |(new, old): (Tensor, &Tensor)| Tensor::choose(mask.clone(), new, old.clone());
            next = next.into_iter().zip(&state).map(choose).collect();
        }
        saved.extend(kept.into_iter().chain(next.iter().cloned()));
        after[place].clone_from(&next);
        state = next;
    }
    let stacked = |after: Vec<Tensor>| by_sample(Tensor::concatenate(after, 0), steps);
    let value = match operation.returns {
        Returns::Last => state.swap_remove(0),
        Returns::Sequence => stacked(after.into_iter().map(|mut state| state.swap_remove(0)).collect()),
        Returns::States => stacked(after.into_iter().map(joined).collect()),
    };
    Evaluation { value, saved: saved.into() }
}

/// Back through time; see [`Recurrent`] for the inputs.
pub(super) fn backward<C: Cell>(
    operation: &Recurrent<C>,
    parts: Parts<Tensor>,
    saved: Tensors,
    gradient: Tensor,
    wanted: &[bool],
) -> Parts<Option<Tensor>> {
    let run = Run { operation, parts: &parts, sizes: parts.sizes() };
    let Sizes { steps, units, .. } = run.sizes;
    let initial = run.initial();
    let kept = saved.len() / steps - initial.len();
    let back = parts.recurrent_kernel.clone().transpose();
    let mut state = vec![run.zeros(); initial.len()];
    let gradient = if operation.returns == Returns::Last { gradient } else { by_step(gradient) };
    let mut factors: Option<Tensor> = None;
    let mut found_at: Vec<Option<[Tensor; 3]>> = vec![None; steps];
    for (step, saved_step) in saved.chunks(kept + initial.len()).enumerate().rev() {
        let place = operation.place(step, steps);
        run.add_incoming(&gradient, step, &mut state);
        let before =
            if step == 0 { &initial[..] } else { &saved[step * saved_step.len() - initial.len()..][..initial.len()] };
        let found = run.backward(place, &saved_step[..kept], before, &state);
        let mut dh = found.product.clone().matmul(back.clone());
        if let Some(given) = &parts.factors {
            factors = Some((dh.clone() * before[0].clone()).added_to(factors));
            dh = dh * given.clone();
        }
        found_at[place] = Some([run.entering(&before[0]), found.x, found.product]);
        state = found.state.into_iter().map(|state| state.unwrap_or_else(|| run.zeros())).collect();
        state[0] = dh + state[0].clone();
    }
    let (mut entered, mut dz, mut products) = (Vec::new(), Vec::new(), Vec::new());
    for [h, x, product] in found_at.into_iter().map(|step| step.expect("every step")) {
        entered.push(h);
        dz.push(x);
        products.push(product);
    }
    let dz = Tensor::concatenate(dz, 0);
    let products = if C::APART { Tensor::concatenate(products, 0) } else { dz.clone() };
    let width = [C::GATES * units];
    let bias = parts.bias.as_ref().map(|bias| {
        let ours = sum_to(dz.clone(), &width);
        if !C::APART {
            return ours;
        }
        let rows = [ours, sum_to(products.clone(), &width)].map(|row| row.reshape(&[1, width[0]]));
        Tensor::concatenate(rows.into(), 0).reshape(&bias.shape())
    });
    let x = wanted[0].then(|| by_sample(dz.clone().matmul(parts.kernel.clone().transpose()), steps));
    let kernel = wanted[1].then(|| by_step(parts.x.clone()).transpose().matmul(dz));
    let recurrent = wanted[2].then(|| Tensor::concatenate(entered, 0).transpose().matmul(products));
    Parts {
        x,
        kernel,
        recurrent_kernel: recurrent,
        bias: bias.map(Some),
        initial: if operation.initial_state { state.into_iter().map(Some).collect() } else { Vec::new() },
        mask: parts.mask.as_ref().map(|_| None),
        factors: factors.map(Some),
    }
}
