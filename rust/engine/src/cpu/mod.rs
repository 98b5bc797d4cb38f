//! Fused kernels over slices for the `cpu` device.

pub(crate) mod attention;
pub(crate) mod bfloat16;
mod columns;
pub(crate) mod convolution;
mod direct;
pub(crate) mod exponential;
pub(crate) mod factor;
pub(crate) mod features;
pub mod gemm;
mod grouped;
pub(crate) mod kernel;
pub(crate) mod pooling;
mod winograd;

use std::ops::Range;

use crate::tensor::Real;
use crate::threads::join;

/// Elements below which a second thread costs more than it brings (about 10 µs of work).
pub const PARALLEL_ELEMENTS: usize = 32 * 1024;

/// Evaluates an expression, a loop say, with the widest vector instructions that this processor has.
///
/// A macro, because each copy of the expression has to be its own closure with one caller: only then is it compiled into
/// that caller, with the caller's instructions. (As a function, all copies shared one closure of baseline instructions.)
macro_rules! vectorised {
    ($body:expr) => {
        match pulp::Arch::new() {
            #[cfg(target_arch = "x86_64")]
            pulp::Arch::V4(simd) => simd.vectorize(|| $body),
            #[cfg(target_arch = "x86_64")]
            pulp::Arch::V3(simd) => simd.vectorize(|| $body),
            _ => $body,
        }
    };
}
pub(crate) use vectorised;

/// Length of the pieces that `count` elements are split into, one a thread if there are enough, in whole cache lines.
pub fn piece(count: usize) -> usize {
    if count < PARALLEL_ELEMENTS {
        return count.max(1);
    }
    count.div_ceil(rayon::current_num_threads()).next_multiple_of(64)
}

/// `out[i] = function(i)` by pieces: calls `body(offset, piece)` on each, in parallel when it pays.
pub fn for_pieces<E: Send>(out: &mut [E], body: impl Fn(usize, &mut [E]) + Sync) {
    let length = piece(out.len());
    if length >= out.len() {
        return body(0, out);
    }
    for_chunks(out, length, body);
}

/// Like [`for_pieces`] in whole rows of `width` elements.
pub fn for_rows<E: Send>(out: &mut [E], width: usize, body: impl Fn(usize, &mut [E]) + Sync) {
    let rows = out.len() / width.max(1);
    if rows < 2 || out.len() < PARALLEL_ELEMENTS {
        return body(0, out);
    }
    let rows = rows.div_ceil(rayon::current_num_threads());
    for_chunks(out, rows * width, |offset, piece| body(offset / width, piece));
}

/// Calls `body(offset, chunk)` on each chunk of that length, in parallel; `offset` is the place of its first element.
pub fn for_chunks<E: Send>(out: &mut [E], length: usize, body: impl Fn(usize, &mut [E]) + Sync) {
    let chunks = out.len().div_ceil(length);
    for_shares(0..chunks, [out, &mut []], [length, 0], &|index, [chunk, _]| body(index * length, chunk));
}

/// `body(share, its pieces)` for each share, which has so many elements of each array (none of one that is empty), in parallel.
fn for_shares<E: Send>(
    shares: Range<usize>,
    arrays: [&mut [E]; 2],
    steps: [usize; 2],
    body: &(impl Fn(usize, [&mut [E]; 2]) + Sync),
) {
    match shares.len() {
        0 => {}
        1 => body(shares.start, arrays),
        count => {
            let half = count / 2;
            let [(a, a_rest), (b, b_rest)] = {
                let [a, b] = arrays;
                let at = [(half * steps[0]).min(a.len()), (half * steps[1]).min(b.len())];
                [a.split_at_mut(at[0]), b.split_at_mut(at[1])]
            };
            let middle = shares.start + half;
            join(
                || for_shares(shares.start..middle, [a, b], steps, body),
                || for_shares(middle..shares.end, [a_rest, b_rest], steps, body),
            );
        }
    }
}

/// Asks for elements that are read or written soon, so that they come into the second cache meanwhile: for rows that lie too far
/// apart for the processor to guess the next.
#[inline(always)]
pub fn prefetch<E>(values: &[E]) {
    for line in (0..size_of_val(values)).step_by(64) {
        prefetch_line(values.as_ptr().cast::<i8>().wrapping_add(line));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch_line(address: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: a hint, which reads nothing.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(address) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn prefetch_line(_: *const i8) {}

/// `a += b`.
pub fn accumulate<E: Real>(a: &mut [E], b: &[E]) {
    for_pieces(a, |offset, piece| {
        vectorised!({
            for (a, &b) in piece.iter_mut().zip(&b[offset..]) {
                *a = *a + b;
            }
        });
    });
}
