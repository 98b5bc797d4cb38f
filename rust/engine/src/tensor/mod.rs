//! A tensor of any rank, type and device, over Burn's rank-free primitives.
//!
//! Shapes are checked before (by the operations' shape rules): here a wrong shape is a bug and panics.

mod arithmetic;
mod cpu;
mod data;
mod narrow;
mod shaping;

pub use arithmetic::Comparison;
pub use burn_backend::Element;
pub use cpu::Real;
pub use data::DType;

use burn_backend::TensorMetadata;
use burn_dispatch::{BackendTensor, DispatchTensor, DispatchTensorKind};

use crate::Device;

/// A value on a device; clones share the storage.
#[derive(Clone, Debug)]
pub struct Tensor {
    primitive: DispatchTensor,
    dtype: DType,
    /// Whether it has no axis: only Flex has such tensors, other backends hold one axis of length 1 instead.
    number: bool,
}

impl Tensor {
    /// Wraps a Burn primitive.
    pub(crate) fn from_primitive(primitive: DispatchTensor) -> Self {
        let dtype = DType::from_burn(primitive.dtype());
        Self { primitive, dtype, number: false }
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
        self.primitive
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The lengths of the axes.
    pub fn shape(&self) -> Vec<usize> {
        if self.number { Vec::new() } else { self.primitive.shape().as_slice().to_vec() }
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        if self.number { 0 } else { self.primitive.shape().num_dims() }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.primitive.shape().num_elements()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The device that holds it.
    pub fn device(&self) -> Device {
        Device::of(self.primitive.device())
    }

    /// Whether it lives on the `cpu` device, whose storage the fused kernels read directly.
    pub(crate) fn is_cpu(&self) -> bool {
        matches!(self.primitive.kind, DispatchTensorKind::Flex(_))
    }

    fn flex(&self) -> Option<&burn_flex::FlexTensor> {
        match &self.primitive.kind {
            DispatchTensorKind::Flex(
                BackendTensor::Float(tensor) | BackendTensor::Int(tensor) | BackendTensor::Bool(tensor),
            ) => Some(tensor),
            _ => None,
        }
    }

    fn flex_mut(&mut self) -> Option<&mut burn_flex::FlexTensor> {
        match &mut self.primitive.kind {
            DispatchTensorKind::Flex(
                BackendTensor::Float(tensor) | BackendTensor::Int(tensor) | BackendTensor::Bool(tensor),
            ) => Some(tensor),
            _ => None,
        }
    }
}
