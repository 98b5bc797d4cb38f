//! Sums and means.
//!
//! Long sums go over blocks of fixed length whose totals are added in `f64`: accurate to the last digit of `float32` for
//! 10⁷ terms, and the same whatever the number of threads.

use rayon::prelude::*;

use super::{Reduced, Rule, collect, in_float32, over_groups, rows};
use crate::Number;
use crate::cpu;
use crate::memory::Block;
use crate::ops::Keeps;
use crate::tensor::{DType, Lengths, Real, Tensor};

/// Sum over axes, which stay with length 1.
pub(in super::super) fn sum(x: Tensor, axes: &[usize]) -> Tensor {
    match x.dtype() {
        DType::F32 if x.is_cpu() => sum_cpu::<f32>(x, axes, false),
        DType::F64 if x.is_cpu() => sum_cpu::<f64>(x, axes, false),
        half if half.is_half() => in_float32(x, |x| sum(x, axes)),
        _ => x.sum_axes(axes),
    }
}

/// Mean over axes, which stay with length 1.
pub(in super::super) fn mean(x: Tensor, axes: &[usize]) -> Tensor {
    match x.dtype() {
        DType::F32 if x.is_cpu() => sum_cpu::<f32>(x, axes, true),
        DType::F64 if x.is_cpu() => sum_cpu::<f64>(x, axes, true),
        half if half.is_half() => in_float32(x, |x| mean(x, axes)),
        _ => {
            let count = elements(&x.shape(), axes);
            x.sum_axes(axes).times(1.0 / count as f64)
        }
    }
}

/// Sums over the axes that broadcasting added or repeated, so that the result has `shape`.
pub(in super::super) fn sum_to(x: Tensor, shape: &[usize]) -> Tensor {
    let mine = x.shape();
    if mine == shape {
        return x;
    }
    let added = mine.len() - shape.len();
    let repeated = |&axis: &usize| axis < added || (shape[axis - added] == 1 && mine[axis] != 1);
    let axes: Lengths = (0..mine.len()).filter(repeated).collect();
    sum(x, &axes).reshape(shape)
}

fn elements(shape: &[usize], axes: &[usize]) -> usize {
    axes.iter().map(|&axis| shape[axis]).product()
}

fn sum_cpu<E: Real>(x: Tensor, axes: &[usize], mean: bool) -> Tensor {
    over_groups::<E>(x, axes, |values, sizes| sums(values, sizes, if mean { sizes[1] as f64 } else { 1.0 }))
}

/// Terms of a block, after which `f64` takes over.
const BLOCK: usize = 1024;
/// Blocks that one thread adds: fixed, so that the order of additions is.
const CHUNK: usize = 64 * BLOCK;
/// Independent partial sums, for the vector units.
pub(super) const LANES: usize = 32;
/// Terms that one partial sum adds in its own type.
const TERMS: usize = BLOCK / LANES;

/// `out[i, k] = Σⱼ x[i, j, k] / divisor`
fn sums<E: Real>(x: &[E], [outer, count, inner]: [usize; 3], divisor: f64) -> Block<E> {
    if x.is_empty() {
        return Block::full(outer * inner, E::from_f64(0.0 / divisor));
    }
    let finish = |total: f64| E::from_f64(total / divisor);
    if inner > 1 {
        return rows(outer, inner, x.len(), |index, out| {
            let totals = column_totals(&x[index * count * inner..][..count * inner], inner);
            out.iter_mut().zip(totals.iter()).for_each(|(out, &total)| *out = finish(total));
        });
    }
    if outer == 1 {
        return Block::full(1, finish(total(x)));
    }
    if count <= BLOCK {
        return short_sums(x, count, divisor);
    }
    collect(outer, x.len(), |index| finish(total(&x[index * count..][..count])))
}

/// The sums of rows of one block.
fn short_sums<E: Real>(x: &[E], count: usize, divisor: f64) -> Block<E> {
    let mut out = Block::<E>::uninitialised(x.len() / count);
    let rows = (cpu::PARALLEL_ELEMENTS / count).max(1);
    let body = |(out, x): (&mut [E], &[E])| {
        cpu::vectorised!({
            for (out, row) in out.iter_mut().zip(x.chunks_exact(count)) {
                *out = E::from_f64(block_total(row) / divisor);
            }
        });
    };
    if out.len() <= rows {
        body((&mut out, x));
    } else {
        out.par_chunks_mut(rows).zip(x.par_chunks(rows * count)).for_each(body);
    }
    out
}

