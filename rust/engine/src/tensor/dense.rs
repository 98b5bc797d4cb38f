//! Elements in row-major order on the `cpu` device, in storage that is used again.

use std::sync::Arc;

use burn_backend::{DType as BurnDType, Shape};
use burn_dispatch::{BackendTensor, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind};
use burn_flex::{FlexTensor, Layout};
use bytemuck::Pod;

use super::{DType, Element, Lengths};
use crate::memory::{self, Block, Shared};

/// Elements and the lengths of their axes; clones share the storage.
#[derive(Clone, Debug)]
pub(super) struct Dense {
    /// `None` only while it is dropped.
    storage: Option<Shared>,
    dtype: BurnDType,
    lengths: Lengths,
}

impl Dense {
    pub fn new<E: Element + Pod>(elements: Block<E>, lengths: &[usize]) -> Self {
        assert_eq!(elements.len(), lengths.iter().product::<usize>());
        Self { storage: Some(elements.into_shared()), dtype: E::dtype(), lengths: lengths.into() }
    }

    pub fn dtype(&self) -> BurnDType {
        self.dtype
    }

    pub fn lengths(&self) -> &Lengths {
        &self.lengths
    }

    pub fn elements<E: Element + Pod>(&self) -> Option<&[E]> {
        let bytes: &[u8] = self.storage.as_deref()?;
        (self.dtype == E::dtype()).then(|| bytemuck::cast_slice(bytes))
    }

    /// The elements for writing, if nobody else holds them.
    pub fn elements_mut<E: Element + Pod>(&mut self) -> Option<&mut [E]> {
        if self.dtype != E::dtype() {
            return None;
        }
        let bytes: &mut [u8] = Arc::get_mut(self.storage.as_mut()?)?;
        Some(bytemuck::cast_slice_mut(bytes))
    }

    /// The same elements with other axes.
    pub fn reshape(mut self, lengths: &[usize]) -> Self {
        assert_eq!(self.lengths.iter().product::<usize>(), lengths.iter().product::<usize>());
        self.lengths = lengths.into();
        self
    }

    /// The same storage as Burn holds it.
    pub fn into_flex(mut self) -> FlexTensor {
        let layout = Layout::contiguous(Shape::from(self.lengths.to_vec()));
        FlexTensor::from_arc(self.storage.take().expect("not dropped"), layout, self.dtype)
    }
}

impl Drop for Dense {
    fn drop(&mut self) {
        if let Some(storage) = self.storage.take() {
            memory::give(storage, self.dtype.size());
        }
    }
}

/// A tensor of Burn's CPU backend among those of all.
pub(super) fn primitive(tensor: FlexTensor) -> DispatchTensor {
    let tensor = match DType::from_burn(tensor.dtype()) {
        DType::Bool => BackendTensor::Bool(tensor),
        DType::I32 | DType::I64 => BackendTensor::Int(tensor),
        _ => BackendTensor::Float(tensor),
    };
    DispatchTensor { kind: DispatchTensorKind::Flex(tensor), autodiff: DispatchAutodiffContext::Disabled }
}
