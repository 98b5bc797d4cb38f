//! Greatest and mean under sliding windows, channels last; the border never counts.

use burn_backend::ops::ModuleOps;
use burn_dispatch::Dispatch;
use serde::Deserialize;
use smallvec::smallvec;

use super::convolution::{channels_first, channels_last};
use super::{Arithmetic, Context, Entry, Evaluation, Gradients, Keeps, Kept, Operation, Reach, Tensors, Window, entry};
use crate::cpu::pooling::{self, Sizes};
use crate::memory::Block;
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

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Any
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
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
                    saved: smallvec![Tensor::from_primitive(found.indices)],
                }
            }
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::BOTH
    }

    fn gradient(&self, mut kept: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
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
        smallvec![Some(dx)]
    }
}

impl Operation for AvgPool2d {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        self.0.infer(inputs[0])
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Any
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
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

    fn gradient(&self, mut kept: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
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
        smallvec![Some(dx)]
    }
}

impl AvgPool2d {
    /// Window size over pixels inside the image, per output pixel: corrects a mean that counted the border.
    fn share(&self, x: &Tensor) -> Tensor {
        let sizes = self.0.sizes(&x.shape());
        let size = (self.0.size[0] * self.0.size[1]) as f64;
        let share: Vec<f64> = sizes.counts().into_iter().map(|count| size / count).collect();
        Tensor::from_f64(&share, &[1, sizes.output[0], sizes.output[1], 1], x.dtype(), &x.device())
    }
}

fn on_cpu<E: Real>(pool: &Pool, x: Tensor, kernel: fn(&Sizes, &[E]) -> Block<E>) -> Tensor {
    let x = x.contiguous::<E>();
    let shape = x.shape();
    let y = kernel(&pool.sizes(&shape), x.elements::<E>());
    Tensor::from_block(y, &pool.output_shape(&shape))
}

fn max_backward<E: Real>(pool: &Pool, kept: Kept, gradient: Tensor) -> Tensor {
    let contiguous = |tensor: &Tensor| tensor.clone().contiguous::<E>();
    let (x, y, gradient) = (contiguous(&kept.inputs[0]), contiguous(kept.output()), contiguous(&gradient));
    let dx =
        pooling::max_backward(&pool.sizes(&x.shape()), x.elements::<E>(), y.elements::<E>(), gradient.elements::<E>());
    Tensor::from_block(dx, &x.shape())
}

