//! Picking values by integers.
//!
//! An index outside its axis is an error of the data, which fit and predict check before they start. Should one come here, the
//! `cpu` device panics with a message (which Python sees as an exception); on other devices, where a check would wait for
//! the device, floats picked by it are NaN. No device reads other memory.

use std::ops::Range;

use serde::Deserialize;
use smallvec::smallvec;

use super::reduction::{last_axis, position};
use super::{Affine, Arithmetic, Context, Entry, Evaluation, Gradients, Kept, Operation, Reach, Tensors, entry};
use crate::cpu;
use crate::memory::Block;
use crate::program::{Dim, Kind, Type, show};
use crate::tensor::{Comparison, DType, Real, Rows, Tensor};
use crate::{Device, Error, Number};

/// The lines of the table.
pub(super) const ENTRIES: &[Entry] = &[
    entry::<Take>("take", 2, Some(2)),
    entry::<TakeAlongAxis>("take_along_axis", 2, Some(2)),
    entry::<OneHot>("one_hot", 1, Some(1)),
];

/// Indices that are safe to read by, and which of them came so (`None`: all).
pub(super) struct Checked {
    /// Indices in `0..length`.
    pub indices: Tensor,
    valid: Option<Tensor>,
}

impl Checked {
    /// Checks indices against a length: on the host unless `later`, when [`Self::mark`] shows them.
    pub(super) fn new(indices: Tensor, length: usize, later: bool) -> Self {
        if indices.is_cpu() || !later {
            expect_inside(&indices, length);
            return Self { indices, valid: None };
        }
        let inside = indices.clone().within(0, length as i64 - 1);
        let valid = inside.clone().compare(Comparison::Equal, indices);
        Self { indices: inside, valid: Some(valid) }
    }

    /// Turns what was picked by an index outside into NaN; `shape` lays the indices beside the values.
    pub(super) fn mark(&self, values: Tensor, shape: &[usize]) -> Tensor {
        let Some(valid) = &self.valid else {
            return values;
        };
        let nan = values.constant(f64::NAN);
        Tensor::choose(valid.clone().reshape(shape), values, nan)
    }
}

/// Raises an error if an index is outside `0..length`.
fn expect_inside(indices: &Tensor, length: usize) {
    let (contiguous, on_host);
    let values = if indices.is_cpu() && indices.dtype() == DType::I32 {
        contiguous = indices.clone().contiguous::<i32>();
        contiguous.elements::<i32>()
    } else {
        on_host = indices.clone().cast(DType::I32).into_vec::<i32>();
        &on_host
    };
    // Negative numbers become large unsigned ones.
    let outside = values.iter().find(|&&index| index as u32 as usize >= length);
    if let Some(index) = outside {
        let last = length as i64 - 1;
        Error::value(format!("index {index} is outside 0 to {last} of the axis that it picks from")).raise();
    }
}

/// Lengths before an axis, of it and after it.
fn around(shape: &[usize], axis: usize) -> [usize; 3] {
    [shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product()]
}

/// A shape of rank 2 or 3 for [`Tensor::select`] along an axis, and that axis in it; rank 2 has the fast kernels.
fn flat(shape: &[usize], axis: usize) -> (Vec<usize>, usize) {
    match around(shape, axis) {
        [1, length, inner] => (vec![length, inner], 0),
        lengths => (lengths.to_vec(), 1),
    }
}

/// `table` at `ids` along `axis` (default 0): table `(…, n, …)`, ids of any shape in the place of `n`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Take {
    #[serde(default)]
    axis: i64,
}

impl Operation for Take {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let (table, ids) = (inputs[0], inputs[1]);
        ids.expect_kind(Kind::Int).map_err(|message| format!("the indices: {message}"))?;
        let axis = table.axis(self.axis)?;
        expect_indexable(table, axis)?;
        let shape = [&table.shape[..axis], &ids.shape, &table.shape[axis + 1..]].concat();
        Ok(Type { kind: table.kind, shape })
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Any
    }

    // A table of samples has rows of other samples.
    fn reach(&self, inputs: &[&Type]) -> Reach {
        let of_samples = inputs[0].shape.first().is_some_and(|dim| dim.batch);
        if of_samples && position(self.axis, inputs[0].rank()) == 0 { Reach::Everything } else { Reach::Sample }
    }

    fn affine(&self, inputs: &[&Type]) -> Option<&dyn Affine> {
        (inputs[0].rank() == 2 && position(self.axis, 2) == 0 && inputs[0].kind == Kind::Float).then_some(self)
    }

    fn evaluate(&self, inputs: Tensors, _: &Context) -> Evaluation {
        self.pick(inputs).into()
    }

    /// Adds each row of the gradient to the row that it was taken from.
    fn gradient(&self, mut kept: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
        let ids = kept.inputs.pop().expect("ids");
        let shape = &kept.shapes[0];
        let axis = position(self.axis, shape.len());
        let count = ids.len();
        let ids = Checked::new(ids.reshape(&[count]), shape[axis], true);
        let (mut flat, axis) = flat(shape, axis);
        let table = match gradient.dtype() {
            DType::F32 if axis == 0 && gradient.is_cpu() => scattered::<f32>(ids.indices, gradient, &flat),
            DType::F64 if axis == 0 && gradient.is_cpu() => scattered::<f64>(ids.indices, gradient, &flat),
            dtype => {
                let table = Tensor::full(&flat, 0.0, dtype, &gradient.device());
                flat[axis] = count;
                table.select_add(axis, ids.indices, gradient.reshape(&flat))
            }
        };
        smallvec![Some(table.reshape(shape)), None]
    }
}

