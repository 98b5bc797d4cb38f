//! LARS: momentum with a learning rate per layer in proportion to the layer.

use serde::{Deserialize, Serialize};

use super::{Change, Hyperparameters, Pass, Rule, Slot, Squares, Step, Target, run, slots, squares};
use crate::Number;
use crate::tensor::Tensor;

/// `local = coefficient·‖p‖/(‖g‖ + weight_decay·‖p‖)`; `buf = momentum·buf + local·(g + weight_decay·p)`; `p -= lr·buf`.
///
/// `local` is 1 if the norm of `p` or the divisor is 0; norms are those of one parameter. Source: You et al. 2017 (Algorithm 1)
/// with PyTorch's momentum (the paper has the learning rate in the buffer: the same while that is constant).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Lars {
    momentum: f64,
    trust_coefficient: f64,
    weight_decay: f64,
}

impl Default for Lars {
    fn default() -> Self {
        Self { momentum: 0.9, trust_coefficient: 1e-3, weight_decay: 0.0 }
    }
}

impl Hyperparameters for Lars {
    const LEARNING_RATE: f64 = 0.1;

    fn rule(self) -> Box<dyn Rule> {
        Box::new(self)
    }
}

/// The first pass: the squares of parameter and gradient.
#[derive(Clone, Copy)]
struct Norms;

impl Pass<1, 2> for Norms {
    const WRITES_PARAMETER: bool = false;
    const WRITES_STATE: bool = false;

    #[inline(always)]
    fn apply<N: Number>(&self, parameter: N, gradient: N, state: [N; 1]) -> (N, [N; 1], [N; 2]) {
        (parameter.clone(), state, [parameter.square(), gradient.square()])
    }
}

/// The second pass: the step.
#[derive(Clone, Copy)]
struct Descent {
    momentum: f64,
    local: f64,
    weight_decay: f64,
    rate: f64,
}

impl Pass<1, 2> for Descent {
    #[inline(always)]
    fn apply<N: Number>(&self, parameter: N, gradient: N, [buffer]: [N; 1]) -> (N, [N; 1], [N; 2]) {
        let gradient = gradient + parameter.clone().times(self.weight_decay);
        let buffer = buffer.times(self.momentum) + gradient.times(self.local);
        let after = parameter.clone() - buffer.clone().times(self.rate);
        (after.clone(), [buffer], squares(parameter, after))
    }
}

impl Rule for Lars {
    fn state(&self, target: &Target) -> Vec<Slot> {
        slots(["momentum"], target)
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
        let scale = step.gradient_scale;
        let [of_parameter, of_gradient] = run(&Norms, parameter, &gradient, state, scale).map(f64::sqrt);
        let divisor = of_gradient + step.weight_decay * of_parameter;
        let local = self.trust_coefficient * of_parameter / divisor;
        let descent = Descent {
            momentum: self.momentum,
            local: if of_parameter > 0.0 && divisor > 0.0 { local } else { 1.0 },
            weight_decay: step.weight_decay,
            rate: step.learning_rate,
        };
        Squares::of(run(&descent, parameter, &gradient, state, scale)).into()
    }
}
