//! Kernels over copies that differ from the base run in one column.

use crate::cpu;
use crate::tensor::{DType, Real, Tensor};

/// Which copy and which sample each row of the stacked copies is, copies one after the other.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    pub copy: Vec<u32>,
    pub sample: Vec<u32>,
}

impl Rows {
    /// Every sample of every copy.
    pub(super) fn all(copies: usize, batch: usize) -> Self {
        let samples: Vec<u32> = (0..batch as u32).collect();
        let (mut copy, sample) = (Vec::with_capacity(copies * batch), samples.repeat(copies));
        (0..copies as u32).for_each(|number| copy.extend(std::iter::repeat_n(number, batch)));
        Self { copy, sample }
    }

    pub(super) fn len(&self) -> usize {
        self.copy.len()
    }

    /// Copy and sample of each row.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.copy.iter().zip(&self.sample).map(|(&copy, &sample)| (copy as usize, sample as usize))
    }
}

/// A value of the base run by `(columns, positions)`, read where the copies change it.
#[derive(Clone, Copy)]
pub(super) struct Base<'a, E> {
    pub values: &'a [E],
    /// The column that each copy changes.
    pub columns: &'a [usize],
    pub positions: usize,
    /// The positions of a sample.
    pub inner: usize,
}

impl<'a, E: Real> Base<'a, E> {
    /// The perturbed column of a sample.
    #[inline(always)]
    fn at(&self, copy: usize, sample: usize) -> &'a [E] {
        &self.values[self.columns[copy] * self.positions + sample * self.inner..][..self.inner]
    }

    /// The perturbed column of every row: `(rows, inner)`.
    pub(super) fn gather(&self, rows: &Rows) -> Vec<E> {
        let mut out = vec![E::default(); rows.len() * self.inner];
        for ((copy, sample), out) in rows.pairs().zip(out.chunks_exact_mut(self.inner)) {
            out.iter_mut().zip(self.at(copy, sample)).for_each(|(to, &value)| *to = value);
        }
        out
    }

    /// The rows whose values `(rows, inner)` are not those of the base run, and these values.
    pub(super) fn differing(&self, values: &[E], rows: &Rows) -> (Rows, Vec<E>) {
        let mut kept = rows.clone();
        let mut out = vec![E::default(); values.len()];
        let mut count = 0;
        for ((copy, sample), values) in rows.pairs().zip(values.chunks_exact(self.inner)) {
            (kept.copy[count], kept.sample[count]) = (copy as u32, sample as u32);
            let mut differs = false;
            let to = &mut out[count * self.inner..][..self.inner];
            for ((to, &value), base) in to.iter_mut().zip(values).zip(self.at(copy, sample)) {
                *to = value;
                differs |= value != *base;
            }
            // Without a branch, which nobody could foretell.
            count += usize::from(differs);
        }
        kept.copy.truncate(count);
        kept.sample.truncate(count);
        out.truncate(count * self.inner);
        (kept, out)
    }
}

/// `out[copy, position] = z[column, position] + step · direction[position]`
pub(super) fn moved<E: Real>(out: &mut [E], z: &[E], direction: &[E], step: E) {
    cpu::vectorised!({
        for ((out, &z), &direction) in out.iter_mut().zip(z).zip(direction) {
            *out = z + step * direction;
        }
    });
}

/// Elements that are computed together.
const LANES: usize = 16;

/// Floats on the `cpu` device in row-major order.
pub(super) fn contiguous(x: Tensor) -> Tensor {
    if x.dtype() == DType::F64 { x.contiguous::<f64>() } else { x.contiguous::<f32>() }
}

/// A matrix on the `cpu` device whose rows are filled up with zeros to whole vectors.
pub(super) fn padded(x: &Tensor) -> Tensor {
    let width = x.shape()[1];
    let x = contiguous(x.clone().into_cpu());
    let missing = width.next_multiple_of(LANES) - width;
    if missing == 0 {
        return x;
    }
    let zeros = Tensor::full(&[x.shape()[0], missing], 0.0, x.dtype(), &x.device());
    Tensor::concatenate(vec![x, zeros], 1)
}

/// `out[row, i, :] = z[sample, i, :] + (values[row, i] - base) · kernel[column, :]` in rows of `width` elements; `z` and
/// `kernel` are [`padded`].
pub(super) fn rank_one<E: Real>(
    z: &[E],
    values: &[E],
    base: Base<'_, E>,
    kernel: &[E],
    rows: &Rows,
    width: usize,
) -> Vec<E> {
    let (inner, padded) = (base.inner, width.next_multiple_of(LANES));
    let length = values.len() * width;
    let mut out = vec![E::default(); length + padded - width];
    cpu::vectorised!({
        let mut start = 0;
        for ((copy, sample), values) in rows.pairs().zip(values.chunks_exact(inner)) {
            let kernel = kernel[base.columns[copy] * padded..][..padded].as_chunks::<LANES>().0;
            let z = z[sample * inner * padded..][..inner * padded].chunks_exact(padded);
            for ((&value, &base), z) in values.iter().zip(base.at(copy, sample)).zip(z) {
                let change = value - base;
                // What is written beyond the row is overwritten by the next one.
                let out = out[start..][..padded].as_chunks_mut::<LANES>().0;
                for ((out, z), kernel) in out.iter_mut().zip(z.as_chunks::<LANES>().0).zip(kernel) {
                    // In one piece, so that no store comes between the loads.
                    let mut sum = *z;
                    sum.iter_mut().zip(kernel).for_each(|(sum, &kernel)| *sum = *sum + change * kernel);
                    *out = sum;
                }
                start += width;
            }
        }
    });
    out.truncate(length);
    out
}
