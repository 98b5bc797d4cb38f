//! Runs over batches: training, evaluation, prediction, gradients.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::smallvec;

use super::data::expect_shape;
use super::diagnose::Failure;
use super::monitor::{ACTIVATIONS_EVERY, Watch, layers};
use super::records::{Record, Sums, metric};
use super::update::{Gradients, Update};
use super::{Arrays, Chunk, Inputs, Outputs, Phase, Records, Session, common_rows};
use crate::gradient::{Method, Problem, Solution, solve};
use crate::memory::{Block, Recycling};
use crate::program::{Checkpoint, Kind, Leaves, Measured, Plan, Retention, Reverse, ValueId, forward, show_lengths};
use crate::random::{Purpose, Stream};
use crate::tensor::{DType, Tensor};
use crate::trainer::ArrayView;
use crate::{Error, Interrupt, Number, Result};

impl Session {
    /// Trains on a chunk of micro-batches: gather, forward, gradients, clip, update.
    ///
    /// After an error or an interrupt the state is that of the last whole micro-batch. An interrupt is an error before the
    /// first one; after that the records of what was done come back.
    pub fn train(&mut self, inputs: &Inputs, chunk: &Chunk<'_>, interrupt: &Interrupt) -> Result<Records> {
        let outputs = self.outputs("training")?;
        let rows = self.check(inputs, &outputs.plan, chunk.sample_weight)?;
        let order = checked_order(chunk.order, rows)?;
        let batches = order.len().div_ceil(chunk.batch_size.max(1));
        if chunk.batch_size == 0 || chunk.learning_rates.len() != batches {
            return Err(Error::value(format!(
                "learning_rates: expected {batches} for {} rows in batches of {}, got {}",
                order.len(),
                chunk.batch_size,
                chunk.learning_rates.len()
            )));
        }
        let reverse = self.reverse(&outputs)?;
        let accumulate = self.training()?.accumulate;
        let _recycling = Recycling::begin();
        let picks = self.picks(inputs, &order);
        let run =
            Run { outputs: &outputs, reverse: &reverse, inputs, chunk, order: &order, picks, accumulate, interrupt };
        let mut windows = self.windows(&run)?;
        let mut done = Done::new(Records::with_room(batches, &outputs, self.training()?.trained.len()));
        while done.steps() < batches {
            let outcome = match windows.next(done.steps(), batches) {
                Some(steps) => self.look_ahead(&run, steps, &mut windows, &mut done),
                None => self.wait_for(&run, &mut done),
            };
            match outcome {
                Err(Error::Interrupted) if done.steps() > 0 => break,
                outcome => outcome?,
            }
        }
        Ok(done.records)
    }

    /// One micro-batch whose numbers are known before anything is changed.
    fn wait_for(&mut self, run: &Run<'_>, done: &mut Done) -> Result<()> {
        let loss_scale = self.loss_scale();
        let batch = run.micro_batch(done.steps(), loss_scale);
        let watch = batch.watch();
        let rate = run.rate(done.steps(), done.skipped);
        let record = self.train_step(&batch, rate, watch.clone(), run.interrupt)?;
        done.skipped += usize::from(record.update.as_ref().is_some_and(|update| !update.finite));
        if run.chunk.diagnose && self.failed(&record) {
            // What cannot be found out, or was interrupted, is no reason to lose the records.
            let failure = Failure {
                inputs: run.inputs,
                rows: batch.rows,
                picks: batch.picks.as_ref(),
                weights: &batch.weights,
                address: batch.address,
            };
            self.diagnose(&failure, run.interrupt).unwrap_or_default();
        }
        self.take_in(run, done, Made { record, rate, loss_scale, watch })
    }

    /// Takes in what one more left behind.
    pub(super) fn take_in(&self, run: &Run<'_>, done: &mut Done, made: Made) -> Result<()> {
        let (step, records) = (done.steps(), &mut done.records);
        records.learning_rate.push(made.rate);
        records.loss_scale.extend(made.loss_scale);
        records.push(made.record, self.training()?.trained.len());
        if let Some(watch) = made.watch {
            records.activations.push((step, watch.by_layer(&self.program, &run.outputs.plan)));
        }
        Ok(())
    }

