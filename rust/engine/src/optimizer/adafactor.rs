//! Adafactor: the second moment of a matrix kept as a row and a column.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::fused::sum;
use super::piece::LANES;
use super::{Change, Decay, Hyperparameters, Pass, Rule, Slot, Squares, Step, Target, average, run, slots, squares};
use crate::tensor::{DType, Real, Tensor};
use crate::{Number, cpu};

/// `v = (1-w)·v + w·g²` with `w = t^beta2_decay`; `u = g/√max(v, eps1²)`; `p -= alpha·u/max(1, RMS(u)/clipping_threshold)`.
///
/// `alpha = max(eps2, RMS(p))·min(lr, 1/√t)`. From rank 2 on, `v` is the outer product of the means of `g²` over rows and over
/// columns (the last two axes), divided by the mean of either: two vectors of state instead of a matrix. Weight decay is
/// decoupled: `p *= 1 - lr·weight_decay` first. `eps1` is the type's machine epsilon if none is given.
/// Source: Shazeer and Stern 2018 (Algorithm 4) in PyTorch's form, defaults too.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Adafactor {
    beta2_decay: f64,
    eps: (Option<f64>, f64),
    clipping_threshold: f64,
    weight_decay: f64,
}

impl Default for Adafactor {
    fn default() -> Self {
        Self { beta2_decay: -0.8, eps: (None, 1e-3), clipping_threshold: 1.0, weight_decay: 0.0 }
    }
}

impl Hyperparameters for Adafactor {
    const LEARNING_RATE: f64 = 0.01;

    fn rule(self) -> Box<dyn Rule> {
        Box::new(self)
    }
}

/// What an update needs besides the arrays.
#[derive(Clone, Copy, Debug)]
struct Scalars {
    /// What the second moment keeps.
    keep: f64,
    /// `eps1`.
    eps: f64,
    scale: f64,
}

/// The step of an update, once the norms are known.
#[derive(Clone, Copy, Debug)]
struct Length {
    shrink: f64,
    rate: f64,
}

impl Adafactor {
    fn scalars(&self, step: &Step, dtype: DType) -> Scalars {
        let machine = if dtype == DType::F64 { f64::EPSILON } else { f32::EPSILON.into() };
        Scalars {
            keep: 1.0 - (step.number as f64).powf(self.beta2_decay),
            eps: self.eps.0.unwrap_or(machine),
            scale: step.gradient_scale,
        }
    }

    fn length(&self, step: &Step, [of_parameter, of_direction]: [f64; 2], count: usize) -> Length {
        let mean_root = |sum: f64| (sum / count as f64).sqrt();
        let relative = step.learning_rate.min((step.number as f64).sqrt().recip());
        let alpha = mean_root(of_parameter).max(self.eps.1) * relative;
        let clipping = (mean_root(of_direction) / self.clipping_threshold).max(1.0);
        Length { shrink: Decay::decoupled(step).shrink, rate: alpha / clipping }
    }
}

