//! Moments of features (places on the last axis) over rows, and normalisation by them.

use super::{for_rows, vectorised};
use crate::memory::Block;
use crate::ops::{Activation, rows};
use crate::tensor::Real;

/// Rows whose terms are added in their own type, before `f64` takes over.
const BLOCK: usize = 32;
/// About how many elements one thread goes through: fixed, so that the order of additions is.
const CHUNK: usize = 32 * 1024;

/// The elements of some rows that one thread goes through.
fn chunk(width: usize) -> usize {
    BLOCK * (CHUNK / (BLOCK * width)).max(1) * width
}

/// Mean, variance and unbiased variance of each of `width` features, in this order.
pub(crate) fn moments<E: Real>(x: &[E], width: usize) -> Block<E> {
    let (count, chunk) = (x.len() / width, chunk(width));
    let mut parts = rows(x.len().div_ceil(chunk), 2 * width, x.len(), |index, part| {
        chunk_moments(&x[index * chunk..x.len().min((index + 1) * chunk)], part);
    });
    let mut out = Block::full(3 * width, E::from_f64(f64::NAN));
    let mut parts = parts.chunks_exact_mut(2 * width);
    let Some(total) = parts.next() else {
        return out;
    };
    let (mean, squares) = total.split_at_mut(width);
    let mut seen = count.min(chunk / width);
    for part in parts {
        let more = (count - seen).min(chunk / width);
        merge([mean, squares], seen, part.split_at(width), more);
        seen += more;
    }
    let divisors = [count, count.saturating_sub(1).max(1)];
    let divided = divisors.into_iter().flat_map(|divisor| squares.iter().map(move |square| square / divisor as f64));
    let numbers = mean.iter().copied().chain(divided);
    out.iter_mut().zip(numbers).for_each(|(out, number)| *out = E::from_f64(number));
    out
}

/// Takes the moments of `more` rows into those of the rows seen (Chan, Golub and LeVeque, 1979): means, and sums of squares of
/// the distances to them.
#[inline(always)]
fn merge([mean, squares]: [&mut [f64]; 2], seen: usize, part: (&[f64], &[f64]), more: usize) {
    let (seen, more) = (seen as f64, more as f64);
    let share = more / (seen + more);
    for (((mean, squares), &part_mean), &part_squares) in mean.iter_mut().zip(squares).zip(part.0).zip(part.1) {
        let distance = part_mean - *mean;
        *mean += distance * share;
        *squares += part_squares + distance * distance * seen * share;
    }
}

/// Means, and sums of squares of the distances to them, of a piece.
fn chunk_moments<E: Real>(x: &[E], moments: &mut [f64]) {
    let width = moments.len() / 2;
    let mut sums = Block::full(2 * width, E::default());
    let mut found = Block::full(2 * width, 0.0);
    moments.fill(0.0);
    vectorised!({
        let (centre, squares) = sums.split_at_mut(width);
        let (mean_found, squares_found) = found.split_at_mut(width);
        let (mean, total) = moments.split_at_mut(width);
        let mut seen = 0;
        for block in x.chunks(BLOCK * width) {
            let count = block.len() / width;
            squares.fill(E::default());
            add_rows(squares, centre, block, |x, _| x);
            for ((centre, found), &sum) in centre.iter_mut().zip(&mut *mean_found).zip(&*squares) {
                *found = sum.to_f64() / count as f64;
                *centre = E::from_f64(*found);
            }
            squares.fill(E::default());
            add_rows(squares, centre, block, |x, centre| (x - centre).square());
            squares_found.iter_mut().zip(&*squares).for_each(|(found, &sum)| *found = sum.to_f64());
            merge([&mut *mean, &mut *total], seen, (&*mean_found, &*squares_found), count);
            seen += count;
        }
    });
}

/// Adds `term(x, centre)` of each row to the totals of the features, four rows at a time.
#[inline(always)]
fn add_rows<E: Real>(totals: &mut [E], centres: &[E], x: &[E], term: impl Fn(E, E) -> E) {
    let width = totals.len();
    let fours = x.chunks_exact(4 * width);
    let rest = fours.remainder();
    for four in fours {
        let (ab, cd) = four.split_at(2 * width);
        let ((a, b), (c, d)) = (ab.split_at(width), cd.split_at(width));
        let rows = a.iter().zip(b).zip(c).zip(d);
        for ((total, &centre), (((&a, &b), &c), &d)) in totals.iter_mut().zip(centres).zip(rows) {
            *total = *total + ((term(a, centre) + term(b, centre)) + (term(c, centre) + term(d, centre)));
        }
    }
    for row in rest.chunks_exact(width) {
        for ((total, &centre), &x) in totals.iter_mut().zip(centres).zip(row) {
            *total = *total + term(x, centre);
        }
    }
}

