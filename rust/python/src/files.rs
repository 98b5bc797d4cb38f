//! Files of arrays.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::mem::take;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use burnish_engine::Result;
use burnish_engine::storage::{self, StoredArray};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::door::{enter, lock};
use crate::session::Session;
use crate::threads::{forked, pool};
use crate::types::{Array, Arrays, Named};

/// Writes a safetensors file, a checksum per tensor, whole or absent whatever happens.
#[pyfunction]
pub fn write_arrays(py: Python<'_>, path: PathBuf, arrays: Arrays<'_>, metadata: Named<String>) -> PyResult<()> {
    let lent = lent(&arrays)?;
    let stored = stored(py, &lent);
    enter(py, || storage::write(&path, &stored, &metadata.0))
}

/// Files of which new ones come and old ones go: the next takes the place on the disk of one that was removed.
#[pyclass(frozen, module = "burnish._burnish")]
#[derive(Debug, Default)]
pub struct Rotation {
    files: Mutex<storage::Rotation>,
    /// Memory for copies, of which there are as many as wait to be written at once.
    free: Arc<Mutex<Vec<storage::Staged>>>,
}

#[pymethods]
impl Rotation {
    /// Nothing is kept on the disk when it is gone.
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Copies parameters, buffers, the optimizer's arrays (their names after a prefix) and others, to be written later.
    ///
    /// Meanwhile `others` is called: what it returns, arrays that do not change any more and texts, is in the file too.
    fn copy(
        &self,
        py: Python<'_>,
        session: &Session,
        prefix: &str,
        arrays: Arrays<'_>,
        others: Bound<'_, PyAny>,
    ) -> PyResult<Staged> {
        let mut copy = Copied { state: lock(&self.free).pop().unwrap_or_default(), free: Arc::clone(&self.free) };
        let lent = lent(&arrays)?;
        // In a forked child `enter` goes to another thread, where no signal reaches Python.
        let known = forked().then(|| Others::new(&others));
        let (stored, others) = (stored(py, &lent), others.unbind());
        let others = enter(py, || {
            let state = session.lock().whole_state(prefix)?;
            let state = state.iter().map(|(name, tensor)| Ok((name.clone(), StoredArray::of(tensor)?)));
            let all: Result<BTreeMap<_, _>> = state.chain(stored.into_iter().map(Ok)).collect();
            let others = || known.unwrap_or_else(|| Python::attach(|py| Others::new(others.bind(py))));
            copy.state.fill(&all?, &pool(), others)
        })??;
        Ok(Staged { copy: Mutex::new(copy), others })
    }

    /// Writes a file of what was copied as `write_arrays` does, and removes one that is not needed any more: before the new one
    /// is known to be on the disk.
    #[pyo3(signature = (path, staged, outdated = None))]
    fn write(&self, py: Python<'_>, path: PathBuf, staged: &Staged, outdated: Option<PathBuf>) -> PyResult<()> {
        let stored = stored(py, &staged.others.arrays);
        enter(py, || {
            let (mut files, mut copy) = (lock(&self.files), lock(&staged.copy));
            files.write(&path, &mut copy.state, &stored, &staged.others.metadata, outdated.as_deref())
        })
    }

    /// Removes a file if it is there.
    fn remove(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        enter(py, || lock(&self.files).remove(&path))
    }
}

/// What is to be in a file.
#[pyclass(frozen, module = "burnish._burnish")]
#[derive(Debug)]
pub struct Staged {
    copy: Mutex<Copied>,
    others: Others,
}

/// Arrays that were copied, in memory that goes back to the rotation.
#[derive(Debug)]
struct Copied {
    state: storage::Staged,
    free: Arc<Mutex<Vec<storage::Staged>>>,
}

impl Drop for Copied {
    fn drop(&mut self) {
        lock(&self.free).push(take(&mut self.state));
    }
}

/// What was not copied.
#[derive(Debug)]
struct Others {
    arrays: BTreeMap<String, Lent>,
    metadata: BTreeMap<String, String>,
}

impl Others {
    /// From a function that returns arrays and texts by name.
    fn new(function: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (arrays, metadata): (Arrays<'_>, Named<String>) = function.call0()?.extract()?;
        Ok(Self { arrays: lent(&arrays)?, metadata: metadata.0 })
    }
}

/// An array whose elements lie in a row, lent for as long as it is written.
#[derive(Debug)]
struct Lent {
    dtype: String,
    shape: Vec<usize>,
    array: Py<PyUntypedArray>,
}

fn lent(arrays: &Arrays<'_>) -> PyResult<BTreeMap<String, Lent>> {
    arrays.0.iter().map(|(name, array)| Ok((name.clone(), Lent::new(array)?))).collect()
}

fn stored<'a>(py: Python<'_>, lent: &'a BTreeMap<String, Lent>) -> BTreeMap<String, StoredArray<'a>> {
    lent.iter().map(|(name, lent)| (name.clone(), lent.stored(py))).collect()
}

impl Lent {
    fn new(Array(array): &Array<'_>) -> PyResult<Self> {
        let (kind, shape) = (array.dtype(), array.shape().to_vec());
        let array = if array.is_c_contiguous() && is_little_endian(&kind) {
            array.clone()
        } else {
            let kind = kind.call_method1("newbyteorder", ("<",))?;
            array.py().import("numpy")?.call_method1("ascontiguousarray", (array, kind))?.cast_into()?
        };
        Ok(Self { dtype: dtype_name(&kind)?, shape, array: array.unbind() })
    }

    fn stored(&self, py: Python<'_>) -> StoredArray<'_> {
        let array = self.array.bind(py);
        let length = array.len() * array.dtype().itemsize();
        let bytes: &[u8] = if length == 0 {
            &[]
        } else {
            // SAFETY: the array is referenced, so that NumPy neither frees nor resizes its memory, and contiguous; what
            // lies in it are numbers, any bytes of which are valid, and who writes to them meanwhile changes what is stored.
            unsafe { std::slice::from_raw_parts((*array.as_array_ptr()).fields.data.cast(), length) }
        };
        StoredArray { dtype: self.dtype.clone(), shape: self.shape.clone(), bytes: Cow::Borrowed(bytes) }
    }
}

fn is_little_endian(kind: &Bound<'_, PyArrayDescr>) -> bool {
    kind.byteorder() == b'<' || (cfg!(target_endian = "little") && kind.byteorder() == b'=') || kind.byteorder() == b'|'
}

/// NumPy's name, of numbers without asking NumPy, which takes its time.
fn dtype_name(kind: &Bound<'_, PyArrayDescr>) -> PyResult<String> {
    let word = match kind.kind() {
        b'f' => "float",
        b'i' => "int",
        b'u' => "uint",
        _ => return kind.getattr("name")?.extract(),
    };
    Ok(format!("{word}{}", 8 * kind.itemsize()))
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
