//! Reverse mode over the static program: shapes, order and lifetimes are known, so no tape is kept.

use super::{Problem, Solution};
use crate::program::{Evaluator, Retention};
use crate::{Interrupt, Result};

pub(super) fn solve(problem: Problem<'_>, interrupt: &Interrupt) -> Result<Solution> {
    let Problem { program, plan, leaves, loss, weight, reverse, mut context, noise, .. } = problem;
    let mut evaluator = Evaluator::new(program, &mut context, noise, interrupt);
    let mut run = evaluator.forward(plan, leaves, Retention::Gradients(reverse))?;
    let outputs = std::mem::take(&mut run.values);
    let (gradients, squares) = evaluator.backward(plan, run, [(loss, weight)], reverse)?;
    Ok(Solution { outputs, gradients, squares })
}
