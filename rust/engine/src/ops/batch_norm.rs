//! Batch normalisation (Ioffe and Szegedy, 2015): moments of each feature over all rows, and what is made of them.

use std::sync::Arc;

use serde::Deserialize;
use smallvec::smallvec;

use super::elementwise::Activation;
use super::reduction::{mean, sum_to, widen};
use super::{Context, Entry, Evaluation, Gradients, Keeps, Kept, Operation, Reach, Tensors, entry, exactly};
use crate::Number;
use crate::cpu::features::{self, Line};
use crate::memory::Block;
use crate::program::{Dim, Kind, Type, show};
use crate::tensor::{DType, Real, Tensor};

/// The lines of the table.
pub(super) const ENTRIES: &[Entry] =
    &[entry::<Moments>("moments", 1, Some(1)), entry::<BatchNorm>("batch_norm", 5, Some(5))];

/// Mean, variance `Σ (x - mean)² / n` and unbiased variance `Σ (x - mean)² / max(n - 1, 1)` of each feature, the last axis, over
/// the n rows that all other axes make: `(…, features) -> (3, features)`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Moments {}

impl Operation for Moments {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        Ok(Type::float(vec![Dim::known(3), features(inputs[0])?]))
    }

    fn evaluate(&self, inputs: Tensors, _: &Context) -> Evaluation {
        let [x] = exactly(inputs);
        match x.dtype() {
            DType::F32 if x.is_cpu() => moments::<f32>(x),
            DType::F64 if x.is_cpu() => moments::<f64>(x),
            _ => moments_of_tensor(x),
        }
        .into()
    }

    fn keeps(&self) -> Keeps {
        Keeps::BOTH
    }

    /// `dx = (dmean + 2 · (x - mean) · (dvariance + dunbiased · n / max(n - 1, 1))) / n`
    fn gradient(&self, kept: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
        let (x, dtype) = (kept.inputs[0].clone(), gradient.dtype());
        let count = count_rows(&x) as f64;
        let [to_mean, to_variance, to_unbiased] = [0, 1, 2].map(|row| widen(row_of(&gradient, row)));
        let to_square = (to_variance + to_unbiased.times(count / (count - 1.0).max(1.0))).times(2.0 / count);
        let centred = widen(x) - widen(row_of(kept.output(), 0));
        smallvec![Some((centred * to_square + to_mean.times(1.0 / count)).cast(dtype))]
    }
}

/// `activation((x - mean) / √(variance + eps) · scale + offset)`: x `(…, features)`, the rest `(features,)`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNorm {
    #[serde(default = "default_eps")]
    eps: f64,
    /// Whether mean and variance are [`Moments`] of x: their gradient is then part of that of x, and they have none.
    #[serde(default)]
    of_batch: bool,
    #[serde(default)]
    activation: Activation,
}

/// PyTorch's.
fn default_eps() -> f64 {
    1e-5
}