/// What each feature of a row meets.
pub(crate) struct Line<E> {
    mean: Block<E>,
    /// `1/√(variance + eps)`
    inverse: Block<E>,
    /// `scale · inverse`
    factor: Block<E>,
    offset: Block<E>,
}

/// Sums over rows of g, the gradient before the activation, and of `g · (x - mean)`, for each feature.
pub(crate) struct Sums(Block<f64>);

impl Sums {
    /// `Σ g`
    pub(crate) fn gradient(&self, feature: usize) -> f64 {
        self.0[feature]
    }

    /// `Σ g · (x - mean)`
    pub(crate) fn product(&self, feature: usize) -> f64 {
        self.0[self.0.len() / 2 + feature]
    }
}

impl<E: Real> Line<E> {
    /// Of mean, variance, scale and offset.
    pub(crate) fn new(eps: f64, [mean, variance, scale, offset]: [&[E]; 4]) -> Self {
        let root = |variance: &E| E::from_f64(1.0 / (variance.to_f64() + eps).sqrt());
        let inverse = Block::collect(variance.iter().map(root));
        let factor = Block::collect(scale.iter().zip(&*inverse).map(|(&scale, &inverse)| scale * inverse));
        Self { mean: Block::copy(mean), inverse, factor, offset: Block::copy(offset) }
    }

    /// The number of features.
    pub(crate) fn width(&self) -> usize {
        self.mean.len()
    }

    /// `1/√(variance + eps)`
    pub(crate) fn inverse(&self, feature: usize) -> f64 {
        self.inverse[feature].to_f64()
    }

    /// `scale/√(variance + eps)`
    pub(crate) fn factor(&self, feature: usize) -> f64 {
        self.factor[feature].to_f64()
    }

    /// `activation((x - mean) · factor + offset)`
    pub(crate) fn normalise(&self, activation: Activation, x: &[E]) -> Block<E> {
        let (mut y, width) = (Block::<E>::uninitialised(x.len()), self.width());
        for_rows(&mut y, width, |first, y| {
            vectorised!({
                for (y, x) in y.chunks_exact_mut(width).zip(x[first * width..].chunks_exact(width)) {
                    y.copy_from_slice(x);
                    self.normalise_row(activation, y);
                }
            });
        });
        y
    }

    /// [`Self::normalise`] in the input's place.
    pub(crate) fn normalise_in_place(&self, activation: Activation, x: &mut [E]) {
        for_rows(x, self.width(), |_, x| {
            vectorised!(x.chunks_exact_mut(self.width()).for_each(|row| self.normalise_row(activation, row)));
        });
    }

    #[inline(always)]
    fn normalise_row(&self, activation: Activation, row: &mut [E]) {
        for (((x, &mean), &factor), &offset) in row.iter_mut().zip(&*self.mean).zip(&*self.factor).zip(&*self.offset) {
            *x = (*x - mean) * factor + offset;
        }
        activation.apply_inline(row);
    }

    /// The sums that gradients are made of, from the gradient after the activation, which is relu or none.
    pub(crate) fn sums(&self, relu: bool, x: &[E], gradient: &[E]) -> Sums {
        let (width, chunk) = (self.width(), chunk(self.width()));
        let parts = rows(x.len().div_ceil(chunk), 2 * width, x.len(), |index, part| {
            let piece = index * chunk..x.len().min((index + 1) * chunk);
            self.chunk_sums(relu, &x[piece.clone()], &gradient[piece], part);
        });
        let mut totals = Block::full(2 * width, 0.0);
        for part in parts.chunks_exact(2 * width) {
            totals.iter_mut().zip(part).for_each(|(total, part)| *total += part);
        }
        Sums(totals)
    }

