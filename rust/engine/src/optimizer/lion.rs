//! Lion.

use serde::{Deserialize, Serialize};

use super::{Decay, Elementwise, Formula, Hyperparameters, Rule, Step, average};
use crate::Number;

/// `p *= 1 - lr·weight_decay`; `p -= lr·sign(b1·m + (1-b1)·g)`; `m = b2·m + (1-b2)·g`.
///
/// Source: Chen et al. 2023 (Algorithm 2), defaults too, but no weight decay.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Lion {
    betas: [f64; 2],
    weight_decay: f64,
}

impl Default for Lion {
    fn default() -> Self {
        Self { betas: [0.9, 0.99], weight_decay: 0.0 }
    }
}

impl Hyperparameters for Lion {
    const LEARNING_RATE: f64 = 1e-4;

    fn rule(self) -> Box<dyn Rule> {
        Box::new(Elementwise::<_, 1>(self))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Scalars {
    decay: Decay,
    rate: f64,
    betas: [f64; 2],
}

impl Formula<1> for Lion {
    const STATE: [&'static str; 1] = ["first_moment"];
    type Scalars = Scalars;

    fn scalars(&self, step: &Step) -> Scalars {
        Scalars { decay: Decay::decoupled(step), rate: step.learning_rate, betas: self.betas }
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    #[inline(always)]
    fn apply<N: Number>(scalars: &Scalars, parameter: N, gradient: N, [m]: [N; 1]) -> (N, [N; 1]) {
        let [beta1, beta2] = scalars.betas;
        let (parameter, gradient) = scalars.decay.apply(parameter, gradient);
        let direction = average(m.clone(), gradient.clone(), beta1).sign();
        (parameter - direction.times(scalars.rate), [average(m, gradient, beta2)])
    }
}
