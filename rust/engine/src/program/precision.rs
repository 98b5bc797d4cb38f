//! Mixed precision: the one place where values are rounded to half precision and widened again.
//!
//! What an operation computes in, it says itself ([`Arithmetic`]). Between operations values have the type that they were
//! rounded to. Where half precision is storage alone (the `cpu` device, but for [`Operation::has_kernel`]) an operation gets its
//! inputs widened and its result rounded: the numbers are those of a processor that multiplies in half precision and sums in 32
//! bits.

use std::collections::HashMap;

use super::{Program, Source, ValueId};
use crate::ops::{Arithmetic, Gradients, Kept, Operation, Tensors};
use crate::tensor::{DType, Tensor};
use crate::{Device, Error, Result};

/// What a session computes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    #[default]
    Float32,
    /// 64 bits.
    Float64,
    /// 32 bits for parameters, state, sums, norms and losses; IEEE 754's 16 bits for products.
    MixedFloat16,
    /// The same with the 16 bits that have the range of 32.
    MixedBfloat16,
}

impl Precision {
    const ALL: [Self; 4] = [Self::Float32, Self::Float64, Self::MixedFloat16, Self::MixedBfloat16];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::MixedFloat16 => "mixed_float16",
            Self::MixedBfloat16 => "mixed_bfloat16",
        }
    }

    /// The precision of a name.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|precision| precision.name() == name)
            .ok_or_else(|| Error::value(format!("precision must be one of {}, got {name:?}", names(&Self::ALL))))
    }

    /// The type of parameters and of everything that trains them.
    pub fn master(self) -> DType {
        if self == Self::Float64 { DType::F64 } else { DType::F32 }
    }

    /// The type of products, where it is another.
    pub fn half(self) -> Option<DType> {
        match self {
            Self::MixedFloat16 => Some(DType::F16),
            Self::MixedBfloat16 => Some(DType::BF16),
            Self::Float32 | Self::Float64 => None,
        }
    }

    /// Refuses a device that lacks one of the types.
    pub fn check(self, device: &Device) -> Result<()> {
        let available = |precision: &Self| device.supports(precision.half().unwrap_or_else(|| precision.master()));
        if available(&self) {
            return Ok(());
        }
        let there: Vec<Self> = Self::ALL.into_iter().filter(available).collect();
        Err(Error::value(format!(
            "precision: {} is not available on device {:?}, which has {}; device 'cpu' has all",
            self.name(),
            device.name(),
            names(&there)
        )))
    }
}

fn names(precisions: &[Precision]) -> String {
    precisions.iter().map(|precision| precision.name()).collect::<Vec<_>>().join(", ")
}

impl From<DType> for Precision {
    fn from(dtype: DType) -> Self {
        if dtype == DType::F64 { Self::Float64 } else { Self::Float32 }
    }
}

/// An input of a node: its place, its value, and whether nobody needs it any more.
pub(super) type Operand = (ValueId, Tensor, bool);

/// The types of one evaluation under mixed precision.
#[derive(Debug)]
pub(super) struct Casts {
    /// What the operation computes in.
    compute: DType,
    /// What its result, and the gradients of its inputs, are rounded to.
    result: DType,
    /// The types in which the inputs came, to which their gradients go back.
    came: Vec<DType>,
}

impl Casts {
    fn new(program: &Program, operation: &dyn Operation, operands: &[Operand], half: DType) -> Self {
        let came: Vec<DType> = operands.iter().map(|(_, value, _)| value.dtype()).collect();
        let on_cpu = operands.iter().any(|(_, value, _)| value.is_cpu());
        // A number that stands in the program does not widen what it is applied to.
        let constant = |id: ValueId| matches!(program.values()[id].source, Source::Constant(_));
        let mut floats = operands.iter().filter(|(id, value, _)| value.dtype().is_float() && !constant(*id)).peekable();
        let all_half = floats.peek().is_some() && floats.all(|(_, value, _)| value.dtype() == half);
        let arithmetic = operation.arithmetic();
        let narrow = arithmetic == Arithmetic::Half || arithmetic != Arithmetic::Full && all_half;
        let result = if narrow { half } else { DType::F32 };
        let widened = on_cpu && arithmetic != Arithmetic::Moves && !operation.has_kernel(result);
        let compute = if widened { DType::F32 } else { result };
        Self { compute, result, came }
    }

    /// Inputs as the operation takes them.
    pub(super) fn inputs(&self, inputs: Tensors) -> Tensors {
        inputs.into_iter().map(|input| float_cast(input, self.compute)).collect()
    }

    /// A result as it is handed on.
    pub(super) fn output(&self, value: Tensor) -> Tensor {
        float_cast(value, self.result)
    }

    /// The gradients of the inputs, from the gradient of the output.
    pub(super) fn gradient(
        &self,
        operation: &dyn Operation,
        mut kept: Kept,
        gradient: Tensor,
        wanted: &[bool],
    ) -> Gradients {
        kept.inputs = self.inputs(kept.inputs);
        kept.output = kept.output.map(|output| float_cast(output, self.compute));
        let found = operation.gradient(kept, gradient.cast(self.compute), wanted);
        let back = |(gradient, &came): (Option<Tensor>, &DType)| {
            gradient.map(|gradient| gradient.cast(self.result).cast(came))
        };
        found.into_iter().zip(&self.came).map(back).collect()
    }
}

fn float_cast(value: Tensor, to: DType) -> Tensor {
    if value.dtype().is_float() { value.cast(to) } else { value }
}

/// Values rounded to half precision, each once however many operations read it.
#[derive(Debug, Default)]
pub(super) struct Rounding(HashMap<ValueId, Tensor>);

impl Rounding {
    /// Inputs as they are kept for the gradient, and the types of the evaluation.
    pub(super) fn inputs(
        &mut self,
        program: &Program,
        operation: &dyn Operation,
        operands: Vec<Operand>,
        half: DType,
    ) -> (Tensors, Casts) {
        let casts = Casts::new(program, operation, &operands, half);
        let rounds = operation.arithmetic() == Arithmetic::Half;
        let input = |(id, value, last): Operand| {
            if !rounds || value.dtype() == half || !value.dtype().is_float() {
                return value;
            }
            // A parameter is widened again at once, where it will be: there are fewer of them than of activations.
            let parameter = matches!(program.values()[id].source, Source::Parameter(_));
            let to = if parameter { casts.compute } else { half };
            self.rounded(id, last, || value.cast(half).cast(to))
        };
        (operands.into_iter().map(input).collect(), casts)
    }

    fn rounded(&mut self, id: ValueId, last: bool, round: impl FnOnce() -> Tensor) -> Tensor {
        match (self.0.remove(&id), last) {
            (Some(known), true) => known,
            (None, true) => round(),
            (known, false) => {
                let rounded = known.unwrap_or_else(round);
                self.0.insert(id, rounded.clone());
                rounded
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_say_what_they_lack() {
        for precision in Precision::ALL {
            assert_eq!(Precision::parse(precision.name()), Ok(precision));
            assert_eq!(precision.check(&Device::cpu()), Ok(()));
        }
        let refused = Precision::MixedFloat16.check(&Device::ndarray());
        let expected = "precision: mixed_float16 is not available on device \"ndarray\", which has float32, float64; \
                        device 'cpu' has all";
        assert_eq!(refused, Err(Error::value(expected)));
        assert!(matches!(Precision::parse("float16"), Err(Error::Value(text)) if text.contains("mixed_bfloat16")));
    }
}