impl Take {
    fn pick(&self, mut inputs: Tensors) -> Tensor {
        let (ids, table) = (inputs.pop().expect("ids"), inputs.pop().expect("table"));
        let shape = table.shape();
        let axis = position(self.axis, shape.len());
        let out = [&shape[..axis], &ids.shape(), &shape[axis + 1..]].concat();
        let count = ids.len();
        let ids = Checked::new(ids.reshape(&[count]), shape[axis], table.dtype().is_float());
        let (flat, axis) = flat(&shape, axis);
        match table.dtype() {
            DType::F32 if axis == 0 && table.is_cpu() => {
                return picked::<f32>(ids.indices, table, flat[1]).reshape(&out);
            }
            DType::F64 if axis == 0 && table.is_cpu() => {
                return picked::<f64>(ids.indices, table, flat[1]).reshape(&out);
            }
            _ => {}
        }
        let mut beside = vec![1; flat.len()];
        beside[axis] = count;
        let rows = table.reshape(&flat).select(axis, ids.indices.clone());
        ids.mark(rows, &beside).reshape(&out)
    }
}

/// Rows of a table that were picked by ids.
fn picked<E: Real>(ids: Tensor, table: Tensor, width: usize) -> Tensor {
    let (ids, table) = (ids.contiguous::<i32>(), table.contiguous::<E>());
    let (ids, rows) = (ids.elements::<i32>(), table.elements::<E>());
    let mut out = Block::uninitialised(ids.len() * width);
    cpu::for_rows(&mut out, width, |first, piece| {
        for (row, &id) in piece.chunks_exact_mut(width.max(1)).zip(&ids[first..]) {
            row.copy_from_slice(&rows[id as usize * width..][..width]);
        }
    });
    Tensor::from_block(out, &[ids.len(), width])
}

/// A table of `[rows, width]`: zeros, to which each row of the gradient is added at its id.
///
/// Only rows that were picked are held if these are at most half of the table.
fn scattered<E: Real>(ids: Tensor, gradient: Tensor, table: &[usize]) -> Tensor {
    let (ids, gradient) = (ids.contiguous::<i32>(), gradient.contiguous::<E>());
    let (ids, gradient) = (ids.elements::<i32>(), gradient.elements::<E>());
    let (rows, width) = (table[0], table[1]);
    if 2 * ids.len() > rows {
        return Tensor::from_block(added(ids, gradient, rows, width), table);
    }
    let (places, slots) = ranked(ids, rows);
    let values = added(&slots, gradient, places.len(), width);
    Tensor::from_rows(Rows::new(places, values, table))
}

/// Zeros, to which each row of the gradient is added at its slot; each thread has rows of its own.
fn added<E: Real>(slots: &[i32], gradient: &[E], rows: usize, width: usize) -> Block<E> {
    let mut sums = Block::uninitialised(rows * width);
    let width = width.max(1);
    cpu::for_rows(&mut sums, width, |first, piece| {
        piece.fill(E::default());
        let mine = first..first + piece.len() / width;
        cpu::vectorised!({
            for (&slot, row) in slots.iter().zip(gradient.chunks_exact(width)) {
                if mine.contains(&(slot as usize)) {
                    let sums = &mut piece[(slot as usize - first) * width..][..width];
                    sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum = *sum + value);
                }
            }
        });
    });
    sums
}

