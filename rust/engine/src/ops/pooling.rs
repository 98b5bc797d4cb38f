//! Greatest and mean under sliding windows, channels last; the border never counts.

use burn_backend::ops::ModuleOps;
use burn_dispatch::Dispatch;
use serde::Deserialize;

use super::convolution::{channels_first, channels_last};
use super::{Context, Entry, Evaluation, Keeps, Kept, Operation, Window, entry};
use crate::cpu::pooling::{self, Sizes};
use crate::program::{Kind, Type};
use crate::tensor::{DType, Real, Tensor};

/// Windows of a pooling operation.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pool {
    size: [usize; 2],
    strides: [usize; 2],
    #[serde(default)]
    padding: [[usize; 2]; 2],
}

/// The greatest under each window: `(batch, height, width, channels)`.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct MaxPool2d(Pool);

/// The mean under each window: `(batch, height, width, channels)`.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct AvgPool2d(Pool);

/// The lines of the table.
pub(super) const ENTRIES: &[Entry] =
    &[entry::<MaxPool2d>("max_pool2d", 1, Some(1)), entry::<AvgPool2d>("avg_pool2d", 1, Some(1))];

impl Pool {
    fn window(&self) -> Window {
        Window { size: self.size, strides: self.strides, padding: self.padding, dilation: [1, 1] }
    }

    fn infer(&self, x: &Type) -> Result<Type, String> {
        x.expect_kind(Kind::Float)?;
        let outside = (0..2).any(|axis| self.padding[axis].iter().any(|&border| border >= self.size[axis].max(1)));
        if outside {
            return Err(format!(
                "padding must be less than the window ({:?}), or a window would be empty; got {:?}",
                self.size, self.padding
            ));
        }
        let window = self.window();
        window.infer(x)?;
        window.output_type(x, x.shape[3])
    }

    fn sizes(&self, x: &[usize]) -> Sizes {
        let window = self.window();
        Sizes { window, input: [x[1], x[2], x[3]], output: window.output([x[1], x[2]]) }
    }

    fn output_shape(&self, x: &[usize]) -> [usize; 4] {
        let [height, width] = self.window().output([x[1], x[2]]);
        [x[0], height, width, x[3]]
    }

    /// `x` with its border filled, channels first, as Burn's kernels take it (their own padding is symmetric).
    fn padded(&self, x: Tensor, value: f64) -> Tensor {
        let shape = x.shape();
        let [[top, bottom], [left, right]] = self.padding;
        let x = channels_first(x);
        if [top, bottom, left, right] == [0; 4] {
            return x;
        }
        let larger = [shape[0], shape[3], shape[1] + top + bottom, shape[2] + left + right];
        let border = Tensor::full(&larger, value, x.dtype(), &x.device());
        let stops = [shape[0], shape[3], top + shape[1], left + shape[2]];
        border.slice_assign(&[0, 0, top, left], &stops, &[1; 4], x)
    }

    /// The inverse of [`Self::padded`] for a gradient of shape `(batch, channels, …)`.
    fn unpadded(&self, gradient: Tensor, x: &[usize]) -> Tensor {
        let [[top, _], [left, _]] = self.padding;
        let stops = [x[0], x[3], top + x[1], left + x[2]];
        channels_last(gradient.slice(&[0, 0, top, left], &stops, &[1; 4]))
    }
}

impl Operation for MaxPool2d {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        self.0.infer(inputs[0])
    }

    fn evaluate(&self, mut inputs: Vec<Tensor>, _: &Context) -> Evaluation {
        let x = inputs.remove(0);
        match x.dtype() {
            DType::F32 if x.is_cpu() => on_cpu::<f32>(&self.0, x, pooling::max).into(),
            DType::F64 if x.is_cpu() => on_cpu::<f64>(&self.0, x, pooling::max).into(),
            _ => {
                let x = self.0.padded(x, f64::NEG_INFINITY).into_primitive();
                let int = DType::I32.burn_int();
                let pool = &self.0;
                let found = Dispatch::max_pool2d_with_indices(x, pool.size, pool.strides, [0, 0], [1, 1], false, int);
                Evaluation {
                    value: channels_last(Tensor::from_primitive(found.output)),
                    saved: vec![Tensor::from_primitive(found.indices)],
                }
            }
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::BOTH
    }

    fn gradient(&self, mut kept: Kept, gradient: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        let dx = match gradient.dtype() {
            DType::F32 if gradient.is_cpu() => max_backward::<f32>(&self.0, kept, gradient),
            DType::F64 if gradient.is_cpu() => max_backward::<f64>(&self.0, kept, gradient),
            _ => {
                let indices = kept.saved.remove(0).into_primitive();
                let x = self.0.padded(kept.inputs.remove(0), f64::NEG_INFINITY).into_primitive();
                let gradient = channels_first(gradient).into_primitive();
                let pool = &self.0;
                let found = Dispatch::max_pool2d_with_indices_backward(
                    x,
                    pool.size,
                    pool.strides,
                    [0, 0],
                    [1, 1],
                    false,
                    gradient,
                    indices,
                );
                pool.unpadded(Tensor::from_primitive(found.x_grad), &kept.shapes[0])
            }
        };
        vec![Some(dx)]
    }
}

