//! Files of arrays.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use burnish_engine::storage::{self, StoredArray};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::door::enter;
use crate::types::{Array, Arrays, Named};

/// Writes a safetensors file, a checksum per tensor, whole or absent whatever happens.
#[pyfunction]
pub fn write_arrays(py: Python<'_>, path: PathBuf, arrays: Arrays<'_>, metadata: Named<String>) -> PyResult<()> {
    let lent = arrays.0.iter().map(|(name, array)| Ok((name, Lent::new(array)?))).collect::<PyResult<Vec<_>>>()?;
    let arrays = lent.iter().map(|(name, lent)| Ok(((*name).clone(), lent.stored()?))).collect::<PyResult<_>>()?;
    enter(py, || storage::write(&path, &arrays, &metadata.0))
}

/// An array whose elements lie in a row, lent for as long as it is written.
struct Lent<'py> {
    dtype: String,
    shape: Vec<usize>,
    bytes: PyReadonlyArray1<'py, u8>,
}

impl<'py> Lent<'py> {
    fn new(Array(array): &Array<'py>) -> PyResult<Self> {
        let numpy = array.py().import("numpy")?;
        let dtype = array.getattr("dtype")?.call_method1("newbyteorder", ("<",))?;
        let rows = numpy.call_method1("ascontiguousarray", (array, &dtype))?;
        Ok(Self {
            dtype: dtype.getattr("name")?.extract()?,
            shape: array.getattr("shape")?.extract()?,
            bytes: rows.call_method1("reshape", (-1,))?.call_method1("view", ("uint8",))?.extract()?,
        })
    }

    fn stored(&self) -> PyResult<StoredArray<'_>> {
        let bytes = Cow::Borrowed(self.bytes.as_slice()?);
        Ok(StoredArray { dtype: self.dtype.clone(), shape: self.shape.clone(), bytes })
    }
}

/// Reads a safetensors file: arrays and metadata. A checksum that disagrees raises ValueError.
#[pyfunction]
pub fn read_arrays(py: Python<'_>, path: PathBuf) -> PyResult<(Arrays<'_>, Named<String>)> {
    let (arrays, metadata) = enter(py, || storage::read(&path))?;
    let numpy = py.import("numpy")?;
    let mut loaded = BTreeMap::new();
    for (name, array) in arrays {
        let dtype = if array.dtype == "bfloat16" { "uint16" } else { &array.dtype };
        let dtype = numpy.call_method1("dtype", (dtype,))?.call_method1("newbyteorder", ("<",))?;
        let flat = numpy.call_method1("frombuffer", (PyBytes::new(py, &array.bytes), dtype))?;
        let array = flat.call_method1("reshape", (array.shape,))?.call_method0("copy")?;
        loaded.insert(name, array.extract()?);
    }
    Ok((Named(loaded), Named(metadata)))
}