    fn train_step(
        &mut self,
        batch: &MicroBatch<'_>,
        learning_rate: f64,
        watch: Option<Watch>,
        interrupt: &Interrupt,
    ) -> Result<Record> {
        let Answer { outputs, mut assigned, gradients, squares } = self.answer(batch, watch, interrupt)?;
        let mut record = Record::new(batch.outputs.sums(&outputs, &batch.weights), batch.total);
        drop(outputs);
        record.update = match self.training()?.rule.solver() {
            Some(_) => Some(self.solve(batch, record.loss, gradients, learning_rate, interrupt)?),
            None => self.update(gradients, &squares, batch.total, learning_rate)?,
        };
        if record.loss.is_finite() && record.update.as_ref().is_none_or(|update| update.finite) {
            self.assign(&mut assigned);
        }
        Ok(record)
    }

    /// What the program answers to a micro-batch at the parameters of now.
    pub(super) fn answer(&self, batch: &MicroBatch<'_>, watch: Option<Watch>, interrupt: &Interrupt) -> Result<Answer> {
        let solution = self.differentiate(batch, watch, interrupt)?;
        let assigned = self.assigned(&solution.outputs);
        let wanted = &self.training()?.wanted;
        let mut gradients = solution.gradients;
        let gradients = gradients
            .drain(..)
            .enumerate()
            .filter_map(|(id, gradient)| Some((id, gradient?)))
            .filter(|(id, _)| wanted[*id])
            .collect();
        Ok(Answer { outputs: solution.outputs, assigned, gradients, squares: solution.squares })
    }

    /// Gives buffers their new values.
    pub(super) fn assign(&mut self, values: &mut Gradients) {
        for (id, value) in values.drain(..) {
            self.state[id] = Some(value);
        }
    }

    /// Outputs and gradients of one micro-batch at the parameters of now.
    pub(super) fn differentiate(
        &self,
        batch: &MicroBatch<'_>,
        watch: Option<Watch>,
        interrupt: &Interrupt,
    ) -> Result<Solution> {
        let &MicroBatch { outputs, reverse, inputs, rows, ref picks, ref weights, scale, address, .. } = batch;
        let training = self.training()?;
        solve(
            Problem {
                program: &self.program,
                plan: &outputs.plan,
                leaves: self.gathered(inputs, rows, picks.as_ref(), &outputs.plan),
                loss: outputs.loss,
                weight: self.sample_seed(weights, scale),
                wanted: &training.wanted,
                reverse,
                context: self.observed(|observers| observers.watch = watch),
                noise: self.noise(address),
            },
            training.method,
            interrupt,
        )
    }

    /// [`Self::take_gradients`], timed if somebody wants to know.
    fn update(
        &mut self,
        gradients: Gradients,
        squares: &[Option<f64>],
        total: f64,
        learning_rate: f64,
    ) -> Result<Option<Update>> {
        let tensors = gradients.iter().map(|(_, gradient)| gradient);
        let running = self.profiler.as_ref().map(|profiler| profiler.begin(Phase::Update, None, tensors));
        let update = self.take_gradients(gradients, squares, total, learning_rate);
        running.into_iter().for_each(|running| running.end([]));
        update
    }

    /// [`Self::leaves`], timed if somebody wants to know.
    fn gathered(&self, inputs: &Inputs, rows: &[i64], picks: Option<&Tensor>, plan: &Plan) -> Leaves {
        let running = self.profiler.as_ref().map(|profiler| profiler.begin(Phase::Gather, None, []));
        let leaves = self.leaves(inputs, rows, picks, plan);
        if let Some(running) = running {
            running.end(self.program.inputs().filter_map(|(id, _)| leaves[id].as_ref()));
        }
        leaves
    }

    /// The layers whose zero activations [`Records::activations`] counts.
    pub fn rectified(&mut self) -> Result<Vec<String>> {
        let outputs = self.outputs("training")?;
        Ok(layers(&self.program, &outputs.plan).into_iter().map(|(scope, _)| scope).collect())
    }

    /// Weighted means of loss and metrics over all rows, exact for every batch size.
    pub fn evaluate(
        &mut self,
        inputs: &Inputs,
        batch_size: usize,
        sample_weight: Option<&ArrayView>,
        interrupt: &Interrupt,
    ) -> Result<BTreeMap<String, f64>> {
        let outputs = self.outputs("evaluation")?;
        let rows = self.check(inputs, &outputs.plan, sample_weight)?;
        let order = checked_order(None, rows)?;
        let _recycling = Recycling::begin();
        let mut totals: Sums = smallvec![0.0; 1 + outputs.metrics.len()];
        let mut weight = 0.0;
        for rows in order.chunks(batch_size.max(1)) {
            let run = self.run(&outputs.plan, inputs, rows, interrupt)?;
            let weights = weights_of(sample_weight, rows);
            totals.iter_mut().zip(outputs.sums(&run, &weights)).for_each(|(total, sum)| *total += sum);
            weight += weights.iter().sum::<f64>();
        }
        let names = std::iter::once("loss".to_owned()).chain(outputs.metrics.iter().map(|(name, _)| metric(name)));
        let mut totals: BTreeMap<String, f64> = names.zip(totals.into_iter().map(|total| total / weight)).collect();
        totals.insert("weight".to_owned(), weight);
        Ok(totals)
    }