fn average_backward<E: Real>(pool: &Pool, x: &[usize], gradient: Tensor) -> Tensor {
    let gradient = gradient.contiguous::<E>();
    let dx = pooling::average_backward(&pool.sizes(x), gradient.elements::<E>());
    Tensor::from_block(dx, x)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, context, on_ndarray, on_threads, tensor};

    fn pools() -> impl Strategy<Value = (Pool, [usize; 4])> {
        let two = |range: std::ops::Range<usize>| [range.clone(), range];
        let border = two(0..3);
        (two(1..4), two(1..4), [border.clone(), border], [1usize..4, 1usize..8, 1usize..8, 1usize..4])
            .prop_map(|(size, strides, padding, x)| {
                // A border as wide as the window would leave windows empty.
                let padding = [0, 1].map(|axis: usize| padding[axis].map(|border| border.min(size[axis] - 1)));
                (Pool { size, strides, padding }, x)
            })
            .prop_filter("the window fits", |(pool, x)| {
                (0..2).all(|axis| x[1 + axis] + pool.padding[axis].iter().sum::<usize>() >= pool.size[axis])
            })
    }

    /// Places of the input under the window of each output, in row-major order.
    fn windows(pool: &Pool, x: [usize; 4]) -> Vec<Vec<usize>> {
        let [batch, height, width, channels] = x;
        let out = [0, 1].map(|axis| {
            (x[1 + axis] + pool.padding[axis][0] + pool.padding[axis][1] - pool.size[axis]) / pool.strides[axis] + 1
        });
        let mut all = Vec::new();
        for place in 0..batch * out[0] * out[1] * channels {
            let (c, place) = (place % channels, place / channels);
            let (column, place) = (place % out[1], place / out[1]);
            let (row, b) = (place % out[0], place / out[0]);
            let inside = |axis: usize, place: usize, length: usize| {
                let first = (place * pool.strides[axis]) as i64 - pool.padding[axis][0] as i64;
                (first..first + pool.size[axis] as i64).filter(move |&place| place >= 0 && place < length as i64)
            };
            let mut under = Vec::new();
            for y in inside(0, row, height) {
                for x in inside(1, column, width) {
                    under.push(((b * height + y as usize) * width + x as usize) * channels + c);
                }
            }
            all.push(under);
        }
        all
    }

    fn check<E: Real>(operation: &dyn Operation, x: &Tensor, y: &[f64], gradient: &Tensor, dx: &[f64], tolerance: f64) {
        for on_other in [false, true] {
            let place = |tensor: &Tensor| if on_other { on_ndarray::<E>(tensor) } else { tensor.clone() };
            let (x, gradient) = (place(x), place(gradient));
            let found = operation.evaluate(smallvec![x.clone()], &context(&x));
            assert_close(&found.value.to_f64(), y, tolerance);
            let shapes = vec![x.shape()];
            let kept =
                Kept { inputs: smallvec![x], shapes: shapes.into(), output: Some(found.value), saved: found.saved };
            let found = operation.gradient(kept, gradient, &[true]).remove(0).expect("wanted");
            assert_close(&found.to_f64(), dx, tolerance);
        }
    }

    fn check_both<E: Real>(pool: Pool, shape: [usize; 4], seed: u64, tolerance: f64) {
        let x = tensor::<E>(seed, &shape);
        let gradient = tensor::<E>(seed ^ 1, &pool.output_shape(&shape));
        let (values, g) = (x.to_f64(), gradient.to_f64());
        let windows = windows(&pool, shape);
        assert_eq!(windows.len(), g.len());
        // Of equal ones, which rounding to 32 bits makes now and then, `max_by` finds the last.
        let best = |under: &Vec<usize>| {
            let places = under.iter().copied().rev();
            places.max_by(|&a, &b| values[a].total_cmp(&values[b])).expect("some")
        };
        let greatest: Vec<f64> = windows.iter().map(|under| values[best(under)]).collect();
        let mut dx = vec![0.0; values.len()];
        windows.iter().zip(&g).for_each(|(under, g)| dx[best(under)] += g);
        check::<E>(&MaxPool2d(pool), &x, &greatest, &gradient, &dx, tolerance);
        let mean = |under: &Vec<usize>| under.iter().map(|&place| values[place]).sum::<f64>() / under.len() as f64;
        let means: Vec<f64> = windows.iter().map(mean).collect();
        let mut dx = vec![0.0; values.len()];
        for (under, g) in windows.iter().zip(&g) {
            under.iter().for_each(|&place| dx[place] += g / under.len() as f64);
        }
        check::<E>(&AvgPool2d(pool), &x, &means, &gradient, &dx, tolerance);
    }

    proptest! {
        #[test]
        fn values_and_gradients_agree_with_lists_of_pixels((pool, shape) in pools(), seed: u64) {
            check_both::<f64>(pool, shape, seed, 1e-12);
            check_both::<f32>(pool, shape, seed, 1e-5);
        }
    }

    #[test]
    fn nan_is_never_hidden_and_ties_go_to_the_first() {
        let pool = Pool { size: [1, 3], strides: [1, 3], padding: [[0; 2]; 2] };
        let x = Tensor::from_vec(vec![1.0, f64::NAN, 2.0, 5.0, 5.0, 4.0], &[1, 1, 6, 1]);
        let y = MaxPool2d(pool).evaluate(smallvec![x.clone()], &context(&x)).value;
        assert!(y.to_f64()[0].is_nan() && y.to_f64()[1] == 5.0);
        let kept = Kept {
            inputs: smallvec![x.clone()],
            shapes: smallvec![x.shape()],
            output: Some(y),
            saved: Default::default(),
        };
        let gradient = Tensor::from_vec(vec![0.0, 1.0], &[1, 1, 2, 1]);
        let dx = MaxPool2d(pool).gradient(kept, gradient, &[true]).remove(0).expect("wanted");
        assert_eq!(dx.to_f64()[3..], [1.0, 0.0, 0.0]);
    }

    #[test]
    fn a_batch_is_the_same_among_any_number_of_threads() {
        let pool = Pool { size: [3, 2], strides: [2, 1], padding: [[1, 1], [0, 1]] };
        let [one, two, three] = on_threads(|| {
            let x = tensor::<f32>(3, &[13, 9, 8, 5]);
            let y = AvgPool2d(pool).evaluate(smallvec![x.clone()], &context(&x)).value;
            let kept = Kept {
                inputs: Default::default(),
                shapes: smallvec![x.shape()],
                output: None,
                saved: Default::default(),
            };
            let dx = AvgPool2d(pool).gradient(kept, y.clone(), &[true]).remove(0).expect("wanted");
            (y.to_f64(), dx.to_f64())
        });
        assert!(one == two && one == three);
    }
}
