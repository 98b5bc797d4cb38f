//! Updates by a solver, which evaluates loss and gradient of one micro-batch at several points.

use std::collections::BTreeMap;

use super::config::OptimizerConfig;
use super::state::{missing, number};
use super::step::MicroBatch;
use super::update::{Movement, Update};
use super::{Arrays, Session};
use crate::memory::List;
use crate::optimizer::{Last, Memory, Pair, Squares, Value, sum_squares};
use crate::program::ValueId;
use crate::tensor::Tensor;
use crate::{Error, Interrupt, Number, Result};

/// Refuses what has no meaning where one update looks for the minimum along lines.
pub(super) fn check(config: &OptimizerConfig) -> Result<()> {
    let clipped = config.clip_norm.or(config.clip_value).is_some();
    let refused = [
        (config.accumulate_gradients > 1, "accumulate_gradients must be 1", "it evaluates one batch several times"),
        (config.loss_scale.is_some(), "loss_scale must be None", "a line search needs the true loss"),
        (clipped, "clip_norm and clip_value must be None", "a line search needs the true gradient"),
        (
            config.groups.iter().any(|group| group.learning_rate != 1.0),
            "param_groups must leave the learning rate at 1.0",
            "it steps along one direction of all parameters",
        ),
    ];
    let name = &config.name;
    match refused.iter().find(|(wrong, ..)| *wrong) {
        Some((_, expected, reason)) => Err(Error::value(format!("{expected} with optimizer {name:?}: {reason}"))),
        None => Ok(()),
    }
}

/// The gradients of some parameters.
type Gradients = List<(ValueId, Tensor)>;

impl Session {
    /// One update by the solver, from loss and gradients at the parameters of now; nothing moves if these are not finite.
    ///
    /// Random numbers are the same in every evaluation. After an error the parameters are as before.
    pub(super) fn solve(
        &mut self,
        batch: &MicroBatch<'_>,
        loss: f64,
        gradients: Gradients,
        learning_rate: f64,
        interrupt: &Interrupt,
    ) -> Result<Update> {
        let trained = self.training()?.trained.clone();
        let before: Vec<Tensor> = trained.iter().map(|&id| self.parameter(id).clone()).collect();
        let mut update = begun(&trained, &gradients);
        update.finite &= loss.is_finite();
        if !update.finite || trained.is_empty() {
            return Ok(update);
        }
        let start = self.value(&trained, loss, gradients)?;
        let solver = self.training()?.rule.solver().expect("only solvers come here").clone();
        let mut memory = self.training()?.memory.clone();
        let found = solver.minimise(&mut memory, flat(&before), start, learning_rate, &mut |point| {
            self.set_point(&trained, point);
            let solution = self.differentiate(batch, None, interrupt)?;
            let loss = batch.loss(&solution.outputs);
            let mut gradients = solution.gradients;
            let gradients = gradients.drain(..).enumerate().filter_map(|(id, gradient)| Some((id, gradient?)));
            self.value(&trained, loss, gradients.collect())
        });
        match &found {
            Ok(point) => self.set_point(&trained, point),
            Err(_) => trained.iter().zip(&before).for_each(|(&id, old)| self.state[id] = Some(old.clone())),
        }
        found?;
        self.record(&mut update, &trained, &before);
        let training = self.training.as_mut().expect("checked above");
        training.memory = memory;
        training.updates += 1;
        if let Some(average) = &mut training.average {
            average.add(&self.state, &trained);
        }
        Ok(update)
    }

    fn parameter(&self, id: ValueId) -> &Tensor {
        self.state[id].as_ref().expect("parameters are initialised")
    }

    fn set_point(&mut self, trained: &[ValueId], point: &Tensor) {
        let mut start = 0;
        for &id in trained {
            let (shape, count) = (self.parameter(id).shape(), self.parameter(id).len());
            let part = point.clone().slice(&[start], &[start + count], &[1]).reshape(&shape);
            self.state[id] = Some(part);
            start += count;
        }
    }

    /// Loss and gradient in one vector, weight decay included: `weight_decay/2·‖p‖²`.
    fn value(&self, trained: &[ValueId], loss: f64, mut gradients: Gradients) -> Result<Value> {
        let mut gradients: BTreeMap<ValueId, Tensor> = gradients.drain(..).collect();
        let settings = &self.training()?.settings;
        let mut value = loss;
        let mut parts = Vec::with_capacity(trained.len());
        for &id in trained {
            let (parameter, decay) = (self.parameter(id), settings[&id].weight_decay);
            let zeros = || Tensor::full(&parameter.shape(), 0.0, self.dtype, &self.device);
            let gradient = gradients.remove(&id).unwrap_or_else(zeros);
            if decay == 0.0 {
                parts.push(gradient);
                continue;
            }
            value += 0.5 * decay * sum_squares(parameter);
            parts.push(gradient + parameter.clone().times(decay));
        }
        Ok(Value { loss: value, gradient: flat(&parts) })
    }

    fn record(&self, update: &mut Update, trained: &[ValueId], before: &[Tensor]) {
        let mut all = Squares::default();
        for ((&id, old), movement) in trained.iter().zip(before).zip(update.parameters.iter_mut()) {
            let change = self.parameter(id).clone() - old.clone();
            let sums = Squares { parameter: sum_squares(old), update: sum_squares(&change) };
            all.add(sums, movement);
        }
        update.update_ratio = all.ratio();
    }
}

