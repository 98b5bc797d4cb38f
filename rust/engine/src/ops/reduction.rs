//! Sums, means and extremes over axes.
//!
//! Long sums go over blocks of fixed length whose totals are added in `f64`: accurate to the last digit of `float32` for
//! 10⁷ terms, and the same whatever the number of threads.

use std::fmt::Debug;
use std::marker::PhantomData;

use burn_backend::Element;
use rayon::prelude::*;
use serde::Deserialize;
use smallvec::smallvec;

use super::binary::{divide, multiply};
use super::softmax::{row_logsumexp, swap_last};
use super::{Context, Entry, Evaluation, Gradients, Keeps, Kept, Operation, Reach, Tensors, entry};
use crate::Number;
use crate::cpu;
use crate::memory::Block;
use crate::number::{is_nan, prefer};
use crate::program::{Dim, Kind, Type, show};
use crate::tensor::{Comparison, DType, Lengths, Real, Tensor};

/// The lines of the table.
pub(super) const ENTRIES: &[Entry] = &[
    entry::<Reduce<Sum>>("sum", 1, Some(1)),
    entry::<Reduce<Mean>>("mean", 1, Some(1)),
    entry::<Reduce<Max>>("max", 1, Some(1)),
    entry::<Reduce<Min>>("min", 1, Some(1)),
    entry::<Position<Max>>("argmax", 1, Some(1)),
    entry::<Position<Min>>("argmin", 1, Some(1)),
    entry::<LogSumExp>("logsumexp", 1, Some(1)),
];

/// A way to reduce axes, which stay with length 1 here.
trait Rule: Debug + Send + Sync {
    /// Whether it is defined for integers too.
    const INTS: bool;
    /// Whether it is undefined without elements.
    const SOME: bool;
    const KEEPS: Keeps;
    fn value(x: Tensor, axes: &[usize]) -> Tensor;
    fn gradient(kept: Reduced, gradient: Tensor, axes: &[usize]) -> Tensor;
}

/// What a gradient of a [`Rule`] reads; `output` has the reduced axes with length 1.
struct Reduced {
    input: Option<Tensor>,
    output: Option<Tensor>,
    shape: Lengths,
}

/// The operation of a [`Rule`]: `axes` none means all; `keepdims` leaves them with length 1.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound = "")]
struct Reduce<R> {
    #[serde(default)]
    axes: Option<Vec<i64>>,
    #[serde(default)]
    keepdims: bool,
    #[serde(skip)]
    rule: PhantomData<R>,
}

impl<R: Rule> Operation for Reduce<R> {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let x = inputs[0];
        expect_number(x, R::INTS)?;
        let axes = checked_axes(x, self.axes.as_deref())?;
        if R::SOME && axes.iter().any(|&axis| x.shape[axis].count == 0) {
            return Err(format!("there is no extreme of no elements: got shape {}", show(&x.shape)));
        }
        Ok(Type { kind: x.kind, shape: reduced(&x.shape, &axes, self.keepdims, Dim::known(1)) })
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        let x = inputs.remove(0);
        let axes = positions(self.axes.as_deref(), x.rank());
        let shape = reduced(&x.shape(), &axes, self.keepdims, 1);
        R::value(x, &axes).reshape(&shape).into()
    }

    fn keeps(&self) -> Keeps {
        R::KEEPS
    }

    fn gradient(&self, mut kept: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
        let shape = kept.shapes.swap_remove(0);
        let axes = positions(self.axes.as_deref(), shape.len());
        let with_axes = reduced(&shape, &axes, true, 1);
        let output = kept.output.map(|output| output.reshape(&with_axes));
        let reduced = Reduced { input: kept.inputs.pop(), output, shape };
        smallvec![Some(R::gradient(reduced, gradient.reshape(&with_axes), &axes))]
    }
}

/// Refuses truth values, and integers unless `ints`.
fn expect_number(x: &Type, ints: bool) -> Result<(), String> {
    if x.kind == Kind::Float || ints && x.kind == Kind::Int {
        return Ok(());
    }
    let kinds = if ints { "float or int" } else { "float" };
    Err(format!("expected {kinds} values, got {x}"))
}

