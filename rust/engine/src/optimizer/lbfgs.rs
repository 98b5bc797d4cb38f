//! L-BFGS with a strong-Wolfe line search: whole-batch updates that evaluate loss and gradient several times.

use serde::{Deserialize, Serialize};

use super::wolfe::{self, Sample};
use super::{Change, Hyperparameters, Rule, Slot, Step, Target, dot, sum_squares};
use crate::tensor::Tensor;
use crate::{Number, Result};

/// `d = -H·g` with `H` from the last `history_size` pairs of steps and gradient changes; `p += t·d`, up to `max_iter` times.
///
/// `t` starts at the learning rate (in the first iteration at `lr·min(1, 1/‖g‖₁)`) and is searched for until the strong Wolfe
/// conditions hold (`c1` 1e-4, `c2` 0.9), or taken as it is if `line_search_fn` is `None`. An update ends early when
/// `max |g| <= tolerance_grad`, when step or loss change by less than `tolerance_change`, or after `max_eval` evaluations
/// (5/4 of `max_iter` if not given). Weight decay is part of the loss: `weight_decay/2·‖p‖²`.
/// Source: Nocedal 1980, Liu and Nocedal 1989, Nocedal and Wright 2006 (Algorithms 3.5, 3.6, 7.4) in PyTorch's form, defaults
/// too but the line search; a point whose loss or gradient is not finite is never stepped to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lbfgs {
    max_iter: usize,
    max_eval: Option<usize>,
    tolerance_grad: f64,
    tolerance_change: f64,
    history_size: usize,
    line_search_fn: Option<LineSearch>,
    weight_decay: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LineSearch {
    StrongWolfe,
}

impl Default for Lbfgs {
    fn default() -> Self {
        Self {
            max_iter: 20,
            max_eval: None,
            tolerance_grad: 1e-7,
            tolerance_change: 1e-9,
            history_size: 100,
            line_search_fn: Some(LineSearch::StrongWolfe),
            weight_decay: 0.0,
        }
    }
}

impl Hyperparameters for Lbfgs {
    const LEARNING_RATE: f64 = 1.0;

    fn rule(self) -> Box<dyn Rule> {
        Box::new(self)
    }
}

impl Rule for Lbfgs {
    fn state(&self, _: &Target) -> Vec<Slot> {
        Vec::new()
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn update(&self, _: &Target, _: &mut Tensor, _: Tensor, _: &mut [Tensor], _: &Step) -> Change {
        unreachable!("a solver makes the updates")
    }

    fn solver(&self) -> Option<&Lbfgs> {
        Some(self)
    }
}

/// Loss and gradient at a point.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub loss: f64,
    pub gradient: Tensor,
}

impl Value {
    fn is_finite(&self) -> bool {
        self.loss.is_finite() && sum_squares(&self.gradient).is_finite()
    }
}

/// What is known of the curvature: a step, and how the gradient changed over it.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub step: Tensor,
    pub change: Tensor,
    /// The inverse of their product.
    pub inverse: f64,
}

/// What an update leaves for the next one, over all parameters in one vector.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub iterations: u64,
    /// The oldest first.
    pub pairs: Vec<Pair>,
    /// `s·y / y·y` of the last pair.
    pub scale: f64,
    /// The last direction, and the gradient that it was found from; `None` before the first iteration.
    pub last: Option<Last>,
}

/// The last iteration.
#[derive(Clone, Debug)]
pub(crate) struct Last {
    pub direction: Tensor,
    pub gradient: Tensor,
    /// The length of the step along the direction.
    pub length: f64,
}

type Evaluate<'a> = dyn FnMut(&Tensor) -> Result<Value> + 'a;

impl Lbfgs {
    /// One update from `point`, where the loss is `start`; returns the new point.
    pub(crate) fn minimise(
        &self,
        memory: &mut Memory,
        mut point: Tensor,
        start: Value,
        learning_rate: f64,
        evaluate: &mut Evaluate<'_>,
    ) -> Result<Tensor> {
        let most = self.max_eval.unwrap_or(self.max_iter * 5 / 4);
        let (mut value, mut evaluations) = (start, 1);
        if learning_rate == 0.0 || greatest(&value.gradient) <= self.tolerance_grad {
            return Ok(point);
        }
        for iteration in 1..=self.max_iter {
            let direction = self.direction(memory, &value.gradient);
            let slope = dot(&value.gradient, &direction);
            let first = memory.iterations == 1;
            let shorter = if first { total(&value.gradient).recip().min(1.0) } else { 1.0 };
            let length = learning_rate * shorter;
            let mut last = Last { direction, gradient: value.gradient.clone(), length };
            if slope.is_nan() || slope > -self.tolerance_change {
                memory.last = Some(last);
                break;
            }
            let before = value.loss;
            let ends = iteration == self.max_iter;
            let moved = match self.line_search_fn {
                Some(LineSearch::StrongWolfe) => {
                    let tries = most.saturating_sub(evaluations);
                    self.search(&point, &value, slope, &last, tries, evaluate)?
                }
                None => fixed(&point, &last, ends, evaluate)?,
            };
            evaluations += moved.evaluations;
            last.length = moved.length;
            let change = greatest(&last.direction) * last.length.abs();
            point = moved.point;
            memory.last = Some(last);
            let Some(found) = moved.value else { break };
            value = found;
            let settled = greatest(&value.gradient) <= self.tolerance_grad
                || change <= self.tolerance_change
                || (value.loss - before).abs() < self.tolerance_change;
            if ends || evaluations >= most || settled {
                break;
            }
        }
        Ok(point)
    }

