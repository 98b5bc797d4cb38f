//! Adadelta.

use serde::{Deserialize, Serialize};

use super::{Decay, Elementwise, Formula, Hyperparameters, Rule, Step, average};
use crate::Number;

/// `v = rho·v + (1-rho)·g²`; `d = √(acc + eps)/√(v + eps)·g`; `p -= lr·d`; `acc = rho·acc + (1-rho)·d²`.
///
/// Weight decay is coupled: `g += weight_decay·p` first.
/// Source: Zeiler 2012 (Algorithm 1) in PyTorch's form, defaults too.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Adadelta {
    rho: f64,
    eps: f64,
    weight_decay: f64,
}

impl Default for Adadelta {
    fn default() -> Self {
        Self { rho: 0.9, eps: 1e-6, weight_decay: 0.0 }
    }
}

impl Hyperparameters for Adadelta {
    const LEARNING_RATE: f64 = 1.0;

    fn rule(self) -> Box<dyn Rule> {
        Box::new(Elementwise::<_, 2>(self))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Scalars {
    decay: Decay,
    rate: f64,
    rho: f64,
    eps: f64,
}

impl Formula<2> for Adadelta {
    const STATE: [&'static str; 2] = ["square_average", "squared_step_average"];
    type Scalars = Scalars;

    fn scalars(&self, step: &Step) -> Scalars {
        Scalars { decay: Decay::coupled(step), rate: step.learning_rate, rho: self.rho, eps: self.eps }
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    #[inline(always)]
    fn apply<N: Number>(scalars: &Scalars, parameter: N, gradient: N, [square, steps]: [N; 2]) -> (N, [N; 2]) {
        let (parameter, gradient) = scalars.decay.apply(parameter, gradient);
        let root = |mean: &N| mean.clone().plus(scalars.eps).sqrt();
        let square = average(square, gradient.clone().square(), scalars.rho);
        let change = root(&steps) / root(&square) * gradient;
        let steps = average(steps, change.clone().square(), scalars.rho);
        (parameter - change.times(scalars.rate), [square, steps])
    }
}