impl Rule for Adafactor {
    fn state(&self, target: &Target) -> Vec<Slot> {
        let Some(columns) = target.shape.len().checked_sub(1).filter(|&axis| axis > 0) else {
            return slots(["variance"], target);
        };
        let without = |axis: usize| {
            let mut shape = target.shape.clone();
            shape[axis] = 1;
            shape
        };
        vec![
            Slot { name: "row_variance", shape: without(columns) },
            Slot { name: "column_variance", shape: without(columns - 1) },
        ]
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn update(
        &self,
        target: &Target,
        parameter: &mut Tensor,
        gradient: Tensor,
        state: &mut [Tensor],
        step: &Step,
    ) -> Change {
        let scalars = self.scalars(step, parameter.dtype());
        let count = parameter.len();
        if count == 0 {
            return Squares::default().into();
        }
        if state.len() == 1 {
            let variance = Variance(scalars);
            let sums = run(&variance, parameter, &gradient, state, scalars.scale);
            let descent = Descent { variance, length: self.length(step, sums, count) };
            return Squares::of(run(&descent, parameter, &gradient, state, scalars.scale)).into();
        }
        let length = |sums| self.length(step, sums, count);
        match parameter.dtype() {
            DType::F32 if parameter.is_cpu() => {
                update_cpu::<f32>(&target.shape, parameter, gradient, state, scalars, length)
            }
            DType::F64 if parameter.is_cpu() => {
                update_cpu::<f64>(&target.shape, parameter, gradient, state, scalars, length)
            }
            _ => update_tensors(parameter, gradient, state, scalars, length),
        }
        .into()
    }
}

/// The first pass over what is no matrix: its new second moment, and the squares of parameter and direction.
#[derive(Clone, Copy, Debug)]
struct Variance(Scalars);

impl Variance {
    #[inline(always)]
    fn direction<N: Number>(&self, gradient: N, variance: N) -> N {
        gradient / variance.at_least(self.0.eps * self.0.eps).sqrt()
    }
}

impl Pass<1, 2> for Variance {
    const WRITES_PARAMETER: bool = false;

    #[inline(always)]
    fn apply<N: Number>(&self, parameter: N, gradient: N, [variance]: [N; 1]) -> (N, [N; 1], [N; 2]) {
        let variance = average(variance, gradient.clone().square(), self.0.keep);
        let direction = self.direction(gradient, variance.clone());
        (parameter.clone(), [variance], [parameter.square(), direction.square()])
    }
}

/// The second pass: the step.
#[derive(Clone, Copy)]
struct Descent {
    variance: Variance,
    length: Length,
}

impl Pass<1, 2> for Descent {
    const WRITES_STATE: bool = false;

    #[inline(always)]
    fn apply<N: Number>(&self, parameter: N, gradient: N, [variance]: [N; 1]) -> (N, [N; 1], [N; 2]) {
        let direction = self.variance.direction(gradient, variance.clone());
        let after = moved(self.length, parameter.clone(), direction);
        (after.clone(), [variance], squares(parameter, after))
    }
}

#[inline(always)]
fn moved<N: Number>(length: Length, parameter: N, direction: N) -> N {
    parameter.times(length.shrink) - direction.times(length.rate)
}

/// `g` times this is the direction, where `v` is `row·column`: `1/√row` and `1/√column` come in.
#[inline(always)]
fn normaliser<N: Number>(row: N, column: N, eps: f64) -> N {
    (row * column).at_most(eps.recip())
}

fn update_tensors(
    parameter: &mut Tensor,
    gradient: Tensor,
    state: &mut [Tensor],
    scalars: Scalars,
    length: impl Fn([f64; 2]) -> Length,
) -> Squares {
    let (rows, columns) = (parameter.rank() - 2, parameter.rank() - 1);
    let shape = parameter.shape();
    let mean = |tensor: Tensor, axis: usize| tensor.sum_axis(axis).times((shape[axis] as f64).recip());
    let gradient = gradient.times(scalars.scale);
    let of_squares = gradient.clone().square();
    state[0] = average(state[0].clone(), mean(of_squares.clone(), columns), scalars.keep);
    state[1] = average(state[1].clone(), mean(of_squares, rows), scalars.keep);
    let row = state[0].clone() / mean(state[0].clone(), rows).at_least(scalars.eps);
    let roots = [row, state[1].clone()].map(|variance| variance.sqrt().recip_of(1.0));
    let [row, column] = roots;
    let direction = gradient * normaliser(row, column, scalars.eps);
    let before = parameter.clone();
    let length = length([before.clone().square(), direction.clone().square()].map(sum));
    *parameter = moved(length, before.clone(), direction);
    Squares::of(squares(before, parameter.clone()).map(sum))
}

/// Parts of a matrix whose columns are summed on their own, so that the sums do not depend on the number of threads.
const PARTS: usize = 16;

/// A matrix of a parameter with what is known of it by row and by column.
struct Matrix<'a, E> {
    parameter: &'a mut [E],
    gradient: &'a [E],
    rows: &'a mut [E],
    columns: &'a mut [E],
    /// `1/√(row/mean of rows)` and `1/√column`.
    roots: (Vec<E>, Vec<E>),
}

