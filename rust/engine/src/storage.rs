//! Files: safetensors with a checksum per tensor, whole or absent.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::{Error, Result};

/// An array in a file: element type by NumPy's name, shape, little-endian bytes in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredArray {
    /// NumPy's name of the element type.
    pub dtype: String,
    /// The lengths of the axes.
    pub shape: Vec<usize>,
    /// The elements.
    pub bytes: Vec<u8>,
}

/// Metadata keys of checksums start with this.
const CHECKSUM: &str = "checksum.";

/// The checksum of all other metadata.
const METADATA_CHECKSUM: &str = "checksum";

const DTYPES: [(&str, Dtype); 13] = [
    ("bool", Dtype::BOOL),
    ("uint8", Dtype::U8),
    ("int8", Dtype::I8),
    ("uint16", Dtype::U16),
    ("int16", Dtype::I16),
    ("uint32", Dtype::U32),
    ("int32", Dtype::I32),
    ("uint64", Dtype::U64),
    ("int64", Dtype::I64),
    ("float16", Dtype::F16),
    ("bfloat16", Dtype::BF16),
    ("float32", Dtype::F32),
    ("float64", Dtype::F64),
];

/// Writes a file that is whole or absent whatever happens: a temporary name beside it, fsync, rename, fsync of the folder.
pub fn write(path: &Path, arrays: &BTreeMap<String, StoredArray>, metadata: &BTreeMap<String, String>) -> Result<()> {
    let mut views = Vec::with_capacity(arrays.len());
    let mut all: HashMap<String, String> = metadata.clone().into_iter().collect();
    for (name, array) in arrays {
        let (_, dtype) = DTYPES
            .into_iter()
            .find(|(known, _)| *known == array.dtype)
            .ok_or_else(|| Error::Type(format!("{name}: arrays of {} cannot be stored", array.dtype)))?;
        let view = TensorView::new(dtype, array.shape.clone(), &array.bytes)
            .map_err(|error| Error::value(format!("{name}: {error}")))?;
        views.push((name.as_str(), view));
        all.insert(format!("{CHECKSUM}{name}"), checksum(name, &array.dtype, &array.shape, &array.bytes));
    }
    all.insert(METADATA_CHECKSUM.to_owned(), metadata_checksum(&all));
    let bytes = safetensors::serialize(views, Some(all)).map_err(|error| Error::value(error.to_string()))?;
    replace(path, &bytes).map_err(|error| Error::Io(error.kind(), format!("{}: {error}", path.display())))
}

/// Reads a file; checksums that are there must agree.
pub fn read(path: &Path) -> Result<(BTreeMap<String, StoredArray>, BTreeMap<String, String>)> {
    let bytes = fs::read(path).map_err(|error| Error::Io(error.kind(), format!("{}: {error}", path.display())))?;
    let damaged = |what: String| Error::value(format!("{}: {what}", path.display()));
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(error.to_string()))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
    let mut metadata: HashMap<String, String> = header.metadata().clone().unwrap_or_default();
    if let Some(expected) = metadata.remove(METADATA_CHECKSUM)
        && expected != metadata_checksum(&metadata)
    {
        return Err(damaged("the file is damaged: the checksum of its metadata disagrees".to_owned()));
    }
    let mut arrays = BTreeMap::new();
    for (name, view) in tensors.iter() {
        let array = stored(view).ok_or_else(|| damaged(format!("{name}: unknown element type")))?;
        let expected = metadata.remove(&format!("{CHECKSUM}{name}"));
        if expected.is_some_and(|sum| sum != checksum(name, &array.dtype, &array.shape, &array.bytes)) {
            return Err(damaged(format!("the file is damaged: the checksum of {name:?} disagrees")));
        }
        arrays.insert(name.to_owned(), array);
    }
    if let Some(key) = metadata.keys().find(|key| key.starts_with(CHECKSUM)) {
        return Err(damaged(format!("the file is damaged: {:?} is missing", &key[CHECKSUM.len()..])));
    }
    Ok((arrays, metadata.into_iter().collect()))
}

fn stored(view: TensorView<'_>) -> Option<StoredArray> {
    let (dtype, _) = DTYPES.into_iter().find(|(_, known)| *known == view.dtype())?;
    Some(StoredArray { dtype: dtype.to_owned(), shape: view.shape().to_vec(), bytes: view.data().to_vec() })
}

fn checksum(name: &str, dtype: &str, shape: &[usize], bytes: &[u8]) -> String {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(format!("{name} {dtype} {shape:?} ").as_bytes());
    hash.update(bytes);
    format!("{:032x}", hash.digest128())
}

fn metadata_checksum(metadata: &HashMap<String, String>) -> String {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    let sorted: BTreeMap<_, _> = metadata.iter().collect();
    for (key, value) in sorted {
        // Lengths first, so that no two sets of pairs read alike.
        hash.update(format!("{} {} {key}{value}", key.len(), value.len()).as_bytes());
    }
    format!("{:032x}", hash.digest128())
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new().prefix(".burnish-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(permissions(path)?)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// Those of the file that is replaced, or those that a new file would have.
fn permissions(path: &Path) -> std::io::Result<fs::Permissions> {
    if let Ok(existing) = fs::metadata(path) {
        return Ok(existing.permissions());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        return Ok(fs::Permissions::from_mode(0o666 & !umask()));
    }
    #[cfg(not(unix))]
    Ok(fs::metadata(path.parent().unwrap_or(Path::new(".")))?.permissions())
}

/// The process's mask, read without changing it.
#[cfg(unix)]
fn umask() -> u32 {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
            u32::from_str_radix(line.trim(), 8).ok()
        })
        .unwrap_or(0o022)
}
