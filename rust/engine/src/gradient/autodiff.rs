//! Reverse mode over the static program: shapes, order and lifetimes are known, so no tape is kept.

use super::{Problem, Solution};
use crate::program::{Retention, backward, forward};
use crate::{Interrupt, Result};

pub(super) fn solve(problem: Problem<'_>, interrupt: &Interrupt) -> Result<Solution> {
    let Problem { program, plan, leaves, loss, weight, wanted, mut context, noise } = problem;
    let reached = plan.reached(program, wanted);
    let retention = Retention::Gradients(&reached);
    let mut run = forward(program, plan, leaves, &mut context, noise, retention, interrupt)?;
    let outputs = std::mem::take(&mut run.values);
    let gradients = backward(program, plan, run, vec![(loss, weight)], &reached, interrupt)?;
    Ok(Solution { outputs, gradients })
}