    /// The named outputs for all rows, on the host.
    pub fn predict(
        &mut self,
        inputs: &Inputs,
        batch_size: usize,
        names: &[String],
        interrupt: &Interrupt,
    ) -> Result<Vec<Vec<Tensor>>> {
        let ids = names.iter().map(|name| self.program.find_output(name)).collect::<Result<Vec<_>>>()?;
        let plan = Plan::new(&self.program, &ids);
        let rows = self.check(inputs, &plan, None)?;
        let order = checked_order(None, rows)?;
        let _recycling = Recycling::begin();
        let mut parts = vec![Vec::new(); ids.len()];
        for rows in order.chunks(batch_size.max(1)) {
            let run = self.run(&plan, inputs, rows, interrupt)?;
            for (parts, &id) in parts.iter_mut().zip(&ids) {
                parts.push(run[id].clone().expect("an output of the plan"));
            }
        }
        Ok(parts)
    }

    /// Gradients of the weighted mean training loss over all rows, by path; zeros where the loss does not depend.
    pub fn gradients(
        &mut self,
        inputs: &Inputs,
        method: Method,
        sample_weight: Option<&ArrayView>,
        interrupt: &Interrupt,
    ) -> Result<Arrays> {
        let outputs = self.outputs("training")?;
        let rows = self.check(inputs, &outputs.plan, sample_weight)?;
        let order = checked_order(None, rows)?;
        let weights = weights_of(sample_weight, &order);
        let total: f64 = weights.iter().sum();
        let mut wanted = vec![false; self.program.values().len()];
        self.program.parameters().for_each(|(id, _)| wanted[id] = true);
        let factor = self.loss_scale().unwrap_or(1.0);
        let checkpoint =
            self.training.as_ref().map_or_else(Checkpoint::default, |training| training.checkpoint.clone());
        let reverse = Reverse::new(&self.program, &outputs.plan, outputs.loss, &wanted, &checkpoint);
        let solution = solve(
            Problem {
                program: &self.program,
                plan: &outputs.plan,
                leaves: self.leaves(inputs, &order, None, &outputs.plan),
                loss: outputs.loss,
                weight: self.sample_seed(&weights, if total > 0.0 { factor / total } else { 0.0 }),
                wanted: &wanted,
                reverse: &reverse,
                context: self.context(),
                noise: self.noise([0, 0]),
            },
            method,
            interrupt,
        )?;
        let unscaled = |gradient: Tensor| if factor == 1.0 { gradient } else { gradient.times(factor.recip()) };
        let mut gradients = solution.gradients;
        Ok(self
            .program
            .parameters()
            .map(|(id, parameter)| {
                let zeros = || Tensor::full(&parameter.shape, 0.0, self.dtype, &self.device);
                (parameter.path.clone(), gradients[id].take().map_or_else(zeros, unscaled))
            })
            .collect())
    }

    /// The weighted mean training loss over all rows, with the parameters moved by each of `steps` times `direction`.
    ///
    /// Random numbers are those of [`Self::gradients`]; the state stays as it is.
    pub fn losses_along(
        &mut self,
        inputs: &Inputs,
        direction: Arrays,
        steps: &[f64],
        sample_weight: Option<&ArrayView>,
        interrupt: &Interrupt,
    ) -> Result<Vec<f64>> {
        let loss = self.outputs("training")?.loss;
        let plan = Plan::new(&self.program, &[loss]);
        let rows = self.check(inputs, &plan, sample_weight)?;
        let order = checked_order(None, rows)?;
        let weights = weights_of(sample_weight, &order);
        let total: f64 = weights.iter().sum();
        let scale = if total > 0.0 { total.recip() } else { 0.0 };
        let direction = self.along(direction)?;
        let start = self.leaves(inputs, &order, None, &plan);
        let (noise, mut context) = (self.noise([0, 0]), self.context());
        let mut loss_at = |step: f64| {
            let mut leaves = start.clone();
            for (id, way) in &direction {
                leaves[*id] = leaves[*id].take().map(|value| value + way.clone().times(step));
            }
            let run = forward(&self.program, &plan, leaves, &mut context, noise, Retention::Release, interrupt)?;
            let losses = run.values[loss].as_ref().expect("the plan's output").to_f64();
            let counted = losses.iter().zip(&*weights).filter(|(_, weight)| **weight != 0.0);
            Ok(scale * counted.map(|(loss, weight)| loss * weight).sum::<f64>())
        };
        steps.iter().map(|&step| loss_at(step)).collect()
    }

