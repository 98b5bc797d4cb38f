//! Runs over batches: training, evaluation, prediction, gradients.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::data::expect_shape;
use super::diagnose::Failure;
use super::monitor::{ACTIVATIONS_EVERY, Watch, layers};
use super::update::{Movement, Update};
use super::{Arrays, Chunk, Inputs, Outputs, Phase, Records, Session, common_rows};
use crate::gradient::{Method, Problem, Solution, solve};
use crate::memory::{Block, List, Recycling};
use crate::program::{Checkpoint, Kind, Leaves, Plan, Retention, Reverse, ValueId, forward, show_lengths};
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
        let accumulate = self.training()?.accumulate;
        let _recycling = Recycling::begin();
        let mut skipped = 0;
        let mut records = Records::with_room(batches, &outputs, self.training()?.trained.len());
        for (step, rows) in order.chunks(chunk.batch_size).enumerate() {
            let address = [chunk.epoch, chunk.first_step + step as u64];
            let weights = weights_of(chunk.sample_weight, rows);
            let watch = address[1].is_multiple_of(ACTIVATIONS_EVERY).then(Watch::default);
            // The rates are those of updates in a row: what a skipped one did not use is the next one's.
            let rate = chunk.learning_rates[step.saturating_sub(accumulate * skipped)];
            let loss_scale = self.loss_scale();
            let record =
                match self.train_step(&outputs, inputs, rows, &weights, rate, address, watch.clone(), interrupt) {
                    Err(Error::Interrupted) if step > 0 => break,
                    record => record?,
                };
            records.learning_rate.push(rate);
            records.loss_scale.extend(loss_scale);
            skipped += usize::from(record.update.as_ref().is_some_and(|update| !update.finite));
            if chunk.diagnose && self.failed(&record) {
                // What cannot be found out, or was interrupted, is no reason to lose the records.
                let failure = Failure { inputs, rows, weights: &weights, address };
                self.diagnose(&failure, interrupt).unwrap_or_default();
            }
            records.push(record, self.training()?.trained.len());
            if let Some(watch) = watch {
                records.activations.push((step, watch.by_layer(&self.program, &outputs.plan)));
            }
        }
        Ok(records)
    }

    #[allow(clippy::too_many_arguments)]
    fn train_step(
        &mut self,
        outputs: &Outputs,
        inputs: &Inputs,
        rows: &[i64],
        weights: &[f64],
        learning_rate: f64,
        address: [u64; 2],
        watch: Option<Watch>,
        interrupt: &Interrupt,
    ) -> Result<Record> {
        let total: f64 = weights.iter().sum();
        let scale = match (self.training()?.accumulate, total > 0.0) {
            (1, true) => total.recip(),
            (1, false) => 0.0,
            _ => 1.0,
        };
        let scale = scale * self.loss_scale().unwrap_or(1.0);
        let reverse = self.reverse(outputs)?;
        let batch = MicroBatch { outputs, reverse: &reverse, inputs, rows, weights, scale, address };
        let solution = self.differentiate(&batch, watch, interrupt)?;
        let mut record = Record::new(&solution.outputs, outputs, weights, total);
        let mut assigned = self.assigned(&solution.outputs);
        drop(solution.outputs);
        let mut gradients = solution.gradients;
        let gradients: List<(ValueId, Tensor)> = gradients
            .drain(..)
            .enumerate()
            .filter_map(|(id, gradient)| Some((id, gradient?)))
            .filter(|(id, _)| self.training.as_ref().is_some_and(|training| training.wanted[*id]))
            .collect();
        record.update = match self.training()?.rule.solver() {
            Some(_) => Some(self.solve(&batch, record.loss, gradients, learning_rate, interrupt)?),
            None => self.update(gradients, &solution.squares, total, learning_rate)?,
        };
        if record.loss.is_finite() && record.update.as_ref().is_none_or(|update| update.finite) {
            for (id, value) in assigned.drain(..) {
                self.state[id] = Some(value);
            }
        }
        Ok(record)
    }

    /// Outputs and gradients of one micro-batch at the parameters of now.
    pub(super) fn differentiate(
        &self,
        batch: &MicroBatch<'_>,
        watch: Option<Watch>,
        interrupt: &Interrupt,
    ) -> Result<Solution> {
        let &MicroBatch { outputs, reverse, inputs, rows, weights, scale, address } = batch;
        let training = self.training()?;
        solve(
            Problem {
                program: &self.program,
                plan: &outputs.plan,
                leaves: self.gathered(inputs, rows, &outputs.plan),
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
        gradients: List<(ValueId, Tensor)>,
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
    fn gathered(&self, inputs: &Inputs, rows: &[i64], plan: &Plan) -> Leaves {
        let running = self.profiler.as_ref().map(|profiler| profiler.begin(Phase::Gather, None, []));
        let leaves = self.leaves(inputs, rows, plan);
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
            totals.iter_mut().zip(sums(&run, &outputs, &weights)).for_each(|(total, sum)| *total += sum);
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
                leaves: self.leaves(inputs, &order, &outputs.plan),
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
        let start = self.leaves(inputs, &order, &plan);
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
        let mut leaves = self.leaves(inputs, rows, plan);
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

    /// State and gathered rows, by place.
    pub(super) fn leaves(&self, inputs: &Inputs, rows: &[i64], plan: &Plan) -> Leaves {
        let mut leaves = self.state.clone();
        for (id, name) in self.program.inputs().filter(|(id, _)| plan.needs(*id)) {
            let kind: Kind = self.program.values()[id].ty.kind;
            leaves[id] = Some(inputs[name].gather(rows, kind, self.dtype, &self.device));
        }
        leaves
    }

    pub(super) fn sample_seed(&self, weights: &[f64], scale: f64) -> Tensor {
        let seeds: Block<f64> = Block::collect(weights.iter().map(|weight| weight * scale));
        Tensor::from_f64(&seeds, &[weights.len()], self.dtype, &self.device)
    }

    fn assigned(&self, outputs: &Leaves) -> List<(ValueId, Tensor)> {
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

/// What one micro-batch consists of.
pub(super) struct MicroBatch<'a> {
    outputs: &'a Outputs,
    reverse: &'a Reverse,
    inputs: &'a Inputs,
    rows: &'a [i64],
    weights: &'a [f64],
    /// What turns the weights into factors of the samples' losses.
    scale: f64,
    /// What its random numbers depend on.
    address: [u64; 2],
}

impl MicroBatch<'_> {
    /// The weighted mean loss, from the plan's outputs.
    pub(super) fn loss(&self, values: &Leaves) -> f64 {
        sums(values, self.outputs, self.weights)[0] / self.weights.iter().sum::<f64>()
    }
}

/// What one micro-batch leaves behind.
pub(super) struct Record {
    pub loss: f64,
    weight: f64,
    metrics: Sums,
    pub update: Option<Update>,
}

impl Record {
    fn new(values: &Leaves, outputs: &Outputs, weights: &[f64], total: f64) -> Self {
        let mut metrics = sums(values, outputs, weights);
        if total != 0.0 {
            metrics.iter_mut().for_each(|sum| *sum /= total);
        }
        let loss = metrics.remove(0);
        Self { loss, weight: total, metrics, update: None }
    }
}

impl Records {
    /// Without a micro-batch yet, with room for as many as will come.
    fn with_room(batches: usize, outputs: &Outputs, parameters: usize) -> Self {
        let series = || Vec::with_capacity(batches);
        Self {
            learning_rate: series(),
            loss_scale: series(),
            loss: series(),
            weight: series(),
            gradient_norm: series(),
            update_ratio: series(),
            finite: Vec::with_capacity(batches),
            parameters: Vec::with_capacity(batches * parameters),
            activations: Vec::new(),
            metrics: outputs.metrics.iter().map(|(name, _)| (metric(name), series())).collect(),
        }
    }

    fn push(&mut self, record: Record, parameters: usize) {
        self.loss.push(record.loss);
        self.weight.push(record.weight);
        let update = record.update.as_ref();
        self.gradient_norm.push(update.map_or(f64::NAN, |update| update.gradient_norm));
        self.update_ratio.push(update.map_or(f64::NAN, |update| update.update_ratio));
        self.finite.push(update.is_none_or(|update| update.finite));
        match update {
            Some(update) => self.parameters.extend_from_slice(&update.parameters),
            None => self.parameters.extend(std::iter::repeat_n(Movement::NONE, parameters)),
        }
        // Both are in the order of the names.
        self.metrics.values_mut().zip(record.metrics).for_each(|(means, mean)| means.push(mean));
    }
}

/// The weighted sum of the loss, then that of each metric, in 64 bits.
type Sums = SmallVec<[f64; 8]>;

fn sums(values: &Leaves, outputs: &Outputs, weights: &[f64]) -> Sums {
    let value = |id: ValueId| values[id].as_ref().expect("an output of the plan");
    let sum = |numbers: &[f64]| -> f64 {
        numbers.iter().zip(weights).filter(|(_, weight)| **weight != 0.0).map(|(a, b)| a * b).sum()
    };
    let ids = std::iter::once(outputs.loss).chain(outputs.metrics.iter().map(|(_, id)| *id));
    if value(outputs.loss).is_cpu() {
        return ids.map(|id| sum(&value(id).numbers())).collect();
    }
    // A device is waited for once.
    let numbers = Tensor::numbers_of(ids.map(|id| value(id).clone()).collect());
    numbers.chunks_exact(weights.len()).map(sum).collect()
}

/// The name of a metric among records and totals.
fn metric(name: &str) -> String {
    format!("metric.{name}")
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
