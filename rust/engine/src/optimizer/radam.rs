//! RAdam: Adam that waits with its second moment until that is known well enough.

use serde::{Deserialize, Serialize};

use super::{Decay, Elementwise, Formula, Hyperparameters, Rule, Step, average, seen};
use crate::Number;

/// `p -= lr·m_hat·r·√(1-b2^t)/(√v + eps)` if `rho_t > 5`, else `p -= lr·m_hat`, with Adam's moments, `m_hat = m/(1-b1^t)`.
///
/// `rho_inf = 2/(1-b2) - 1`, `rho_t = rho_inf - 2t·b2^t/(1-b2^t)`,
/// `r² = (rho_t-4)(rho_t-2)·rho_inf / ((rho_inf-4)(rho_inf-2)·rho_t)`. Weight decay is coupled, or AdamW's if
/// `decoupled_weight_decay`. Source: Liu et al. 2020 in PyTorch's form, defaults too.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RAdam {
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    decoupled_weight_decay: bool,
}

impl Default for RAdam {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0, decoupled_weight_decay: false }
    }
}

impl Hyperparameters for RAdam {
    const LEARNING_RATE: f64 = 1e-3;

    fn rule(self) -> Box<dyn Rule> {
        Box::new(Elementwise::<_, 2>(self))
    }
}

impl RAdam {
    /// `r·√(1-b2^t)`, if the variance of the second moment is known by now.
    fn rectification(&self, t: u64) -> Option<f64> {
        let beta2 = self.betas[1];
        let seen = seen(beta2, t);
        let limit = 2.0 / (1.0 - beta2) - 1.0;
        let length = limit - 2.0 * t as f64 * beta2.powf(t as f64) / seen;
        (length > 5.0).then(|| {
            let known = (length - 4.0) * (length - 2.0) * limit;
            (known / ((limit - 4.0) * (limit - 2.0) * length) * seen).sqrt()
        })
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Scalars {
    decay: Decay,
    betas: [f64; 2],
    /// `lr / (1 - b1^t)`, rectified if it is.
    rate: f64,
    rectified: bool,
    eps: f64,
}

impl Formula<2> for RAdam {
    const STATE: [&'static str; 2] = ["first_moment", "second_moment"];
    type Scalars = Scalars;

    fn scalars(&self, step: &Step) -> Scalars {
        let rectification = self.rectification(step.number);
        Scalars {
            decay: Decay::new(step, self.decoupled_weight_decay),
            betas: self.betas,
            rate: step.learning_rate / seen(self.betas[0], step.number) * rectification.unwrap_or(1.0),
            rectified: rectification.is_some(),
            eps: self.eps,
        }
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    #[inline(always)]
    fn apply<N: Number>(scalars: &Scalars, parameter: N, gradient: N, [m, v]: [N; 2]) -> (N, [N; 2]) {
        let [beta1, beta2] = scalars.betas;
        let (parameter, gradient) = scalars.decay.apply(parameter, gradient);
        let m = average(m, gradient.clone(), beta1);
        let v = average(v, gradient.square(), beta2);
        let change = m.clone().times(scalars.rate);
        let change = if scalars.rectified { change / v.clone().sqrt().plus(scalars.eps) } else { change };
        (parameter - change, [m, v])
    }
}
