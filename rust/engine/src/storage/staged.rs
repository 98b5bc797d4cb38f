//! State on its way to a file: copied once, to where it is written from.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use rayon::ThreadPool;
use safetensors::tensor::Dtype;

use super::StoredArray;
use super::blocks::{BLOCK, Blocks};
use super::header::{Header, Item, WIDEST, items, sort};
use super::uncached::copy_past_caches;
use crate::{Error, Result};

/// Room for the beginning of the first file, with ten thousand steps in its history; later ones have twice what the one before took.
const ROOM: usize = 1 << 20;

/// Copied by one thread in several times the time that it takes to wake up another.
const SHARE: usize = 1 << 20;

/// Longer arrays are copied in pieces, by several threads.
const PIECE: usize = 1 << 22;

/// Files grow by steps of this part of their size, so that most are as long as the ones whose places they take.
const STEPS: usize = 32;

/// The longest such step.
const LONGEST_STEP: usize = 1 << 20;

/// Copies of arrays, one after another in the order of a file, with room before them for its beginning.
#[derive(Debug)]
pub struct Staged {
    memory: Blocks,
    room: usize,
    arrays: Vec<Placed>,
}

/// An array, and where it lies.
#[derive(Debug)]
struct Placed {
    name: String,
    kind: &'static str,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
    checksum: Option<String>,
}

impl Default for Staged {
    fn default() -> Self {
        Self { memory: Blocks::default(), room: ROOM, arrays: Vec::new() }
    }
}

impl Staged {
    /// Copies arrays, in place of those that were here, on this thread and those of a pool; this one does something else first,
    /// and returns what comes of it.
    pub fn fill<T>(
        &mut self,
        arrays: &BTreeMap<String, StoredArray<'_>>,
        pool: &ThreadPool,
        first: impl FnOnce() -> T,
    ) -> Result<T> {
        let items = items(arrays)?;
        let length: usize = items.iter().map(|item| item.bytes.len()).sum();
        let end = (self.room + length.next_multiple_of(WIDEST)).next_multiple_of(BLOCK);
        self.memory.reserve(end);
        let start = end - length.next_multiple_of(WIDEST);
        let (checksums, made) = copy(&mut self.memory[start..start + length], &items, pool, first);
        self.arrays = placed(&items, checksums, start);
        Ok(made)
    }

    /// Gives the pieces of a file of these arrays and more to a writer: all in one piece if that can be.
    pub(super) fn file<T>(
        &mut self,
        more: &BTreeMap<String, StoredArray<'_>>,
        metadata: &BTreeMap<String, String>,
        write: impl FnOnce(&[&[u8]]) -> T,
    ) -> Result<T> {
        if let Some(array) = self.arrays.iter().find(|array| more.contains_key(&array.name)) {
            return Err(Error::value(format!("{}: there are two arrays of this name", array.name)));
        }
        let before = items(more)?;
        if before.iter().any(|item| item.dtype.bitsize() < 8 * WIDEST) {
            return self.file_in_pieces(before, metadata, write);
        }
        let header = self.header(&before, metadata)?;
        if let Some(whole) = self.after(&header, &before) {
            return Ok(write(&[&self.memory[whole]]));
        }
        let header = header.into_bytes();
        let pieces = std::iter::once(&*header).chain(before.iter().map(|item| item.bytes));
        Ok(write(&pieces.chain([&self.memory[self.place()]]).collect::<Vec<_>>()))
    }

    /// Where the arrays lie.
    fn place(&self) -> Range<usize> {
        match (self.arrays.first(), self.arrays.last()) {
            (Some(first), Some(last)) => first.bytes.start..last.bytes.end,
            _ => 0..0,
        }
    }