/// What is known of an update before it is made.
fn begun(trained: &[ValueId], gradients: &Gradients) -> Update {
    let squares: BTreeMap<ValueId, f64> = gradients.iter().map(|(id, gradient)| (*id, sum_squares(gradient))).collect();
    let gradient_norm = squares.values().sum::<f64>().sqrt();
    let norm = |id: &ValueId| squares.get(id).map_or(f64::NAN, |squares| squares.sqrt());
    Update {
        gradient_norm,
        update_ratio: f64::NAN,
        finite: gradient_norm.is_finite(),
        parameters: trained.iter().map(|id| Movement { gradient_norm: norm(id), ..Movement::NONE }).collect(),
    }
}

/// One vector of several arrays' elements.
fn flat(parts: &[Tensor]) -> Tensor {
    let lines = parts.iter().map(|part| part.clone().reshape(&[part.len()])).collect();
    Tensor::concatenate(lines, 0)
}

impl Session {
    /// Puts vectors over all trained parameters in as `name.path`: of each parameter its parts, one below the other.
    fn put_vectors(&self, arrays: &mut Arrays, name: &str, vectors: &[&Tensor]) -> Result<()> {
        let rows = vectors.len();
        let lines = vectors.iter().map(|&vector| vector.clone().reshape(&[1, vector.len()])).collect();
        let matrix = Tensor::concatenate(lines, 0);
        let mut start = 0;
        for &id in &self.training()?.trained {
            let stop = start + self.parameter(id).len();
            let part = matrix.clone().slice(&[0, start], &[rows, stop], &[1, 1]);
            let whole = [&[rows], self.parameter(id).shape().as_slice()].concat();
            arrays.insert(format!("{name}.{}", self.path(id)), part.reshape(&whole));
            start = stop;
        }
        Ok(())
    }

    /// Adds what the solver keeps between updates; see [`Session::optimizer_state`].
    pub(super) fn put_memory(&self, arrays: &mut Arrays) -> Result<()> {
        let training = self.training()?;
        if training.rule.solver().is_none() {
            return Ok(());
        }
        let memory = &training.memory;
        let scalar = |value: f64| Tensor::from_vec(vec![value], &[]);
        arrays.insert("iterations".to_owned(), scalar(memory.iterations as f64));
        let Some(last) = &memory.last else {
            return Ok(());
        };
        arrays.insert("curvature".to_owned(), scalar(memory.scale));
        arrays.insert("step_length".to_owned(), scalar(last.length));
        self.put_vectors(arrays, "direction", &[&last.direction])?;
        self.put_vectors(arrays, "previous_gradient", &[&last.gradient])?;
        if !memory.pairs.is_empty() {
            let of = |part: fn(&Pair) -> &Tensor| memory.pairs.iter().map(part).collect::<Vec<_>>();
            self.put_vectors(arrays, "steps", &of(|pair| &pair.step))?;
            self.put_vectors(arrays, "gradient_changes", &of(|pair| &pair.change))?;
            let inverses: Vec<f64> = memory.pairs.iter().map(|pair| pair.inverse).collect();
            let count = inverses.len();
            arrays.insert("inverse_products".to_owned(), Tensor::from_vec(inverses, &[count]));
        }
        Ok(())
    }

    /// Takes out what [`Self::put_memory`] put in; the memory is empty if other parameters are trained now.
    pub(super) fn take_memory(&self, arrays: &mut Arrays) -> Result<Memory> {
        if self.training()?.rule.solver().is_none() {
            return Ok(Memory::default());
        }
        let mut take = |key: &str| arrays.remove(key).ok_or_else(|| missing(key));
        let iterations = number("iterations", &take("iterations")?)? as u64;
        if iterations == 0 {
            return Ok(Memory::default());
        }
        let scale = number("curvature", &take("curvature")?)?;
        let length = number("step_length", &take("step_length")?)?;
        let inverses = arrays.remove("inverse_products").map_or_else(Vec::new, |array| array.to_f64());
        let pairs = inverses.len();
        let mut vectors = |name: &str, rows: usize| self.take_vectors(arrays, name, rows);
        let (direction, gradient) = (vectors("direction", 1)?, vectors("previous_gradient", 1)?);
        let (steps, changes) = (vectors("steps", pairs)?, vectors("gradient_changes", pairs)?);
        let (Some(mut direction), Some(mut gradient), Some(steps), Some(changes)) =
            (direction, gradient, steps, changes)
        else {
            return Ok(Memory::default());
        };
        let last = Last { direction: direction.remove(0), gradient: gradient.remove(0), length };
        let pairs = steps.into_iter().zip(changes).zip(inverses);
        let pairs = pairs.map(|((step, change), inverse)| Pair { step, change, inverse }).collect();
        Ok(Memory { iterations, pairs, scale, last: Some(last) })
    }

    /// The vectors that [`Self::put_vectors`] put in; `None` if they were not of exactly the parameters that are trained.
    fn take_vectors(&self, arrays: &mut Arrays, name: &str, rows: usize) -> Result<Option<Vec<Tensor>>> {
        let (mut parts, mut found) = (Vec::new(), Vec::new());
        for (id, parameter) in self.program.parameters() {
            let key = format!("{name}.{}", parameter.path);
            if let Some(array) = arrays.remove(&key) {
                let whole = [&[rows], parameter.shape.as_slice()].concat();
                let count = parameter.shape.iter().product();
                parts.push(self.fit(&key, &whole, array)?.reshape(&[rows, count]));
                found.push(id);
            }
        }
        if rows == 0 {
            return Ok(Some(Vec::new()));
        }
        if found != self.training()?.trained {
            return Ok(None);
        }
        let matrix = Tensor::concatenate(parts, 1);
        let length = matrix.shape()[1];
        let row = |row: usize| matrix.clone().slice(&[row, 0], &[row + 1, length], &[1, 1]).reshape(&[length]);
        Ok(Some((0..rows).map(row).collect()))
    }
}
