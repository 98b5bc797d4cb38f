//! Extremes and where they are.

use std::fmt::Debug;
use std::marker::PhantomData;

use burn_backend::Element;
use serde::Deserialize;

use super::sums::{LANES, sum};
use super::{Reduced, Rule, collect, expect_number, last_axis, over_groups, position, reduced, rows};
use crate::cpu;
use crate::memory::Block;
use crate::number::{is_nan, prefer};
use crate::ops::binary::{divide, multiply};
use crate::ops::{Context, Evaluation, Keeps, Operation, Reach, Tensors};
use crate::program::{Dim, Kind, Type, show};
use crate::tensor::{Comparison, DType, Real, Tensor};

/// An extreme: the order, and what tensors of any device offer.
pub(super) trait Extreme: Debug + Send + Sync {
    /// Whether `a` goes before `b`.
    fn beats<E: PartialOrd>(a: E, b: E) -> bool;
    fn axis(x: Tensor, axis: usize) -> Tensor;
    fn position(x: Tensor, axis: usize) -> Tensor;
}

/// The greatest; NaN if any is.
#[derive(Debug)]
pub(super) struct Max;

impl Extreme for Max {
    #[inline(always)]
    fn beats<E: PartialOrd>(a: E, b: E) -> bool {
        a > b
    }
    fn axis(x: Tensor, axis: usize) -> Tensor {
        x.max_axis(axis)
    }
    fn position(x: Tensor, axis: usize) -> Tensor {
        x.argmax(axis)
    }
}

/// The least; NaN if any is.
#[derive(Debug)]
pub(super) struct Min;

impl Extreme for Min {
    #[inline(always)]
    fn beats<E: PartialOrd>(a: E, b: E) -> bool {
        a < b
    }
    fn axis(x: Tensor, axis: usize) -> Tensor {
        x.min_axis(axis)
    }
    fn position(x: Tensor, axis: usize) -> Tensor {
        x.argmin(axis)
    }
}

impl<X: Extreme> Rule for X {
    const INTS: bool = true;
    const SOME: bool = true;
    const KEEPS: Keeps = Keeps::BOTH;

    fn value(x: Tensor, axes: &[usize]) -> Tensor {
        match x.dtype() {
            DType::F32 if x.is_cpu() => over_groups::<f32>(x, axes, extremes::<f32, X>),
            DType::F64 if x.is_cpu() => over_groups::<f64>(x, axes, extremes::<f64, X>),
            DType::I32 if x.is_cpu() => over_groups::<i32>(x, axes, extremes::<i32, X>),
            DType::I32 | DType::I64 => axes.iter().fold(x, |x, &axis| X::axis(x, axis)),
            _ => extreme_tensors::<X>(x, axes),
        }
    }

    /// Ties share equally, as in PyTorch's `amax`.
    fn gradient(kept: Reduced, gradient: Tensor, axes: &[usize]) -> Tensor {
        let (x, y) = (kept.input.expect("kept"), kept.output.expect("kept"));
        let dtype = x.dtype();
        let ties = x.compare(Comparison::Equal, y).cast(dtype);
        let count = sum(ties.clone(), axes);
        multiply(ties, divide(gradient, count))
    }
}

/// Backends disagree on NaN, so that it is found apart.
fn extreme_tensors<X: Extreme>(x: Tensor, axes: &[usize]) -> Tensor {
    let nan = x.clone().compare(Comparison::NotEqual, x.clone()).cast(x.dtype());
    let nans = nan.sum_axes(axes);
    let y = axes.iter().fold(x, |x, &axis| X::axis(x, axis));
    y.filled(nans.compare_with(Comparison::Greater, 0.0), f64::NAN)
}

/// The better of two; NaN before all.
#[inline(always)]
fn pick<E: PartialOrd + Copy, X: Extreme>(a: E, b: E) -> E {
    prefer(X::beats(a, b), a, b)
}

/// The greatest of a row, NaN if any is.
#[inline(always)]
pub(crate) fn row_max<E: Real>(row: &[E]) -> E {
    row_extreme::<E, Max>(row)
}