    /// Arrays by the parameters' paths as tensors by place.
    fn along(&self, mut direction: Arrays) -> Result<Vec<(ValueId, Tensor)>> {
        let mut found = Vec::new();
        for (id, parameter) in self.program.parameters() {
            if let Some(array) = direction.remove(&parameter.path) {
                found.push((id, self.fit(&parameter.path, &parameter.shape, array)?));
            }
        }
        match direction.into_keys().next() {
            Some(path) => Err(Error::Missing(format!("direction: there is no parameter {path:?}"))),
            None => Ok(found),
        }
    }

    fn run(&self, plan: &Plan, inputs: &Inputs, rows: &[i64], interrupt: &Interrupt) -> Result<Leaves> {
        let mut leaves = self.leaves(inputs, rows, None, plan);
        if let Some(average) = self.training.as_ref().and_then(|training| training.average.as_ref()) {
            average.apply(&mut leaves);
        }
        let mut context = self.context();
        let noise = self.noise([0, 0]);
        let retention = Retention::Release;
        Ok(forward(&self.program, plan, leaves, &mut context, noise, retention, interrupt)?.values)
    }

    pub(super) fn noise(&self, address: [u64; 2]) -> Stream {
        address.into_iter().fold(Stream::new(self.seed, Purpose::Noise), Stream::fork)
    }

    /// State and gathered rows, by place; of arrays that the device holds by `picks`, if there are any.
    pub(super) fn leaves(&self, inputs: &Inputs, rows: &[i64], picks: Option<&Tensor>, plan: &Plan) -> Leaves {
        let mut leaves = self.state.clone();
        for (id, name) in self.program.inputs().filter(|(id, _)| plan.needs(*id)) {
            let kind: Kind = self.program.values()[id].ty.kind;
            let (view, held) = (&inputs[name], |picks| self.picked(name, &inputs[name], kind, picks));
            let gathered = || view.gather(rows, kind, self.dtype, &self.device);
            leaves[id] = Some(picks.and_then(held).unwrap_or_else(gathered));
        }
        leaves
    }

    pub(super) fn sample_seed(&self, weights: &[f64], scale: f64) -> Tensor {
        if !self.device.is_cpu() && weights.iter().all(|weight| *weight == weights[0]) {
            return Tensor::full(&[weights.len()], weights[0] * scale, self.dtype, &self.device);
        }
        let seeds: Block<f64> = Block::collect(weights.iter().map(|weight| weight * scale));
        Tensor::from_f64(&seeds, &[weights.len()], self.dtype, &self.device)
    }

    fn assigned(&self, outputs: &Leaves) -> Gradients {
        let buffers = self.program.buffers();
        buffers
            .filter_map(|(id, buffer)| {
                let value = *self.program.assignments().get(&buffer.path)?;
                Some((id, outputs[value].clone().expect("the training plan computes it")))
            })
            .collect()
    }

    /// Refuses arrays that do not fit the program; returns their number of rows.
    fn check(&self, inputs: &Inputs, plan: &Plan, sample_weight: Option<&ArrayView>) -> Result<usize> {
        for (id, name) in self.program.inputs().filter(|(id, _)| plan.needs(*id)) {
            let view = inputs.get(name).ok_or_else(|| Error::value(format!("{name} is missing")))?;
            expect_shape(name, view, &self.program.values()[id].ty.shape)?;
        }
        if let Some(name) = inputs.keys().find(|name| self.program.inputs().all(|(_, known)| known != name.as_str())) {
            return Err(Error::value(format!("{name} is not an input of the program")));
        }
        let rows = common_rows(inputs)?;
        if let Some(weight) = sample_weight
            && weight.shape() != [rows]
        {
            return Err(Error::value(format!(
                "sample_weight must have shape ({rows},), got {}",
                show_lengths(weight.shape())
            )));
        }
        Ok(rows)
    }
}

