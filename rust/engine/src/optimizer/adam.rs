//! Adam, AMSGrad and AdamW.

use serde::{Deserialize, Serialize};

use super::{Decay, Elementwise, Formula, Hyperparameters, Rule, Step, average, seen};
use crate::Number;

/// `p -= lr/(1-b1^t) · m / (√v/√(1-b2^t) + eps)` with `m = b1·m + (1-b1)·g`, `v = b2·v + (1-b2)·g²`.
///
/// AMSGrad divides by the greatest raw `v` so far. Weight decay is coupled: `g += weight_decay·p` first.
/// Source: Kingma and Ba 2015 (Algorithm 1), Reddi et al. 2018, in PyTorch's form, defaults too.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Adam {
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    amsgrad: bool,
}

impl Default for Adam {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0, amsgrad: false }
    }
}

impl Hyperparameters for Adam {
    const LEARNING_RATE: f64 = 1e-3;

    fn rule(self) -> Box<dyn Rule> {
        moments(self, false)
    }
}

/// [`Adam`] with decoupled weight decay: `p *= 1 - lr·weight_decay` first.
///
/// Source: Loshchilov and Hutter 2019 in PyTorch's form, defaults too.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AdamW {
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    amsgrad: bool,
}

impl AdamW {
    /// Without AMSGrad.
    pub fn new(betas: [f64; 2], eps: f64, weight_decay: f64) -> Self {
        Self { betas, eps, weight_decay, amsgrad: false }
    }
}

impl Default for AdamW {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01, amsgrad: false }
    }
}

impl Hyperparameters for AdamW {
    const LEARNING_RATE: f64 = 1e-3;

    fn rule(self) -> Box<dyn Rule> {
        let Self { betas, eps, weight_decay, amsgrad } = self;
        moments(Adam { betas, eps, weight_decay, amsgrad }, true)
    }
}

/// [`Adam`]'s rule, or AdamW's if the weight decay is decoupled.
fn moments(adam: Adam, decoupled: bool) -> Box<dyn Rule> {
    if adam.amsgrad {
        return Box::new(Elementwise::<_, 3>(Moments { adam, decoupled }));
    }
    Box::new(Elementwise::<_, 2>(Moments { adam, decoupled }))
}

#[derive(Clone, Copy, Debug)]
struct Moments {
    adam: Adam,
    decoupled: bool,
}

#[derive(Clone, Copy, Debug)]
struct Scalars {
    decay: Decay,
    betas: [f64; 2],
    /// `1 / √(1 - b2^t)`.
    root_correction: f64,
    /// `lr / (1 - b1^t)`.
    rate: f64,
    eps: f64,
}

impl Moments {
    fn scalars(&self, step: &Step) -> Scalars {
        let [beta1, beta2] = self.adam.betas;
        Scalars {
            decay: Decay::new(step, self.decoupled),
            betas: self.adam.betas,
            root_correction: seen(beta2, step.number).sqrt().recip(),
            rate: step.learning_rate / seen(beta1, step.number),
            eps: self.adam.eps,
        }
    }
}

/// The decayed parameter and the new moments.
#[inline(always)]
fn decay_and_average<N: Number>(scalars: &Scalars, parameter: N, gradient: N, m: N, v: N) -> (N, N, N) {
    let [beta1, beta2] = scalars.betas;
    let (parameter, gradient) = scalars.decay.apply(parameter, gradient);
    let m = average(m, gradient.clone(), beta1);
    (parameter, m, average(v, gradient.square(), beta2))
}

#[inline(always)]
fn change<N: Number>(scalars: &Scalars, m: N, v: N) -> N {
    m.times(scalars.rate) / v.sqrt().times(scalars.root_correction).plus(scalars.eps)
}

impl Formula<2> for Moments {
    const STATE: [&'static str; 2] = ["first_moment", "second_moment"];
    type Scalars = Scalars;

    fn scalars(&self, step: &Step) -> Scalars {
        self.scalars(step)
    }

    fn weight_decay(&self) -> f64 {
        self.adam.weight_decay
    }

    #[inline(always)]
    fn apply<N: Number>(scalars: &Scalars, parameter: N, gradient: N, [m, v]: [N; 2]) -> (N, [N; 2]) {
        let (parameter, m, v) = decay_and_average(scalars, parameter, gradient, m, v);
        (parameter - change(scalars, m.clone(), v.clone()), [m, v])
    }
}

impl Formula<3> for Moments {
    const STATE: [&'static str; 3] = ["first_moment", "second_moment", "greatest_second_moment"];
    type Scalars = Scalars;

    fn scalars(&self, step: &Step) -> Scalars {
        self.scalars(step)
    }

    fn weight_decay(&self) -> f64 {
        self.adam.weight_decay
    }

    #[inline(always)]
    fn apply<N: Number>(scalars: &Scalars, parameter: N, gradient: N, [m, v, greatest]: [N; 3]) -> (N, [N; 3]) {
        let (parameter, m, v) = decay_and_average(scalars, parameter, gradient, m, v);
        let greatest = greatest.greater_of(v.clone());
        (parameter - change(scalars, m.clone(), greatest.clone()), [m, v, greatest])
    }
}