    fn items(&self) -> impl Iterator<Item = Item<'_>> {
        self.arrays.iter().map(|array| Item {
            name: &array.name,
            kind: array.kind,
            dtype: array.dtype,
            shape: &array.shape,
            bytes: &self.memory[array.bytes.clone()],
            checksum: array.checksum.as_deref(),
        })
    }

    /// A header that makes the whole file, with arrays of the widest elements before those here, a good length.
    fn header(&self, before: &[Item<'_>], metadata: &BTreeMap<String, String>) -> Result<Header> {
        let order: Vec<Item<'_>> = before.iter().copied().chain(self.items()).collect();
        let length = order.iter().map(|item| item.bytes.len()).sum::<usize>().next_multiple_of(WIDEST);
        Header::new(&order, metadata, |own| {
            let natural = own + length;
            let step = (natural.next_power_of_two() / STEPS).clamp(BLOCK, LONGEST_STEP);
            natural.next_multiple_of(step) - length
        })
    }

    /// Copies what stands before the arrays to there; where the whole lies then, if there was room.
    fn after(&mut self, header: &Header, before: &[Item<'_>]) -> Option<Range<usize>> {
        let length = header.length + before.iter().map(|item| item.bytes.len()).sum::<usize>();
        self.room = self.room.max(2 * length);
        let place = self.place();
        let start = place.start.checked_sub(length)?;
        let (to, mut room) = self.memory[start..place.start].split_at_mut(header.length);
        header.write(to);
        for item in before {
            let (to, rest) = room.split_at_mut(item.bytes.len());
            to.copy_from_slice(item.bytes);
            room = rest;
        }
        Some(start..place.end)
    }

    /// A file in which arrays of narrow elements are added.
    fn file_in_pieces<'a, T>(
        &'a self,
        mut order: Vec<Item<'a>>,
        metadata: &BTreeMap<String, String>,
        write: impl FnOnce(&[&[u8]]) -> T,
    ) -> Result<T> {
        order.extend(self.items());
        sort(&mut order);
        let header = Header::new(&order, metadata, |own| own.next_multiple_of(WIDEST))?.into_bytes();
        let pieces: Vec<&[u8]> = std::iter::once(&*header).chain(order.iter().map(|item| item.bytes)).collect();
        Ok(write(&pieces))
    }
}

fn placed(items: &[Item<'_>], checksums: Vec<Option<String>>, mut start: usize) -> Vec<Placed> {
    let place = |(item, checksum): (&Item<'_>, _)| {
        let bytes = start..start + item.bytes.len();
        start = bytes.end;
        let (name, shape) = (item.name.to_owned(), item.shape.to_vec());
        Placed { name, kind: item.kind, dtype: item.dtype, shape, bytes, checksum }
    };
    items.iter().zip(checksums).map(place).collect()
}

/// What one thread copies at a time.
enum Job<'a> {
    /// An array, and where its checksum goes.
    Whole(&'a mut [u8], &'a Item<'a>, &'a mut Option<String>),
    /// A piece of a long one.
    Piece(&'a mut [u8], &'a [u8]),
}

impl Job<'_> {
    fn length(&self) -> usize {
        match self {
            Self::Whole(to, ..) | Self::Piece(to, _) => to.len(),
        }
    }

    fn run(self) {
        match self {
            Self::Whole(to, item, checksum) => *checksum = Some(item.copy(to)),
            Self::Piece(to, from) => copy_past_caches(to, from),
        }
    }
}

/// Copies the elements one after another; the checksums of those that are copied by one thread.
fn copy<T>(
    to: &mut [u8],
    items: &[Item<'_>],
    pool: &ThreadPool,
    first: impl FnOnce() -> T,
) -> (Vec<Option<String>>, T) {
    let (shares, mut checksums) = (to.len() / SHARE, vec![None; items.len()]);
    let made = run(jobs(to, items, &mut checksums), shares, pool, first);
    (checksums, made)
}

fn jobs<'a>(mut to: &'a mut [u8], items: &'a [Item<'_>], checksums: &'a mut [Option<String>]) -> Vec<Job<'a>> {
    let mut jobs = Vec::with_capacity(items.len());
    for (item, checksum) in items.iter().zip(checksums) {
        let (own, rest) = to.split_at_mut(item.bytes.len());
        to = rest;
        if item.bytes.len() < PIECE {
            jobs.push(Job::Whole(own, item, checksum));
        } else {
            jobs.extend(own.chunks_mut(PIECE).zip(item.bytes.chunks(PIECE)).map(|(to, from)| Job::Piece(to, from)));
        }
    }
    // The longest go first, from the end, so that all threads end together.
    jobs.sort_by_key(Job::length);
    jobs
}

