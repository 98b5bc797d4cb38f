//! Noise, a function of the node's stream and the element's index alone: the same on every device.

use std::sync::Arc;

use serde::Deserialize;
use smallvec::smallvec;

use super::binary::{multiply, product};
use super::{Arithmetic, Context, Entry, Evaluation, Gradients, Keeps, Kept, Operation, Reach, Tensors, entry};
use crate::Device;
use crate::cpu;
use crate::memory::Block;
use crate::program::{Kind, Type};
use crate::random::Stream;
use crate::tensor::{DType, Real, Tensor};

/// The lines of the table.
pub(super) const ENTRIES: &[Entry] = &[
    entry::<Dropout>("dropout", 1, Some(1)),
    entry::<RandomNormalLike>("random_normal_like", 1, Some(1)),
    entry::<RandomUniformLike>("random_uniform_like", 1, Some(1)),
];

/// 0 with probability `rate`, else `x / (1 - rate)` (Srivastava et al., 2014).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dropout {
    rate: f64,
}

impl Dropout {
    /// Factors of an even number of elements from `offset` (even) on, two of each 64 random bits.
    #[inline(always)]
    fn fill<E: Real>(&self, stream: Stream, offset: usize, factors: &mut [E]) {
        let threshold = (self.rate * 4_294_967_296.0) as u64;
        let (zero, scale) = (E::default(), E::from_f64(1.0 / (1.0 - self.rate)));
        let factor = |bits: u64| if bits >= threshold { scale } else { zero };
        for (index, pair) in factors.chunks_mut(2).enumerate() {
            let bits = stream.bits((offset / 2 + index) as u64);
            for (half, value) in pair.iter_mut().enumerate() {
                *value = factor(bits >> (32 * half) & 0xffff_ffff);
            }
        }
    }

    fn factors<E: Real>(&self, stream: Stream, count: usize) -> Block<E> {
        let mut factors = Block::<E>::uninitialised(count);
        // Pieces have even lengths but for the last.
        cpu::for_pieces(&mut factors, |offset, piece| cpu::vectorised!(self.fill(stream, offset, piece)));
        factors
    }

    /// The factor of each element of `x`.
    fn factors_like(&self, x: &Tensor, stream: Stream) -> Tensor {
        dropout_factors(self.rate, stream, &x.shape(), x.dtype(), &x.device())
    }
}

/// 0 with probability `rate`, else `1 / (1 - rate)`.
pub(super) fn dropout_factors(rate: f64, stream: Stream, shape: &[usize], dtype: DType, device: &Device) -> Tensor {
    let (dropout, count) = (Dropout { rate }, shape.iter().product());
    match dtype {
        DType::F64 => Tensor::placed(dropout.factors::<f64>(stream, count), shape, device),
        _ => Tensor::placed(dropout.factors::<f32>(stream, count), shape, device).cast(dtype),
    }
}

impl Operation for Dropout {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        if !(0.0..1.0).contains(&self.rate) {
            return Err(format!("rate must be at least 0 and below 1, got {}", self.rate));
        }
        float(inputs)
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Any
    }

    fn evaluate(&self, mut inputs: Tensors, context: &Context) -> Evaluation {
        let x = inputs.remove(0);
        let factors = self.factors_like(&x, context.stream);
        Evaluation { value: multiply(x, factors.clone()), saved: smallvec![factors] }
    }

    fn drawn(&self, inputs: &[Tensor], context: &Context) -> Option<(Arc<dyn Operation>, Tensor)> {
        Some((product(), self.factors_like(&inputs[0], context.stream)))
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }

    fn gradient(&self, mut kept: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
        smallvec![Some(multiply(gradient, kept.saved.remove(0)))]
    }
}

fn float(inputs: &[&Type]) -> Result<Type, String> {
    inputs[0].expect_kind(Kind::Float)?;
    Ok(inputs[0].clone())
}

/// A tensor whose element `i` is `draw(i)`.
fn drawn(x: &Tensor, draw: impl Fn(u64) -> f64 + Sync) -> Tensor {
    let (shape, dtype, device): (_, _, Device) = (x.shape(), x.dtype(), x.device());
    let mut values = Block::<f64>::uninitialised(x.len());
    cpu::for_pieces(&mut values, |offset, piece| {
        for (index, value) in piece.iter_mut().enumerate() {
            *value = draw((offset + index) as u64);
        }
    });
    Tensor::from_f64(&values, &shape, dtype, &device)
}

/// Standard normal numbers in the shape of `x`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RandomNormalLike {}

/// Numbers in [0, 1) in the shape of `x`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RandomUniformLike {}

/// The bits of a number below 1 that each type holds: more would round up to 1.
fn digits(dtype: DType) -> u32 {
    match dtype {
        DType::BF16 => 8,
        DType::F16 => 11,
        DType::F32 => 24,
        _ => 53,
    }
}

impl Operation for RandomNormalLike {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        float(inputs)
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Moves
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Nothing
    }

    fn evaluate(&self, inputs: Tensors, context: &Context) -> Evaluation {
        drawn(&inputs[0], |index| context.stream.normal(index)).into()
    }

    fn differentiable(&self) -> bool {
        false
    }
}

impl Operation for RandomUniformLike {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        float(inputs)
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Moves
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Nothing
    }

    fn evaluate(&self, inputs: Tensors, context: &Context) -> Evaluation {
        let digits = digits(inputs[0].dtype());
        let unit = 1.0 / (1u64 << digits) as f64;
        drawn(&inputs[0], |index| (context.stream.bits(index) >> (64 - digits)) as f64 * unit).into()
    }

    fn differentiable(&self) -> bool {
        false
    }
}
