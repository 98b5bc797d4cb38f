//! Writing past the page cache: what is read after a crash only needs no copy in memory, and making one costs more
//! processor time than everything else about a checkpoint.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};

use tempfile::NamedTempFile;

use super::blocks::{BLOCK, Blocks, is_aligned};

/// Written at once: in few large pieces it costs the system less than in many.
const AT_ONCE: usize = 1 << 22;

/// Memory in which pieces of any length and place become whole blocks; it is kept from one file to the next.
#[derive(Debug, Default)]
pub(super) struct Uncached(Blocks);

impl Uncached {
    /// One that a disk refuses.
    #[cfg(test)]
    pub(super) fn unaligned() -> Self {
        Self(Blocks::unaligned())
    }

    /// Writes the pieces one after another from the beginning of an empty or a spare file on; it ends where they end.
    pub(super) fn write(&mut self, target: &NamedTempFile, pieces: &[&[u8]]) -> io::Result<()> {
        let mut file = target.as_file();
        file.seek(SeekFrom::Start(0))?;
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let rest = match pieces {
            [whole] if is_aligned(whole) => write_whole(file, whole)?,
            _ => self.write_pieces(file, length, pieces)?,
        };
        end(target, length, rest)
    }

    /// Writes what fills blocks and returns the rest.
    fn write_pieces(&mut self, mut file: &File, length: usize, pieces: &[&[u8]]) -> io::Result<&[u8]> {
        let size = length.next_multiple_of(BLOCK).clamp(BLOCK, AT_ONCE);
        self.0.reserve(size);
        let (room, mut filled) = (&mut self.0[..size], 0);
        for mut piece in pieces.iter().copied() {
            while !piece.is_empty() {
                let count = piece.len().min(room.len() - filled);
                room[filled..filled + count].copy_from_slice(&piece[..count]);
                (filled, piece) = (filled + count, &piece[count..]);
                if filled == room.len() {
                    file.write_all(room)?;
                    filled = 0;
                }
            }
        }
        write_whole(file, &room[..filled])
    }
}

/// Writes from where the bytes lie, as far as they fill blocks, and returns the rest.
fn write_whole<'a>(mut file: &File, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
    let (blocks, rest) = bytes.split_at(bytes.len() - bytes.len() % BLOCK);
    for piece in blocks.chunks(AT_ONCE) {
        file.write_all(piece)?;
    }
    Ok(rest)
}

/// Writes what is less than a block through the cache, and cuts off what a spare file has beyond it.
fn end(target: &NamedTempFile, length: usize, rest: &[u8]) -> io::Result<()> {
    let longer = target.as_file().metadata()?.len() > length as u64;
    if rest.is_empty() && !longer {
        return Ok(());
    }
    let mut cached = target.reopen()?;
    cached.seek(SeekFrom::Start((length - rest.len()) as u64))?;
    cached.write_all(rest)?;
    if longer { cached.set_len(length as u64) } else { Ok(()) }
}

/// Copies to where only a disk reads it, which leaves the caches to who computes: what they held need not be fetched again.
#[cfg(target_arch = "x86_64")]
pub(super) fn copy_past_caches(to: &mut [u8], from: &[u8]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};

    const LANE: usize = size_of::<__m128i>();
    const LINE: usize = 64;

    assert_eq!(to.len(), from.len());
    // Lines are written whole, what is less on either side as usual.
    let before = to.as_ptr().align_offset(LINE).min(to.len());
    let behind = to.len() - (to.len() - before) % LINE;
    to[..before].copy_from_slice(&from[..before]);
    for (to, from) in to[before..behind].chunks_exact_mut(LANE).zip(from[before..behind].chunks_exact(LANE)) {
        // SAFETY: each is as long as a lane, and those that are written to begin where lanes may.
        unsafe { _mm_stream_si128(to.as_mut_ptr().cast(), _mm_loadu_si128(from.as_ptr().cast())) };
    }
    to[behind..].copy_from_slice(&from[behind..]);
    // SAFETY: every processor of this kind can.
    unsafe { _mm_sfence() };
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn copy_past_caches(to: &mut [u8], from: &[u8]) {
    to.copy_from_slice(from);
}

/// Has a file opened so that it is written past the cache, where the system can.
#[cfg(target_os = "linux")]
pub(super) fn past_cache(options: &mut OpenOptions) -> &mut OpenOptions {
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, libc::O_DIRECT)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn past_cache(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    /// Lengths around multiples of a block and of what is written at once.
    fn lengths() -> impl Strategy<Value = usize> {
        let around = |unit: usize, most: usize| {
            (0..=most, -9i64..=9).prop_map(move |(count, more)| (count * unit).saturating_add_signed(more as isize))
        };
        prop_oneof![0usize..10_000, around(BLOCK, 20), around(AT_ONCE, 3)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn files_hold_what_was_written_whatever_its_lengths_and_what_was_there(
            files in prop::collection::vec((lengths(), prop::collection::vec(any::<prop::sample::Index>(), 0..5)), 1..4),
            direct: bool,
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true);
            let target = tempfile::Builder::new()
                .make_in(folder.path(), |name| if direct { past_cache(&mut options).open(name) } else { options.open(name) })
                .expect("a file");
            let mut uncached = Uncached::default();
            // Each over the one before, which may have been longer.
            for (number, (length, cuts)) in files.into_iter().enumerate() {
                let contents: Vec<u8> = (0..length).map(|place| ((place + 7 * number) % 251) as u8).collect();
                let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(length + 1)).collect();
                cuts.extend([0, length]);
                cuts.sort_unstable();
                let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &contents[ends[0]..ends[1]]).collect();
                uncached.write(&target, &pieces).expect("written");
                prop_assert!(fs::read(target.path()).expect("read") == contents);
            }
        }
    }
}
