//! What stands before the elements in a file: JSON that says where each array lies, and the checksums.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, TensorInfo, TensorView};
use serde::ser::{Serialize, SerializeMap, Serializer};
use twox_hash::xxhash3_128::Hasher;

use super::StoredArray;
use super::uncached::copy_past_caches;
use crate::{Error, Result};

/// Metadata keys of checksums start with this.
pub(super) const CHECKSUM: &str = "checksum.";

/// The checksum of all other metadata.
pub(super) const METADATA_CHECKSUM: &str = "checksum";

/// What arrays begin at: a multiple of the widest elements.
pub(super) const WIDEST: usize = 8;

/// Readers refuse longer headers.
const MAX_HEADER: usize = 100_000_000;

pub(super) const DTYPES: [(&str, Dtype); 13] = [
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

/// An array as a header tells of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'a> {
    pub name: &'a str,
    /// NumPy's name of the element type.
    pub kind: &'static str,
    pub dtype: Dtype,
    pub shape: &'a [usize],
    pub bytes: &'a [u8],
    /// If it is known already.
    pub checksum: Option<&'a str>,
}

impl<'a> Item<'a> {
    fn new(name: &'a str, array: &'a StoredArray<'_>) -> Result<Self> {
        let (kind, dtype) = DTYPES
            .into_iter()
            .find(|(known, _)| *known == array.dtype)
            .ok_or_else(|| Error::Type(format!("{name}: arrays of {} cannot be stored", array.dtype)))?;
        TensorView::new(dtype, array.shape.clone(), &array.bytes)
            .map_err(|error| Error::value(format!("{name}: {error}")))?;
        Ok(Self { name, kind, dtype, shape: &array.shape, bytes: &array.bytes, checksum: None })
    }

    fn checksum(&self) -> Cow<'a, str> {
        let found = || checksum(self.name, self.kind, self.shape, self.bytes).into();
        self.checksum.map_or_else(found, Cow::Borrowed)
    }

    /// Copies the elements and returns their checksum, each of them read once.
    pub fn copy(&self, to: &mut [u8]) -> String {
        /// Fits the fastest cache.
        const PIECE: usize = 1 << 14;

        let mut hash = begun(self.name, self.kind, self.shape);
        let mut piece = [0; PIECE];
        for (to, from) in to.chunks_mut(PIECE).zip(self.bytes.chunks(PIECE)) {
            // Read once: the checksum is that of what is written, even if somebody changes the elements meanwhile.
            let piece = &mut piece[..from.len()];
            piece.copy_from_slice(from);
            hash.write(piece);
            copy_past_caches(to, piece);
        }
        told(&hash)
    }
}

/// Checked arrays in the order of a file.
pub(super) fn items<'a>(arrays: &'a BTreeMap<String, StoredArray<'_>>) -> Result<Vec<Item<'a>>> {
    let items: Result<Vec<_>> = arrays.iter().map(|(name, array)| Item::new(name, array)).collect();
    items.map(|mut items| {
        sort(&mut items);
        items
    })
}

/// The widest elements first, so that all lie aligned; then by name.
pub(super) fn sort(items: &mut [Item<'_>]) {
    items.sort_by_key(|item| (Reverse(item.dtype), item.name));
}

/// The beginning of a file: text, and spaces after it up to a length.
#[derive(Debug)]
pub(super) struct Header {
    text: Vec<u8>,
    pub length: usize,
}

impl Header {
    /// Of a file with these arrays in this order, as long as `filled` makes of the text's own length.
    pub fn new(
        items: &[Item<'_>],
        metadata: &BTreeMap<String, String>,
        filled: impl FnOnce(usize) -> usize,
    ) -> Result<Self> {
        let checksums = items.iter().map(|item| (format!("{CHECKSUM}{}", item.name).into(), item.checksum()));
        let mut all: Pairs<'_> = metadata.iter().map(|(key, value)| (key.into(), value.into())).collect();
        all.extend(checksums);
        let checksum = metadata_checksum(&all);
        all.insert(METADATA_CHECKSUM.into(), checksum.into());
        let mut text = vec![0; size_of::<u64>()];
        serde_json::to_writer(&mut text, &Index { metadata: &all, items }).expect("text in memory");
        let length = filled(text.len());
        let told = length - size_of::<u64>();
        if told > MAX_HEADER {
            let error = format!("the file's header: {told} bytes are more than the format's {MAX_HEADER}");
            return Err(Error::value(error));
        }
        text[..size_of::<u64>()].copy_from_slice(&(told as u64).to_le_bytes());
        Ok(Self { text, length })
    }

    /// Copies it to where it belongs.
    pub fn write(&self, to: &mut [u8]) {
        let (text, spaces) = to.split_at_mut(self.text.len());
        text.copy_from_slice(&self.text);
        spaces.fill(b' ');
    }

    /// It as a piece of a file.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.text.resize(self.length, b' ');
        self.text
    }
}

/// Metadata, sorted by its keys.
pub(super) type Pairs<'a> = BTreeMap<Cow<'a, str>, Cow<'a, str>>;

/// The text of a header, as safetensors describes it.
struct Index<'a> {
    metadata: &'a Pairs<'a>,
    items: &'a [Item<'a>],
}

impl Serialize for Index<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.items.len() + 1))?;
        map.serialize_entry("__metadata__", self.metadata)?;
        let mut end = 0;
        for item in self.items {
            let start = end;
            end += item.bytes.len();
            let info = TensorInfo { dtype: item.dtype, shape: item.shape.to_vec(), data_offsets: (start, end) };
            map.serialize_entry(item.name, &info)?;
        }
        map.end()
    }
}

pub(super) fn checksum(name: &str, dtype: &str, shape: &[usize], bytes: &[u8]) -> String {
    let mut hash = begun(name, dtype, shape);
    hash.write(bytes);
    told(&hash)
}

/// A checksum before the elements.
fn begun(name: &str, dtype: &str, shape: &[usize]) -> Hasher {
    let mut hash = Hasher::new();
    hash.write(format!("{name} {dtype} {shape:?} ").as_bytes());
    hash
}

fn told(hash: &Hasher) -> String {
    format!("{:032x}", hash.finish_128())
}

pub(super) fn metadata_checksum(metadata: &Pairs<'_>) -> String {
    let mut hash = Hasher::new();
    for (key, value) in metadata {
        // Lengths first, so that no two sets of pairs read alike.
        hash.write(format!("{} {} ", key.len(), value.len()).as_bytes());
        hash.write(key.as_bytes());
        hash.write(value.as_bytes());
    }
    told(&hash)
}
