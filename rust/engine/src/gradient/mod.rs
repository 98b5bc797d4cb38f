//! Gradients of a program's loss: reverse mode, or finite differences, behind one interface.

mod autodiff;
mod finite_difference;
mod tape;

pub use tape::{Variable, apply};

use self::finite_difference::Sides;
use crate::ops::Context;
use crate::program::{Leaves, Measured, Plan, Reverse, ValueId};
use crate::random::Stream;
use crate::tensor::Tensor;
use crate::{Error, Interrupt, Program, Result};

/// How gradients are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Reverse-mode automatic differentiation.
    #[default]
    Autodiff,
    /// Central differences: two losses a parameter.
    Numerical,
    /// One-sided differences: one loss a parameter, and one more.
    NumericalBatch,
    /// One-sided differences upwards by the step of central ones.
    Above,
    /// One-sided differences downwards by the step of central ones: where they are not those upwards, there is a kink.
    Below,
}

impl Method {
    /// The method of a name.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "autodiff" => Ok(Self::Autodiff),
            "numerical" => Ok(Self::Numerical),
            "numerical_batch" => Ok(Self::NumericalBatch),
            "above" => Ok(Self::Above),
            "below" => Ok(Self::Below),
            _ => Err(Error::value(format!(
                "grad_method must be 'autodiff', 'numerical' or 'numerical_batch', got {name:?}"
            ))),
        }
    }
}

/// One run of a program whose loss is to be differentiated.
pub(crate) struct Problem<'a> {
    /// The program.
    pub program: &'a Program,
    /// The nodes that run; its outputs include the loss.
    pub plan: &'a Plan,
    /// What is known before.
    pub leaves: Leaves,
    /// The loss of each sample.
    pub loss: ValueId,
    /// The factor of each sample's loss in the sum that is differentiated, of the loss's shape.
    pub weight: Tensor,
    /// The parameters whose gradients are wanted, by place.
    pub wanted: &'a [bool],
    /// How reverse mode goes back over the plan.
    pub reverse: &'a Reverse,
    /// Device, type and random streams.
    pub context: Context,
    /// The random stream of this step.
    pub noise: Stream,
}

/// Outputs and gradients of one run, by place.
pub(crate) struct Solution {
    /// The plan's outputs.
    pub outputs: Leaves,
    /// The gradients of the wanted parameters; `None` where the loss does not depend on one.
    pub gradients: Leaves,
    /// The sums of squares of those that were measured on the way; may be empty.
    pub squares: Measured,
}

/// Differentiates by a method.
pub(crate) fn solve(mut problem: Problem<'_>, method: Method, interrupt: &Interrupt) -> Result<Solution> {
    if method != Method::Autodiff {
        // The difference of two losses that were rounded to half precision has no digits.
        problem.context.half = None;
    }
    match method {
        Method::Autodiff => autodiff::solve(problem, interrupt),
        Method::Numerical => finite_difference::solve(problem, Sides::Both, interrupt),
        Method::NumericalBatch => finite_difference::solve(problem, Sides::One, interrupt),
        Method::Above => finite_difference::solve(problem, Sides::Above, interrupt),
        Method::Below => finite_difference::solve(problem, Sides::Below, interrupt),
    }
}