    /// `-H·g`, after the last step has entered the history.
    fn direction(&self, memory: &mut Memory, gradient: &Tensor) -> Tensor {
        memory.iterations += 1;
        let Some(last) = memory.last.take() else {
            memory.scale = 1.0;
            return -gradient.clone();
        };
        let change = gradient.clone() - last.gradient;
        let step = last.direction.times(last.length);
        let product = dot(&change, &step);
        if product > 1e-10 {
            if memory.pairs.len() == self.history_size {
                memory.pairs.remove(0);
            }
            memory.scale = product / dot(&change, &change);
            memory.pairs.push(Pair { step, change, inverse: product.recip() });
        }
        two_loops(memory, gradient)
    }

    fn search(
        &self,
        point: &Tensor,
        value: &Value,
        slope: f64,
        last: &Last,
        tries: usize,
        evaluate: &mut Evaluate<'_>,
    ) -> Result<Moved> {
        let direction = &last.direction;
        let start = Sample { length: 0.0, loss: value.loss, slope, gradient: value.gradient.clone() };
        let mut evaluations = 0;
        let mut sample = |length: f64| {
            evaluations += 1;
            let found = evaluate(&along(point, direction, length))?;
            // What is not finite is higher than anything, so that the search turns back.
            let loss = if found.is_finite() { found.loss } else { f64::INFINITY };
            let slope = dot(&found.gradient, direction);
            Ok(Sample { length, loss, slope, gradient: found.gradient })
        };
        let smallest = self.tolerance_change / greatest(direction);
        let best = wolfe::search(start, last.length, smallest, tries, &mut sample)?;
        Ok(Moved {
            point: if best.length == 0.0 { point.clone() } else { along(point, direction, best.length) },
            length: best.length,
            value: Some(Value { loss: best.loss, gradient: best.gradient }),
            evaluations,
        })
    }
}

/// Where a step led.
struct Moved {
    point: Tensor,
    length: f64,
    /// `None` if it ends the update: it was the last, or led to where the loss is not finite.
    value: Option<Value>,
    evaluations: usize,
}

/// A step of the given length; taken back if the loss is not finite there.
fn fixed(point: &Tensor, last: &Last, ends: bool, evaluate: &mut Evaluate<'_>) -> Result<Moved> {
    let moved = |point: Tensor, length: f64, value: Option<Value>| Moved {
        point,
        length,
        evaluations: 1,
        value: value.filter(|_| !ends),
    };
    let next = along(point, &last.direction, last.length);
    let value = evaluate(&next)?;
    if value.is_finite() {
        return Ok(moved(next, last.length, Some(value)));
    }
    Ok(moved(point.clone(), 0.0, None))
}

fn along(point: &Tensor, direction: &Tensor, length: f64) -> Tensor {
    point.clone() + direction.clone().times(length)
}

/// `-H·g` from the history (Nocedal and Wright, Algorithm 7.4).
fn two_loops(memory: &Memory, gradient: &Tensor) -> Tensor {
    let mut direction = -gradient.clone();
    let mut factors = Vec::with_capacity(memory.pairs.len());
    for pair in memory.pairs.iter().rev() {
        let factor = dot(&pair.step, &direction) * pair.inverse;
        direction = direction - pair.change.clone().times(factor);
        factors.push(factor);
    }
    direction = direction.times(memory.scale);
    for (pair, factor) in memory.pairs.iter().zip(factors.into_iter().rev()) {
        let back = dot(&pair.change, &direction) * pair.inverse;
        direction = direction + pair.step.clone().times(factor - back);
    }
    direction
}

/// The greatest absolute value.
fn greatest(vector: &Tensor) -> f64 {
    if vector.is_empty() { 0.0 } else { vector.clone().abs().max_axis(0).scalar() }
}

/// The sum of the absolute values.
fn total(vector: &Tensor) -> f64 {
    vector.clone().abs().sum_axis(0).scalar()
}