impl Operation for BatchNorm {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let features = features(inputs[0])?;
        for (input, name) in inputs[1..].iter().zip(["mean", "variance", "scale", "offset"]) {
            input.expect_kind(Kind::Float)?;
            if input.shape != [features] {
                return Err(format!("the {name} must have shape ({features},), got {}", show(&input.shape)));
            }
        }
        if !self.eps.is_finite() || self.eps < 0.0 {
            return Err(format!("eps must be at least 0, got {}", self.eps));
        }
        Ok(inputs[0].clone())
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Element
    }

    fn evaluate(&self, inputs: Tensors, _: &Context) -> Evaluation {
        // Finite differences spread the features' numbers over elements.
        let fused = inputs[0].is_cpu() && inputs[1..].iter().all(|input| input.rank() == 1);
        match inputs[0].dtype() {
            DType::F32 if fused => self.forward::<f32>(inputs),
            DType::F64 if fused => self.forward::<f64>(inputs),
            _ => self.forward_tensors(inputs),
        }
        .into()
    }

    fn keeps(&self) -> Keeps {
        Keeps { inputs: true, output: self.needs_output() }
    }

    fn rectifies(&self) -> bool {
        self.activation.rectifies()
    }

    fn activated(&self, activation: Activation) -> Option<Arc<dyn Operation>> {
        (self.activation == Activation::None).then(|| Arc::new(Self { activation, ..self.clone() }) as _)
    }

    /// With `s = 1/√(variance + eps)`, `z = (x - mean) · s` and `g` the gradient before the activation:
    /// `doffset = Σ g`, `dscale = Σ g·z`, and `dx = scale · s · g`, less `scale · s · (doffset + z · dscale) / n` if mean and variance
    /// are the batch's own; else `dmean = -scale · s · doffset` and `dvariance = -scale · s² · dscale / 2`.
    fn gradient(&self, kept: Kept, gradient: Tensor, wanted: &[bool]) -> Gradients {
        let gradient = match self.needs_output() {
            true => self.activation.backward(kept.output, gradient),
            false => gradient,
        };
        match gradient.dtype() {
            DType::F32 if gradient.is_cpu() => self.backward::<f32>(kept.inputs, gradient, wanted),
            DType::F64 if gradient.is_cpu() => self.backward::<f64>(kept.inputs, gradient, wanted),
            _ => self.backward_tensors(kept.inputs, gradient, wanted),
        }
    }
}

/// The last axis.
fn features(x: &Type) -> Result<Dim, String> {
    x.expect_kind(Kind::Float)?;
    x.expect_rank(1, "the input")?;
    let features = x.shape[x.rank() - 1];
    if features.batch || features.count == 0 {
        return Err(format!("the last axis must have a known length of at least 1, got shape {}", show(&x.shape)));
    }
    Ok(features)
}

fn count_rows(x: &Tensor) -> usize {
    x.shape().iter().rev().skip(1).product()
}

/// A row of a matrix, as a vector.
fn row_of(matrix: &Tensor, row: usize) -> Tensor {
    let width = matrix.shape()[1];
    matrix.clone().slice(&[row, 0], &[row + 1, width], &[1, 1]).reshape(&[width])
}

fn moments<E: Real>(x: Tensor) -> Tensor {
    let width = x.shape()[x.rank() - 1];
    let x = x.contiguous::<E>();
    Tensor::from_block(features::moments(x.elements::<E>(), width), &[3, width])
}

fn moments_of_tensor(x: Tensor) -> Tensor {
    let (dtype, axes): (_, Vec<usize>) = (x.dtype(), (0..x.rank() - 1).collect());
    let (width, count) = (x.shape()[axes.len()], count_rows(&x) as f64);
    let x = widen(x);
    let centre = mean(x.clone(), &axes);
    let variance = mean((x - centre.clone()).square(), &axes);
    let unbiased = variance.clone().times(count / (count - 1.0).max(1.0));
    let rows = [centre, variance, unbiased].map(|row| row.reshape(&[1, width]).cast(dtype));
    Tensor::concatenate(rows.into(), 0)
}

impl BatchNorm {
    /// Whether the gradient reads the output; that of relu is found again from the input.
    fn needs_output(&self) -> bool {
        self.activation.needs_output() && !self.activation.rectifies()
    }

    fn forward<E: Real>(&self, inputs: Tensors) -> Tensor {
        let [mut x, mean, variance, scale, offset] = exactly(inputs).map(Tensor::contiguous::<E>);
        let line = Line::new(self.eps, [&mean, &variance, &scale, &offset].map(Tensor::elements::<E>));
        let shape = x.shape();
        if let Some(values) = x.as_mut_slice::<E>() {
            line.normalise_in_place(self.activation, values);
            return x;
        }
        Tensor::from_block(line.normalise(self.activation, x.elements::<E>()), &shape)
    }

