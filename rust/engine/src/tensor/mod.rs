//! A tensor of any rank, type and device, over Burn's rank-free primitives.
//!
//! Shapes are checked before (by the operations' shape rules): here a wrong shape is a bug and panics.

mod arithmetic;
mod cpu;
mod data;
mod dense;
mod lengths;
mod narrow;
mod rows;
mod shaping;

pub use arithmetic::Comparison;
pub use burn_backend::Element;
pub use cpu::Real;
pub(crate) use cpu::Strides;
pub use data::DType;
pub use lengths::Lengths;
pub(crate) use rows::Rows;
pub(crate) use shaping::BRIEF;

use burn_backend::TensorMetadata;
use burn_dispatch::{BackendTensor, DispatchTensor, DispatchTensorKind};
use burn_flex::FlexTensor;

use self::dense::Dense;
use crate::Device;

/// A value on a device; clones share the storage.
#[derive(Clone, Debug)]
pub struct Tensor {
    values: Values,
    dtype: DType,
    /// Whether it has no axis: only the `cpu` device has such tensors, others hold one axis of length 1 instead.
    number: bool,
}

/// Where the values are.
#[derive(Clone, Debug)]
enum Values {
    /// In row-major order on the `cpu` device: what the kernels of this crate read and write.
    Dense(Dense),
    /// On the `cpu` device, zero but for some rows.
    Rows(Box<Rows>),
    /// Wherever and however Burn holds them.
    Burn(Box<DispatchTensor>),
}

impl Tensor {
    /// Wraps a Burn primitive.
    pub(crate) fn from_primitive(primitive: DispatchTensor) -> Self {
        let dtype = DType::from_burn(primitive.dtype());
        Self { values: Values::Burn(Box::new(primitive)), dtype, number: false }
    }

    fn from_dense(dense: Dense) -> Self {
        let dtype = DType::from_burn(dense.dtype());
        Self { values: Values::Dense(dense), dtype, number: false }
    }

    /// The same element without an axis.
    pub(crate) fn into_number(mut self) -> Self {
        if self.is_cpu() {
            return self.reshape(&[]);
        }
        self = self.reshape(&[1]);
        self.number = true;
        self
    }

    /// The Burn primitive.
    pub(crate) fn into_primitive(self) -> DispatchTensor {
        match self.values {
            Values::Dense(dense) => dense::primitive(dense.into_flex()),
            Values::Rows(rows) => rows.dense().into_primitive(),
            Values::Burn(primitive) => *primitive,
        }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The lengths of the axes.
    pub fn shape(&self) -> Lengths {
        match &self.values {
            _ if self.number => Lengths::default(),
            Values::Dense(dense) => dense.lengths().clone(),
            Values::Rows(rows) => rows.lengths().clone(),
            Values::Burn(primitive) => primitive.shape().as_slice().into(),
        }
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        match &self.values {
            _ if self.number => 0,
            Values::Dense(dense) => dense.lengths().len(),
            Values::Rows(rows) => rows.lengths().len(),
            Values::Burn(primitive) => primitive.shape().num_dims(),
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match &self.values {
            Values::Dense(dense) => dense.lengths().iter().product(),
            Values::Rows(rows) => rows.lengths().iter().product(),
            Values::Burn(primitive) => primitive.shape().num_elements(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The device that holds it.
    pub fn device(&self) -> Device {
        match &self.values {
            Values::Dense(_) | Values::Rows(_) => Device::cpu(),
            Values::Burn(primitive) => Device::of(primitive.device()),
        }
    }

    /// Whether it lives on the `cpu` device, whose storage the fused kernels read directly.
    pub(crate) fn is_cpu(&self) -> bool {
        match &self.values {
            Values::Dense(_) | Values::Rows(_) => true,
            Values::Burn(primitive) => flex(primitive).is_some(),
        }
    }
}

fn flex(primitive: &DispatchTensor) -> Option<&FlexTensor> {
    match &primitive.kind {
        DispatchTensorKind::Flex(
            BackendTensor::Float(tensor) | BackendTensor::Int(tensor) | BackendTensor::Bool(tensor),
        ) => Some(tensor),
        _ => None,
    }
}

fn flex_mut(primitive: &mut DispatchTensor) -> Option<&mut FlexTensor> {
    match &mut primitive.kind {
        DispatchTensorKind::Flex(
            BackendTensor::Float(tensor) | BackendTensor::Int(tensor) | BackendTensor::Bool(tensor),
        ) => Some(tensor),
        _ => None,
    }
}
