//! Memory in whole blocks of a disk.

use std::ops::{Deref, DerefMut};

/// A multiple of the blocks of (nearly) every disk: what is written past the cache begins at, ends at and comes from such.
pub(super) const BLOCK: usize = 4096;

/// Pages of this size make writing half as expensive: the system has to find each page of what it writes.
const LARGE_PAGE: usize = 1 << 21;

/// Whole blocks, kept from one use to the next.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    memory: Vec<u8>,
    start: usize,
    length: usize,
    #[cfg(test)]
    shift: usize,
}

impl Blocks {
    /// One that a disk refuses.
    #[cfg(test)]
    pub fn unaligned() -> Self {
        Self { shift: 1, ..Self::default() }
    }

    /// Has room for so many bytes; what they were is lost if there was less.
    pub fn reserve(&mut self, length: usize) {
        let length = length.next_multiple_of(BLOCK).max(BLOCK);
        if self.length < length {
            let page = if length < LARGE_PAGE { BLOCK } else { LARGE_PAGE };
            let length = length.next_multiple_of(page);
            self.memory = Vec::new();
            self.memory = vec![0; length + page];
            (self.start, self.length) = (self.memory.as_ptr().align_offset(page), length);
            #[cfg(test)]
            (self.start += self.shift);
            large_pages(&mut self[..]);
        }
    }
}

impl Deref for Blocks {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }
}

impl DerefMut for Blocks {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

/// Whether memory can be written past the cache as it lies there.
pub(super) fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().align_offset(BLOCK) == 0
}

#[cfg(target_os = "linux")]
fn large_pages(memory: &mut [u8]) {
    if memory.len() >= LARGE_PAGE {
        // SAFETY: the memory is this slice's, and the advice changes neither it nor what may be done with it.
        unsafe { libc::madvise(memory.as_mut_ptr().cast(), memory.len(), libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn large_pages(_: &mut [u8]) {}