/// The sum of a slice.
pub(in super::super) fn total<E: Real>(values: &[E]) -> f64 {
    let chunks = values.len().div_ceil(CHUNK);
    let chunk = |index: usize| &values[index * CHUNK..values.len().min((index + 1) * CHUNK)];
    collect(chunks, values.len(), |index| cpu::vectorised!(chunk_total(chunk(index)))).iter().sum()
}

/// The sum of a slice on this thread.
#[inline(always)]
pub(crate) fn chunk_total<E: Real>(values: &[E]) -> f64 {
    values.chunks(BLOCK).map(block_total).sum()
}

#[inline(always)]
fn block_total<E: Real>(block: &[E]) -> f64 {
    if block.len() < 2 * LANES {
        return block.iter().map(|value| value.to_f64()).sum();
    }
    let mut lanes = [E::default(); LANES];
    let chunks = block.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = *lane + value;
        }
    }
    lanes.iter().chain(rest).map(|value| value.to_f64()).sum()
}

/// `Σ a·b` on this thread.
#[inline(always)]
pub(crate) fn dot<E: Real>(a: &[E], b: &[E]) -> f64 {
    a.chunks(BLOCK).zip(b.chunks(BLOCK)).map(|(a, b)| block_dot(a, b)).sum()
}

#[inline(always)]
fn block_dot<E: Real>(a: &[E], b: &[E]) -> f64 {
    let mut lanes = [E::default(); LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a.remainder().iter().zip(b.remainder());
    let rest: f64 = rest.map(|(&a, &b)| (a * b).to_f64()).sum();
    for (a, b) in a.zip(b) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane = *lane + a * b;
        }
    }
    lanes.iter().map(|lane| lane.to_f64()).sum::<f64>() + rest
}

/// The sums of the columns of rows of `width`.
fn column_totals<E: Real>(x: &[E], width: usize) -> Block<f64> {
    let chunk = BLOCK * CHUNK.div_ceil(BLOCK * width) * width;
    let parts = rows(x.len().div_ceil(chunk), width, x.len(), |index, totals| {
        column_chunk(&x[index * chunk..x.len().min((index + 1) * chunk)], totals);
    });
    let mut parts_left = parts.chunks_exact(width);
    let mut totals = Block::copy(parts_left.next().expect("at least one row"));
    for part in parts_left {
        totals.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    totals
}

fn column_chunk<E: Real>(x: &[E], totals: &mut [f64]) {
    let width = totals.len();
    totals.fill(0.0);
    let mut partial = Block::full(width, E::default());
    cpu::vectorised!({
        for block in x.chunks(TERMS * width) {
            partial.fill(E::default());
            for row in block.chunks_exact(width) {
                for (sum, &value) in partial.iter_mut().zip(row) {
                    *sum = *sum + value;
                }
            }
            for (total, sum) in totals.iter_mut().zip(&*partial) {
                *total += sum.to_f64();
            }
        }
    });
}

/// `Σ x`
#[derive(Debug)]
pub(super) struct Sum;

impl Rule for Sum {
    const INTS: bool = true;
    const SOME: bool = false;
    const KEEPS: Keeps = Keeps::NOTHING;

    fn value(x: Tensor, axes: &[usize]) -> Tensor {
        sum(x, axes)
    }

    fn gradient(kept: Reduced, gradient: Tensor, _: &[usize]) -> Tensor {
        gradient.broadcast_to(&kept.shape)
    }
}

/// `Σ x / n`
#[derive(Debug)]
pub(super) struct Mean;

impl Rule for Mean {
    const INTS: bool = false;
    const SOME: bool = false;
    const KEEPS: Keeps = Keeps::NOTHING;

    fn value(x: Tensor, axes: &[usize]) -> Tensor {
        mean(x, axes)
    }

    fn gradient(kept: Reduced, gradient: Tensor, axes: &[usize]) -> Tensor {
        let count = elements(&kept.shape, axes);
        gradient.times(1.0 / count as f64).broadcast_to(&kept.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_sums_are_accurate() {
        let x = Tensor::from_vec(vec![0.1f32; 10_000_000], &[10_000_000]);
        let expected = f64::from(0.1f32) * 1e7;
        assert!((sum(x.clone(), &[0]).scalar() - expected).abs() < 1e-6 * expected);
        let columns = sum(x.reshape(&[5_000_000, 2]), &[0]).to_f64();
        assert!(columns.iter().all(|sum| (sum - expected / 2.0).abs() < 1e-6 * expected));
    }
}
