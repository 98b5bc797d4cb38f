//! Softmax and its logarithm, stable for any finite numbers.

use serde::Deserialize;
use smallvec::smallvec;

use super::binary::multiply;
use super::reduction::{chunk_total, dot, in_float32, last_axis, logsumexp, position, row_max, softmax, sum, widen};
use super::{Context, Entry, Evaluation, Gradients, Keeps, Kept, Operation, Reach, Tensors, entry};
use crate::Number;
use crate::cpu;
use crate::program::{Kind, Type, show};
use crate::tensor::{DType, Real, Tensor};

/// The lines of the table.
pub(super) const ENTRIES: &[Entry] =
    &[entry::<Softmax>("softmax", 1, Some(1)), entry::<LogSoftmax>("log_softmax", 1, Some(1))];

/// `e^x / Σ e^x` along `axis` (default the last).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Softmax {
    #[serde(default = "last_axis")]
    axis: i64,
}

/// `x - ln Σ e^x` along `axis` (default the last).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogSoftmax {
    #[serde(default = "last_axis")]
    axis: i64,
}

fn infer(x: &Type, axis: i64) -> Result<Type, String> {
    x.expect_kind(Kind::Float)?;
    let axis = x.axis(axis)?;
    if x.shape[axis].count == 0 {
        return Err(format!("axis {axis} must have elements, got shape {}", show(&x.shape)));
    }
    Ok(x.clone())
}

impl Operation for Softmax {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        infer(inputs[0], self.axis)
    }

    fn reach(&self, inputs: &[&Type]) -> Reach {
        if position(self.axis, inputs[0].rank()) == 0 { Reach::Everything } else { Reach::Sample }
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        let x = inputs.remove(0);
        let axis = position(self.axis, x.rank());
        match x.dtype() {
            DType::F32 if x.is_cpu() => map_rows::<f32>(x, axis, softmax_row),
            DType::F64 if x.is_cpu() => map_rows::<f64>(x, axis, softmax_row),
            _ => in_float32(x, |x| softmax(x, axis)),
        }
        .into()
    }

    fn keeps(&self) -> Keeps {
        Keeps::OUTPUT
    }

    /// `y · (g - Σ g·y)`
    fn gradient(&self, kept: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
        let y = kept.output().clone();
        let axis = position(self.axis, y.rank());
        let dtype = gradient.dtype();
        smallvec![Some(match dtype {
            DType::F32 if y.is_cpu() => zip_rows::<f32>(gradient, y, axis, softmax_slope),
            DType::F64 if y.is_cpu() => zip_rows::<f64>(gradient, y, axis, softmax_slope),
            _ => {
                let (y, gradient) = (widen(y), widen(gradient));
                let mean = sum(multiply(y.clone(), gradient.clone()), &[axis]);
                (y * (gradient - mean)).cast(dtype)
            }
        })]
    }
}

impl Operation for LogSoftmax {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        infer(inputs[0], self.axis)
    }

    fn reach(&self, inputs: &[&Type]) -> Reach {
        if position(self.axis, inputs[0].rank()) == 0 { Reach::Everything } else { Reach::Sample }
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        let x = inputs.remove(0);
        let axis = position(self.axis, x.rank());
        match x.dtype() {
            DType::F32 if x.is_cpu() => map_rows::<f32>(x, axis, log_softmax_row),
            DType::F64 if x.is_cpu() => map_rows::<f64>(x, axis, log_softmax_row),
            _ => in_float32(x, |x| x.clone() - logsumexp(x, axis)),
        }
        .into()
    }

    fn keeps(&self) -> Keeps {
        Keeps::OUTPUT
    }

    /// `g - e^y · Σ g`
    fn gradient(&self, kept: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
        let y = kept.output().clone();
        let axis = position(self.axis, y.rank());
        let dtype = gradient.dtype();
        smallvec![Some(match dtype {
            DType::F32 if y.is_cpu() => zip_rows::<f32>(gradient, y, axis, log_softmax_slope),
            DType::F64 if y.is_cpu() => zip_rows::<f64>(gradient, y, axis, log_softmax_slope),
            _ => {
                let (y, gradient) = (widen(y), widen(gradient));
                let total = sum(gradient.clone(), &[axis]);
                (gradient - y.exp() * total).cast(dtype)
            }
        })]
    }
}