/// The axes that possibly negative numbers name, in order; all of them for none.
pub(super) fn checked_axes(x: &Type, axes: Option<&[i64]>) -> Result<Vec<usize>, String> {
    let Some(axes) = axes else {
        return Ok((0..x.rank()).collect());
    };
    let mut found = axes.iter().map(|&axis| x.axis(axis)).collect::<Result<Vec<_>, _>>()?;
    found.sort_unstable();
    if found.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(format!("axes {axes:?} name an axis of shape {} twice", show(&x.shape)));
    }
    Ok(found)
}

/// [`checked_axes`] of axes that were checked.
pub(super) fn positions(axes: Option<&[i64]>, rank: usize) -> Vec<usize> {
    let Some(axes) = axes else {
        return (0..rank).collect();
    };
    let mut found: Vec<usize> = axes.iter().map(|&axis| position(axis, rank)).collect();
    found.sort_unstable();
    found
}

/// The axis that a possibly negative number, which was checked, names.
pub(super) fn position(axis: i64, rank: usize) -> usize {
    if axis < 0 { (axis + rank as i64) as usize } else { axis as usize }
}

/// A shape without some axes, or with `one` in their place.
fn reduced<L: Copy>(shape: &[L], axes: &[usize], keepdims: bool, one: L) -> Vec<L> {
    let lengths = shape.iter().enumerate();
    lengths
        .filter(|(axis, _)| keepdims || !axes.contains(axis))
        .map(|(axis, &length)| if axes.contains(&axis) { one } else { length })
        .collect()
}

/// Sum over axes, which stay with length 1.
pub(super) fn sum(x: Tensor, axes: &[usize]) -> Tensor {
    match x.dtype() {
        DType::F32 if x.is_cpu() => sum_cpu::<f32>(x, axes, false),
        DType::F64 if x.is_cpu() => sum_cpu::<f64>(x, axes, false),
        _ => in_float32(x, |x| x.sum_axes(axes)),
    }
}

/// Mean over axes, which stay with length 1.
pub(super) fn mean(x: Tensor, axes: &[usize]) -> Tensor {
    match x.dtype() {
        DType::F32 if x.is_cpu() => sum_cpu::<f32>(x, axes, true),
        DType::F64 if x.is_cpu() => sum_cpu::<f64>(x, axes, true),
        _ => {
            let count = elements(&x.shape(), axes);
            in_float32(x, |x| x.sum_axes(axes).times(1.0 / count as f64))
        }
    }
}

