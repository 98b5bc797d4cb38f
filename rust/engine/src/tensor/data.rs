//! Element types, and host buffers in and out.

use burn_backend::ops::{BoolTensorOps, FloatTensorOps, IntTensorOps};
use burn_backend::{BoolDType, Element, FloatDType, IntDType, Shape, TensorData};
use burn_dispatch::Dispatch;
use bytemuck::Pod;
use half::{bf16, f16};

use super::{Tensor, narrow};
use crate::memory::Block;
use crate::{Device, Error, Result};

/// The element types of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 16-bit IEEE 754.
    F16,
    /// The upper half of a 32-bit number.
    BF16,
    /// 32-bit IEEE 754.
    F32,
    /// 64-bit IEEE 754.
    F64,
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// True or false.
    Bool,
}

impl DType {
    /// NumPy's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::Bool => "bool",
        }
    }

    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::Bool => 1,
            Self::F16 | Self::BF16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// Whether it is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::BF16 | Self::F32 | Self::F64)
    }

    /// Whether it is a floating-point type of 16 bits.
    pub fn is_half(self) -> bool {
        matches!(self, Self::F16 | Self::BF16)
    }

    /// Whether it is an integer type.
    pub fn is_int(self) -> bool {
        matches!(self, Self::I32 | Self::I64)
    }

    pub(super) fn from_burn(dtype: burn_backend::DType) -> Self {
        use burn_backend::DType as Burn;
        match dtype {
            Burn::F16 => Self::F16,
            Burn::BF16 => Self::BF16,
            Burn::F32 | Burn::Flex32 => Self::F32,
            Burn::F64 => Self::F64,
            Burn::I32 => Self::I32,
            Burn::I64 => Self::I64,
            Burn::Bool(_) => Self::Bool,
            other => panic!("burnish never makes tensors of {other:?}"),
        }
    }

    /// Burn's name for a floating-point type.
    pub(crate) fn float(self) -> FloatDType {
        match self {
            Self::F16 => FloatDType::F16,
            Self::BF16 => FloatDType::BF16,
            Self::F32 => FloatDType::F32,
            Self::F64 => FloatDType::F64,
            other => panic!("{} is no floating-point type", other.name()),
        }
    }

    /// Burn's name for an integer type.
    pub(crate) fn burn_int(self) -> IntDType {
        match self {
            Self::I32 => IntDType::I32,
            Self::I64 => IntDType::I64,
            other => panic!("{} is no integer type", other.name()),
        }
    }
}

impl Tensor {
    /// Moves a host buffer to a device; on the `cpu` device without a copy.
    pub fn from_data(data: TensorData, device: &Device) -> Self {
        if data.shape().num_dims() == 0 && !device.is_cpu() {
            let (bytes, _, dtype) = data.into_parts();
            let one = TensorData::from_bytes(bytes, Shape::from(vec![1]), dtype);
            return Self::from_data(one, device).into_number();
        }
        #[cfg(test)]
        crate::testing::writing(data.num_elements(), device);
        let dtype = DType::from_burn(data.dtype());
        let to = device.burn();
        Self::from_primitive(match dtype {
            DType::Bool => Dispatch::bool_from_data(device.with_bool_storage(data), to),
            DType::I32 | DType::I64 => Dispatch::int_from_data(data, to),
            _ => Dispatch::float_from_data(data, to),
        })
    }

    /// A tensor of `values` on `device`.
    pub fn from_values<E: Element + Pod>(values: Vec<E>, shape: &[usize], device: &Device) -> Self {
        Self::placed(values.into(), shape, device)
    }

    /// A tensor of as many `values` as the shape asks for on `device`.
    pub(crate) fn from_elements<E: Element + Pod>(
        values: impl ExactSizeIterator<Item = E>,
        shape: &[usize],
        device: &Device,
    ) -> Self {
        Self::placed(Block::collect(values), shape, device)
    }

    /// What was computed on the host, on `device`; on the `cpu` device without a copy.
    pub(crate) fn placed<E: Element + Pod>(values: Block<E>, shape: &[usize], device: &Device) -> Self {
        if device.is_cpu() {
            return Self::from_block(values, shape);
        }
        let data = TensorData::from_bytes(values.into_bytes(), Shape::from(shape.to_vec()), E::dtype());
        Self::from_data(data, device)
    }

    /// A floating-point tensor of `values`, rounded to `dtype`.
    pub fn from_f64(values: &[f64], shape: &[usize], dtype: DType, device: &Device) -> Self {
        let values = values.iter().copied();
        match dtype {
            DType::F64 => Self::from_elements(values, shape, device),
            DType::F32 => Self::from_elements(values.map(|value| value as f32), shape, device),
            DType::F16 => Self::from_elements(values.map(f16::from_f64), shape, device),
            DType::BF16 => Self::from_elements(values.map(bf16::from_f64), shape, device),
            other => panic!("{} is no floating-point type", other.name()),
        }
    }

