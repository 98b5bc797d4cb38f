//! Adamax: Adam by the greatest gradient.

use serde::{Deserialize, Serialize};

use super::{Decay, Elementwise, Formula, Hyperparameters, Rule, Step, average, seen};
use crate::Number;

/// `m = b1·m + (1-b1)·g`; `u = max(b2·u, |g| + eps)`; `p -= lr/(1-b1^t)·m/u`.
///
/// Weight decay is coupled: `g += weight_decay·p` first.
/// Source: Kingma and Ba 2015 (Algorithm 2) in PyTorch's form, defaults too.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Adamax {
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
}

impl Default for Adamax {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 }
    }
}

impl Hyperparameters for Adamax {
    const LEARNING_RATE: f64 = 2e-3;

    fn rule(self) -> Box<dyn Rule> {
        Box::new(Elementwise::<_, 2>(self))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Scalars {
    decay: Decay,
    /// `lr / (1 - b1^t)`.
    rate: f64,
    betas: [f64; 2],
    eps: f64,
}

impl Formula<2> for Adamax {
    const STATE: [&'static str; 2] = ["first_moment", "greatest_gradient"];
    type Scalars = Scalars;

    fn scalars(&self, step: &Step) -> Scalars {
        Scalars {
            decay: Decay::coupled(step),
            rate: step.learning_rate / seen(self.betas[0], step.number),
            betas: self.betas,
            eps: self.eps,
        }
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    #[inline(always)]
    fn apply<N: Number>(scalars: &Scalars, parameter: N, gradient: N, [m, greatest]: [N; 2]) -> (N, [N; 2]) {
        let [beta1, beta2] = scalars.betas;
        let (parameter, gradient) = scalars.decay.apply(parameter, gradient);
        let m = average(m, gradient.clone(), beta1);
        let greatest = greatest.times(beta2).greater_of(gradient.abs().plus(scalars.eps));
        (parameter - (m.clone() / greatest.clone()).times(scalars.rate), [m, greatest])
    }
}