/// Sums over the axes that broadcasting added or repeated, so that the result has `shape`.
pub(super) fn sum_to(x: Tensor, shape: &[usize]) -> Tensor {
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

/// Reduces each group of adjacent axes, the last first: `body` gets lengths `[before, reduced, after]`.
fn over_groups<E: Element + bytemuck::Pod>(
    x: Tensor,
    axes: &[usize],
    body: impl Fn(&[E], [usize; 3]) -> Block<E>,
) -> Tensor {
    let mut x = x.contiguous::<E>();
    for group in axes.chunk_by(|a, b| a + 1 == *b).rev() {
        let mut shape = x.shape();
        let (first, end) = (group[0], group[0] + group.len());
        let lengths = [&shape[..first], &shape[first..end], &shape[end..]];
        let sizes = lengths.map(|lengths| lengths.iter().product());
        let out = body(x.elements::<E>(), sizes);
        shape[first..end].fill(1);
        x = Tensor::from_block(out, &shape);
    }
    x
}

/// Terms of a block, after which `f64` takes over.
const BLOCK: usize = 1024;
/// Blocks that one thread adds: fixed, so that the order of additions is.
const CHUNK: usize = 64 * BLOCK;
/// Independent partial sums, for the vector units.
const LANES: usize = 32;
/// Terms that one partial sum adds in its own type.
const TERMS: usize = BLOCK / LANES;

/// `body(i)` for each `i`, in parallel when it pays.
fn collect<T>(count: usize, work: usize, body: impl Fn(usize) -> T + Sync + Send) -> Block<T>
where
    T: bytemuck::Pod + Send + Sync,
{
    rows(count, 1, work, |index, out| out[0] = body(index))
}

/// `body(i, row i)` for each row of `width`, which it writes, in parallel when it pays.
pub(crate) fn rows<T>(count: usize, width: usize, work: usize, body: impl Fn(usize, &mut [T]) + Sync + Send) -> Block<T>
where
    T: bytemuck::Pod + Send + Sync,
{
    let mut out = Block::uninitialised(count * width);
    if count < 2 || work < cpu::PARALLEL_ELEMENTS {
        out.chunks_mut(width.max(1)).enumerate().for_each(|(index, row)| body(index, row));
    } else {
        let least = cpu::PARALLEL_ELEMENTS.div_ceil((work / count).max(1));
        let rows = out.par_chunks_mut(width.max(1)).with_min_len(least).enumerate();
        rows.for_each(|(index, row)| body(index, row));
    }
    out
}

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
pub(super) fn total<E: Real>(values: &[E]) -> f64 {
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
struct Sum;

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
struct Mean;

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

/// An extreme: the order, and what tensors of any device offer.
trait Extreme: Debug + Send + Sync {
    /// Whether `a` goes before `b`.
    fn beats<E: PartialOrd>(a: E, b: E) -> bool;
    fn axis(x: Tensor, axis: usize) -> Tensor;
    fn position(x: Tensor, axis: usize) -> Tensor;
}

/// The greatest; NaN if any is.
#[derive(Debug)]
struct Max;

impl Extreme for Max {
    #[inline(always)]
    fn beats<E: PartialOrd>(a: E, b: E) -> bool {
        a > b
    }
    fn axis(x: Tensor, axis: usize) -> Tensor {
        x.max_axis(axis)
    }
    fn position(x: Tensor, axis: usize) -> Tensor {
        x.argmax(axis)
    }
}

/// The least; NaN if any is.
#[derive(Debug)]
struct Min;

impl Extreme for Min {
    #[inline(always)]
    fn beats<E: PartialOrd>(a: E, b: E) -> bool {
        a < b
    }
    fn axis(x: Tensor, axis: usize) -> Tensor {
        x.min_axis(axis)
    }
    fn position(x: Tensor, axis: usize) -> Tensor {
        x.argmin(axis)
    }
}

impl<X: Extreme> Rule for X {
    const INTS: bool = true;
    const SOME: bool = true;
    const KEEPS: Keeps = Keeps::BOTH;

    fn value(x: Tensor, axes: &[usize]) -> Tensor {
        match x.dtype() {
            DType::F32 if x.is_cpu() => over_groups::<f32>(x, axes, extremes::<f32, X>),
            DType::F64 if x.is_cpu() => over_groups::<f64>(x, axes, extremes::<f64, X>),
            DType::I32 if x.is_cpu() => over_groups::<i32>(x, axes, extremes::<i32, X>),
            DType::I32 | DType::I64 => axes.iter().fold(x, |x, &axis| X::axis(x, axis)),
            _ => extreme_tensors::<X>(x, axes),
        }
    }

    /// Ties share equally, as in PyTorch's `amax`.
    fn gradient(kept: Reduced, gradient: Tensor, axes: &[usize]) -> Tensor {
        let (x, y) = (kept.input.expect("kept"), kept.output.expect("kept"));
        let dtype = x.dtype();
        let ties = x.compare(Comparison::Equal, y).cast(dtype);
        let count = sum(ties.clone(), axes);
        multiply(ties, divide(gradient, count))
    }
}

/// Backends disagree on NaN, so that it is found apart.
fn extreme_tensors<X: Extreme>(x: Tensor, axes: &[usize]) -> Tensor {
    let nan = x.clone().compare(Comparison::NotEqual, x.clone()).cast(x.dtype());
    let nans = nan.sum_axes(axes);
    let y = axes.iter().fold(x, |x, &axis| X::axis(x, axis));
    let zero = nans.constant(0.0);
    let any = nans.compare(Comparison::Greater, zero);
    let nan = y.constant(f64::NAN);
    Tensor::choose(any, nan, y)
}

/// The better of two; NaN before all.
#[inline(always)]
fn pick<E: PartialOrd + Copy, X: Extreme>(a: E, b: E) -> E {
    prefer(X::beats(a, b), a, b)
}

/// The greatest of a row, NaN if any is.
#[inline(always)]
pub(crate) fn row_max<E: Real>(row: &[E]) -> E {
    row_extreme::<E, Max>(row)
}

#[inline(always)]
fn row_extreme<E: PartialOrd + Copy, X: Extreme>(row: &[E]) -> E {
    let mut lanes = [row[0]; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = pick::<E, X>(*lane, value);
        }
    }
    let first = if row.len() < LANES { &lanes[..1] } else { &lanes[..] };
    first.iter().chain(rest).copied().fold(row[0], pick::<E, X>)
}

/// `out[i, k]` is the extreme of `x[i, :, k]`, of at least one element.
fn extremes<E, X>(x: &[E], [outer, count, inner]: [usize; 3]) -> Block<E>
where
    E: PartialOrd + bytemuck::Pod + Send + Sync,
    X: Extreme,
{
    if inner == 1 {
        return collect(outer, x.len(), |index| cpu::vectorised!(row_extreme::<E, X>(&x[index * count..][..count])));
    }
    rows(outer, inner, x.len(), |index, best| {
        let block = &x[index * count * inner..][..count * inner];
        best.copy_from_slice(&block[..inner]);
        cpu::vectorised!({
            for row in block.chunks_exact(inner.max(1)) {
                for (best, &value) in best.iter_mut().zip(row) {
                    *best = pick::<E, X>(*best, value);
                }
            }
        });
    })
}

/// The index of the first extreme along `axis` (default the last), which goes away; that of the first NaN if there is one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound = "")]
struct Position<X> {
    #[serde(default = "last_axis")]
    axis: i64,
    #[serde(skip)]
    extreme: PhantomData<X>,
}

/// The default of `axis`.
pub(super) fn last_axis() -> i64 {
    -1
}

impl<X: Extreme> Operation for Position<X> {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let x = inputs[0];
        expect_number(x, true)?;
        let axis = x.axis(self.axis)?;
        let length = x.shape[axis].count;
        if length == 0 || length > i32::MAX as usize {
            return Err(format!("axis {axis} must have 1 to 2^31 - 1 elements, got shape {}", show(&x.shape)));
        }
        Ok(Type { kind: Kind::Int, shape: reduced(&x.shape, &[axis], false, Dim::known(1)) })
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        let x = inputs.remove(0);
        let axis = position(self.axis, x.rank());
        let shape = reduced(&x.shape(), &[axis], false, 1);
        match x.dtype() {
            DType::F32 if x.is_cpu() => positions_cpu::<f32, X>(x, axis),
            DType::F64 if x.is_cpu() => positions_cpu::<f64, X>(x, axis),
            DType::I32 if x.is_cpu() => positions_cpu::<i32, X>(x, axis),
            _ => X::position(x, axis).cast(DType::I32),
        }
        .reshape(&shape)
        .into()
    }

    fn differentiable(&self) -> bool {
        false
    }
}

