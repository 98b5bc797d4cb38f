//! Rprop: resilient backpropagation, by the signs of full-batch gradients.

use serde::{Deserialize, Serialize};

use super::{Decay, Elementwise, Formula, Hyperparameters, Rule, Step};
use crate::Number;

/// `s` times `etas[1]` where `g` kept its sign, times `etas[0]` (and `g = 0`) where it changed; `p -= s·sign(g)`.
///
/// `s` starts at the learning rate of the first update, which later ones do not use, and stays within `step_sizes`; an update
/// at a learning rate of 0 moves nothing. Weight decay is coupled: `g += weight_decay·p` first.
/// Source: Riedmiller and Braun 1993 in PyTorch's form (without backtracking), defaults too.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Rprop {
    etas: [f64; 2],
    step_sizes: [f64; 2],
    weight_decay: f64,
}

impl Default for Rprop {
    fn default() -> Self {
        Self { etas: [0.5, 1.2], step_sizes: [1e-6, 50.0], weight_decay: 0.0 }
    }
}

impl Hyperparameters for Rprop {
    const LEARNING_RATE: f64 = 0.01;

    fn rule(self) -> Box<dyn Rule> {
        Box::new(Elementwise::<_, 2>(self))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Scalars {
    decay: Decay,
    /// The step size of t=1, then 0.
    start: f64,
    /// 0 if nothing may move.
    moves: f64,
    etas: [f64; 2],
    step_sizes: [f64; 2],
}

impl Formula<2> for Rprop {
    const STATE: [&'static str; 2] = ["previous_gradient", "step_size"];
    type Scalars = Scalars;

    fn scalars(&self, step: &Step) -> Scalars {
        Scalars {
            decay: Decay::coupled(step),
            start: if step.number == 1 { step.learning_rate } else { 0.0 },
            moves: if step.learning_rate == 0.0 { 0.0 } else { 1.0 },
            etas: self.etas,
            step_sizes: self.step_sizes,
        }
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    #[inline(always)]
    fn apply<N: Number>(scalars: &Scalars, parameter: N, gradient: N, [previous, size]: [N; 2]) -> (N, [N; 2]) {
        let ([shorter, longer], [least, most]) = (scalars.etas, scalars.step_sizes);
        let (parameter, gradient) = scalars.decay.apply(parameter, gradient);
        let agreement = gradient.clone().sign() * previous.sign();
        let (same, opposite) = (agreement.clone().step(), (-agreement.clone()).step());
        let neither = -agreement.square().plus(-1.0);
        let factor = same.times(longer) + opposite.clone().times(shorter) + neither;
        let size = (size.plus(scalars.start) * factor).at_least(least).at_most(most);
        let gradient = gradient * -opposite.plus(-1.0);
        (parameter - gradient.clone().sign() * size.clone().times(scalars.moves), [gradient, size])
    }
}