fn update_cpu<E: Real>(
    shape: &[usize],
    parameter: &mut Tensor,
    gradient: Tensor,
    state: &mut [Tensor],
    scalars: Scalars,
    length: impl Fn([f64; 2]) -> Length,
) -> Squares {
    let [.., rows, columns] = *shape else { panic!("factored moments are those of matrices") };
    let gradient = gradient.contiguous::<E>();
    let [of_rows, of_columns] = state else { panic!("a row and a column of state") };
    let mut matrices: Vec<Matrix<'_, E>> = parameter
        .elements_mut::<E>()
        .chunks_mut(rows * columns)
        .zip(gradient.elements::<E>().chunks(rows * columns))
        .zip(of_rows.elements_mut::<E>().chunks_mut(rows).zip(of_columns.elements_mut::<E>().chunks_mut(columns)))
        .map(|((parameter, gradient), (rows, columns))| Matrix {
            parameter,
            gradient,
            rows,
            columns,
            roots: Default::default(),
        })
        .collect();
    let sums = matrices.iter_mut().map(|matrix| {
        matrix.average(scalars);
        matrix.norms(scalars)
    });
    let length = length(sums.fold([0.0; 2], added));
    Squares::of(matrices.iter_mut().map(|matrix| matrix.descend(scalars, length)).fold([0.0; 2], added))
}

fn added(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] + b[0], a[1] + b[1]]
}

/// Calls `work` on each element of `items`, among threads if the matrix is large enough.
fn each<T: Send, R: Send>(elements: usize, items: Vec<T>, work: impl Fn(T) -> R + Sync + Send) -> Vec<R> {
    if elements < cpu::PARALLEL_ELEMENTS {
        return items.into_iter().map(work).collect();
    }
    items.into_par_iter().map(work).collect()
}

impl<E: Real> Matrix<'_, E> {
    fn rows_of_part(&self) -> usize {
        self.rows.len().div_ceil(PARTS)
    }

    /// Takes the squares of the gradient into the means of rows and columns.
    fn average(&mut self, Scalars { keep, eps, scale }: Scalars) {
        let (width, part) = (self.columns.len(), self.rows_of_part());
        let mut sums = vec![E::default(); self.rows.len()];
        let parts = self.gradient.chunks(part * width).zip(sums.chunks_mut(part)).collect();
        let partial = each(self.gradient.len(), parts, |(gradient, sums): (&[E], &mut [E])| {
            let mut columns = vec![E::default(); width];
            cpu::vectorised!(add_squares(gradient, E::from_f64(scale), sums, &mut columns));
            columns
        });
        for (mean, sum) in self.rows.iter_mut().zip(sums) {
            *mean = average(*mean, sum.times((width as f64).recip()), keep);
        }
        let count = self.rows.len() as f64;
        for (column, mean) in self.columns.iter_mut().enumerate() {
            let sum: f64 = partial.iter().map(|part| part[column].to_f64()).sum();
            *mean = average(*mean, E::from_f64(sum / count), keep);
        }
        let mean = (self.rows.iter().map(|value| value.to_f64()).sum::<f64>() / count).max(eps);
        let mean = E::from_f64(mean);
        let roots = |values: &[E], by: E| values.iter().map(|&value| (value / by).sqrt().recip_of(1.0)).collect();
        self.roots = (roots(self.rows, mean), roots(self.columns, E::from_f64(1.0)));
    }

    /// The sums of the squares of parameter and direction.
    fn norms(&mut self, scalars: Scalars) -> [f64; 2] {
        self.pass::<false>(scalars, |parameter, direction| (parameter, [parameter.square(), direction.square()]))
    }

    /// Moves the parameter.
    fn descend(&mut self, scalars: Scalars, length: Length) -> [f64; 2] {
        self.pass::<true>(scalars, |before, direction| {
            let after = moved(length, before, direction);
            (after, squares(before, after))
        })
    }

    /// Gives each element with its direction to `step`, whose terms are added up and whose new element is kept if it `WRITES`.
    fn pass<const WRITES: bool>(
        &mut self,
        Scalars { eps, scale, .. }: Scalars,
        step: impl Fn(E, E) -> (E, [E; 2]) + Sync,
    ) -> [f64; 2] {
        let (width, part, scale) = (self.columns.len(), self.rows_of_part(), E::from_f64(scale));
        let elements = self.gradient.len();
        let parts = self.parameter.chunks_mut(part * width).zip(self.gradient.chunks(part * width));
        let parts = parts.zip(self.roots.0.chunks(part)).collect();
        let columns = &self.roots.1;
        let sums = each(elements, parts, |((parameter, gradient), rows): ((&mut [E], &[E]), &[E])| {
            let mut sums = [0.0; 2];
            cpu::vectorised!({
                let lines = parameter.chunks_exact_mut(width).zip(gradient.chunks_exact(width)).zip(rows);
                for ((parameter, gradient), &row) in lines {
                    let line = line::<E, WRITES>(parameter, gradient, columns, |before, gradient, column| {
                        step(before, gradient * scale * normaliser(row, column, eps))
                    });
                    sums = added(sums, line);
                }
            });
            sums
        });
        sums.into_iter().fold([0.0; 2], added)
    }
}

