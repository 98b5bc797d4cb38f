//! Steps that run ahead on devices that work by themselves: asked for one after another as if every number were finite,
//! and read together. What was not finite is undone and done again, each step waiting for its numbers.

use std::collections::BTreeMap;
use std::ops::Range;

use super::average::Average;
use super::loss_scale::LossScale;
use super::monitor::Watch;
use super::records::{Record, weighted_sums};
use super::step::{Answer, Done, Made, Run};
use super::unseen::{Ahead, underway};
use super::update::{Group, ParameterState, Training, Update};
use super::{Outputs, Session};
use crate::gradient::Method;
use crate::memory::Block;
use crate::optimizer::{squares_on_device, sum_on_device};
use crate::program::{Kind, Leaves, ValueId};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Steps that are read together, at most.
const STEPS: usize = 64;

/// Bytes of parameters and optimizer state up to which they are kept until a window is read: a step that moves more takes
/// longer than waiting for it.
const STATE_BYTES: usize = 512 << 20;

/// Bytes of the rows that are sent and of the samples' numbers of one window: they may have to be held until the device is there.
const WINDOW_BYTES: usize = 256 << 20;

/// How many steps run ahead, and where none does.
#[derive(Debug)]
pub(super) struct Windows {
    most: usize,
    length: usize,
    /// The first step after those that wait.
    again: usize,
}

impl Windows {
    /// The steps of the next window; `None` if the next step waits.
    pub fn next(&self, step: usize, batches: usize) -> Option<Range<usize>> {
        (self.most > 0 && step >= self.again).then(|| step..batches.min(step + self.length))
    }

    fn made(&mut self) {
        self.length = self.most.min(2 * self.length);
    }

    /// Where numbers were not finite, more such may come: begin with short windows after these steps.
    fn undone(&mut self, steps: &Range<usize>) {
        (self.again, self.length) = (steps.end, 1);
    }
}

/// A step whose numbers are on their way.
struct Pending {
    rate: f64,
    loss_scale: Option<f64>,
    weights: Block<f64>,
    total: f64,
    update: Option<Ahead>,
    watch: Option<Watch>,
    /// Losses and metrics of the samples; the sum of the squares of an open group; the update's numbers; zero activations.
    numbers: Vec<Tensor>,
    /// Whether the second is among them.
    has_group: bool,
}

/// All that training changes, as it was. Tensors are shared, not copied, until one of the two is changed.
struct Kept {
    state: Leaves,
    moments: BTreeMap<ValueId, ParameterState>,
    updates: u64,
    group: Group,
    average: Option<Average>,
    loss_scale: Option<LossScale>,
}

/// A window that is being tried: unless it is kept, dropping it (at a panic too) puts everything back.
struct Attempt<'a> {
    session: &'a mut Session,
    start: Option<Kept>,
}

impl<'a> Attempt<'a> {
    fn new(session: &'a mut Session) -> Result<Self> {
        let training = session.training()?;
        let start = Kept {
            state: session.state.clone(),
            moments: training.state.clone(),
            updates: training.updates,
            group: training.group.clone(),
            average: training.average.clone(),
            loss_scale: training.loss_scale,
        };
        Ok(Self { session, start: Some(start) })
    }

    fn keep(mut self) {
        self.start = None;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let (Some(start), Some(training)) = (self.start.take(), &mut self.session.training) {
            self.session.state = start.state;
            training.state = start.moments;
            training.updates = start.updates;
            training.group = start.group;
            training.average = start.average;
            training.loss_scale = start.loss_scale;
        }
    }
}

impl Session {
    /// How steps of a run may run ahead: on the `cpu` device, with rules whose updates wait and while somebody takes the
    /// time not at all.
    pub(super) fn windows(&self, run: &Run<'_>) -> Result<Windows> {
        let training = self.training()?;
        let ahead = !self.device.is_cpu()
            && self.profiler.is_none()
            && training.method == Method::Autodiff
            && !training.rule.waits()
            && run.outputs.reported().all(|id| self.program.values()[id].ty.kind == Kind::Float)
            && self.state_bytes(training) <= STATE_BYTES;
        let most = if ahead { (WINDOW_BYTES / self.step_bytes(run)).clamp(2, STEPS) } else { 0 };
        #[cfg(test)]
        let most = crate::testing::window(most);
        Ok(Windows { most, length: most, again: 0 })
    }

    fn state_bytes(&self, training: &Training) -> usize {
        let moments = training.state.values().flat_map(|state| &state.moments);
        let averages = training.average.iter().flat_map(|average| average.arrays.values());
        let arrays = self.state.iter().flatten().chain(moments).chain(averages).chain(training.group.sums.values());
        arrays.map(Tensor::len).sum::<usize>() * self.dtype.size()
    }

