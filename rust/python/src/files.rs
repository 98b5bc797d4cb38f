//! Files of arrays.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burnish_engine::storage::{self, StoredArray};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::door::enter;
use crate::types::{Array, Arrays, Named};

/// Writes a safetensors file, a checksum per tensor, whole or absent whatever happens.
#[pyfunction]
pub fn write_arrays(py: Python<'_>, path: PathBuf, arrays: Arrays<'_>, metadata: Named<String>) -> PyResult<()> {
    let arrays =
        arrays.0.into_iter().map(|(name, array)| Ok((name, stored(&array)?))).collect::<PyResult<BTreeMap<_, _>>>()?;
    enter(py, || storage::write(&path, &arrays, &metadata.0))
}

fn stored(Array(array): &Array<'_>) -> PyResult<StoredArray> {
    let numpy = array.py().import("numpy")?;
    let dtype = array.getattr("dtype")?.call_method1("newbyteorder", ("<",))?;
    let array = numpy.call_method1("asarray", (array, dtype))?;
    Ok(StoredArray {
        dtype: array.getattr("dtype")?.getattr("name")?.extract()?,
        shape: array.getattr("shape")?.extract()?,
        bytes: array.call_method0("tobytes")?.extract()?,
    })
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
