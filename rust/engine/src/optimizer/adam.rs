//! Adam, AMSGrad and AdamW.

use serde::{Deserialize, Serialize};

use super::{Elementwise, Formula, Hyperparameters, Rule, Step};
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
    /// `1 - lr·weight_decay` if decoupled, else 1.
    shrink: f64,
    /// `weight_decay` if coupled, else 0.
    coupled: f64,
    betas: [f64; 2],
    /// `1 / √(1 - b2^t)`.
    root_correction: f64,
    /// `lr / (1 - b1^t)`.
    rate: f64,
    eps: f64,
}

impl Moments {
    fn scalars(&self, step: &Step) -> Scalars {
        let decay = step.weight_decay;
        let [beta1, beta2] = self.adam.betas;
        let correction = |beta: f64| 1.0 - beta.powf(step.number as f64);
        Scalars {
            shrink: if self.decoupled { 1.0 - step.learning_rate * decay } else { 1.0 },
            coupled: if self.decoupled { 0.0 } else { decay },
            betas: self.adam.betas,
            root_correction: correction(beta2).sqrt().recip(),
            rate: step.learning_rate / correction(beta1),
            eps: self.adam.eps,
        }
    }
}

/// The decayed parameter and the new moments.
#[inline(always)]
fn decay_and_average<N: Number>(scalars: &Scalars, parameter: N, gradient: N, m: N, v: N) -> (N, N, N) {
    let [beta1, beta2] = scalars.betas;
    let gradient = gradient + parameter.clone().times(scalars.coupled);
    let m = m.times(beta1) + gradient.clone().times(1.0 - beta1);
    let v = v.times(beta2) + gradient.square().times(1.0 - beta2);
    (parameter.times(scalars.shrink), m, v)
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
