//! Attention head by head: the scores of one head stay in the cache from the product that makes them to the one that uses
//! them, and masks cost no pass of their own. Samples are shared out among threads.

use rayon::prelude::*;

use super::gemm::{Matrix, gemm_serial_strided, gemm_strided};
use super::{prefetch, vectorised};
use crate::memory::Block;
use crate::ops::{chunk_total, dot, row_max};
use crate::tensor::Real;

/// The lengths of query `(batch, time, heads · width)`, key `(batch, places, heads · width)` and value
/// `(batch, places, heads · depth)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub batch: usize,
    pub heads: usize,
    pub time: usize,
    pub places: usize,
    pub width: usize,
    pub depth: usize,
}

impl Sizes {
    /// The shape of the weights.
    pub(crate) fn weights(&self) -> [usize; 4] {
        [self.batch, self.heads, self.time, self.places]
    }

    /// The shape of the output.
    pub(crate) fn output(&self) -> [usize; 3] {
        [self.batch, self.time, self.heads * self.depth]
    }

    /// Elements of a sample: of the query, the key, the value, the output and the weights.
    fn samples(&self) -> [usize; 5] {
        let Self { heads, time, places, width, depth, .. } = *self;
        [
            time * heads * width,
            places * heads * width,
            places * heads * depth,
            time * heads * depth,
            heads * time * places,
        ]
    }

    /// `out = a · b`. Few samples split their products among the threads; many share them out whole.
    fn multiply<E: Real>(
        &self,
        out: &mut [E],
        row_stride: usize,
        a: Matrix<'_, E>,
        b: Matrix<'_, E>,
        lengths: [usize; 3],
    ) {
        if self.batch < rayon::current_num_threads() {
            gemm_strided(out, row_stride, false, a, b, lengths);
        } else {
            gemm_serial_strided(out, row_stride, false, a, b, lengths);
        }
    }
}

/// Numbers that are not 0 where a query may look: rows of all places.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask<'a, E> {
    pub numbers: &'a [E],
    /// Elements to the next sample, head and query; 0 where they share a row.
    pub steps: [usize; 3],
}

/// How a row of scores becomes a row of weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a, E> {
    pub scale: E,
    pub causal: bool,
    pub mask: Option<Mask<'a, E>>,
}

impl<E: Real> Rows<'_, E> {
    /// What a query may see of a row before the mask.
    fn seen(&self, query: usize, places: usize) -> usize {
        if self.causal { places.min(query + 1) } else { places }
    }

    /// The row of the mask.
    fn mask(&self, place: [usize; 3], count: usize) -> Option<&[E]> {
        self.mask.map(|Mask { numbers, steps }| {
            let start: usize = place.iter().zip(steps).map(|(place, step)| place * step).sum();
            &numbers[start..start + count]
        })
    }

    /// Turns the scores of a head into weights.
    #[inline(always)]
    fn weigh(&self, [sample, head]: [usize; 2], scores: &mut [E], places: usize) {
        for (query, row) in scores.chunks_exact_mut(places).enumerate() {
            let (seen, hidden) = row.split_at_mut(self.seen(query, places));
            hidden.fill(E::default());
            match self.mask([sample, head, query], seen.len()) {
                Some(mask) => seen.iter_mut().zip(mask).for_each(|(score, &there)| {
                    let scaled = *score * self.scale;
                    *score = if there == E::default() { E::from_f64(f64::NEG_INFINITY) } else { scaled };
                }),
                None => seen.iter_mut().for_each(|score| *score = *score * self.scale),
            }
            let greatest = row_max(seen);
            if greatest == E::from_f64(f64::NEG_INFINITY) {
                row.fill(E::from_f64(1.0 / places as f64));
                continue;
            }
            seen.iter_mut().for_each(|score| *score = (*score - greatest).exp());
            let scale = E::from_f64(1.0 / chunk_total(seen));
            seen.iter_mut().for_each(|score| *score = *score * scale);
        }
    }

    /// Turns the gradients of a head's weights into those of its scores, before they were scaled.
    #[inline(always)]
    fn slopes(&self, [sample, head]: [usize; 2], gradients: &mut [E], weights: &[E], places: usize) {
        let rows = gradients.chunks_exact_mut(places).zip(weights.chunks_exact(places));
        for (query, (row, weights)) in rows.enumerate() {
            let seen = self.seen(query, places);
            let mask = self.mask([sample, head, query], seen);
            if mask.is_some_and(|mask| mask.iter().all(|&there| there == E::default())) {
                row.fill(E::default());
                continue;
            }
            let mean = E::from_f64(dot(row, weights));
            for (gradient, &weight) in row.iter_mut().zip(weights) {
                *gradient = weight * (*gradient - mean) * self.scale;
            }
        }
    }
}

/// A head of a sample: `(count, heads · width)` from its first column on.
fn head<E>(values: &[E], index: usize, heads: usize, width: usize) -> Matrix<'_, E> {
    Matrix::rows(&values[index * width..], heads * width)
}

/// Bytes that may be on their way while a head is computed, beside what the second cache holds of it.
const AHEAD: usize = 128 * 1024;

