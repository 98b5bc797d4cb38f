//! NumPy arrays in, borrowed, and out, handed over.

use burnish_engine::tensor::DType;
use burnish_engine::trainer::{ArrayView, Format};
use burnish_engine::{Device, Tensor};
use numpy::{PyArray1, PyArrayDescrMethods, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::types::Array;

/// A view of an array's memory, read during the call that borrows the array.
///
/// The array object is referenced for as long as the call lasts, so that NumPy neither frees nor resizes its memory;
/// writes by others change values, never what may be read.
pub fn view(name: &str, Array(array): &Array<'_>) -> PyResult<ArrayView> {
    let descr = array.dtype();
    let format = format(descr.kind(), descr.itemsize()).ok_or_else(|| {
        PyTypeError::new_err(format!("{name}: expected an array of numbers or bool, got dtype {descr}"))
    })?;
    let swapped = descr.byteorder() == if cfg!(target_endian = "little") { b'>' } else { b'<' };
    // SAFETY: the object is a NumPy array, whose data pointer, shape and strides describe readable memory.
    let pointer = unsafe { (*array.as_array_ptr()).fields.data };
    // SAFETY: as above; the caller holds the array during the call.
    Ok(unsafe { ArrayView::new(pointer.cast(), format, swapped, array.shape().to_vec(), array.strides().to_vec()) })
}

fn format(kind: u8, size: usize) -> Option<Format> {
    Some(match (kind, size) {
        (b'f', 2) => Format::F16,
        (b'f', 4) => Format::F32,
        (b'f', 8) => Format::F64,
        (b'i', 1) => Format::I8,
        (b'i', 2) => Format::I16,
        (b'i', 4) => Format::I32,
        (b'i', 8) => Format::I64,
        (b'u', 1) => Format::U8,
        (b'u', 2) => Format::U16,
        (b'u', 4) => Format::U32,
        (b'u', 8) => Format::U64,
        (b'b', 1) => Format::Bool,
        _ => return None,
    })
}

/// The array's values as a tensor on the CPU.
pub fn tensor(name: &str, array: &Array<'_>, device: &Device) -> PyResult<Tensor> {
    view(name, array)?.to_tensor(device).map_err(crate::door::exception)
}

/// A tensor's values on the host, ready to become an array.
#[derive(Debug)]
pub struct HostArray {
    values: Values,
    shape: Vec<usize>,
}

#[derive(Debug)]
enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    Bool(Vec<bool>),
}

impl HostArray {
    /// Fetches a tensor; 16-bit floats come as 32-bit ones.
    pub fn new(tensor: Tensor) -> burnish_engine::Result<Self> {
        Self::joined(vec![tensor])
    }

    /// Fetches tensors and joins them along axis 0.
    pub fn joined(parts: Vec<Tensor>) -> burnish_engine::Result<Self> {
        let mut shape = parts[0].shape();
        if parts.len() > 1 {
            shape[0] = parts.iter().map(|part| part.shape()[0]).sum();
        }
        let dtype = parts[0].dtype();
        let values = match dtype {
            DType::F64 => Values::F64(fetch(parts)?),
            DType::I32 => Values::I32(fetch(parts)?),
            DType::I64 => Values::I64(fetch(parts)?),
            DType::Bool => {
                let parts = parts.into_iter().map(|part| part.cast(DType::I32)).collect();
                Values::Bool(fetch::<i32>(parts)?.into_iter().map(|value| value != 0).collect())
            }
            _ => Values::F32(fetch(parts.into_iter().map(|part| part.cast(DType::F32)).collect())?),
        };
        Ok(Self { values, shape: shape.into() })
    }

    /// The array; its memory is the vector's.
    pub fn into_array(self, py: Python<'_>) -> PyResult<Array<'_>> {
        macro_rules! array {
            ($values:expr) => {
                PyArray1::from_vec(py, $values).reshape(self.shape)?.as_untyped().clone()
            };
        }
        Ok(Array(match self.values {
            Values::F32(values) => array!(values),
            Values::F64(values) => array!(values),
            Values::I32(values) => array!(values),
            Values::I64(values) => array!(values),
            Values::Bool(values) => array!(values),
        }))
    }
}

fn fetch<E: burnish_engine::tensor::Element>(parts: Vec<Tensor>) -> burnish_engine::Result<Vec<E>> {
    let mut all = Vec::new();
    for part in parts {
        let values = part.try_into_vec::<E>()?;
        if all.is_empty() {
            all = values;
        } else {
            all.extend_from_slice(&values);
        }
    }
    Ok(all)
}