    fn step_bytes(&self, run: &Run<'_>) -> usize {
        let sent = run.inputs.iter().filter(|(name, view)| !self.held.has(name, view));
        let rows: usize = sent.map(|(_, view)| view.shape().iter().skip(1).product::<usize>()).sum();
        let numbers = run.outputs.reported().count();
        (run.chunk.batch_size.saturating_mul(rows + numbers)).saturating_mul(self.dtype.size()).max(1)
    }

    /// Runs steps ahead and reads what came of them; where that was not finite, they are undone and will wait.
    pub(super) fn look_ahead(
        &mut self,
        run: &Run<'_>,
        steps: Range<usize>,
        windows: &mut Windows,
        done: &mut Done,
    ) -> Result<()> {
        let skipped = done.skipped;
        let attempt = Attempt::new(self)?;
        let mut pending = Vec::with_capacity(steps.len());
        for step in steps.clone() {
            match attempt.session.step_ahead(run, step, skipped) {
                Err(Error::Interrupted) if !pending.is_empty() => break,
                outcome => pending.push(outcome?),
            }
        }
        let numbers = Tensor::numbers_of(pending.iter().flat_map(|step| step.numbers.iter().cloned()).collect());
        let mut numbers = &*numbers;
        let training = attempt.session.training()?;
        let records: Option<Vec<Record>> =
            pending.iter().map(|step| step.read(&mut numbers, run.outputs, training)).collect();
        let Some(records) = records else {
            windows.undone(&steps);
            return Ok(());
        };
        attempt.keep();
        windows.made();
        for (Pending { rate, loss_scale, watch, .. }, record) in pending.into_iter().zip(records) {
            self.take_in(run, done, Made { record, rate, loss_scale, watch })?;
        }
        Ok(())
    }

    fn step_ahead(&mut self, run: &Run<'_>, step: usize, skipped: usize) -> Result<Pending> {
        let (loss_scale, rate) = (self.loss_scale(), run.rate(step, skipped));
        let batch = run.micro_batch(step, loss_scale);
        let watch = batch.watch();
        let Answer { outputs, mut assigned, gradients, .. } = self.answer(&batch, watch.clone(), run.interrupt)?;
        let mut numbers: Vec<Tensor> = underway(batch.outputs.values(&outputs), &self.device).into_iter().collect();
        drop(outputs);
        let update = self.take_gradients_ahead(gradients, batch.total, rate)?;
        self.assign(&mut assigned);
        let group = if run.chunk.diagnose { self.group_squares() } else { Vec::new() };
        let has_group = !group.is_empty();
        numbers.extend(underway(group, &self.device));
        numbers.extend(update.iter().flat_map(|update| update.numbers.iter().cloned()));
        numbers.extend(underway(watch.iter().flat_map(Watch::unread).collect(), &self.device));
        Ok(Pending { rate, loss_scale, weights: batch.weights, total: batch.total, update, watch, numbers, has_group })
    }

    /// One number, not finite if a gradient of the open group is not; none if there is no group.
    fn group_squares(&self) -> Vec<Tensor> {
        let sums = self.training.iter().flat_map(|training| training.group.sums.values());
        let squares: Vec<Tensor> = sums.map(squares_on_device).collect();
        if squares.is_empty() { squares } else { vec![sum_on_device(Tensor::joined(squares))] }
    }
}

impl Outputs {
    /// The samples' losses and metrics.
    fn values(&self, outputs: &Leaves) -> Vec<Tensor> {
        self.reported().map(|id| outputs[id].clone().expect("an output of the plan")).collect()
    }
}

impl Pending {
    /// The record, from the first of `numbers`; `None` if something is not finite.
    fn read(&self, numbers: &mut &[f64], outputs: &Outputs, training: &Training) -> Option<Record> {
        let mut next = |count: usize| numbers.split_off(..count).expect("as many numbers as tensors had");
        let samples = next(outputs.reported().count() * self.weights.len());
        let group = next(self.has_group.into());
        let mut record = Record::new(weighted_sums(samples, &self.weights), self.total);
        let update: Option<Option<Update>> = match &self.update {
            Some(update) => update.read(numbers, training).map(Some),
            None => Some(None),
        };
        if let Some(watch) = &self.watch {
            watch.read(numbers);
        }
        record.update = update?;
        let finite = record.loss.is_finite() && group.iter().all(|number| number.is_finite());
        finite.then_some(record)
    }
}
