//! One update of one parameter, for the benches.

use std::hint::black_box;
use std::time::{Duration, Instant};

use burnish_engine::optimizer::{Rule, Step, Target, rule};
use burnish_engine::program::Role;
use burnish_engine::{DType, Device, Tensor};

/// An optimizer at work on one parameter.
pub struct Update {
    rule: Box<dyn Rule>,
    target: Target,
    pub parameter: Tensor,
    gradient: Tensor,
    pub state: Vec<Tensor>,
    step: Step,
}

impl Update {
    /// Rules that look at matrices get one.
    pub fn new(name: &str, elements: usize) -> Self {
        let shape = if matches!(name, "adafactor" | "muon") { matrix(elements) } else { vec![elements] };
        // Plain SGD keeps nothing: its momentum is what is worth measuring.
        let numbers = if name == "sgd" { serde_json::json!({"momentum": 0.9}) } else { serde_json::json!({}) };
        let rule = rule(name, numbers).expect("a known optimizer");
        let target = Target { shape, role: Role::Kernel, hidden: true };
        let filled = |shape: &[usize], value: f64| Tensor::full(shape, value, DType::F32, &Device::cpu());
        Self {
            state: rule.state(&target).iter().map(|slot| filled(&slot.shape, 0.0)).collect(),
            parameter: filled(&target.shape, 0.5),
            gradient: filled(&target.shape, 0.01),
            rule,
            target,
            step: Step { number: 0, learning_rate: 1e-3, weight_decay: 0.0, gradient_scale: 1.0 },
        }
    }

    /// How long one update takes.
    pub fn run(&mut self) -> Duration {
        self.step.number += 1;
        let gradient = self.gradient.clone();
        let start = Instant::now();
        black_box(self.rule.update(&self.target, &mut self.parameter, gradient, &mut self.state, &self.step));
        start.elapsed()
    }
}

/// Two lengths of the same product, as near to each other as thousands allow.
fn matrix(elements: usize) -> Vec<usize> {
    let rows = (1..=elements.isqrt()).rev().find(|rows| elements.is_multiple_of(*rows)).expect("1 divides");
    vec![rows, elements / rows]
}