/// One row of [`Matrix::pass`].
#[inline(always)]
fn line<E: Real, const WRITES: bool>(
    parameter: &mut [E],
    gradient: &[E],
    columns: &[E],
    step: impl Fn(E, E, E) -> (E, [E; 2]),
) -> [f64; 2] {
    let mut sums = [[E::default(); LANES]; 2];
    let (whole, rest) = parameter.as_chunks_mut::<LANES>();
    let ((gradients, gradient_rest), (roots, root_rest)) =
        (gradient.as_chunks::<LANES>(), columns.as_chunks::<LANES>());
    for ((parameter, gradient), columns) in whole.iter_mut().zip(gradients).zip(roots) {
        for lane in 0..LANES {
            let (after, terms) = step(parameter[lane], gradient[lane], columns[lane]);
            (0..2).for_each(|k| sums[k][lane] = sums[k][lane] + terms[k]);
            if WRITES {
                parameter[lane] = after;
            }
        }
    }
    for ((parameter, &gradient), &column) in rest.iter_mut().zip(gradient_rest).zip(root_rest) {
        let (after, terms) = step(*parameter, gradient, column);
        (0..2).for_each(|k| sums[k][0] = sums[k][0] + terms[k]);
        if WRITES {
            *parameter = after;
        }
    }
    sums.map(|lanes| lanes.iter().map(|value| value.to_f64()).sum())
}

/// Adds the squares of a matrix up, by row and by column.
#[inline(always)]
fn add_squares<E: Real>(gradient: &[E], scale: E, rows: &mut [E], columns: &mut [E]) {
    let width = columns.len();
    for (gradient, row) in gradient.chunks_exact(width).zip(rows) {
        let mut lanes = [E::default(); LANES];
        let (whole, rest) = gradient.as_chunks::<LANES>();
        let (whole_columns, rest_columns) = columns.as_chunks_mut::<LANES>();
        for (values, columns) in whole.iter().zip(whole_columns) {
            for lane in 0..LANES {
                let square = (values[lane] * scale).square();
                lanes[lane] = lanes[lane] + square;
                columns[lane] = columns[lane] + square;
            }
        }
        for (&value, column) in rest.iter().zip(rest_columns) {
            let square = (value * scale).square();
            lanes[0] = lanes[0] + square;
            *column = *column + square;
        }
        *row = lanes.into_iter().fold(E::default(), |sum, lane| sum + lane);
    }
}
