//! Finite differences: what lies before a parameter's first use is evaluated once, what lies behind it once a perturbation.

use super::{Problem, Solution};
use crate::Interrupt;
use crate::Result;
use crate::program::{Plan, Retention, ValueId, forward};
use crate::tensor::{DType, Tensor};

pub(super) fn solve(problem: Problem<'_>, central: bool, interrupt: &Interrupt) -> Result<Solution> {
    let mut problem = problem;
    let leaves = std::mem::take(&mut problem.leaves);
    let run = forward(
        problem.program,
        problem.plan,
        leaves,
        &mut problem.context,
        problem.noise,
        Retention::Everything,
        interrupt,
    )?;
    let weight = problem.weight.to_f64();
    let base = total(run.output(problem.loss), &weight);
    let mut gradients = vec![None; run.values.len()];
    for id in (0..problem.wanted.len()).filter(|&id| problem.wanted[id]) {
        let plan = problem.plan.downstream(problem.program, id);
        let mut differences = Differences { problem: &mut problem, values: &run.values, plan, weight: &weight, id };
        gradients[id] = Some(differences.of_parameter(base, central, interrupt)?);
    }
    Ok(Solution { outputs: run.values, gradients })
}

struct Differences<'a, 'p> {
    problem: &'a mut Problem<'p>,
    values: &'a [Option<Tensor>],
    plan: Plan,
    weight: &'a [f64],
    id: ValueId,
}

impl Differences<'_, '_> {
    fn of_parameter(&mut self, base: f64, central: bool, interrupt: &Interrupt) -> Result<Tensor> {
        let parameter = self.values[self.id].clone().expect("a parameter is known");
        let (shape, dtype) = (parameter.shape(), parameter.dtype());
        let mut values = parameter.to_f64();
        let mut slopes = Vec::with_capacity(values.len());
        for element in 0..values.len() {
            let value = values[element];
            let step = step_size(value, dtype, central);
            // The step that was really taken, after rounding to the parameter's type.
            let above = rounded(value + step, dtype);
            let below = if central { rounded(value - step, dtype) } else { value };
            values[element] = above;
            let upper = self.loss_at(&values, &shape, dtype, interrupt)?;
            let lower = if central {
                values[element] = below;
                self.loss_at(&values, &shape, dtype, interrupt)?
            } else {
                base
            };
            values[element] = value;
            slopes.push((upper - lower) / (above - below));
        }
        Ok(Tensor::from_f64(slopes, &shape, dtype, &self.problem.context.device))
    }

    fn loss_at(&mut self, values: &[f64], shape: &[usize], dtype: DType, interrupt: &Interrupt) -> Result<f64> {
        let problem = &mut *self.problem;
        let mut leaves = self.values.to_vec();
        leaves[self.id] = Some(Tensor::from_f64(values.to_vec(), shape, dtype, &problem.context.device));
        let context = &mut problem.context;
        let retention = Retention::Release;
        let run = forward(problem.program, &self.plan, leaves, context, problem.noise, retention, interrupt)?;
        Ok(total(run.output(problem.loss), self.weight))
    }
}

/// The step that balances rounding against curvature: `ε^(1/3)` for central differences, `ε^(1/2)` for one-sided ones,
/// ε being what the loss resolves; SEMANTICS gives 1e-6 in float64 and 1e-2 in float32 for central differences.
fn step_size(value: f64, dtype: DType, central: bool) -> f64 {
    let step = match (dtype, central) {
        (DType::F64, true) => 1e-6,
        (DType::F64, false) => 1e-7,
        (_, true) => 1e-2,
        (_, false) => 1e-3,
    };
    step * value.abs().max(1.0)
}

fn rounded(value: f64, dtype: DType) -> f64 {
    if dtype == DType::F64 { value } else { f64::from(value as f32) }
}

fn total(loss: &Tensor, weight: &[f64]) -> f64 {
    loss.to_f64().iter().zip(weight).map(|(loss, weight)| loss * weight).sum()
}