#[inline(always)]
fn row_extreme<E: PartialOrd + Copy, X: Extreme>(row: &[E]) -> E {
    let mut lanes = [row[0]; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = pick::<E, X>(*lane, value);
        }
    }
    let first = if row.len() < LANES { &lanes[..1] } else { &lanes[..] };
    first.iter().chain(rest).copied().fold(row[0], pick::<E, X>)
}

/// `out[i, k]` is the extreme of `x[i, :, k]`, of at least one element.
fn extremes<E, X>(x: &[E], [outer, count, inner]: [usize; 3]) -> Block<E>
where
    E: PartialOrd + bytemuck::Pod + Send + Sync,
    X: Extreme,
{
    if inner == 1 {
        return collect(outer, x.len(), |index| cpu::vectorised!(row_extreme::<E, X>(&x[index * count..][..count])));
    }
    rows(outer, inner, x.len(), |index, best| {
        let block = &x[index * count * inner..][..count * inner];
        best.copy_from_slice(&block[..inner]);
        cpu::vectorised!({
            for row in block.chunks_exact(inner.max(1)) {
                for (best, &value) in best.iter_mut().zip(row) {
                    *best = pick::<E, X>(*best, value);
                }
            }
        });
    })
}

/// The index of the first extreme along `axis` (default the last), which goes away; that of the first NaN if there is one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound = "")]
pub(super) struct Position<X> {
    #[serde(default = "last_axis")]
    axis: i64,
    #[serde(skip)]
    extreme: PhantomData<X>,
}

impl<X: Extreme> Operation for Position<X> {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let x = inputs[0];
        expect_number(x, true)?;
        let axis = x.axis(self.axis)?;
        let length = x.shape[axis].count;
        if length == 0 || length > i32::MAX as usize {
            return Err(format!("axis {axis} must have 1 to 2^31 - 1 elements, got shape {}", show(&x.shape)));
        }
        Ok(Type { kind: Kind::Int, shape: reduced(&x.shape, &[axis], false, Dim::known(1)) })
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        let x = inputs.remove(0);
        let axis = position(self.axis, x.rank());
        let shape = reduced(&x.shape(), &[axis], false, 1);
        match x.dtype() {
            DType::F32 if x.is_cpu() => positions_cpu::<f32, X>(x, axis),
            DType::F64 if x.is_cpu() => positions_cpu::<f64, X>(x, axis),
            DType::I32 if x.is_cpu() => positions_cpu::<i32, X>(x, axis),
            _ => X::position(x, axis).cast(DType::I32),
        }
        .reshape(&shape)
        .into()
    }

    fn differentiable(&self) -> bool {
        false
    }
}

pub(super) fn positions_cpu<E, X>(x: Tensor, axis: usize) -> Tensor
where
    E: Element + bytemuck::Pod + PartialOrd + Send + Sync,
    X: Extreme,
{
    let x = x.contiguous::<E>();
    let mut shape = x.shape();
    let inner = shape[axis + 1..].iter().product::<usize>();
    let count = std::mem::replace(&mut shape[axis], 1);
    let values = x.elements::<E>();
    let first = |index: usize| {
        let start = index / inner * count * inner + index % inner;
        first_extreme::<E, X>(values[start..].iter().step_by(inner).take(count).copied())
    };
    Tensor::from_block(collect(shape.iter().product(), values.len(), first), &shape)
}

fn first_extreme<E: PartialOrd + Copy, X: Extreme>(values: impl Iterator<Item = E>) -> i32 {
    let better = |a: E, b: E| X::beats(a, b) || is_nan(a) && !is_nan(b);
    let keep_first = |best: (usize, E), next: (usize, E)| if better(next.1, best.1) { next } else { best };
    values.enumerate().reduce(keep_first).map_or(0, |(index, _)| index as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_show_nan_and_find_the_first() {
        let mut values = vec![1.0f32; 200];
        values[150] = f32::NAN;
        values[160] = f32::NAN;
        let x = Tensor::from_vec(values, &[200]);
        assert!(Max::value(x.clone(), &[0]).scalar().is_nan());
        assert!(Min::value(x.clone(), &[0]).scalar().is_nan());
        assert_eq!(positions_cpu::<f32, Max>(x, 0).scalar(), 150.0);
    }
}
