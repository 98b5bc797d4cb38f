//! Direct access to the storage of tensors on the `cpu` device.

use burn_backend::Element;
use bytemuck::Pod;
use smallvec::SmallVec;

use super::dense::{self, Dense};
use super::{DType, Tensor, Values, flex, flex_mut};
use crate::cpu::kernel::Vectors;
use crate::memory::Block;
use crate::{Device, Number};

/// A floating-point type that the fused CPU kernels compute in: `f32` or `f64`.
pub trait Real: Number + Vectors + Element + Pod + PartialOrd + Default + Send + Sync + 'static {
    /// The tensor type of it.
    const DTYPE: DType;
    /// From a 64-bit number, rounded.
    fn from_f64(value: f64) -> Self;
    /// To a 64-bit number, exact.
    fn to_f64(self) -> f64;
}

impl Real for f32 {
    const DTYPE: DType = DType::F32;
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    const DTYPE: DType = DType::F64;
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
}

/// What a fused kernel may rely on: its caller chose it by the device and the type.
const EXPECTED: &str = "contiguous elements of the kernel's type on the cpu device";

impl Tensor {
    /// A tensor on the `cpu` device that takes over `values`, without a copy.
    pub fn from_vec<E: Element + Pod>(values: Vec<E>, shape: &[usize]) -> Self {
        Self::from_block(values.into(), shape)
    }

    /// [`Self::from_vec`] of what a kernel wrote.
    pub(crate) fn from_block<E: Element + Pod>(values: Block<E>, shape: &[usize]) -> Self {
        Self::from_dense(Dense::new(values, shape))
    }

    /// The same values on the `cpu` device.
    pub(crate) fn into_cpu(self) -> Self {
        if self.is_cpu() { self } else { Self::from_data(self.into_data(), &Device::cpu()) }
    }

    /// The elements in row-major order, if on the `cpu` device, of type `E` and contiguous.
    pub fn as_slice<E: Element + Pod>(&self) -> Option<&[E]> {
        match &self.values {
            Values::Dense(dense) => dense.elements(),
            Values::Rows(_) => None,
            Values::Burn(primitive) => flex(primitive)?.as_slice::<E>(),
        }
    }

    /// The elements for writing, if besides nobody else holds the storage.
    pub fn as_mut_slice<E: Element + Pod>(&mut self) -> Option<&mut [E]> {
        let primitive = match &mut self.values {
            Values::Dense(dense) => return dense.elements_mut(),
            Values::Rows(_) => return None,
            Values::Burn(primitive) => primitive,
        };
        let tensor = flex_mut(primitive)?;
        if tensor.dtype() != E::dtype() {
            return None;
        }
        let (start, end) = tensor.layout().contiguous_offsets()?;
        tensor.try_storage_mut::<E>().map(|all| &mut all[start..end])
    }

    /// The same values, contiguous, where the `cpu` device holds them as `E`.
    pub(crate) fn contiguous<E: Element + Pod>(self) -> Self {
        if self.as_slice::<E>().is_some() {
            return self;
        }
        if let Some(dense) = self.dense() {
            return dense;
        }
        let Values::Burn(primitive) = &self.values else { panic!("{EXPECTED}") };
        let tensor = flex(primitive).filter(|tensor| tensor.dtype() == E::dtype()).expect(EXPECTED);
        Self::from_primitive(dense::primitive(tensor.to_contiguous()))
    }

    /// The elements of a [contiguous](Self::contiguous) tensor.
    pub(crate) fn elements<E: Element + Pod>(&self) -> &[E] {
        self.as_slice::<E>().expect(EXPECTED)
    }

    /// The same values, contiguous and held by nobody else, where the `cpu` device holds them as `E`.
    pub(crate) fn unique<E: Element + Pod>(mut self) -> Self {
        self.elements_mut::<E>();
        self
    }

    /// The elements for writing; copied first if somebody else holds the storage or they are not contiguous.
    pub(crate) fn elements_mut<E: Element + Pod>(&mut self) -> &mut [E] {
        if let Some(dense) = self.dense() {
            *self = dense;
        }
        if self.as_mut_slice::<E>().is_none() {
            let contiguous = self.clone().contiguous::<E>();
            *self = Self::from_block(Block::copy(contiguous.elements::<E>()), &self.shape());
        }
        self.as_mut_slice::<E>().expect(EXPECTED)
    }

    /// The storage from the first element on and the step along each axis; `None` on another device, of another type, or where
    /// an axis runs backwards.
    pub(crate) fn strided<E: Element + Pod>(&self) -> Option<(&[E], Strides)> {
        let primitive = match &self.values {
            Values::Dense(dense) => return Some((dense.elements()?, row_major(dense.lengths()))),
            Values::Rows(_) => return None,
            Values::Burn(primitive) => primitive,
        };
        let tensor = flex(primitive)?;
        let layout = tensor.layout();
        if tensor.dtype() != E::dtype() || !layout.has_positive_strides() {
            return None;
        }
        let all: &[E] = tensor.storage();
        Some((&all[layout.start_offset()..], layout.strides().into()))
    }

    /// Takes the elements out, without a copy if nobody else holds the storage.
    pub(crate) fn into_vec<E: Element>(self) -> Vec<E> {
        self.try_into_vec().expect("the device answers with the tensor's own type")
    }

    /// Fetches the elements, without a copy if they are on the `cpu` device and nobody else holds the storage.
    pub fn try_into_vec<E: Element>(self) -> crate::Result<Vec<E>> {
        let data = self.try_into_data()?;
        data.try_into_vec::<E>().map_err(|error| crate::Error::Type(error.to_string()))
    }
}

/// Elements to the next place along each axis.
pub(crate) type Strides = SmallVec<[isize; 5]>;

fn row_major(lengths: &[usize]) -> Strides {
    let mut strides: Strides = SmallVec::from_elem(1, lengths.len());
    for axis in (1..lengths.len()).rev() {
        strides[axis - 1] = strides[axis] * lengths[axis] as isize;
    }
    strides
}
