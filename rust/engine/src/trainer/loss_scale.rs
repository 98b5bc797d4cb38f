//! The loss scale: gradients of half precision are kept off 0 by a factor, which is undone before anybody sees them.

use serde::Deserialize;

use super::Session;
use super::update::{Gradients, Training, Update};
use crate::program::Leaves;

/// How the factor starts and moves; it stays where growth and backoff are 1.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScaleConfig {
    /// The first factor.
    pub initial: f64,
    /// What it is multiplied by after `interval` good updates in a row.
    pub growth: f64,
    /// What it is multiplied by after an update that was skipped because its gradient was not finite.
    pub backoff: f64,
    /// Good updates in a row that let it grow.
    pub interval: u64,
    /// What backoff stops at.
    pub minimum: f64,
}

/// The factor of now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LossScale {
    config: LossScaleConfig,
    pub factor: f64,
    /// Updates made since the factor last moved.
    pub good: u64,
}

impl LossScale {
    pub(super) fn new(config: LossScaleConfig) -> Self {
        Self { config, factor: config.initial, good: 0 }
    }

    /// Moves the factor after an update that was made, or skipped because its gradient was not finite.
    fn note(&mut self, made: bool) {
        let LossScaleConfig { growth, backoff, interval, minimum, .. } = self.config;
        self.good = if made { self.good + 1 } else { 0 };
        if !made {
            self.factor = (self.factor * backoff).max(minimum.min(self.factor));
        } else if self.good >= interval {
            (self.factor, self.good) = (self.factor * growth, 0);
        }
    }
}

impl Session {
    /// The factor of the loss of now.
    pub(super) fn loss_scale(&self) -> Option<f64> {
        Some(self.training.as_ref()?.loss_scale?.factor)
    }
}

impl Training {
    /// An update from gradients of the scaled loss, after which the scale may move.
    pub(super) fn update_unscaled(
        &mut self,
        state: &mut Leaves,
        gradients: Gradients,
        squares: &[Option<f64>],
        scale: f64,
        learning_rate: f64,
    ) -> Update {
        let update = self.update(state, gradients, squares, self.unscaled(scale), learning_rate);
        self.note(update.finite);
        update
    }

    /// What gradients of the scaled loss are to be multiplied by instead.
    pub(super) fn unscaled(&self, scale: f64) -> f64 {
        scale / self.loss_scale.map_or(1.0, |scale| scale.factor)
    }

    /// Moves the scale after an update that was made, or skipped because its gradient was not finite.
    pub(super) fn note(&mut self, made: bool) {
        if let Some(scale) = &mut self.loss_scale {
            scale.note(made);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(config: LossScaleConfig, made: &[bool]) -> Vec<f64> {
        let mut scale = LossScale::new(config);
        let step = |&made: &bool| {
            scale.note(made);
            scale.factor
        };
        made.iter().map(step).collect()
    }

    #[test]
    fn it_grows_after_good_updates_in_a_row_and_falls_to_its_minimum() {
        let config = LossScaleConfig { initial: 8.0, growth: 2.0, backoff: 0.5, interval: 3, minimum: 4.0 };
        let found = factors(config, &[true, true, false, true, true, true, true, true, true, false, false, false]);
        assert_eq!(found, [8.0, 8.0, 4.0, 4.0, 4.0, 8.0, 8.0, 8.0, 16.0, 8.0, 4.0, 4.0]);
        let below = LossScaleConfig { initial: 2.0, ..config };
        assert_eq!(factors(below, &[false, true, true, true]), [2.0, 2.0, 2.0, 4.0]);
        let fixed = LossScaleConfig { growth: 1.0, backoff: 1.0, interval: 1, minimum: 0.0, initial: 3.0 };
        assert_eq!(factors(fixed, &[false, true, true, false]), [3.0; 4]);
    }
}