#[inline(always)]
fn softmax_row<E: Real>(row: &mut [E]) {
    let greatest = row_max(row);
    row.iter_mut().for_each(|value| *value = (*value - greatest).exp());
    let scale = E::from_f64(1.0 / chunk_total(row));
    row.iter_mut().for_each(|value| *value = *value * scale);
}

#[inline(always)]
fn softmax_slope<E: Real>(gradient: &mut [E], y: &[E]) {
    let mean = E::from_f64(dot(gradient, y));
    for (gradient, &y) in gradient.iter_mut().zip(y) {
        *gradient = y * (*gradient - mean);
    }
}

#[inline(always)]
fn log_softmax_row<E: Real>(row: &mut [E]) {
    // The greatest is taken off first: it may be large where the logarithm is small.
    let greatest = row_max(row);
    row.iter_mut().for_each(|value| *value = *value - greatest);
    let total = E::from_f64(row.iter().map(|value| value.exp().to_f64()).sum::<f64>().ln());
    row.iter_mut().for_each(|value| *value = *value - total);
}

#[inline(always)]
fn log_softmax_slope<E: Real>(gradient: &mut [E], y: &[E]) {
    let total = E::from_f64(chunk_total(gradient));
    for (gradient, &y) in gradient.iter_mut().zip(y) {
        *gradient = *gradient - y.exp() * total;
    }
}

/// `ln Σ e^x` of a row.
#[inline(always)]
pub(super) fn row_logsumexp<E: Real>(row: &[E]) -> E {
    let greatest = row_max(row);
    if greatest.abs() == E::from_f64(f64::INFINITY) {
        return greatest;
    }
    let total: f64 = row.iter().map(|&value| (value - greatest).exp().to_f64()).sum();
    greatest + E::from_f64(total.ln())
}

/// Swaps an axis with the last one.
pub(super) fn swap_last(x: Tensor, axis: usize) -> Tensor {
    let last = x.rank() - 1;
    if axis == last {
        return x;
    }
    let mut axes: Vec<usize> = (0..=last).collect();
    axes.swap(axis, last);
    x.permute(&axes)
}

/// Changes each row along an axis, in place if nobody else holds the storage.
fn map_rows<E: Real>(x: Tensor, axis: usize, body: impl Fn(&mut [E]) + Sync) -> Tensor {
    let mut x = swap_last(x, axis).unique::<E>();
    let width = x.shape().last().copied().unwrap_or(1).max(1);
    let values = x.elements_mut::<E>();
    cpu::for_rows(values, width, |_, rows| {
        cpu::vectorised!(rows.chunks_exact_mut(width).for_each(&body));
    });
    swap_last(x, axis)
}

/// [`map_rows`] beside the rows of another tensor of the same shape.
fn zip_rows<E: Real>(x: Tensor, y: Tensor, axis: usize, body: impl Fn(&mut [E], &[E]) + Sync) -> Tensor {
    let mut x = swap_last(x, axis).unique::<E>();
    let y = swap_last(y, axis).contiguous::<E>();
    let width = x.shape().last().copied().unwrap_or(1).max(1);
    let y = y.elements::<E>();
    cpu::for_rows(x.elements_mut::<E>(), width, |first, rows| {
        cpu::vectorised!({
            for (x, y) in rows.chunks_exact_mut(width).zip(y[first * width..].chunks_exact(width)) {
                body(x, y);
            }
        });
    });
    swap_last(x, axis)
}