    fn backward<E: Real>(&self, inputs: Tensors, gradient: Tensor, wanted: &[bool]) -> Gradients {
        let [x, mean, variance, scale, offset] = exactly(inputs).map(Tensor::contiguous::<E>);
        let line = Line::new(self.eps, [&mean, &variance, &scale, &offset].map(Tensor::elements::<E>));
        let (x, mut gradient) = (x.elements::<E>(), gradient.unique::<E>());
        let relu = self.activation.rectifies();
        let sums = line.sums(relu, x, gradient.elements::<E>());
        let others = self.others(&line, &sums);
        let dx = wanted[0].then(|| {
            let part = if self.of_batch { 1.0 / (x.len() / line.width()).max(1) as f64 } else { 0.0 };
            line.input_gradient(relu, &sums, part, x, gradient.elements_mut::<E>());
            gradient
        });
        [dx].into_iter().chain(others).collect()
    }

    /// The gradients of mean, variance, scale and offset.
    fn others<E: Real>(&self, line: &Line<E>, sums: &features::Sums) -> [Option<Tensor>; 4] {
        let vector = |term: &dyn Fn(usize) -> f64| {
            let numbers = Block::collect((0..line.width()).map(|feature| E::from_f64(term(feature))));
            Tensor::from_block(numbers, &[line.width()])
        };
        let given = |term: &dyn Fn(usize) -> f64| (!self.of_batch).then(|| vector(term));
        [
            given(&|feature| -line.factor(feature) * sums.gradient(feature)),
            given(&|feature| -0.5 * line.factor(feature) * line.inverse(feature).powi(2) * sums.product(feature)),
            Some(vector(&|feature| line.inverse(feature) * sums.product(feature))),
            Some(vector(&|feature| sums.gradient(feature))),
        ]
    }

    fn forward_tensors(&self, inputs: Tensors) -> Tensor {
        let dtype = inputs[0].dtype();
        let [x, mean, variance, scale, offset] = exactly::<5>(inputs).map(widen);
        let y = (x - mean) * (variance.plus(self.eps).sqrt().recip_of(1.0) * scale) + offset;
        self.activation.value(y.cast(dtype))
    }

    fn backward_tensors(&self, inputs: Tensors, gradient: Tensor, wanted: &[bool]) -> Gradients {
        let (dtype, count) = (gradient.dtype(), count_rows(&inputs[0]).max(1) as f64);
        let [x, mean, variance, scale, offset] = exactly::<5>(inputs).map(widen);
        let width = scale.shape();
        let inverse = variance.plus(self.eps).sqrt().recip_of(1.0);
        let factor = inverse.clone() * scale;
        let centred = x - mean;
        let mut gradient = widen(gradient);
        if self.activation.rectifies() {
            gradient = gradient * (centred.clone() * factor.clone() + offset).step();
        }
        let z = centred * inverse.clone();
        let doffset = sum_to(gradient.clone(), &width);
        let dscale = sum_to(gradient.clone() * z.clone(), &width);
        let mut gradients: Gradients = smallvec![None; 5];
        if wanted[0] {
            let share = if self.of_batch { 1.0 / count } else { 0.0 };
            let own = (z * dscale.clone() + doffset.clone()).times(share);
            gradients[0] = Some((gradient - own) * factor.clone());
        }
        if !self.of_batch {
            gradients[1] = Some(-(factor.clone() * doffset.clone()));
            gradients[2] = Some((factor * inverse * dscale.clone()).times(-0.5));
        }
        (gradients[3], gradients[4]) = (Some(dscale), Some(doffset));
        gradients.into_iter().map(|gradient| gradient.map(|gradient| gradient.cast(dtype))).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, context, on_ndarray, on_threads, tensor};

