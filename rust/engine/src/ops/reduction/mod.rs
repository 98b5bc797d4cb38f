//! Sums, means and extremes over axes.

mod extremes;
mod logsumexp;
mod sums;

use std::fmt::Debug;
use std::marker::PhantomData;

use burn_backend::Element;
pub(crate) use extremes::row_max;
use extremes::{Max, Min, Position};
use logsumexp::LogSumExp;
pub(super) use logsumexp::{logsumexp, softmax};
use rayon::prelude::*;
use serde::Deserialize;
use smallvec::smallvec;
use sums::{Mean, Sum};
pub(crate) use sums::{chunk_total, dot};
pub(super) use sums::{mean, sum, sum_to};

use super::{Context, Entry, Evaluation, Gradients, Keeps, Kept, Operation, Reach, Tensors, entry};
use crate::cpu;
use crate::memory::Block;
use crate::program::{Dim, Kind, Type, show};
use crate::tensor::{DType, Lengths, Tensor};

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

/// The default of `axis`.
pub(super) fn last_axis() -> i64 {
    -1
}

/// A shape without some axes, or with `one` in their place.
fn reduced<L: Copy>(shape: &[L], axes: &[usize], keepdims: bool, one: L) -> Vec<L> {
    let lengths = shape.iter().enumerate();
    lengths
        .filter(|(axis, _)| keepdims || !axes.contains(axis))
        .map(|(axis, &length)| if axes.contains(&axis) { one } else { length })
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