/// The distinct ids below `end` in ascending order, and the place of each id among them.
fn ranked(ids: &[i32], end: usize) -> (Block<i32>, Block<i32>) {
    const BITS: usize = u64::BITS as usize;
    let mut present = Block::full(end.div_ceil(BITS), 0u64);
    ids.iter().for_each(|&id| present[id as usize / BITS] |= 1 << (id as usize % BITS));
    let mut count = 0;
    let before = Block::collect(present.iter().map(|word| {
        let before = count;
        count += word.count_ones();
        before
    }));
    let mut distinct = Block::full(count as usize, 0);
    for ((place, &word), &before) in present.iter().enumerate().zip(&*before) {
        let mut rest = word;
        for id in &mut distinct[before as usize..][..word.count_ones() as usize] {
            *id = (place * BITS) as i32 + rest.trailing_zeros() as i32;
            rest &= rest - 1;
        }
    }
    let rank = |&id: &i32| {
        let (place, bit) = (id as usize / BITS, id as usize % BITS);
        (before[place] + (present[place] & ((1 << bit) - 1)).count_ones()) as i32
    };
    (distinct, Block::collect(ids.iter().map(rank)))
}

impl Affine for Take {
    fn moves(&self, input: usize) -> bool {
        input == 0
    }

    fn before_activation(&self, inputs: Tensors) -> Tensor {
        self.pick(inputs)
    }

    /// 1 where the row of the table is picked.
    fn directions(&self, inputs: &[Tensor], _: usize, range: Range<usize>) -> Tensor {
        let ids = inputs[1].clone().into_cpu().contiguous::<i32>();
        let ids = ids.elements::<i32>();
        let picks = range.clone().flat_map(|row| ids.iter().map(move |&id| f64::from(u8::from(id as usize == row))));
        Tensor::from_f64(&picks.collect::<Vec<f64>>(), &[range.len(), ids.len()], inputs[0].dtype(), &Device::cpu())
    }
}

fn expect_indexable(x: &Type, axis: usize) -> Result<(), String> {
    let length = x.shape[axis].count;
    if length > 0 && length <= i32::MAX as usize {
        return Ok(());
    }
    Err(format!("axis {axis} must have 1 to 2^31 - 1 elements to pick from, got shape {}", show(&x.shape)))
}

/// `y[…, i, …] = x[…, indices[…, i, …], …]` along `axis` (default the last); the other axes agree.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TakeAlongAxis {
    #[serde(default = "last_axis")]
    axis: i64,
}

impl Operation for TakeAlongAxis {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let (x, indices) = (inputs[0], inputs[1]);
        indices.expect_kind(Kind::Int).map_err(|message| format!("the indices: {message}"))?;
        if x.kind == Kind::Bool {
            return Err(format!("expected float or int values to pick from, got {x}"));
        }
        let axis = x.axis(self.axis)?;
        expect_indexable(x, axis)?;
        let agrees = |other: usize| other == axis || x.shape[other] == indices.shape[other];
        if x.rank() != indices.rank() || !(0..x.rank()).all(agrees) {
            return Err(format!(
                "the indices must have shape {} but for axis {axis}, got {}",
                show(&x.shape),
                show(&indices.shape)
            ));
        }
        Ok(Type { kind: x.kind, shape: indices.shape.clone() })
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Any
    }

    fn reach(&self, inputs: &[&Type]) -> Reach {
        if position(self.axis, inputs[0].rank()) == 0 { Reach::Everything } else { Reach::Sample }
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        let (indices, x) = (inputs.pop().expect("indices"), inputs.pop().expect("x"));
        let (axis, shape) = (position(self.axis, x.rank()), indices.shape());
        let indices = Checked::new(indices, x.shape()[axis], x.dtype().is_float());
        let picked = x.gather(axis, indices.indices.clone());
        indices.mark(picked, &shape).into()
    }

    fn gradient(&self, mut kept: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
        let indices = kept.inputs.pop().expect("indices");
        let shape = &kept.shapes[0];
        let axis = position(self.axis, shape.len());
        let indices = Checked::new(indices, shape[axis], true).indices;
        let zeros = Tensor::full(shape, 0.0, gradient.dtype(), &gradient.device());
        smallvec![Some(zeros.scatter_add(axis, indices, gradient)), None]
    }
}

/// 1 at the index and 0 elsewhere, along a new last axis of length `depth`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OneHot {
    depth: usize,
}

impl Operation for OneHot {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let ids = inputs[0];
        ids.expect_kind(Kind::Int)?;
        if self.depth == 0 || self.depth > i32::MAX as usize {
            return Err(format!("depth must be 1 to 2^31 - 1, got {}", self.depth));
        }
        let mut shape = ids.shape.clone();
        shape.push(Dim::known(self.depth));
        Ok(Type::float(shape))
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn evaluate(&self, mut inputs: Tensors, context: &Context) -> Evaluation {
        let ids = inputs.remove(0);
        let mut beside = ids.shape();
        beside.push(1);
        let ids = Checked::new(ids, self.depth, true);
        let hot = one_hot(ids.indices.clone(), self.depth, context.dtype);
        ids.mark(hot, &beside).into()
    }

