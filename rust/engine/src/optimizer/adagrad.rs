//! Adagrad.

use serde::{Deserialize, Serialize};

use super::{Decay, Elementwise, Formula, Hyperparameters, Rule, Step};
use crate::Number;

/// `acc += g²`; `p -= lr/(1 + (t-1)·lr_decay) · g/(√acc + eps)`; `acc` starts at `initial_accumulator_value`.
///
/// Weight decay is coupled: `g += weight_decay·p` first.
/// Source: Duchi et al. 2011 in PyTorch's form, defaults too.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Adagrad {
    lr_decay: f64,
    initial_accumulator_value: f64,
    eps: f64,
    weight_decay: f64,
}

impl Default for Adagrad {
    fn default() -> Self {
        Self { lr_decay: 0.0, initial_accumulator_value: 0.0, eps: 1e-10, weight_decay: 0.0 }
    }
}

impl Hyperparameters for Adagrad {
    const LEARNING_RATE: f64 = 0.01;

    fn rule(self) -> Box<dyn Rule> {
        Box::new(Elementwise::<_, 1>(self))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Scalars {
    decay: Decay,
    rate: f64,
    /// What the sum starts with: added at t=1.
    start: f64,
    eps: f64,
}

impl Formula<1> for Adagrad {
    const STATE: [&'static str; 1] = ["square_sum"];
    type Scalars = Scalars;

    fn scalars(&self, step: &Step) -> Scalars {
        Scalars {
            decay: Decay::coupled(step),
            rate: step.learning_rate / (1.0 + (step.number - 1) as f64 * self.lr_decay),
            start: if step.number == 1 { self.initial_accumulator_value } else { 0.0 },
            eps: self.eps,
        }
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    #[inline(always)]
    fn apply<N: Number>(scalars: &Scalars, parameter: N, gradient: N, [sum]: [N; 1]) -> (N, [N; 1]) {
        let (parameter, gradient) = scalars.decay.apply(parameter, gradient);
        let sum = sum.plus(scalars.start) + gradient.clone().square();
        let direction = gradient / sum.clone().sqrt().plus(scalars.eps);
        (parameter - direction.times(scalars.rate), [sum])
    }
}
