//! ASGD: averaged stochastic gradient descent.

use serde::{Deserialize, Serialize};

use super::{Decay, Elementwise, Formula, Hyperparameters, Rule, Step};
use crate::Number;

/// `p = (1 - lambd·eta)·p - eta·g`, `eta = lr/(1 + lambd·lr·(t-1))^alpha`; `average += (p - average)/max(1, t-1-t0)`.
///
/// The average is a copy of `p` until `t0` updates are made; it is kept beside the parameter, as in PyTorch. Weight decay is
/// coupled: `g += weight_decay·p` first. Source: Polyak and Juditsky 1992, Bottou's schedule, in PyTorch's form, defaults too;
/// under a schedule `eta` is of this update's learning rate (PyTorch: of the one before).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Asgd {
    lambd: f64,
    alpha: f64,
    t0: f64,
    weight_decay: f64,
}

impl Default for Asgd {
    fn default() -> Self {
        Self { lambd: 1e-4, alpha: 0.75, t0: 1e6, weight_decay: 0.0 }
    }
}

impl Hyperparameters for Asgd {
    const LEARNING_RATE: f64 = 0.01;

    fn rule(self) -> Box<dyn Rule> {
        Box::new(Elementwise::<_, 1>(self))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Scalars {
    decay: Decay,
    /// `1 - lambd·eta`.
    shrink: f64,
    eta: f64,
    /// What of the parameter enters the average.
    intake: f64,
}

impl Formula<1> for Asgd {
    const STATE: [&'static str; 1] = ["averaged"];
    type Scalars = Scalars;

    fn scalars(&self, step: &Step) -> Scalars {
        let (rate, before) = (step.learning_rate, (step.number - 1) as f64);
        let eta = rate / (1.0 + self.lambd * rate * before).powf(self.alpha);
        Scalars {
            decay: Decay::coupled(step),
            shrink: 1.0 - self.lambd * eta,
            eta,
            intake: (before - self.t0).max(1.0).recip(),
        }
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    #[inline(always)]
    fn apply<N: Number>(scalars: &Scalars, parameter: N, gradient: N, [averaged]: [N; 1]) -> (N, [N; 1]) {
        let (parameter, gradient) = scalars.decay.apply(parameter, gradient);
        let parameter = parameter.times(scalars.shrink) - gradient.times(scalars.eta);
        let averaged = averaged.times(1.0 - scalars.intake) + parameter.clone().times(scalars.intake);
        (parameter, [averaged])
    }
}
