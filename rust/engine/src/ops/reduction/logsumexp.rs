//! The logarithm of a sum of powers, and what shares them.

use serde::Deserialize;
use smallvec::smallvec;

use super::{collect, in_float32, last_axis, position, reduced, sum};
use crate::Number;
use crate::cpu;
use crate::ops::binary::multiply;
use crate::ops::softmax::{row_logsumexp, swap_last};
use crate::ops::{Context, Evaluation, Gradients, Keeps, Kept, Operation, Reach, Tensors};
use crate::program::{Dim, Kind, Type, show};
use crate::tensor::{Comparison, DType, Real, Tensor};

/// `ln Σ e^x` along `axis` (default the last), never overflowing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogSumExp {
    #[serde(default = "last_axis")]
    axis: i64,
    #[serde(default)]
    keepdims: bool,
}

impl Operation for LogSumExp {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let x = inputs[0];
        x.expect_kind(Kind::Float)?;
        let axis = x.axis(self.axis)?;
        if x.shape[axis].count == 0 {
            return Err(format!("axis {axis} must have elements, got shape {}", show(&x.shape)));
        }
        Ok(Type::float(reduced(&x.shape, &[axis], self.keepdims, Dim::known(1))))
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        let x = inputs.remove(0);
        let axis = position(self.axis, x.rank());
        let shape = reduced(&x.shape(), &[axis], self.keepdims, 1);
        match x.dtype() {
            DType::F32 if x.is_cpu() => logsumexp_cpu::<f32>(x, axis),
            DType::F64 if x.is_cpu() => logsumexp_cpu::<f64>(x, axis),
            _ => in_float32(x, |x| logsumexp(x, axis)),
        }
        .reshape(&shape)
        .into()
    }

    fn keeps(&self) -> Keeps {
        Keeps::BOTH
    }

    /// `g · e^(x - y)`
    fn gradient(&self, mut kept: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
        let x = kept.inputs.remove(0);
        let shape = reduced(&x.shape(), &[position(self.axis, x.rank())], true, 1);
        let y = finite_or_zero(kept.output().clone()).reshape(&shape);
        smallvec![Some(multiply((x - y).exp(), gradient.reshape(&shape)))]
    }
}

/// What may be subtracted from a row: its greatest element. (What that is where one is NaN does not matter: they stay NaN.)
fn shift(x: Tensor, axis: usize) -> Tensor {
    finite_or_zero(x.max_axis(axis))
}

/// 0 where infinite: what may be subtracted from infinities without making NaN.
fn finite_or_zero(x: Tensor) -> Tensor {
    let infinite = x.clone().abs().compare_with(Comparison::Equal, f64::INFINITY);
    x.filled(infinite, 0.0)
}

/// [`LogSumExp`] over tensors; the axis stays with length 1.
pub(in super::super) fn logsumexp(x: Tensor, axis: usize) -> Tensor {
    let greatest = shift(x.clone(), axis);
    sum((x - greatest.clone()).exp(), &[axis]).log() + greatest
}

/// `e^x / Σ e^x` over tensors. (`e^(x - ln Σ e^x)` would lose as many digits as the logarithm has before the point.)
pub(in super::super) fn softmax(x: Tensor, axis: usize) -> Tensor {
    let greatest = shift(x.clone(), axis);
    let powers = (x - greatest).exp();
    let total = sum(powers.clone(), &[axis]);
    powers / total
}

fn logsumexp_cpu<E: Real>(x: Tensor, axis: usize) -> Tensor {
    let x = swap_last(x, axis).contiguous::<E>();
    let mut shape = x.shape();
    let width = std::mem::replace(shape.last_mut().expect("an axis"), 1);
    let values = x.elements::<E>();
    let rows = values.len() / width.max(1);
    let value = |row: usize| cpu::vectorised!(row_logsumexp(&values[row * width..][..width]));
    swap_last(Tensor::from_block(collect(rows, values.len(), value), &shape), axis)
}
