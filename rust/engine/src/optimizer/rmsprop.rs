//! RMSprop, centered and with momentum.

use serde::{Deserialize, Serialize};

use super::{Decay, Elementwise, Formula, Hyperparameters, Rule, Step, average};
use crate::Number;

/// `v = alpha·v + (1-alpha)·g²`; `p -= lr·g/(√v + eps)`, eps outside the root.
///
/// Centered: the root is of `v - mean²`, `mean = alpha·mean + (1-alpha)·g`. Momentum: `buf = momentum·buf + g/(…)`,
/// `p -= lr·buf`. Weight decay is coupled: `g += weight_decay·p` first.
/// Source: Hinton's lecture 6e, Graves 2013 (centered), in PyTorch's form, defaults too.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RmsProp {
    alpha: f64,
    eps: f64,
    weight_decay: f64,
    momentum: f64,
    centered: bool,
}

impl Default for RmsProp {
    fn default() -> Self {
        Self { alpha: 0.99, eps: 1e-8, weight_decay: 0.0, momentum: 0.0, centered: false }
    }
}

impl Hyperparameters for RmsProp {
    const LEARNING_RATE: f64 = 0.01;

    fn rule(self) -> Box<dyn Rule> {
        match (self.centered, self.momentum != 0.0) {
            (false, false) => Box::new(Elementwise::<_, 1>(Variant::<false, false>(self))),
            (false, true) => Box::new(Elementwise::<_, 2>(Variant::<false, true>(self))),
            (true, false) => Box::new(Elementwise::<_, 2>(Variant::<true, false>(self))),
            (true, true) => Box::new(Elementwise::<_, 3>(Variant::<true, true>(self))),
        }
    }
}

#[derive(Debug)]
struct Variant<const CENTERED: bool, const MOMENTUM: bool>(RmsProp);

#[derive(Clone, Copy, Debug)]
struct Scalars {
    hyperparameters: RmsProp,
    rate: f64,
    decay: Decay,
}

fn scalars(hyperparameters: RmsProp, step: &Step) -> Scalars {
    Scalars { hyperparameters, rate: step.learning_rate, decay: Decay::coupled(step) }
}

/// The new square average, and the gradient divided by the root of `square - offset`.
#[inline(always)]
fn normalise<N: Number>(scalars: &Scalars, gradient: N, square: N, mean: Option<&N>) -> (N, N) {
    let RmsProp { alpha, eps, .. } = scalars.hyperparameters;
    let square = average(square, gradient.clone().square(), alpha);
    let variance = match mean {
        Some(mean) => square.clone() - mean.clone().square(),
        None => square.clone(),
    };
    (square, gradient / variance.sqrt().plus(eps))
}

#[inline(always)]
fn build_up<N: Number>(scalars: &Scalars, buffer: N, direction: N) -> N {
    buffer.times(scalars.hyperparameters.momentum) + direction
}

macro_rules! variant {
    ($count:literal, $centered:literal, $momentum:literal, $names:expr, |$s:ident, $p:ident, $g:ident, $state:pat_param| $body:expr) => {
        impl Formula<$count> for Variant<$centered, $momentum> {
            const STATE: [&'static str; $count] = $names;
            type Scalars = Scalars;

            fn scalars(&self, step: &Step) -> Scalars {
                scalars(self.0, step)
            }

            fn weight_decay(&self) -> f64 {
                self.0.weight_decay
            }

            #[inline(always)]
            fn apply<N: Number>($s: &Scalars, $p: N, gradient: N, $state: [N; $count]) -> (N, [N; $count]) {
                let ($p, $g) = $s.decay.apply($p, gradient);
                $body
            }
        }
    };
}

variant!(1, false, false, ["square_average"], |s, p, g, [square]| {
    let (square, direction) = normalise(s, g, square, None);
    (p - direction.times(s.rate), [square])
});
variant!(2, false, true, ["square_average", "momentum"], |s, p, g, [square, buffer]| {
    let (square, direction) = normalise(s, g, square, None);
    let buffer = build_up(s, buffer, direction);
    (p - buffer.clone().times(s.rate), [square, buffer])
});
variant!(2, true, false, ["square_average", "mean"], |s, p, g, [square, mean]| {
    let mean = average(mean, g.clone(), s.hyperparameters.alpha);
    let (square, direction) = normalise(s, g, square, Some(&mean));
    (p - direction.times(s.rate), [square, mean])
});
variant!(3, true, true, ["square_average", "mean", "momentum"], |s, p, g, [square, mean, buffer]| {
    let mean = average(mean, g.clone(), s.hyperparameters.alpha);
    let (square, direction) = normalise(s, g, square, Some(&mean));
    let buffer = build_up(s, buffer, direction);
    (p - buffer.clone().times(s.rate), [square, mean, buffer])
});