impl Operation for AvgPool2d {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        self.0.infer(inputs[0])
    }

    fn evaluate(&self, mut inputs: Vec<Tensor>, _: &Context) -> Evaluation {
        let x = inputs.remove(0);
        match x.dtype() {
            DType::F32 if x.is_cpu() => on_cpu::<f32>(&self.0, x, pooling::average),
            DType::F64 if x.is_cpu() => on_cpu::<f64>(&self.0, x, pooling::average),
            _ => {
                let pool = &self.0;
                let share = self.share(&x);
                let x = pool.padded(x, 0.0).into_primitive();
                let y = Dispatch::avg_pool2d(x, pool.size, pool.strides, [0, 0], true, false);
                channels_last(Tensor::from_primitive(y)) * share
            }
        }
        .into()
    }

    fn keeps(&self) -> Keeps {
        Keeps::INPUTS
    }

    fn gradient(&self, mut kept: Kept, gradient: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        let x = &kept.shapes[0];
        let dx = match gradient.dtype() {
            DType::F32 if gradient.is_cpu() => average_backward::<f32>(&self.0, x, gradient),
            DType::F64 if gradient.is_cpu() => average_backward::<f64>(&self.0, x, gradient),
            _ => {
                let pool = &self.0;
                let input = kept.inputs.remove(0);
                let gradient = channels_first(gradient * self.share(&input)).into_primitive();
                let padded = pool.padded(input, 0.0).into_primitive();
                let dx = Dispatch::avg_pool2d_backward(padded, gradient, pool.size, pool.strides, [0, 0], true, false);
                pool.unpadded(Tensor::from_primitive(dx), x)
            }
        };
        vec![Some(dx)]
    }
}

impl AvgPool2d {
    /// Window size over pixels inside the image, per output pixel: corrects a mean that counted the border.
    fn share(&self, x: &Tensor) -> Tensor {
        let sizes = self.0.sizes(&x.shape());
        let size = (self.0.size[0] * self.0.size[1]) as f64;
        let share = sizes.counts::<f64>().into_iter().map(|count| size / count).collect();
        Tensor::from_f64(share, &[1, sizes.output[0], sizes.output[1], 1], x.dtype(), &x.device())
    }
}

fn on_cpu<E: Real>(pool: &Pool, x: Tensor, kernel: fn(&Sizes, &[E]) -> Vec<E>) -> Tensor {
    let x = x.contiguous_cpu::<E>().expect("on the cpu device");
    let shape = x.shape();
    let y = kernel(&pool.sizes(&shape), x.as_slice::<E>().expect("contiguous"));
    Tensor::from_vec(y, &pool.output_shape(&shape))
}

fn max_backward<E: Real>(pool: &Pool, kept: Kept, gradient: Tensor) -> Tensor {
    let contiguous = |tensor: &Tensor| tensor.clone().contiguous_cpu::<E>().expect("on the cpu device");
    let (x, y, gradient) = (contiguous(&kept.inputs[0]), contiguous(kept.output()), contiguous(&gradient));
    let dx = pooling::max_backward(
        &pool.sizes(&x.shape()),
        x.as_slice::<E>().expect("contiguous"),
        y.as_slice::<E>().expect("contiguous"),
        gradient.as_slice::<E>().expect("contiguous"),
    );
    Tensor::from_vec(dx, &x.shape())
}

fn average_backward<E: Real>(pool: &Pool, x: &[usize], gradient: Tensor) -> Tensor {
    let gradient = gradient.contiguous_cpu::<E>().expect("on the cpu device");
    let dx = pooling::average_backward(&pool.sizes(x), gradient.as_slice::<E>().expect("contiguous"));
    Tensor::from_vec(dx, x)
}
