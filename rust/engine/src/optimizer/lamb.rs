//! LAMB: Adam with a step per layer in proportion to the layer.

use serde::{Deserialize, Serialize};

use super::{Change, Hyperparameters, Pass, Rule, Slot, Squares, Step, Target, average, run, seen, slots, squares};
use crate::Number;
use crate::tensor::Tensor;

/// `r = m_hat/(√v_hat + eps) + weight_decay·p`; `p -= lr·(‖p‖/‖r‖)·r`, the ratio 1 if either norm is 0.
///
/// `m_hat` and `v_hat` are Adam's corrected moments; norms are those of one parameter.
/// Source: You et al. 2020 (Algorithm 2); the learning rate is Keras's default, no weight decay.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Lamb {
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
}

impl Default for Lamb {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-6, weight_decay: 0.0 }
    }
}

impl Hyperparameters for Lamb {
    const LEARNING_RATE: f64 = 1e-3;

    fn rule(self) -> Box<dyn Rule> {
        Box::new(self)
    }
}

/// The first pass: new moments, and the squares of parameter and direction.
#[derive(Clone, Copy, Debug)]
struct Moments {
    betas: [f64; 2],
    /// `1/(1-b1^t)`, `1/√(1-b2^t)`.
    corrections: [f64; 2],
    eps: f64,
    weight_decay: f64,
}

impl Moments {
    #[inline(always)]
    fn direction<N: Number>(&self, parameter: N, m: N, v: N) -> N {
        let root = v.sqrt().times(self.corrections[1]).plus(self.eps);
        m.times(self.corrections[0]) / root + parameter.times(self.weight_decay)
    }
}

impl Pass<2, 2> for Moments {
    const WRITES_PARAMETER: bool = false;

    #[inline(always)]
    fn apply<N: Number>(&self, parameter: N, gradient: N, [m, v]: [N; 2]) -> (N, [N; 2], [N; 2]) {
        let m = average(m, gradient.clone(), self.betas[0]);
        let v = average(v, gradient.square(), self.betas[1]);
        let direction = self.direction(parameter.clone(), m.clone(), v.clone());
        (parameter.clone(), [m, v], [parameter.square(), direction.square()])
    }
}

/// The second pass: the step, its length known.
#[derive(Clone, Copy)]
struct Descent {
    moments: Moments,
    rate: f64,
}

impl Pass<2, 2> for Descent {
    const WRITES_STATE: bool = false;

    #[inline(always)]
    fn apply<N: Number>(&self, parameter: N, _: N, [m, v]: [N; 2]) -> (N, [N; 2], [N; 2]) {
        let direction = self.moments.direction(parameter.clone(), m.clone(), v.clone());
        let after = parameter.clone() - direction.times(self.rate);
        (after.clone(), [m, v], squares(parameter, after))
    }
}

impl Rule for Lamb {
    fn state(&self, target: &Target) -> Vec<Slot> {
        slots(["first_moment", "second_moment"], target)
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn update(
        &self,
        _: &Target,
        parameter: &mut Tensor,
        gradient: Tensor,
        state: &mut [Tensor],
        step: &Step,
    ) -> Change {
        let [beta1, beta2] = self.betas;
        let moments = Moments {
            betas: self.betas,
            corrections: [seen(beta1, step.number).recip(), seen(beta2, step.number).sqrt().recip()],
            eps: self.eps,
            weight_decay: step.weight_decay,
        };
        let [of_parameter, of_direction] =
            run(&moments, parameter, &gradient, state, step.gradient_scale).map(f64::sqrt);
        let trust = if of_parameter > 0.0 && of_direction > 0.0 { of_parameter / of_direction } else { 1.0 };
        let descent = Descent { moments, rate: step.learning_rate * trust };
        Squares::of(run(&descent, parameter, &gradient, state, step.gradient_scale)).into()
    }
}