/// Asks for a head's share of the next sample of each array, `count` elements a sample: head by head, rows come slowly.
fn ask_for_next<E>(arrays: &[(&[E], usize)], sample: usize, [head, heads]: [usize; 2]) {
    let share: usize = arrays.iter().map(|(_, count)| count * size_of::<E>() / heads).sum();
    if share > AHEAD {
        return;
    }
    for (values, count) in arrays {
        if let Some(next) = values.get((sample + 1) * count..(sample + 2) * count) {
            prefetch(&next[count * head / heads..count * (head + 1) / heads]);
        }
    }
}

/// The output and the weights.
pub(crate) fn forward<E: Real>(
    sizes: &Sizes,
    rows: Rows<'_, E>,
    [query, key, value]: [&[E]; 3],
    factors: Option<&[E]>,
) -> (Block<E>, Block<E>) {
    let Sizes { batch, heads, time, places, width, depth } = *sizes;
    let [of_query, of_key, of_value, of_output, of_weights] = sizes.samples();
    let (mut y, mut weights) =
        (Block::<E>::uninitialised(batch * of_output), Block::<E>::uninitialised(batch * of_weights));
    let samples = y.par_chunks_mut(of_output.max(1)).zip(weights.par_chunks_mut(of_weights.max(1))).enumerate();
    let arrays = [(query, of_query), (key, of_key), (value, of_value)];
    samples.for_each(|(sample, (y, weights))| {
        let [query, key, value] = arrays.map(|(values, count)| &values[sample * count..][..count]);
        let mut dropped = Vec::new();
        for (index, scores) in weights.chunks_exact_mut(time * places).enumerate() {
            ask_for_next(&arrays, sample, [index, heads]);
            let keys = head(key, index, heads, width).t();
            sizes.multiply(scores, places, head(query, index, heads, width), keys, [time, width, places]);
            vectorised!(rows.weigh([sample, index], scores, places));
            let used = drop(&mut dropped, scores, factors, (sample * heads + index) * time * places);
            let values = head(value, index, heads, depth);
            let (out, to) = (&mut y[index * depth..], heads * depth);
            sizes.multiply(out, to, Matrix::rows(used, places), values, [time, places, depth]);
        }
    });
    (y, weights)
}

/// Weights times their factors, if there are any.
fn drop<'a, E: Real>(to: &'a mut Vec<E>, weights: &'a [E], factors: Option<&[E]>, start: usize) -> &'a [E] {
    let Some(factors) = factors else {
        return weights;
    };
    to.clear();
    to.extend(weights.iter().zip(&factors[start..]).map(|(&weight, &factor)| weight * factor));
    to
}

/// The gradients of query, key and value.
pub(crate) fn backward<E: Real>(
    sizes: &Sizes,
    rows: Rows<'_, E>,
    [query, key, value]: [&[E]; 3],
    weights: &[E],
    factors: Option<&[E]>,
    gradient: &[E],
) -> [Block<E>; 3] {
    let Sizes { batch, heads, time, places, width, depth } = *sizes;
    let [of_query, of_key, of_value, of_output, of_weights] = sizes.samples();
    if time == 0 {
        return [of_query, of_key, of_value].map(|count| Block::full(batch * count, E::default()));
    }
    let mut found = [of_query, of_key, of_value].map(|count| Block::<E>::uninitialised(batch * count));
    let [dquery, dkey, dvalue] = &mut found;
    let samples = dquery
        .par_chunks_mut(of_query.max(1))
        .zip(dkey.par_chunks_mut(of_key).zip(dvalue.par_chunks_mut(of_value)))
        .enumerate();
    let arrays = [(query, of_query), (key, of_key), (value, of_value), (gradient, of_output), (weights, of_weights)];
    samples.for_each(|(sample, (dquery, (dkey, dvalue)))| {
        let [query, key, value, gradient, weights] = arrays.map(|(values, count)| &values[sample * count..][..count]);
        let (mut slopes, mut dropped) = (Block::<E>::uninitialised(time * places), Vec::new());
        for (index, weights) in weights.chunks_exact(time * places).enumerate() {
            ask_for_next(&arrays, sample, [index, heads]);
            let start = (sample * heads + index) * time * places;
            let (g, values) = (head(gradient, index, heads, depth), head(value, index, heads, depth));
            sizes.multiply(&mut slopes, places, g, values.t(), [time, depth, places]);
            let used = Matrix::rows(drop(&mut dropped, weights, factors, start), places);
            let out = &mut dvalue[index * depth..];
            sizes.multiply(out, heads * depth, used.t(), g, [places, time, depth]);
            if let Some(factors) = factors {
                slopes.iter_mut().zip(&factors[start..]).for_each(|(slope, &factor)| *slope = *slope * factor);
            }
            vectorised!(rows.slopes([sample, index], &mut slopes, weights, places));
            let scores = Matrix::rows(&slopes, places);
            let (keys, queries) = (head(key, index, heads, width), head(query, index, heads, width));
            let out = &mut dquery[index * width..];
            sizes.multiply(out, heads * width, scores, keys, [time, places, width]);
            let out = &mut dkey[index * width..];
            sizes.multiply(out, heads * width, scores.t(), queries, [places, time, width]);
        }
    });
    found
}
