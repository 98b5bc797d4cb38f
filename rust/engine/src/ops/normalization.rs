//! Layer normalisation (Ba, Kiros and Hinton, 2016), fused.

use rayon::prelude::*;
use serde::Deserialize;
use smallvec::smallvec;

use super::binary::multiply;
use super::reduction::{chunk_total, dot, mean, sum_to, widen};
use super::{Context, Entry, Evaluation, Gradients, Kept, Operation, Reach, Tensors, entry, exactly};
use crate::Number;
use crate::cpu;
use crate::memory::Block;
use crate::program::{Kind, Type, show};
use crate::tensor::{DType, Real, Tensor};

/// The lines of the table.
pub(super) const ENTRIES: &[Entry] = &[entry::<LayerNorm>("layer_norm", 3, Some(3))];

/// `(x - mean) / √(variance + eps) · scale + offset` over the last axis: x `(…, n)`, scale and offset `(n,)`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerNorm {
    #[serde(default = "default_eps")]
    eps: f64,
}

/// PyTorch's.
fn default_eps() -> f64 {
    1e-5
}

impl Operation for LayerNorm {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        inputs.iter().try_for_each(|input| input.expect_kind(Kind::Float))?;
        let x = inputs[0];
        x.expect_rank(1, "the input")?;
        let features = x.shape[x.rank() - 1];
        if features.batch || features.count == 0 {
            return Err(format!("the last axis must have a known length of at least 1, got shape {}", show(&x.shape)));
        }
        for (input, name) in inputs[1..].iter().zip(["scale", "offset"]) {
            if input.shape != [features] {
                return Err(format!("the {name} must have shape ({features},), got {}", show(&input.shape)));
            }
        }
        if !self.eps.is_finite() || self.eps < 0.0 {
            return Err(format!("eps must be at least 0, got {}", self.eps));
        }
        Ok(x.clone())
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn evaluate(&self, inputs: Tensors, _: &Context) -> Evaluation {
        let [x, scale, offset] = exactly(inputs);
        match x.dtype() {
            DType::F32 if x.is_cpu() => forward::<f32>(self.eps, &x, &scale, &offset),
            DType::F64 if x.is_cpu() => forward::<f64>(self.eps, &x, &scale, &offset),
            _ => forward_tensors(self.eps, x, scale, offset),
        }
    }

    /// With `z` the normalised input and `d = g · scale`: `dx = (d - mean(d) - z · mean(d·z)) / √(variance + eps)`,
    /// `dscale = Σ g·z` and `doffset = Σ g` over all rows.
    fn gradient(&self, kept: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
        let (x, scale) = (&kept.inputs[0], &kept.inputs[1]);
        let found = match gradient.dtype() {
            DType::F32 if x.is_cpu() => backward::<f32>(x, scale, &kept.saved[0], gradient),
            DType::F64 if x.is_cpu() => backward::<f64>(x, scale, &kept.saved[0], gradient),
            _ => backward_tensors(x, scale, &kept.saved, gradient),
        };
        found.map(Some).into()
    }
}

/// What a row was shifted and scaled by: mean and `1/√(variance + eps)`, one pair a row.
fn forward<E: Real>(eps: f64, x: &Tensor, scale: &Tensor, offset: &Tensor) -> Evaluation {
    let [x, scale, offset] = [x, scale, offset].map(|tensor| tensor.clone().contiguous::<E>());
    let slice = |tensor| Tensor::elements::<E>(tensor);
    let (values, scale, offset) = (slice(&x), slice(&scale), slice(&offset));
    let width = scale.len();
    let rows = values.len() / width;
    let mut y = Block::<E>::uninitialised(values.len());
    let mut moments = Block::<E>::uninitialised(2 * rows);
    for_rows_with(&mut y, width, &mut moments, 2, |first, y, moments| {
        cpu::vectorised!({
            let rows = y.chunks_exact_mut(width).zip(values[first * width..].chunks_exact(width));
            for ((y, x), moments) in rows.zip(moments.chunks_exact_mut(2)) {
                normalise(eps, x, scale, offset, y, moments);
            }
        });
    });
    Evaluation { value: Tensor::from_block(y, &x.shape()), saved: smallvec![Tensor::from_block(moments, &[rows, 2])] }
}

#[inline(always)]
fn normalise<E: Real>(eps: f64, x: &[E], scale: &[E], offset: &[E], y: &mut [E], moments: &mut [E]) {
    let count = x.len() as f64;
    let mean = E::from_f64(chunk_total(x) / count);
    for (y, &x) in y.iter_mut().zip(x) {
        *y = x - mean;
    }
    let inverse = E::from_f64(1.0 / (dot(y, y) / count + eps).sqrt());
    for ((y, &scale), &offset) in y.iter_mut().zip(scale).zip(offset) {
        *y = *y * inverse * scale + offset;
    }
    moments.copy_from_slice(&[mean, inverse]);
}

/// Like [`cpu::for_rows`] with `extra_width` further outputs for each row.
pub(super) fn for_rows_with<E: Real>(
    values: &mut [E],
    width: usize,
    extra: &mut [E],
    extra_width: usize,
    body: impl Fn(usize, &mut [E], &mut [E]) + Sync,
) {
    let rows = extra.len() / extra_width;
    if rows < 2 || values.len() < cpu::PARALLEL_ELEMENTS {
        return body(0, values, extra);
    }
    let rows = rows.div_ceil(rayon::current_num_threads());
    values
        .par_chunks_mut(rows * width)
        .zip(extra.par_chunks_mut(rows * extra_width))
        .enumerate()
        .for_each(|(index, (values, extra))| body(index * rows, values, extra));
}

