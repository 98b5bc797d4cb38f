//! Finite differences at the cost of the part of the program that a parameter reaches.
//!
//! What lies before a parameter's first use is evaluated once. Many perturbed copies are then run together: the copies of
//! a value stand stacked along the batch, and while only one column of a value differs, only that column is computed
//! (see [`suffix::Rule`]). What cannot be stacked, as statistics over the batch, is evaluated for one copy after the other.

mod columns;
mod copies;
mod suffix;
#[cfg(test)]
mod tests;

use std::ops::Range;

use rayon::prelude::*;

use self::copies::{Copies, Copy};
use self::suffix::Suffix;
use super::{Problem, Solution};
use crate::program::{Leaves, Measured, Plan, Retention, forward};
use crate::tensor::{DType, Real, Tensor};
use crate::{Interrupt, Result};

/// Which losses are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sides {
    /// Above and below: central differences.
    Both,
    /// Above and at the parameter, by the step that suits this.
    One,
    /// Above and at the parameter, by the step of central differences.
    Above,
    /// At the parameter and below, by the step of central differences.
    Below,
}

/// Elements of the widest value of a chunk of copies on the `cpu` device: what stays in a core's own cache.
const CACHED_ELEMENTS: usize = 1 << 15;
/// The same on other devices, where many copies fill the device.
const DEVICE_ELEMENTS: usize = 1 << 22;

pub(super) fn solve(mut problem: Problem<'_>, sides: Sides, interrupt: &Interrupt) -> Result<Solution> {
    let leaves = std::mem::take(&mut problem.leaves);
    let (program, context) = (problem.program, &mut problem.context);
    let run = forward(program, problem.plan, leaves, context, problem.noise, Retention::Everything, interrupt)?;
    let weight = problem.weight.to_f64();
    let plan = Plan::new(program, &[problem.loss]);
    let mut gradients = Leaves::filled(run.values.len(), || None);
    for id in (0..problem.wanted.len()).filter(|&id| problem.wanted[id] && plan.needs(id)) {
        if let Some(suffix) = Suffix::new(&problem, &plan, &run.values, id) {
            let differences = Differences { suffix: &suffix, weight: &weight, sides, interrupt };
            gradients[id] = Some(differences.of_parameter()?);
        }
    }
    Ok(Solution { outputs: run.values, gradients, squares: Measured::default() })
}

struct Differences<'a> {
    suffix: &'a Suffix<'a>,
    weight: &'a [f64],
    sides: Sides,
    interrupt: &'a Interrupt,
}

impl Differences<'_> {
    fn of_parameter(&self) -> Result<Tensor> {
        let parameter = &self.suffix.parameter;
        let (shape, dtype) = (parameter.shape(), parameter.dtype());
        let values = parameter.to_f64();
        let slopes = match dtype {
            DType::F64 => self.slopes::<f64>(&values)?,
            _ => self.slopes::<f32>(&values)?,
        };
        Ok(Tensor::from_f64(&slopes, &shape, dtype, &parameter.device()))
    }

    fn slopes<E: Real>(&self, values: &[f64]) -> Result<Vec<f64>> {
        let on_cpu = self.suffix.parameter.is_cpu();
        let room = if on_cpu { CACHED_ELEMENTS } else { DEVICE_ELEMENTS };
        let copies = if self.sides == Sides::Both { 2 } else { 1 };
        // Fixed by the program and the batch alone, so that the bits do not depend on the number of threads.
        let length = (room / (copies * self.suffix.elements_per_copy())).max(1);
        let chunk = |index: usize| {
            let elements = index * length..values.len().min((index + 1) * length);
            self.chunk::<E>(elements, values)
        };
        let chunks = 0..values.len().div_ceil(length);
        let parts: Vec<Vec<f64>> = match on_cpu {
            true => chunks.into_par_iter().map(chunk).collect::<Result<_>>()?,
            false => chunks.map(chunk).collect::<Result<_>>()?,
        };
        Ok(parts.concat())
    }

    fn chunk<E: Real>(&self, elements: Range<usize>, values: &[f64]) -> Result<Vec<f64>> {
        let ends: Vec<[f64; 2]> = values[elements.clone()].iter().map(|&value| self.ends(value)).collect();
        let copies: Vec<Copy> = elements
            .clone()
            .zip(&ends)
            .flat_map(|(element, ends)| ends.map(|end| Copy { element, value: end, step: end - values[element] }))
            .filter(|copy| copy.step != 0.0)
            .collect();
        let mut changes = Copies::<E>::new(self.suffix, &copies).changes(self.weight, self.interrupt)?.into_iter();
        let mut change = |step: f64| if step == 0.0 { 0.0 } else { changes.next().expect("one for each copy") };
        let start = self.unless_finite();
        let slope = |(&value, [below, above]): (&f64, [f64; 2])| {
            let (lower, upper) = (change(below - value), change(above - value));
            start + (upper - lower) / (above - below)
        };
        Ok(values[elements].iter().zip(ends).map(slope).collect())
    }

    /// 0, or NaN where the loss of the base run is no number to compare with.
    fn unless_finite(&self) -> f64 {
        let counted = self.suffix.losses.iter().zip(self.weight).filter(|(_, weight)| **weight != 0.0);
        let loss: f64 = counted.map(|(loss, weight)| loss * weight).sum();
        if loss.is_finite() { 0.0 } else { f64::NAN }
    }

    /// The ends of the step that is really taken, after rounding to the parameter's type.
    fn ends(&self, value: f64) -> [f64; 2] {
        let dtype = self.suffix.parameter.dtype();
        let step = step_size(value, dtype, self.sides != Sides::One);
        let ends = [value - step, value + step].map(|end| rounded(end, dtype));
        match self.sides {
            Sides::Both => ends,
            Sides::One | Sides::Above => [value, ends[1]],
            Sides::Below => [ends[0], value],
        }
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
