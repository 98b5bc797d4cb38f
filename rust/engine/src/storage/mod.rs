//! Files: safetensors with a checksum per tensor, whole or absent.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytemuck::Pod;
use safetensors::tensor::{SafeTensors, TensorView};

use crate::tensor::Element;
use crate::{DType, Error, Result, Tensor};

mod blocks;
mod header;
mod replace;
mod rotation;
mod staged;
mod uncached;

use header::{CHECKSUM, DTYPES, Header, METADATA_CHECKSUM, Pairs, WIDEST, checksum, items, metadata_checksum};
pub use rotation::Rotation;
pub use staged::Staged;
use uncached::Uncached;

/// An array in a file: element type by NumPy's name, shape, little-endian bytes in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredArray<'a> {
    /// NumPy's name of the element type.
    pub dtype: String,
    /// The lengths of the axes.
    pub shape: Vec<usize>,
    /// The elements.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> StoredArray<'a> {
    /// A tensor's elements: lent where the host has them, and otherwise fetched. 16-bit floats become 32-bit ones.
    pub fn of(tensor: &'a Tensor) -> Result<Self> {
        fn lent<E: Element + Pod>(tensor: &Tensor) -> Option<&[u8]> {
            tensor.as_slice::<E>().map(bytemuck::cast_slice)
        }
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        let bytes = match dtype {
            DType::F32 => lent::<f32>(tensor),
            DType::F64 => lent::<f64>(tensor),
            DType::I32 => lent::<i32>(tensor),
            DType::I64 => lent::<i64>(tensor),
            _ => None,
        };
        if let Some(bytes) = bytes {
            return Ok(Self { dtype: dtype.name().to_owned(), shape, bytes: bytes.into() });
        }
        let dtype = if dtype.is_half() { DType::F32 } else { dtype };
        let bytes = tensor.clone().cast(dtype).try_into_data()?.bytes().to_vec();
        Ok(Self { dtype: dtype.name().to_owned(), shape, bytes: bytes.into() })
    }
}

/// Writes a file that is whole or absent whatever happens: a temporary name beside it, fsync, rename, fsync of the folder.
/// What a killed writer left in the folder is removed.
pub fn write(
    path: &Path,
    arrays: &BTreeMap<String, StoredArray<'_>>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let items = items(arrays)?;
    let header = Header::new(&items, metadata, |own| own.next_multiple_of(WIDEST))?.into_bytes();
    let pieces: Vec<&[u8]> = std::iter::once(&*header).chain(items.iter().map(|item| item.bytes)).collect();
    replace::replace(path, &pieces, &mut Uncached::default()).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::Io(error.kind(), format!("{}: {error}", path.display()))
}

/// Reads a file; checksums that are there must agree.
pub fn read(path: &Path) -> Result<(BTreeMap<String, StoredArray<'static>>, BTreeMap<String, String>)> {
    let bytes = fs::read(path).map_err(|error| failed(path, &error))?;
    let damaged = |what: String| Error::value(format!("{}: {what}", path.display()));
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(error.to_string()))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
    let mut metadata: Pairs<'_> =
        header.metadata().iter().flatten().map(|(key, value)| (key.into(), value.into())).collect();
    // Files of other tools have none; a file that has some has all.
    let expected = metadata.remove(METADATA_CHECKSUM);
    let checked = expected.is_some() || metadata.keys().any(|key| key.starts_with(CHECKSUM));
    if checked && expected.as_deref() != Some(&*metadata_checksum(&metadata)) {
        return Err(damaged("the file is damaged: the checksum of its metadata disagrees".to_owned()));
    }
    let mut arrays = BTreeMap::new();
    for (name, view) in tensors.iter() {
        let array = stored(view).ok_or_else(|| damaged(format!("{name}: unknown element type")))?;
        let expected = metadata.remove(&*format!("{CHECKSUM}{name}"));
        if expected.is_some_and(|sum| sum != checksum(name, &array.dtype, &array.shape, &array.bytes)) {
            return Err(damaged(format!("the file is damaged: the checksum of {name:?} disagrees")));
        }
        arrays.insert(name.to_owned(), array);
    }
    if let Some(key) = metadata.keys().find(|key| key.starts_with(CHECKSUM)) {
        return Err(damaged(format!("the file is damaged: {:?} is missing", &key[CHECKSUM.len()..])));
    }
    Ok((arrays, metadata.into_iter().map(|(key, value)| (key.into_owned(), value.into_owned())).collect()))
}

