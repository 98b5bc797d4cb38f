//! NAdam: Adam with Nesterov's momentum.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Decay, Elementwise, Formula, Hyperparameters, Rule, Step, average, seen};
use crate::Number;

/// `p -= lr·[(1-mu_t)·g/(1-Πmu) + mu_{t+1}·m/(1-Πmu·mu_{t+1})]/(√(v/(1-b2^t)) + eps)`, `mu_t = b1·(1 - 0.5·0.96^(t·psi))`.
///
/// `m` and `v` are Adam's moments, `psi` is `momentum_decay`. Weight decay is coupled, or AdamW's if `decoupled_weight_decay`.
/// Source: Dozat 2016 in PyTorch's form, defaults too.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct NAdam {
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    momentum_decay: f64,
    decoupled_weight_decay: bool,
}

impl Default for NAdam {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0, momentum_decay: 4e-3, decoupled_weight_decay: false }
    }
}

impl Hyperparameters for NAdam {
    const LEARNING_RATE: f64 = 2e-3;

    fn rule(self) -> Box<dyn Rule> {
        Box::new(Elementwise::<_, 2>(Nesterov { nadam: self, products: Mutex::default() }))
    }
}

#[derive(Debug)]
struct Nesterov {
    nadam: NAdam,
    /// `mu_1·…·mu_t` for t = 1, 2, …, multiplied in this order, so that a resumed run finds the same bits.
    products: Mutex<Vec<f64>>,
}

impl Nesterov {
    fn mu(&self, t: u64) -> f64 {
        self.nadam.betas[0] * (1.0 - 0.5 * 0.96f64.powf(t as f64 * self.nadam.momentum_decay))
    }

    /// `mu_1·…·mu_t`; 0 after some thousand factors, when what is left of it is long below the last bit of 1.
    fn product(&self, t: u64) -> f64 {
        let mut products = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        while (products.len() as u64) < t {
            let last = products.last().copied().unwrap_or(1.0);
            if last < f64::MIN_POSITIVE {
                return 0.0;
            }
            let next = products.len() as u64 + 1;
            products.push(last * self.mu(next));
        }
        products[t as usize - 1]
    }
}

#[derive(Clone, Copy, Debug)]
struct Scalars {
    decay: Decay,
    betas: [f64; 2],
    /// `1 / √(1 - b2^t)`.
    root_correction: f64,
    /// What the gradient and the first moment are multiplied by.
    rates: [f64; 2],
    eps: f64,
}

impl Formula<2> for Nesterov {
    const STATE: [&'static str; 2] = ["first_moment", "second_moment"];
    type Scalars = Scalars;

    fn scalars(&self, step: &Step) -> Scalars {
        let NAdam { betas, eps, decoupled_weight_decay, .. } = self.nadam;
        let (mu, next, product) = (self.mu(step.number), self.mu(step.number + 1), self.product(step.number));
        let rates = [(1.0 - mu) / (1.0 - product), next / (1.0 - product * next)];
        Scalars {
            decay: Decay::new(step, decoupled_weight_decay),
            betas,
            root_correction: seen(betas[1], step.number).sqrt().recip(),
            rates: rates.map(|rate| step.learning_rate * rate),
            eps,
        }
    }

    fn weight_decay(&self) -> f64 {
        self.nadam.weight_decay
    }

    #[inline(always)]
    fn apply<N: Number>(scalars: &Scalars, parameter: N, gradient: N, [m, v]: [N; 2]) -> (N, [N; 2]) {
        let ([beta1, beta2], [of_gradient, of_moment]) = (scalars.betas, scalars.rates);
        let (parameter, gradient) = scalars.decay.apply(parameter, gradient);
        let m = average(m, gradient.clone(), beta1);
        let v = average(v, gradient.clone().square(), beta2);
        let ahead = gradient.times(of_gradient) + m.clone().times(of_moment);
        let root = v.clone().sqrt().times(scalars.root_correction).plus(scalars.eps);
        (parameter - ahead / root, [m, v])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_is_that_of_all_factors_whatever_is_asked_first() {
        let rule = || Nesterov { nadam: NAdam::default(), products: Mutex::default() };
        let (asked, resumed) = (rule(), rule());
        let plain = |t: u64| (1..=t).map(|t| asked.mu(t)).product::<f64>();
        for t in [1, 2, 3, 10, 9, 400] {
            assert_eq!(asked.product(t), plain(t));
        }
        assert_eq!(asked.product(2_000_000), 0.0);
        assert_eq!(resumed.product(400).to_bits(), asked.product(400).to_bits());
        assert!(asked.products.lock().expect("no panic").len() < 20_000);
    }
}
