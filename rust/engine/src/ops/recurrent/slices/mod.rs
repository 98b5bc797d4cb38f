//! A cell along the sequences of a batch on the `cpu` device.

mod backward;
mod forward;

use super::{Cell, Functions, Parts, Recurrent, Sizes};
use crate::cpu::gemm::{Matrix, gemm_serial};
use crate::tensor::{Real, Tensor};

pub(super) use backward::backward;
pub(super) use forward::forward;

/// Multiply-adds of a whole sequence below which one thread is faster.
const PARALLEL_WORK: usize = 1 << 18;

/// Samples that go through the sequence together: few enough that what a step reads and writes stays in a core's own cache, and
/// enough for whole tiles of the products.
const ROWS: usize = 16;

/// A piece of the batch: its first sample and their number.
#[derive(Clone, Copy)]
struct Share {
    first: usize,
    count: usize,
}

impl Share {
    /// The elements of these samples, `width` each.
    fn of<'a, E>(&self, values: &'a [E], width: usize) -> &'a [E] {
        &values[self.first * width..][..self.count * width]
    }
}

/// The batch in pieces: as many as keep all threads busy, and more samples in each the larger the kernel that they share.
fn shares<C: Cell>(sizes: Sizes) -> Vec<Share> {
    let Sizes { batch, steps, units, .. } = sizes;
    let work = batch * steps * units * units * C::GATES;
    let threads = if work < PARALLEL_WORK { 1 } else { rayon::current_num_threads() };
    let pieces = batch.div_ceil(ROWS.max(units / ROWS)).next_multiple_of(threads);
    let most = batch.div_ceil(pieces);
    (0..batch).step_by(most).map(|first| Share { first, count: most.min(batch - first) }).collect()
}

/// Splits elements among shares, `width` a sample.
fn split<'a, E>(mut values: &'a mut [E], shares: &[Share], width: usize) -> impl Iterator<Item = &'a mut [E]> {
    shares.iter().map(move |share| {
        let (head, tail) = std::mem::take(&mut values).split_at_mut(share.count * width);
        values = tail;
        head
    })
}

/// What all shares read.
struct Run<'a, E> {
    sizes: Sizes,
    functions: Functions,
    backwards: bool,
    parts: Parts<&'a [E]>,
}

impl<'a, E: Real> Run<'a, E> {
    fn new<C: Cell>(operation: &Recurrent<C>, parts: &'a Parts<Tensor>) -> Self {
        let (sizes, functions) = (parts.sizes(), operation.functions());
        Self { sizes, functions, backwards: operation.go_backwards, parts: elements::<E>(parts) }
    }

    fn place(&self, step: usize) -> usize {
        if self.backwards { self.sizes.steps - 1 - step } else { step }
    }

    fn is_masked(&self, sample: usize, place: usize) -> bool {
        self.parts.mask.is_some_and(|mask| mask[sample * self.sizes.steps + place] == E::default())
    }

    /// The state that a share starts from.
    fn initial(&self, share: Share, index: usize) -> Vec<E> {
        let units = self.sizes.units;
        match self.parts.initial.get(index) {
            Some(given) => share.of(given, units).to_vec(),
            None => vec![E::default(); share.count * units],
        }
    }

    /// The rows of the bias one after the other, zeros if there is none.
    fn bias<C: Cell>(&self) -> Vec<E> {
        let count = (1 + usize::from(C::APART)) * C::GATES * self.sizes.units;
        self.parts.bias.map_or_else(|| vec![E::default(); count], <[E]>::to_vec)
    }
}

/// The inputs as contiguous tensors of one type, the mask among them.
fn prepared<E: Real>(parts: Parts<Tensor>) -> Parts<Tensor> {
    let contiguous = Tensor::contiguous::<E>;
    Parts {
        x: contiguous(parts.x),
        kernel: contiguous(parts.kernel),
        recurrent_kernel: contiguous(parts.recurrent_kernel),
        bias: parts.bias.map(contiguous),
        initial: parts.initial.into_iter().map(contiguous).collect(),
        mask: parts.mask.map(|mask| contiguous(mask.cast(E::DTYPE))),
        factors: parts.factors.map(contiguous),
    }
}

fn elements<E: Real>(parts: &Parts<Tensor>) -> Parts<&[E]> {
    let slice = Tensor::elements::<E>;
    Parts {
        x: slice(&parts.x),
        kernel: slice(&parts.kernel),
        recurrent_kernel: slice(&parts.recurrent_kernel),
        bias: parts.bias.as_ref().map(slice),
        initial: parts.initial.iter().map(slice).collect(),
        mask: parts.mask.as_ref().map(slice),
        factors: parts.factors.as_ref().map(slice),
    }
}

/// `out = a · kernel`, `inner` being the columns of `a`.
fn multiply<E: Real>(out: &mut [E], a: &[E], kernel: &[E], inner: usize) {
    let (rows, width) = (a.len() / inner, kernel.len() / inner);
    gemm_serial(out, false, Matrix::rows(a, inner), Matrix::rows(kernel, width), [rows, inner, width]);
}
