//! Stochastic gradient descent, with momentum, Nesterov's and dampened.

use serde::{Deserialize, Serialize};

use super::{Decay, Elementwise, Formula, Hyperparameters, Rule, Step};
use crate::Number;

/// `buf = g` at t=1, else `momentum·buf + (1-dampening)·g`; `p -= lr·buf`; Nesterov: `p -= lr·(g + momentum·buf)`.
///
/// Weight decay is coupled: `g += weight_decay·p` first. Without momentum there is no state: `p -= lr·g`.
/// Source: Sutskever et al. 2013 in PyTorch's form (`torch.optim.SGD`), defaults too.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Sgd {
    momentum: f64,
    dampening: f64,
    weight_decay: f64,
    nesterov: bool,
}

impl Hyperparameters for Sgd {
    const LEARNING_RATE: f64 = 0.01;

    fn rule(self) -> Box<dyn Rule> {
        if self.momentum == 0.0 {
            return Box::new(Elementwise::<_, 0>(Plain(self)));
        }
        Box::new(Elementwise::<_, 1>(self))
    }
}

#[derive(Debug)]
struct Plain(Sgd);

impl Formula<0> for Plain {
    const STATE: [&'static str; 0] = [];
    type Scalars = (f64, Decay);

    fn scalars(&self, step: &Step) -> (f64, Decay) {
        (step.learning_rate, Decay::coupled(step))
    }

    fn weight_decay(&self) -> f64 {
        self.0.weight_decay
    }

    #[inline(always)]
    fn apply<N: Number>(&(rate, decay): &(f64, Decay), parameter: N, gradient: N, _: [N; 0]) -> (N, [N; 0]) {
        let (parameter, gradient) = decay.apply(parameter, gradient);
        (parameter - gradient.times(rate), [])
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Scalars {
    rate: f64,
    decay: Decay,
    momentum: f64,
    /// What of the gradient enters the buffer: all of it at t=1.
    intake: f64,
    nesterov: bool,
}

impl Formula<1> for Sgd {
    const STATE: [&'static str; 1] = ["momentum"];
    type Scalars = Scalars;

    fn scalars(&self, step: &Step) -> Scalars {
        Scalars {
            rate: step.learning_rate,
            decay: Decay::coupled(step),
            momentum: self.momentum,
            intake: if step.number == 1 { 1.0 } else { 1.0 - self.dampening },
            nesterov: self.nesterov,
        }
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    #[inline(always)]
    fn apply<N: Number>(scalars: &Scalars, parameter: N, gradient: N, [buffer]: [N; 1]) -> (N, [N; 1]) {
        let (parameter, gradient) = scalars.decay.apply(parameter, gradient);
        let buffer = buffer.times(scalars.momentum) + gradient.clone().times(scalars.intake);
        let direction =
            if scalars.nesterov { gradient + buffer.clone().times(scalars.momentum) } else { buffer.clone() };
        (parameter - direction.times(scalars.rate), [buffer])
    }
}