/// What all micro-batches of a chunk have in common.
pub(super) struct Run<'a> {
    pub outputs: &'a Outputs,
    reverse: &'a Reverse,
    pub inputs: &'a Inputs,
    pub chunk: &'a Chunk<'a>,
    order: &'a [i64],
    /// The same on the device, if that holds arrays.
    picks: Option<Tensor>,
    accumulate: usize,
    pub interrupt: &'a Interrupt,
}

impl<'a> Run<'a> {
    /// A micro-batch by its place in the chunk.
    pub(super) fn micro_batch(&self, step: usize, loss_scale: Option<f64>) -> MicroBatch<'a> {
        let start = step * self.chunk.batch_size;
        let stop = self.order.len().min(start + self.chunk.batch_size);
        let rows = &self.order[start..stop];
        let weights = weights_of(self.chunk.sample_weight, rows);
        let total: f64 = weights.iter().sum();
        let scale = match (self.accumulate, total > 0.0) {
            (1, true) => total.recip(),
            (1, false) => 0.0,
            _ => 1.0,
        };
        MicroBatch {
            outputs: self.outputs,
            reverse: self.reverse,
            inputs: self.inputs,
            rows,
            picks: self.picks.as_ref().map(|picks| picks.clone().slice(&[start], &[stop], &[1])),
            weights,
            total,
            scale: scale * loss_scale.unwrap_or(1.0),
            address: [self.chunk.epoch, self.chunk.first_step + step as u64],
        }
    }

    /// The rates are those of updates in a row: what a skipped one did not use is the next one's.
    pub(super) fn rate(&self, step: usize, skipped: usize) -> f64 {
        self.chunk.learning_rates[step.saturating_sub(self.accumulate * skipped)]
    }
}

/// The micro-batches of a chunk that are done.
pub(super) struct Done {
    pub records: Records,
    /// Updates that were not made.
    pub skipped: usize,
}

impl Done {
    fn new(records: Records) -> Self {
        Self { records, skipped: 0 }
    }

    /// How many.
    pub(super) fn steps(&self) -> usize {
        self.records.loss.len()
    }
}

/// What a micro-batch left behind, and what it was made with.
pub(super) struct Made {
    pub record: Record,
    pub rate: f64,
    pub loss_scale: Option<f64>,
    pub watch: Option<Watch>,
}

/// What the program answers to a micro-batch.
pub(super) struct Answer {
    pub outputs: Leaves,
    /// New values of buffers, by place.
    pub assigned: Gradients,
    pub gradients: Gradients,
    squares: Measured,
}

/// What one micro-batch consists of.
pub(super) struct MicroBatch<'a> {
    pub outputs: &'a Outputs,
    reverse: &'a Reverse,
    inputs: &'a Inputs,
    rows: &'a [i64],
    /// The same on the device, if that holds arrays.
    picks: Option<Tensor>,
    pub weights: Block<f64>,
    /// Their sum.
    pub total: f64,
    /// What turns the weights into factors of the samples' losses.
    scale: f64,
    /// What its random numbers depend on.
    address: [u64; 2],
}

impl MicroBatch<'_> {
    /// Somebody who counts zero activations, if it is time for that.
    pub(super) fn watch(&self) -> Option<Watch> {
        self.address[1].is_multiple_of(ACTIVATIONS_EVERY).then(Watch::default)
    }

    /// The weighted mean loss, from the plan's outputs.
    pub(super) fn loss(&self, values: &Leaves) -> f64 {
        self.outputs.sums(values, &self.weights)[0] / self.total
    }
}

fn weights_of(sample_weight: Option<&ArrayView>, rows: &[i64]) -> Block<f64> {
    match sample_weight {
        Some(view) => view.gather(rows, Kind::Float, DType::F64, &crate::Device::cpu()).numbers(),
        None => Block::full(rows.len(), 1.0),
    }
}

fn checked_order(order: Option<&[i64]>, rows: usize) -> Result<Arc<[i64]>> {
    if rows == 0 {
        return Err(Error::value("expected at least one row, got 0"));
    }
    let Some(order) = order else {
        return Ok((0..rows as i64).collect());
    };
    match order.iter().find(|&&row| row < 0 || row >= rows as i64) {
        Some(row) => Err(Error::value(format!("order: row {row} is outside 0..{rows}"))),
        None => Ok(order.into()),
    }
}