/// Rows whose parameter gradients are added together first: fixed, so that the order of additions is.
const ROWS: usize = 64;

fn backward<E: Real>(x: &Tensor, scale: &Tensor, moments: &Tensor, gradient: Tensor) -> [Tensor; 3] {
    let [x, scale] = [x, scale].map(|tensor| tensor.clone().contiguous::<E>());
    let mut gradient = gradient.unique::<E>();
    let slice = |tensor| Tensor::elements::<E>(tensor);
    let (x, scale, moments) = (slice(&x), slice(&scale), slice(moments));
    let width = scale.len();
    let values = gradient.elements_mut::<E>();
    let inputs = x.par_chunks(ROWS * width).zip(moments.par_chunks(ROWS * 2));
    let parts: Vec<[Vec<E>; 2]> = values
        .par_chunks_mut(ROWS * width)
        .zip(inputs)
        .map(|(gradient, (x, moments))| backward_rows(gradient, x, moments, scale))
        .collect();
    let mut totals = [vec![0.0; width], vec![0.0; width]];
    for part in &parts {
        for (total, part) in totals.iter_mut().zip(part) {
            total.iter_mut().zip(part).for_each(|(total, part)| *total += part.to_f64());
        }
    }
    let [dscale, doffset] =
        totals.map(|total| Tensor::from_vec(total.into_iter().map(E::from_f64).collect::<Vec<E>>(), &[width]));
    [gradient, dscale, doffset]
}

/// Turns the gradients of some rows into those of the input; returns those of scale and offset.
fn backward_rows<E: Real>(gradient: &mut [E], x: &[E], moments: &[E], scale: &[E]) -> [Vec<E>; 2] {
    let width = scale.len();
    let [mut dscale, mut doffset] = [vec![E::default(); width], vec![E::default(); width]];
    let mut z = vec![E::default(); width];
    cpu::vectorised!({
        let rows = gradient.chunks_exact_mut(width).zip(x.chunks_exact(width));
        for ((g, x), moments) in rows.zip(moments.chunks_exact(2)) {
            for (z, &x) in z.iter_mut().zip(x) {
                *z = (x - moments[0]) * moments[1];
            }
            for (((dscale, doffset), &g), &z) in dscale.iter_mut().zip(&mut doffset).zip(&*g).zip(&z) {
                *dscale = *dscale + g * z;
                *doffset = *doffset + g;
            }
            g.iter_mut().zip(scale).for_each(|(g, &scale)| *g = *g * scale);
            let mean = E::from_f64(chunk_total(g) / width as f64);
            let slope = E::from_f64(dot(g, &z) / width as f64);
            for (g, &z) in g.iter_mut().zip(&z) {
                *g = (*g - mean - z * slope) * moments[1];
            }
        }
    });
    [dscale, doffset]
}

fn forward_tensors(eps: f64, x: Tensor, scale: Tensor, offset: Tensor) -> Evaluation {
    let (dtype, axes) = (x.dtype(), [x.rank() - 1]);
    let x = widen(x);
    let centre = mean(x.clone(), &axes);
    let x = x - centre.clone();
    let inverse = mean(x.clone().square(), &axes).plus(eps).sqrt().recip_of(1.0);
    let y = x * inverse.clone() * widen(scale) + widen(offset);
    Evaluation { value: y.cast(dtype), saved: smallvec![centre, inverse] }
}

fn backward_tensors(x: &Tensor, scale: &Tensor, saved: &[Tensor], gradient: Tensor) -> [Tensor; 3] {
    let (dtype, axes) = (gradient.dtype(), [x.rank() - 1]);
    let (centre, inverse) = (saved[0].clone(), saved[1].clone());
    let z = (widen(x.clone()) - centre) * inverse.clone();
    let gradient = widen(gradient);
    let dscale = sum_to(gradient.clone() * z.clone(), &scale.shape());
    let doffset = sum_to(gradient.clone(), &scale.shape());
    let d = multiply(gradient, widen(scale.clone()));
    let slope = mean(d.clone() * z.clone(), &axes);
    let dx = (d.clone() - mean(d, &axes) - z * slope) * inverse;
    [dx, dscale, doffset].map(|tensor| tensor.cast(dtype))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fused_rows_agree_with_tensors() {
        let numbers = |shape: &[usize], factor: usize| {
            let count = shape.iter().product::<usize>();
            Tensor::from_vec((0..count).map(|index| (index * factor % 23) as f64 - 9.0).collect::<Vec<f64>>(), shape)
        };
        let (x, g) = (numbers(&[30, 5, 7], 11), numbers(&[30, 5, 7], 7));
        let (scale, offset) = (numbers(&[7], 5), numbers(&[7], 3));
        let fused = forward::<f64>(1e-5, &x, &scale, &offset);
        let whole = forward_tensors(1e-5, x.clone(), scale.clone(), offset);
        let close = |a: &Tensor, b: &Tensor| {
            a.to_f64().iter().zip(b.to_f64()).all(|(a, b)| (a - b).abs() < 1e-10 * (1.0 + b.abs()))
        };
        assert!(close(&fused.value, &whole.value) && fused.value.shape() == whole.value.shape());
        let fused = backward::<f64>(&x, &scale, &fused.saved[0], g.clone());
        let whole = backward_tensors(&x, &scale, &whole.saved, g);
        assert!(fused.iter().zip(&whole).all(|(a, b)| close(a, b)));
    }
}