    /// Mean and sum of squared distances to it of each feature, one number after the other.
    fn simple_moments(x: &[f64], width: usize) -> Vec<f64> {
        let rows = (x.len() / width) as f64;
        let column = |feature: usize| x.iter().skip(feature).step_by(width);
        let mean: Vec<f64> = (0..width).map(|feature| column(feature).sum::<f64>() / rows).collect();
        let squares =
            (0..width).map(|feature| column(feature).map(|x| (x - mean[feature]).powi(2)).sum::<f64>()).collect();
        let scaled = |squares: &Vec<f64>, by: f64| squares.iter().map(|square| square / by).collect();
        let squares: Vec<f64> = squares;
        [mean, scaled(&squares, rows), scaled(&squares, (rows - 1.0).max(1.0))].concat()
    }

    fn inputs<E: Real>(seed: u64, shape: &[usize]) -> Tensors {
        let width = shape[shape.len() - 1];
        let vector = |place: u64| tensor::<E>(seed ^ place, &[width]);
        smallvec![tensor::<E>(seed, shape), vector(1), vector(2).square(), vector(3), vector(4)]
    }

    fn run(operation: &BatchNorm, inputs: Tensors, gradient: Tensor) -> Vec<Option<Vec<f64>>> {
        let shapes = inputs.iter().map(Tensor::shape).collect();
        let y = operation.evaluate(inputs.clone(), &context(&inputs[0])).value;
        let output = operation.keeps().output.then(|| y.clone());
        let kept = Kept { inputs, shapes, output, saved: Default::default() };
        let gradients = operation.gradient(kept, gradient, &[true; 5]);
        [Some(y)].into_iter().chain(gradients).map(|found| found.map(|found| found.to_f64())).collect()
    }

    proptest! {
        #[test]
        fn moments_are_those_of_single_numbers(seed: u64, rows in 1usize..200, width in 1usize..40, far in -1e3..1e3f64) {
            let x = tensor::<f64>(seed, &[rows, width]).plus(far);
            let expected = simple_moments(&x.to_f64(), width);
            let operation = Moments {};
            let value = |x: Tensor| operation.evaluate(smallvec![x.clone()], &context(&x)).value.to_f64();
            assert_close(&value(x.clone()), &expected, 1e-9);
            assert_close(&value(on_ndarray::<f64>(&x)), &expected, 1e-9);
            assert_close(&value(x.cast(DType::F32)), &expected, 3e-4);
        }

        #[test]
        fn fused_rows_agree_with_tensors(
            seed: u64,
            rows in 1usize..100,
            width in 1usize..40,
            of_batch: bool,
            activation in prop::sample::select(&[Activation::None, Activation::Relu, Activation::Tanh][..]),
        ) {
            let operation = BatchNorm { eps: 0.1, of_batch, activation };
            let inputs = inputs::<f64>(seed, &[rows, 2, width]);
            let gradient = tensor::<f64>(seed ^ 5, &[rows, 2, width]);
            let elsewhere = inputs.iter().map(on_ndarray::<f64>).collect();
            let expected = run(&operation, elsewhere, on_ndarray::<f64>(&gradient));
            for (found, expected) in run(&operation, inputs, gradient).iter().zip(&expected) {
                prop_assert_eq!(found.is_some(), expected.is_some());
                let (found, expected) = (found.as_deref().unwrap_or(&[]), expected.as_deref().unwrap_or(&[]));
                assert_close(found, expected, 1e-9);
            }
        }
    }

    #[test]
    fn many_rows_lose_no_digits() {
        let x = tensor::<f32>(7, &[100_000, 3]).plus(100.0);
        let expected = simple_moments(&x.to_f64(), 3);
        assert_close(&moments::<f32>(x).to_f64(), &expected, 3e-7);
    }

    #[test]
    fn values_and_gradients_are_the_same_among_any_number_of_threads() {
        let operation = BatchNorm { eps: 1e-5, of_batch: true, activation: Activation::Relu };
        let shape = [130, 9, 8, 24];
        let [one, two, three] = on_threads(|| {
            let found = run(&operation, inputs::<f32>(3, &shape), tensor::<f32>(4, &shape));
            (found, moments::<f32>(tensor::<f32>(5, &shape)).to_f64())
        });
        assert!(one == two && one == three);
    }
}
