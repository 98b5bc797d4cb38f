//! Memory of the `cpu` device: what one step frees, the next one takes, so that a steady step asks the allocator for nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn_backend::Bytes;
use bytemuck::Pod;

use crate::Error;

/// Storage that tensors share.
pub(crate) type Shared = Arc<Bytes>;

/// A fixed number of plain elements in memory that nobody else holds.
pub struct Block<E> {
    /// `None` only while it is dropped.
    storage: Option<Shared>,
    elements: NonNull<E>,
    count: usize,
    owned: PhantomData<E>,
}

// SAFETY: the elements belong to this block alone, as those of a vector.
unsafe impl<E: Send> Send for Block<E> {}
// SAFETY: as above.
unsafe impl<E: Sync> Sync for Block<E> {}

impl<E: Pod + Send + Sync> Block<E> {
    /// Elements of any value, for a kernel that writes each.
    pub fn uninitialised(count: usize) -> Self {
        let storage = pool().take(count * size_of::<E>(), align_of::<E>());
        storage.map_or_else(|| Self::new(uninitialised(count)), Self::unique)
    }

    /// Elements of one value.
    pub fn full(count: usize, value: E) -> Self {
        let mut block = Self::uninitialised(count);
        block.fill(value);
        block
    }

    /// A copy.
    pub fn copy(elements: &[E]) -> Self {
        let mut block = Self::uninitialised(elements.len());
        block.copy_from_slice(elements);
        block
    }

    /// The elements in order.
    pub fn collect(elements: impl ExactSizeIterator<Item = E>) -> Self {
        let mut block = Self::uninitialised(elements.len());
        let mut written = 0;
        for (to, element) in block.iter_mut().zip(elements) {
            *to = element;
            written += 1;
        }
        assert_eq!(written, block.len(), "as many elements as promised");
        block
    }

    fn new(elements: Vec<E>) -> Self {
        Self::unique(Arc::new(Bytes::from_elems(elements)))
    }

    fn unique(mut storage: Shared) -> Self {
        let bytes: &mut [u8] = Arc::get_mut(&mut storage).expect("storage that nobody else holds");
        let elements: &mut [E] = bytemuck::cast_slice_mut(bytes);
        let (elements, count) = (NonNull::from(&mut *elements).cast(), elements.len());
        Self { storage: Some(storage), elements, count, owned: PhantomData }
    }
}

impl<E> Block<E> {
    /// The storage, for a tensor.
    pub(crate) fn into_shared(mut self) -> Shared {
        self.storage.take().expect("not dropped")
    }

    /// The elements as bytes, without a copy.
    pub(crate) fn into_bytes(self) -> Bytes {
        Arc::into_inner(self.into_shared()).expect("storage that nobody else holds")
    }
}

impl<E> Deref for Block<E> {
    type Target = [E];
    fn deref(&self) -> &[E] {
        // SAFETY: `unique` found so many elements there, and the storage lives as long as the block.
        unsafe { std::slice::from_raw_parts(self.elements.as_ptr(), self.count) }
    }
}

impl<E> DerefMut for Block<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        // SAFETY: as above, and nobody else holds the storage.
        unsafe { std::slice::from_raw_parts_mut(self.elements.as_ptr(), self.count) }
    }
}

impl<E: Pod + Send + Sync> From<Vec<E>> for Block<E> {
    fn from(elements: Vec<E>) -> Self {
        Self::new(elements)
    }
}

impl<E: fmt::Debug> fmt::Debug for Block<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deref().fmt(formatter)
    }
}

impl<E> Drop for Block<E> {
    fn drop(&mut self) {
        if let Some(storage) = self.storage.take() {
            give(storage, align_of::<E>());
        }
    }
}

/// Takes back storage that a block or a tensor of a kernel's result held; freed at once where others still hold it.
pub(crate) fn give(mut storage: Shared, align: usize) {
    if RUNS.load(Ordering::Relaxed) > 0
        && let Some(bytes) = Arc::get_mut(&mut storage)
    {
        let size = bytes.len();
        pool().give(storage, size, align);
    }
}

/// A vector whose memory the next one of its type takes over.
#[derive(Debug)]
pub struct List<T: Listed>(Vec<T>);

/// What lists hold: the spare vectors of each type.
pub trait Listed: Sized + 'static {
    /// The spare ones.
    fn spare() -> &'static Mutex<Vec<Vec<Self>>>;
}

/// Makes types [`Listed`].
macro_rules! listed {
    ($($type:ty),+ $(,)?) => {
        $(impl $crate::memory::Listed for $type {
            fn spare() -> &'static std::sync::Mutex<Vec<Vec<Self>>> {
                static SPARE: std::sync::Mutex<Vec<Vec<$type>>> = std::sync::Mutex::new(Vec::new());
                &SPARE
            }
        })+
    };
}
pub(crate) use listed;

impl<T: Listed> List<T> {
    /// As many values as asked for.
    pub fn filled(count: usize, value: impl FnMut() -> T) -> Self {
        let mut list = Self::default();
        list.resize_with(count, value);
        list
    }
}

impl<T: Listed> Default for List<T> {
    fn default() -> Self {
        Self(lock(T::spare()).pop().unwrap_or_default())
    }
}

impl<T: Listed + Clone> Clone for List<T> {
    fn clone(&self) -> Self {
        self.iter().cloned().collect()
    }
}