fn positions_cpu<E, X>(x: Tensor, axis: usize) -> Tensor
where
    E: Element + bytemuck::Pod + PartialOrd + Send + Sync,
    X: Extreme,
{
    let x = x.contiguous::<E>();
    let mut shape = x.shape();
    let inner = shape[axis + 1..].iter().product::<usize>();
    let count = std::mem::replace(&mut shape[axis], 1);
    let values = x.elements::<E>();
    let first = |index: usize| {
        let start = index / inner * count * inner + index % inner;
        first_extreme::<E, X>(values[start..].iter().step_by(inner).take(count).copied())
    };
    Tensor::from_block(collect(shape.iter().product(), values.len(), first), &shape)
}

fn first_extreme<E: PartialOrd + Copy, X: Extreme>(values: impl Iterator<Item = E>) -> i32 {
    let better = |a: E, b: E| X::beats(a, b) || is_nan(a) && !is_nan(b);
    let keep_first = |best: (usize, E), next: (usize, E)| if better(next.1, best.1) { next } else { best };
    values.enumerate().reduce(keep_first).map_or(0, |(index, _)| index as i32)
}

/// `ln Σ e^x` along `axis` (default the last), never overflowing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogSumExp {
    #[serde(default = "last_axis")]
    axis: i64,
    #[serde(default)]
    keepdims: bool,
}