    fn differentiable(&self) -> bool {
        false
    }
}

/// [`OneHot`] of indices that were checked.
pub(super) fn one_hot(ids: Tensor, depth: usize, dtype: DType) -> Tensor {
    match dtype {
        DType::F32 if ids.is_cpu() => one_hot_cpu::<f32>(ids, depth),
        DType::F64 if ids.is_cpu() => one_hot_cpu::<f64>(ids, depth),
        _ => {
            let classes = Tensor::range(depth, &ids.device());
            let mut beside = ids.shape();
            beside.push(1);
            ids.reshape(&beside).compare(Comparison::Equal, classes).cast(dtype)
        }
    }
}

fn one_hot_cpu<E: Real>(ids: Tensor, depth: usize) -> Tensor {
    let ids = ids.contiguous::<i32>();
    let mut shape = ids.shape();
    shape.push(depth);
    let indices = ids.elements::<i32>();
    let mut out = vec![E::default(); indices.len() * depth];
    cpu::for_rows(&mut out, depth, |first, rows| {
        for (row, &index) in rows.chunks_exact_mut(depth).zip(&indices[first..]) {
            row[index as usize] = E::from_f64(1.0);
        }
    });
    Tensor::from_vec(out, &shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{numbers, on_threads, tensor};

    #[test]
    fn take_adds_up_gradients_of_repeated_rows() {
        let table = Tensor::from_vec(vec![0.0f64; 6], &[3, 2]);
        let ids = Tensor::from_vec(vec![1, 1, 2], &[3]);
        let shapes = smallvec![table.shape(), ids.shape()];
        let kept = Kept { inputs: smallvec![table, ids], shapes, output: None, saved: Default::default() };
        let gradient = Tensor::from_vec(vec![1.0, 2.0, 5.0, 6.0, 7.0, 8.0], &[3, 2]);
        let table = Take { axis: 0 }.gradient(kept, gradient, &[true, false]).swap_remove(0);
        assert_eq!(table.expect("wanted").to_f64(), [0.0, 0.0, 6.0, 8.0, 7.0, 8.0]);
    }

    /// The gradient of a table of `shape` at ids, and the gradient as it came.
    fn gradient_of_take(shape: &[usize], ids: &[i32]) -> (Tensor, Vec<f32>) {
        let given = [&[ids.len()], &shape[1..]].concat();
        let gradient = tensor::<f32>(3, &given);
        let inputs = smallvec![tensor::<f32>(1, shape), Tensor::from_vec(ids.to_vec(), &[ids.len()])];
        let shapes = smallvec![shape.into(), [ids.len()].as_slice().into()];
        let kept = Kept { inputs, shapes, output: None, saved: Default::default() };
        let values = gradient.clone().into_vec();
        (Take { axis: 0 }.gradient(kept, gradient, &[true, false]).swap_remove(0).expect("wanted"), values)
    }

    #[test]
    fn rows_that_were_not_picked_are_zero_and_need_no_memory() {
        for (shape, count) in
            [(vec![9, 5], 3), (vec![9, 5], 8), (vec![70, 2, 3], 30), (vec![3000, 40], 1400), (vec![1, 4], 0)]
        {
            let width: usize = shape[1..].iter().product();
            let ids: Vec<i32> = numbers(7, count).iter().map(|u| (u.abs() * shape[0] as f64) as i32).collect();
            for (found, gradient) in on_threads(|| gradient_of_take(&shape, &ids)) {
                let mut expected = vec![0.0f32; shape.iter().product()];
                for (&id, row) in ids.iter().zip(gradient.chunks(width)) {
                    let sums = &mut expected[id as usize * width..][..width];
                    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                }
                let held = found.rows().map_or(shape[0], |rows| rows.places().len());
                let distinct = ids.iter().collect::<std::collections::BTreeSet<_>>().len();
                assert_eq!(held, if 2 * count > shape[0] { shape[0] } else { distinct });
                assert_eq!(found.shape(), shape);
                assert_eq!(found.into_vec::<f32>(), expected);
            }
        }
    }

    #[test]
    fn a_negative_index_is_refused() {
        let indices = Tensor::from_vec(vec![0, 2, -1], &[3]);
        let check = std::panic::AssertUnwindSafe(|| Checked::new(indices, 3, true));
        let payload = std::panic::catch_unwind(check).err().expect("refused");
        let expected = Error::value("index -1 is outside 0 to 2 of the axis that it picks from");
        assert_eq!(payload.downcast_ref(), Some(&expected));
    }
}