impl<T: Listed> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut list = Self::default();
        list.extend(values);
        list
    }
}

impl<T: Listed + PartialEq> PartialEq for List<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T: Listed> Deref for List<T> {
    type Target = Vec<T>;
    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T: Listed> DerefMut for List<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}

impl<T: Listed> Drop for List<T> {
    fn drop(&mut self) {
        let mut values = std::mem::take(&mut self.0);
        if values.capacity() > 0 && RUNS.load(Ordering::Relaxed) > 0 {
            values.clear();
            lock(T::spare()).push(values);
        }
    }
}

/// A run whose steps hand storage on to each other; what is left when the last one ends is freed, but for the room of lists,
/// which is little.
#[derive(Debug)]
pub(crate) struct Recycling(());

/// How many runs there are.
static RUNS: AtomicUsize = AtomicUsize::new(0);

static POOL: Mutex<Pool> = Mutex::new(Pool { free: BTreeMap::new() });

impl Recycling {
    /// Begins one.
    pub fn begin() -> Self {
        RUNS.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Recycling {
    fn drop(&mut self) {
        let mut pool = pool();
        if RUNS.fetch_sub(1, Ordering::Relaxed) == 1 {
            let free = std::mem::take(&mut pool.free);
            drop(pool);
            drop(free);
        }
    }
}

fn pool() -> MutexGuard<'static, Pool> {
    lock(&POOL)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Storage that waits for its next use, by size and alignment.
struct Pool {
    free: BTreeMap<(usize, usize), Free>,
}

/// Storage of one size and alignment.
#[derive(Default)]
struct Free {
    storage: Vec<Shared>,
    /// How often it was asked for in vain: more is never kept, wherever it comes from.
    most: usize,
}

impl Pool {
    fn take(&mut self, size: usize, align: usize) -> Option<Shared> {
        if RUNS.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let free = self.free.entry((size, align)).or_default();
        let found = free.storage.pop();
        free.most += usize::from(found.is_none());
        found
    }

    fn give(&mut self, storage: Shared, size: usize, align: usize) {
        if let Some(free) = self.free.get_mut(&(size, align))
            && free.storage.len() < free.most
        {
            free.storage.push(storage);
        }
    }
}

/// No elements yet, with room for so many; raises an error where there is no memory for them.
pub(crate) fn with_room<E>(count: usize) -> Vec<E> {
    let mut values = Vec::new();
    if values.try_reserve_exact(count).is_err() {
        let gigabytes = count as f64 * size_of::<E>() as f64 / 1e9;
        Error::Memory(format!("there is no memory for an array of {gigabytes:.1} GB")).raise();
    }
    values
}

fn uninitialised<E: Pod>(count: usize) -> Vec<E> {
    let mut values = with_room(count);
    // SAFETY: every bit pattern is a value of a plain type; callers write each element before reading.
    #[allow(clippy::uninit_vec)]
    unsafe {
        values.set_len(count);
    }
    values
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A size that no other test asks for, so that its storage is this test's.
    const COUNT: usize = 1_000_003;

    #[test]
    fn a_run_hands_storage_on_and_frees_it_when_it_ends() {
        let run = Recycling::begin();
        let mut block = Block::full(COUNT, 1.5f32);
        block[7] = 2.0;
        let place = block.as_ptr();
        drop(block);
        let again = Block::<f32>::uninitialised(COUNT);
        assert_eq!(again.as_ptr(), place);
        assert_eq!((again[6], again[7]), (1.5, 2.0));
        // What nobody asked for is not kept.
        let more = [(); 3].map(|()| Block::from(vec![0u8; COUNT]));
        drop(more);
        assert!(!pool().free.contains_key(&(COUNT, 1)));
        // What somebody else still holds is not handed on.
        let shared = again.into_shared();
        give(Arc::clone(&shared), align_of::<f32>());
        assert_ne!(Block::<f32>::uninitialised(COUNT).as_ptr(), place);
        drop(shared);
        drop(run);
    }

    #[test]
    fn lists_keep_their_room() {
        let _run = Recycling::begin();
        let mut list: List<usize> = (0..1000).collect();
        list.push(3);
        assert_eq!((list.clone(), list.len()), (list.iter().copied().collect(), 1001));
        let place = list.as_ptr();
        drop(list);
        let next = List::<usize>::default();
        assert!(next.is_empty() && next.capacity() > 1000 && next.as_ptr() == place);
    }

    listed!(usize);

    #[test]
    #[should_panic(expected = "as many elements as promised")]
    fn an_iterator_that_ends_early_is_refused() {
        struct Liar;
        impl Iterator for Liar {
            type Item = f64;
            fn next(&mut self) -> Option<f64> {
                None
            }
            fn size_hint(&self) -> (usize, Option<usize>) {
                (2, Some(2))
            }
        }
        impl ExactSizeIterator for Liar {}
        Block::collect(Liar);
    }

    proptest! {
        #[test]
        fn blocks_hold_what_vectors_hold(values: Vec<f64>, recycling: bool) {
            let _run = recycling.then(Recycling::begin);
            prop_assert!(Block::from(values.clone()).iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()));
            prop_assert_eq!(Block::copy(&values).len(), values.len());
            let halves = Block::collect(values.iter().map(|value| value / 2.0));
            prop_assert!(halves.iter().zip(&values).all(|(half, value)| half.to_bits() == (value / 2.0).to_bits()));
        }
    }
}