    fn chunk_sums(&self, relu: bool, x: &[E], gradient: &[E], totals: &mut [f64]) {
        let width = self.width();
        let mut partial = Block::full(2 * width, E::default());
        totals.fill(0.0);
        vectorised!({
            for (x, gradient) in x.chunks(BLOCK * width).zip(gradient.chunks(BLOCK * width)) {
                partial.fill(E::default());
                let (sums, products) = partial.split_at_mut(width);
                match relu {
                    true => self.add_products::<true>(x, gradient, sums, products),
                    false => self.add_products::<false>(x, gradient, sums, products),
                }
                totals.iter_mut().zip(&*partial).for_each(|(total, &sum)| *total += sum.to_f64());
            }
        });
    }

    /// Adds `g` and `g · (x - mean)` of some rows, two at a time.
    #[inline(always)]
    fn add_products<const RELU: bool>(&self, x: &[E], gradient: &[E], sums: &mut [E], products: &mut [E]) {
        let width = self.width();
        let terms = |x: E, gradient: E, mean: E, factor: E, offset: E| {
            let distance = x - mean;
            let gradient = if RELU { rectified(gradient, distance * factor + offset) } else { gradient };
            (gradient, gradient * distance)
        };
        let (pairs, gradients) = (x.chunks_exact(2 * width), gradient.chunks_exact(2 * width));
        let last = pairs.remainder().iter().zip(gradients.remainder());
        for (x, gradient) in pairs.zip(gradients) {
            let ((x, more_x), (gradient, more_gradient)) = (x.split_at(width), gradient.split_at(width));
            let rows = x.iter().zip(more_x).zip(gradient).zip(more_gradient);
            let numbers = self.mean.iter().zip(&*self.factor).zip(&*self.offset);
            let totals = sums.iter_mut().zip(products.iter_mut());
            for (((sum, product), ((&mean, &factor), &offset)), (((&a, &b), &g), &h)) in totals.zip(numbers).zip(rows) {
                let (a, b) = (terms(a, g, mean, factor, offset), terms(b, h, mean, factor, offset));
                *sum = *sum + (a.0 + b.0);
                *product = *product + (a.1 + b.1);
            }
        }
        for (feature, (&x, &gradient)) in last.enumerate() {
            let (g, product) = terms(x, gradient, self.mean[feature], self.factor[feature], self.offset[feature]);
            sums[feature] = sums[feature] + g;
            products[feature] = products[feature] + product;
        }
    }

    /// Turns gradients of the output into those of x: `factor · (g - part · (Σ g + z · Σ g·z))`, z being normalised x and `part`
    /// what a row has in mean and variance.
    pub(crate) fn input_gradient(&self, relu: bool, sums: &Sums, part: f64, x: &[E], gradient: &mut [E]) {
        let width = self.width();
        let number = |feature: usize, of: f64| E::from_f64(-self.factor(feature) * part * of);
        let constant = Block::collect((0..width).map(|feature| number(feature, sums.gradient(feature))));
        let slope = |feature: usize| number(feature, self.inverse(feature).powi(2) * sums.product(feature));
        let slope = Block::collect((0..width).map(slope));
        for_rows(gradient, width, |first, gradient| {
            vectorised!({
                for (gradient, x) in gradient.chunks_exact_mut(width).zip(x[first * width..].chunks_exact(width)) {
                    match relu {
                        true => self.input_gradient_row::<true>([&constant, &slope], x, gradient),
                        false => self.input_gradient_row::<false>([&constant, &slope], x, gradient),
                    }
                }
            });
        });
    }

    #[inline(always)]
    fn input_gradient_row<const RELU: bool>(&self, [constant, slope]: [&[E]; 2], x: &[E], gradient: &mut [E]) {
        let numbers = self.mean.iter().zip(&*self.factor).zip(&*self.offset).zip(constant).zip(slope);
        for ((g, &x), ((((&mean, &factor), &offset), &constant), &slope)) in gradient.iter_mut().zip(x).zip(numbers) {
            let distance = x - mean;
            let before = if RELU { rectified(*g, distance * factor + offset) } else { *g };
            *g = before * factor + distance * slope + constant;
        }
    }
}

/// The gradient before relu, from that after it and what relu was given.
#[inline(always)]
fn rectified<E: Real>(gradient: E, before: E) -> E {
    if before > E::default() { gradient } else { E::default() }
}
