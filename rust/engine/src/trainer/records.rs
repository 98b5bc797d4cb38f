//! What micro-batches leave behind.

use smallvec::SmallVec;

use super::update::{Movement, Update};
use super::{Outputs, Records};
use crate::program::{Leaves, ValueId};
use crate::tensor::Tensor;

/// What one micro-batch leaves behind.
pub(super) struct Record {
    pub loss: f64,
    weight: f64,
    metrics: Sums,
    pub update: Option<Update>,
}

impl Record {
    /// From the weighted sums and the sum of the weights.
    pub fn new(mut sums: Sums, weight: f64) -> Self {
        if weight != 0.0 {
            sums.iter_mut().for_each(|sum| *sum /= weight);
        }
        let loss = sums.remove(0);
        Self { loss, weight, metrics: sums, update: None }
    }
}

impl Records {
    /// Without a micro-batch yet, with room for as many as will come.
    pub(super) fn with_room(batches: usize, outputs: &Outputs, parameters: usize) -> Self {
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
            updates: 0,
        }
    }

    pub(super) fn push(&mut self, record: Record, parameters: usize) {
        self.loss.push(record.loss);
        self.weight.push(record.weight);
        let update = record.update.as_ref();
        self.gradient_norm.push(update.map_or(f64::NAN, |update| update.gradient_norm));
        self.update_ratio.push(update.map_or(f64::NAN, |update| update.update_ratio));
        self.finite.push(update.is_none_or(|update| update.finite));
        self.updates += usize::from(update.is_some_and(|update| update.finite));
        match update {
            Some(update) => self.parameters.extend_from_slice(&update.parameters),
            None => self.parameters.extend(std::iter::repeat_n(Movement::NONE, parameters)),
        }
        // Both are in the order of the names.
        self.metrics.values_mut().zip(record.metrics).for_each(|(means, mean)| means.push(mean));
    }
}

/// The weighted sum of the loss, then that of each metric, in 64 bits.
pub(super) type Sums = SmallVec<[f64; 8]>;

impl Outputs {
    /// The places of the loss and the metrics.
    pub(super) fn reported(&self) -> impl Iterator<Item = ValueId> + '_ {
        std::iter::once(self.loss).chain(self.metrics.iter().map(|(_, id)| *id))
    }

    /// The weighted sums of the samples' losses and metrics, which are waited for.
    pub(super) fn sums(&self, values: &Leaves, weights: &[f64]) -> Sums {
        let value = |id: ValueId| values[id].as_ref().expect("an output of the plan");
        if value(self.loss).is_cpu() {
            return self.reported().map(|id| weighted_sum(&value(id).numbers(), weights)).collect();
        }
        // A device is waited for once.
        weighted_sums(&Tensor::numbers_of(self.reported().map(|id| value(id).clone()).collect()), weights)
    }
}

/// The weighted sums of several numbers of each sample, those of one kind behind those of the other.
pub(super) fn weighted_sums(numbers: &[f64], weights: &[f64]) -> Sums {
    numbers.chunks_exact(weights.len()).map(|numbers| weighted_sum(numbers, weights)).collect()
}

/// Without the samples of weight 0, whatever their number is.
fn weighted_sum(numbers: &[f64], weights: &[f64]) -> f64 {
    numbers.iter().zip(weights).filter(|(_, weight)| **weight != 0.0).map(|(a, b)| a * b).sum()
}

/// The name of a metric among records and totals.
pub(super) fn metric(name: &str) -> String {
    format!("metric.{name}")
}