/// Wakes others up, as many as there is work for, and helps them when it has done what comes first.
fn run<T>(jobs: Vec<Job<'_>>, shares: usize, pool: &ThreadPool, first: impl FnOnce() -> T) -> T {
    let helpers = shares.min(jobs.len()).min(pool.current_num_threads().saturating_sub(1));
    let left = Mutex::new(jobs);
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || {
        while let Some(job) = next() {
            job.run();
        }
    };
    pool.in_place_scope(|scope| {
        (0..helpers).for_each(|_| scope.spawn(|_| work()));
        let made = first();
        work();
        made
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::storage::header::DTYPES;
    use crate::storage::{Rotation, read};

    fn pool() -> ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads")
    }

    type Arrays = BTreeMap<String, StoredArray<'static>>;

    /// Arrays of these types and lengths, each with bytes of its own.
    fn arrays(prefix: &str, several: &[(usize, usize)]) -> Arrays {
        let array = |(index, &(kind, count)): (usize, &(usize, usize))| {
            let (name, dtype) = DTYPES[kind];
            // Bytes of a bool are 0 or 1.
            let bytes = (0..count * dtype.bitsize() / 8).map(|byte| ((byte / 7 + index) % 2) as u8).collect::<Vec<_>>();
            let array = StoredArray { dtype: name.to_owned(), shape: vec![count], bytes: bytes.into() };
            (format!("{prefix}{index}"), array)
        };
        several.iter().enumerate().map(array).collect()
    }

    fn several(kinds: impl Strategy<Value = usize>) -> impl Strategy<Value = Vec<(usize, usize)>> {
        // Few and many for one thread, and more than one piece.
        let lengths = prop_oneof![6 => 0usize..9, 6 => 0usize..3000, 3 => Just(70_000), 1 => Just(600_000)];
        prop::collection::vec((kinds, lengths), 0..6)
    }

    fn metadata(length: usize) -> BTreeMap<String, String> {
        BTreeMap::from([("text".to_owned(), "\"".repeat(length))])
    }

    /// Places where arrays begin in a file.
    fn places(path: &std::path::Path) -> Vec<(usize, usize)> {
        let bytes = fs::read(path).expect("the file");
        let (length, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("a header");
        let place =
            |info: &safetensors::tensor::TensorInfo| (8 + length + info.data_offsets.0, info.dtype.bitsize() / 8);
        header.tensors().into_values().map(place).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn files_hold_what_was_copied_and_what_is_added(
            files in prop::collection::vec(
                (several(0..DTYPES.len()), several(prop_oneof![Just(7usize), Just(8), Just(12), 0..DTYPES.len()]), 0usize..200_000),
                1..4,
            ),
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let (mut staged, mut rotation, pool) = (Staged::default(), Rotation::default(), pool());
            for (number, (copied, added, text)) in files.into_iter().enumerate() {
                let path = folder.path().join(number.to_string());
                let (mut all, added, metadata) = (arrays("a", &copied), arrays("b", &added), metadata(text));
                staged.fill(&all, &pool, || ()).expect("filled");
                // A second file of the same copy is the same.
                for _ in 0..2 {
                    rotation.write(&path, &mut staged, &added, &metadata, None).expect("written");
                }
                all.extend(added);
                prop_assert!(read(&path).expect("read") == (all, metadata));
                prop_assert!(places(&path).iter().all(|(place, width)| place % width == 0));
            }
        }
    }

    #[test]
    fn files_that_grow_a_little_are_as_long_as_each_other_and_fill_blocks() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut staged, mut rotation) = (Staged::default(), Rotation::default());
        let path = folder.path().join("x");
        let mut length = |count: usize| {
            staged.fill(&arrays("a", &[(11, 1_200_000), (8, 3)]), &pool(), || ()).expect("filled");
            rotation.write(&path, &mut staged, &arrays("b", &[(12, count)]), &metadata(9), None).expect("written");
            fs::metadata(&path).expect("the file").len() as usize
        };
        let lengths: Vec<usize> = [100, 200, 300, 400].map(&mut length).into();
        assert_eq!(lengths, [lengths[0]; 4]);
        assert_eq!(lengths[0] % BLOCK, 0);
        assert!(lengths[0] < 4_800_024 * 17 / 16 + 4000);
    }

    #[test]
    fn what_is_changed_later_is_not_in_the_file_and_a_name_is_there_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut staged, mut rotation, path) = (Staged::default(), Rotation::default(), folder.path().join("x"));
        let mut source = arrays("a", &[(11, 10)]);
        let before = source.clone();
        staged.fill(&source, &pool(), || ()).expect("filled");
        source.values_mut().for_each(|array| array.bytes.to_mut().fill(9));
        rotation.write(&path, &mut staged, &Arrays::new(), &metadata(0), None).expect("written");
        assert!(read(&path).expect("read").0 == before);
        assert!(rotation.write(&path, &mut staged, &before, &metadata(0), None).is_err());
        let mut bad = before.clone();
        bad.values_mut().for_each(|array| array.shape = vec![11]);
        assert!(staged.fill(&bad, &pool(), || ()).is_err());
        assert!(read(&path).expect("read").0 == before);
    }
}