fn stored(view: TensorView<'_>) -> Option<StoredArray<'static>> {
    let (dtype, _) = DTYPES.into_iter().find(|(_, known)| *known == view.dtype())?;
    Some(StoredArray { dtype: dtype.to_owned(), shape: view.shape().to_vec(), bytes: view.data().to_vec().into() })
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::Dtype;

    use super::*;

    type Contents = (BTreeMap<String, StoredArray<'static>>, BTreeMap<String, String>);

    fn contents() -> Contents {
        let array = |dtype: &str, shape: &[usize], bytes: Vec<u8>| StoredArray {
            dtype: dtype.to_owned(),
            shape: shape.to_vec(),
            bytes: bytes.into(),
        };
        let arrays = [
            ("dense.kernel", array("float32", &[2, 3], (0..24).collect())),
            ("größe", array("int64", &[], 7i64.to_le_bytes().to_vec())),
            ("empty", array("float64", &[0, 2], Vec::new())),
        ];
        let metadata = [("format", "1"), ("", "\"quoted\"\n")];
        (
            arrays.map(|(name, array)| (name.to_owned(), array)).into(),
            metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        )
    }

    fn written() -> (tempfile::TempDir, std::path::PathBuf, Contents) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weights.safetensors");
        let (arrays, metadata) = contents();
        write(&path, &arrays, &metadata).expect("written");
        (folder, path, (arrays, metadata))
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn every_type_comes_back_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("all");
        for (dtype, stored) in DTYPES {
            let bytes: Vec<u8> = (0..3 * stored.bitsize() / 8).map(|byte| byte as u8 % 2).collect();
            let arrays = BTreeMap::from([(
                "x".to_owned(),
                StoredArray { dtype: dtype.to_owned(), shape: vec![3, 1], bytes: bytes.into() },
            )]);
            write(&path, &arrays, &BTreeMap::new()).expect("written");
            assert_eq!(read(&path).expect("read"), (arrays, BTreeMap::new()));
        }
        let (_folder, path, expected) = written();
        assert_eq!(read(&path).expect("read"), expected);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found_or_changes_nothing() {
        let (_folder, path, expected) = written();
        let whole = fs::read(&path).expect("the file");
        for place in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[place] ^= 1 << bit;
                fs::write(&path, &damaged).expect("written");
                if let Ok(found) = read(&path) {
                    assert_eq!(found, expected, "bit {bit} of byte {place} went unnoticed");
                }
            }
        }
    }

    #[test]
    fn a_cut_file_is_refused() {
        let (_folder, path, _) = written();
        let whole = fs::read(&path).expect("the file");
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).expect("written");
            assert!(read(&path).is_err(), "{length} of {} bytes were read", whole.len());
        }
    }

    #[test]
    fn a_file_of_another_tool_is_read_without_checksums() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("plain");
        let bytes: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![2], &bytes).expect("a view");
        fs::write(&path, safetensors::serialize([("x", view)], None).expect("serialised")).expect("written");
        let (arrays, metadata) = read(&path).expect("read");
        assert_eq!((arrays["x"].bytes.as_ref(), metadata.len()), (bytes.as_slice(), 0));
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let (folder, path, expected) = written();
        let (arrays, metadata) = contents();
        let wrong = StoredArray { dtype: "float32".to_owned(), shape: vec![5], bytes: vec![0; 4].into() };
        let unknown = StoredArray { dtype: "complex64".to_owned(), shape: vec![], bytes: vec![0; 8].into() };
        for bad in [wrong, unknown] {
            let mut arrays = arrays.clone();
            arrays.insert("bad".to_owned(), bad);
            assert!(write(&path, &arrays, &metadata).is_err());
        }
        // A folder cannot be replaced by a file: the last step fails, after the temporary was written.
        let blocked = folder.path().join("blocked");
        fs::create_dir(&blocked).expect("a folder");
        fs::write(blocked.join("inside"), b"").expect("written");
        assert!(matches!(write(&blocked, &arrays, &metadata), Err(Error::Io(..))));
        assert_eq!(read(&path).expect("read"), expected);
        let mut left = names(folder.path());
        left.sort();
        assert_eq!(left, ["blocked", "weights.safetensors"]);
        assert!(write(&folder.path().join("absent").join("x"), &arrays, &metadata).is_err());
    }
}