    /// The integers `0..count`.
    pub(crate) fn range(count: usize, device: &Device) -> Self {
        let range = 0..i64::try_from(count).expect("a length");
        Self::from_primitive(Dispatch::int_arange(range, device.burn(), DType::I32.burn_int()))
    }

    /// A tensor filled with one value.
    pub fn full(shape: &[usize], value: f64, dtype: DType, device: &Device) -> Self {
        if device.is_cpu() {
            let count = shape.iter().product();
            match dtype {
                DType::F32 => return Self::from_block(Block::full(count, value as f32), shape),
                DType::F64 => return Self::from_block(Block::full(count, value), shape),
                _ => {}
            }
        }
        if shape.is_empty() && !device.is_cpu() {
            return Self::full(&[1], value, dtype, device).into_number();
        }
        let scalar = burn_backend::Scalar::Float(value);
        let shape = Shape::from(shape.to_vec());
        Self::from_primitive(Dispatch::float_full(shape, scalar, device.burn(), dtype.float()))
    }

    /// Copies the elements to the host, waiting for the device.
    pub fn into_data(self) -> TensorData {
        self.try_into_data().expect("the device answers")
    }

    /// Copies the elements to the host, waiting for the device.
    pub fn try_into_data(self) -> Result<TensorData> {
        #[cfg(test)]
        crate::testing::reading(&self);
        let dtype = self.dtype;
        let primitive = self.into_primitive();
        let data = match dtype {
            DType::Bool => burn_backend::read_sync(Dispatch::bool_into_data(primitive)),
            DType::I32 | DType::I64 => burn_backend::read_sync(Dispatch::int_into_data(primitive)),
            _ => burn_backend::read_sync(Dispatch::float_into_data(primitive)),
        };
        data.map_err(|error| Error::Device(error.to_string()))
    }

    /// The elements as 64-bit numbers, in row-major order.
    pub fn to_f64(&self) -> Vec<f64> {
        self.clone().into_data().iter::<f64>().collect()
    }

    /// [`Self::to_f64`] in memory that is used again.
    pub(crate) fn numbers(&self) -> Block<f64> {
        if let Some(values) = self.as_slice::<f32>() {
            return Block::collect(values.iter().map(|&value| value.into()));
        }
        self.as_slice::<f64>().map_or_else(|| self.to_f64().into(), Block::copy)
    }

    /// The elements of several tensors, one behind the other; floats on a device are waited for once.
    pub(crate) fn numbers_of(tensors: Vec<Self>) -> Block<f64> {
        let together = |tensor: &Self| !tensor.is_cpu() && tensor.dtype().is_float();
        if tensors.len() < 2 || !tensors.iter().all(together) {
            let numbers = tensors.iter().flat_map(|tensor| tensor.numbers().to_vec());
            return numbers.collect::<Vec<f64>>().into();
        }
        Self::joined(tensors).numbers()
    }

    /// The elements of several float tensors, one behind the other, in the widest type among them and 32 bits at least.
    pub(crate) fn joined(tensors: Vec<Self>) -> Self {
        let wide = if tensors.iter().any(|tensor| tensor.dtype() == DType::F64) { DType::F64 } else { DType::F32 };
        let flat = tensors.into_iter().map(|tensor| {
            let count = tensor.len();
            tensor.cast(wide).reshape(&[count])
        });
        Self::concatenate(flat.collect(), 0)
    }

    /// The value of a tensor with one element.
    pub fn scalar(&self) -> f64 {
        self.to_f64()[0]
    }

    /// The same values in another type.
    pub fn cast(self, dtype: DType) -> Self {
        if self.dtype == dtype {
            return self;
        }
        if let Some(converted) = narrow::convert(&self, dtype) {
            return converted;
        }
        if self.number {
            return self.reshape(&[1]).cast(dtype).into_number();
        }
        let from = self.dtype;
        let device = self.device();
        let primitive = self.into_primitive();
        Self::from_primitive(match (from, dtype) {
            (DType::Bool, DType::Bool) => primitive,
            (DType::Bool, to) if to.is_int() => Dispatch::bool_into_int(primitive, to.burn_int()),
            (DType::Bool, to) => Dispatch::bool_into_float(primitive, to.float()),
            (from, DType::Bool) => return Self::from_primitive(primitive).nonzero(from, &device),
            (from, to) if from.is_int() && to.is_int() => Dispatch::int_cast(primitive, to.burn_int()),
            (from, to) if from.is_int() => Dispatch::int_into_float(primitive, to.float()),
            (_, to) if to.is_int() => Dispatch::float_into_int(primitive, to.burn_int()),
            (_, to) => Dispatch::float_cast(primitive, to.float()),
        })
    }

    fn nonzero(self, from: DType, device: &Device) -> Self {
        let zero = burn_backend::Scalar::Float(0.0);
        let store: BoolDType = device.bool_storage();
        Self::from_primitive(if from.is_int() {
            let zero = burn_backend::Scalar::Int(0);
            Dispatch::int_not_equal_elem(self.into_primitive(), zero, store)
        } else {
            Dispatch::float_not_equal_elem(self.into_primitive(), zero, store)
        })
    }
}