impl Operation for LogSumExp {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let x = inputs[0];
        x.expect_kind(Kind::Float)?;
        let axis = x.axis(self.axis)?;
        if x.shape[axis].count == 0 {
            return Err(format!("axis {axis} must have elements, got shape {}", show(&x.shape)));
        }
        Ok(Type::float(reduced(&x.shape, &[axis], self.keepdims, Dim::known(1))))
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        let x = inputs.remove(0);
        let axis = position(self.axis, x.rank());
        let shape = reduced(&x.shape(), &[axis], self.keepdims, 1);
        match x.dtype() {
            DType::F32 if x.is_cpu() => logsumexp_cpu::<f32>(x, axis),
            DType::F64 if x.is_cpu() => logsumexp_cpu::<f64>(x, axis),
            _ => in_float32(x, |x| logsumexp(x, axis)),
        }
        .reshape(&shape)
        .into()
    }

    fn keeps(&self) -> Keeps {
        Keeps::BOTH
    }

    /// `g · e^(x - y)`
    fn gradient(&self, mut kept: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
        let x = kept.inputs.remove(0);
        let shape = reduced(&x.shape(), &[position(self.axis, x.rank())], true, 1);
        let y = finite_or_zero(kept.output().clone()).reshape(&shape);
        smallvec![Some(multiply((x - y).exp(), gradient.reshape(&shape)))]
    }
}

/// Runs a formula on 16-bit numbers in `float32`.
pub(super) fn in_float32(x: Tensor, formula: impl FnOnce(Tensor) -> Tensor) -> Tensor {
    let dtype = x.dtype();
    formula(widen(x)).cast(dtype)
}

/// 16-bit numbers as `float32`.
pub(super) fn widen(x: Tensor) -> Tensor {
    match x.dtype() {
        DType::F16 | DType::BF16 => x.cast(DType::F32),
        _ => x,
    }
}

/// 0 where infinite: what may be subtracted from infinities without making NaN.
fn finite_or_zero(x: Tensor) -> Tensor {
    let infinity = x.constant(f64::INFINITY);
    let infinite = x.clone().abs().compare(Comparison::Equal, infinity);
    let zero = x.constant(0.0);
    Tensor::choose(infinite, zero, x)
}

/// [`LogSumExp`] over tensors; the axis stays with length 1.
pub(super) fn logsumexp(x: Tensor, axis: usize) -> Tensor {
    let greatest = finite_or_zero(Max::value(x.clone(), &[axis]));
    sum((x - greatest.clone()).exp(), &[axis]).log() + greatest
}

/// `e^x / Σ e^x` over tensors. (`e^(x - ln Σ e^x)` would lose as many digits as the logarithm has before the point.)
pub(super) fn softmax(x: Tensor, axis: usize) -> Tensor {
    let greatest = finite_or_zero(Max::value(x.clone(), &[axis]));
    let powers = (x - greatest).exp();
    let total = sum(powers.clone(), &[axis]);
    powers / total
}

fn logsumexp_cpu<E: Real>(x: Tensor, axis: usize) -> Tensor {
    let x = swap_last(x, axis).contiguous::<E>();
    let mut shape = x.shape();
    let width = std::mem::replace(shape.last_mut().expect("an axis"), 1);
    let values = x.elements::<E>();
    let rows = values.len() / width.max(1);
    let value = |row: usize| cpu::vectorised!(row_logsumexp(&values[row * width..][..width]));
    swap_last(Tensor::from_block(collect(rows, values.len(), value), &shape), axis)
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

    #[test]
    fn any_axes_agree_with_whole_tensors() {
        let values: Vec<f64> = (0..120).map(|index| f64::from(index * 37 % 101)).collect();
        let x = Tensor::from_vec(values, &[2, 3, 4, 5]);
        for axes in [vec![0], vec![3], vec![1, 2], vec![0, 2], vec![0, 1, 2, 3], vec![1, 3], vec![]] {
            assert_eq!(sum(x.clone(), &axes).to_f64(), x.clone().sum_axes(&axes).to_f64());
            let greatest = axes.iter().fold(x.clone(), |x, &axis| x.max_axis(axis));
            assert_eq!(Max::value(x.clone(), &axes).to_f64(), greatest.to_f64());
        }
    }

    #[test]
    fn extremes_show_nan_and_find_the_first() {
        let mut values = vec![1.0f32; 200];
        values[150] = f32::NAN;
        values[160] = f32::NAN;
        let x = Tensor::from_vec(values, &[200]);
        assert!(Max::value(x.clone(), &[0]).scalar().is_nan());
        assert!(Min::value(x.clone(), &[0]).scalar().is_nan());
        assert_eq!(positions_cpu::<f32, Max>(x, 0).scalar(), 150.0);
    }
}
