//! Two-dimensional convolution, channels last, with its bias and activation fused.

use std::ops::Range;
use std::sync::Arc;

use burn_backend::ops::{ConvOptions, ModuleOps};
use burn_dispatch::Dispatch;
use serde::Deserialize;
use smallvec::smallvec;

use super::elementwise::Activation;
use super::linear::ones as every_position;
use super::reduction::sum_to;
use super::{
    Affine, Arithmetic, Context, Entry, Evaluation, Gradients, Keeps, Kept, Operation, Reach, Tensors, Window, entry,
};
use crate::cpu::convolution::{Sizes, backward, forward};
use crate::program::{Kind, Type, show};
use crate::tensor::{DType, Real, Tensor};

/// `activation(Σ x[b, i·s + k·d - p, c] · kernel[k, c, f] + bias[f])`: x `(batch, height, width, in)`,
/// kernel `(height, width, in/groups, out)`, bias `(out,)` or absent (cross-correlation, as everywhere in the field).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv2d {
    #[serde(default = "ones")]
    strides: [usize; 2],
    #[serde(default)]
    padding: [[usize; 2]; 2],
    #[serde(default = "ones")]
    dilation: [usize; 2],
    #[serde(default = "one")]
    groups: usize,
    #[serde(default)]
    activation: Activation,
}

fn one() -> usize {
    1
}

fn ones() -> [usize; 2] {
    [1, 1]
}

/// The lines of the table.
pub(super) const ENTRIES: &[Entry] = &[entry::<Conv2d>("conv2d", 2, Some(3))];

impl Conv2d {
    fn window(&self, kernel: &[usize]) -> Window {
        Window { size: [kernel[0], kernel[1]], strides: self.strides, padding: self.padding, dilation: self.dilation }
    }

    fn sizes(&self, x: &[usize], kernel: &[usize]) -> Sizes {
        let window = self.window(kernel);
        Sizes {
            window,
            input: [x[1], x[2], x[3]],
            output: window.output([x[1], x[2]]),
            groups: self.groups,
            filters: kernel[3],
        }
    }

    fn options(&self) -> ConvOptions<2> {
        let padding = self.padding.map(|[before, after]| (before, after));
        ConvOptions::new_with_padding(self.strides, padding, self.dilation, self.groups)
    }
}

impl Operation for Conv2d {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        inputs.iter().try_for_each(|input| input.expect_kind(Kind::Float))?;
        let (x, kernel) = (inputs[0], inputs[1]);
        if x.rank() != 4 {
            return Err(format!("the input must have shape (batch, height, width, channels), got {}", show(&x.shape)));
        }
        let channels = x.shape[3];
        let known = kernel.rank() == 4 && kernel.shape.iter().all(|dim| !dim.batch);
        if !known || self.groups == 0 || kernel.shape[2].count * self.groups != channels.count {
            return Err(format!(
                "the kernel must have shape (height, width, {channels}/{} groups, filters), got {}",
                self.groups,
                show(&kernel.shape)
            ));
        }
        let filters = kernel.shape[3];
        if filters.count % self.groups != 0 {
            return Err(format!("filters must be a multiple of groups ({}), got {filters}", self.groups));
        }
        if let Some(bias) = inputs.get(2)
            && bias.shape != [filters]
        {
            return Err(format!("the bias must have shape ({filters},), got {}", show(&bias.shape)));
        }
        let kernel: Vec<usize> = kernel.shape.iter().map(|dim| dim.count).collect();
        self.window(&kernel).output_type(x, filters)
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Half
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn affine(&self, _: &[&Type]) -> Option<&dyn Affine> {
        Some(self)
    }

    fn evaluate(&self, inputs: Tensors, _: &Context) -> Evaluation {
        self.value(self.activation, inputs).into()
    }

    fn keeps(&self) -> Keeps {
        Keeps { inputs: true, output: self.activation.needs_output() }
    }

    fn rectifies(&self) -> bool {
        self.activation.rectifies()
    }

    fn activated(&self, activation: Activation) -> Option<Arc<dyn Operation>> {
        (self.activation == Activation::None).then(|| Arc::new(Self { activation, ..self.clone() }) as _)
    }

    fn gradient(&self, kept: Kept, gradient: Tensor, wanted: &[bool]) -> Gradients {
        let gradient = self.activation.backward(kept.output, gradient);
        match gradient.dtype() {
            DType::F32 if gradient.is_cpu() => self.backward_cpu::<f32>(&kept.inputs, gradient, wanted),
            DType::F64 if gradient.is_cpu() => self.backward_cpu::<f64>(&kept.inputs, gradient, wanted),
            _ => self.backward_tensors(&kept.inputs, gradient, wanted),
        }
    }
}

impl Affine for Conv2d {
    // With groups an element's column decides which channels it reads.
    fn moves(&self, input: usize) -> bool {
        input == 2 || (input == 1 && self.groups == 1)
    }

    fn before_activation(&self, inputs: Tensors) -> Tensor {
        self.value(Activation::None, inputs)
    }

    fn activate(&self, z: Tensor) -> Tensor {
        self.activation.of_tensor(z)
    }

    fn directions(&self, inputs: &[Tensor], input: usize, range: Range<usize>) -> Tensor {
        let (x, sizes) = (&inputs[0], self.sizes(&inputs[0].shape(), &inputs[1].shape()));
        let positions = x.shape()[0] * sizes.output[0] * sizes.output[1];
        match x.dtype() {
            _ if input == 2 => every_position(x, positions),
            DType::F64 => self.shifted::<f64>(x, &sizes, range, positions),
            _ => self.shifted::<f32>(x, &sizes, range, positions),
        }
    }
}

impl Conv2d {
    /// What each place of the kernel, (row, column, channel), meets at each pixel of the output.
    fn shifted<E: Real>(&self, x: &Tensor, sizes: &Sizes, range: Range<usize>, positions: usize) -> Tensor {
        let x = x.clone().into_cpu().contiguous::<E>();
        let [height, width, channels] = sizes.input;
        let mut out = vec![E::default(); range.len() * positions];
        for (place, out) in range.clone().zip(out.chunks_exact_mut(positions.max(1))) {
            let (channel, column) = (place % channels, place / channels % sizes.window.size[1]);
            let offset = [place / channels / sizes.window.size[1], column];
            let images = x.elements::<E>().chunks_exact(height * width * channels);
            for (image, out) in images.zip(out.chunks_exact_mut(sizes.output[0] * sizes.output[1])) {
                for (pixel, out) in out.iter_mut().enumerate() {
                    let to = [pixel / sizes.output[1], pixel % sizes.output[1]];
                    if let [Some(row), Some(column)] = [0, 1].map(|axis| self.met(axis, to[axis], offset[axis], sizes))
                    {
                        *out = image[(row * width + column) * channels + channel];
                    }
                }
            }
        }
        Tensor::from_vec(out, &[range.len(), positions])
    }

    /// The place of the input, along one axis, under an offset in the kernel; `None` in the padding.
    fn met(&self, axis: usize, to: usize, offset: usize, sizes: &Sizes) -> Option<usize> {
        let place = to * self.strides[axis] + offset * self.dilation[axis];
        place.checked_sub(self.padding[axis][0]).filter(|&place| place < sizes.input[axis])
    }

    fn value(&self, activation: Activation, inputs: Tensors) -> Tensor {
        match inputs[0].dtype() {
            DType::F32 if inputs[0].is_cpu() => self.forward_cpu::<f32>(activation, inputs),
            DType::F64 if inputs[0].is_cpu() => self.forward_cpu::<f64>(activation, inputs),
            _ => self.forward_tensors(activation, inputs),
        }
    }

    fn forward_cpu<E: Real>(&self, activation: Activation, inputs: Tensors) -> Tensor {
        let inputs: Tensors = inputs.into_iter().map(|input| input.contiguous::<E>()).collect();
        let slice = |index: usize| inputs[index].elements::<E>();
        let shape = inputs[0].shape();
        let sizes = self.sizes(&shape, &inputs[1].shape());
        let bias = (inputs.len() == 3).then(|| slice(2));
        let y = forward(&sizes, slice(0), slice(1), bias, |image| activation.apply(image));
        Tensor::from_block(y, &[shape[0], sizes.output[0], sizes.output[1], sizes.filters])
    }

    fn backward_cpu<E: Real>(&self, inputs: &[Tensor], gradient: Tensor, wanted: &[bool]) -> Gradients {
        let contiguous = |tensor: &Tensor| tensor.clone().contiguous::<E>();
        let (x, kernel, gradient) = (contiguous(&inputs[0]), contiguous(&inputs[1]), contiguous(&gradient));
        let sizes = self.sizes(&x.shape(), &kernel.shape());
        let (dx, dkernel) = backward(
            &sizes,
            x.elements::<E>(),
            kernel.elements::<E>(),
            gradient.elements::<E>(),
            [wanted[0], wanted[1]],
        );
        let mut gradients = smallvec![
            dx.map(|dx| Tensor::from_block(dx, &x.shape())),
            dkernel.map(|dkernel| Tensor::from_block(dkernel, &kernel.shape())),
        ];
        if let Some(&wanted) = wanted.get(2) {
            gradients.push(wanted.then(|| sum_to(gradient, &[sizes.filters])));
        }
        gradients
    }

    fn forward_tensors(&self, activation: Activation, inputs: Tensors) -> Tensor {
        let mut inputs = inputs.into_iter();
        let x = channels_first(inputs.next().expect("x"));
        let kernel = filters_first(inputs.next().expect("kernel"));
        let bias = inputs.next().map(Tensor::into_primitive);
        let y = Dispatch::conv2d(x.into_primitive(), kernel.into_primitive(), bias, self.options());
        activation.value(channels_last(Tensor::from_primitive(y)))
    }

    fn backward_tensors(&self, inputs: &[Tensor], gradient: Tensor, wanted: &[bool]) -> Gradients {
        let x = channels_first(inputs[0].clone()).into_primitive();
        let kernel = filters_first(inputs[1].clone()).into_primitive();
        let filters = inputs[1].shape()[3];
        let dbias = || sum_to(gradient.clone(), &[filters]);
        let dbias = wanted.get(2).map(|&wanted| wanted.then(dbias));
        let gradient = channels_first(gradient.clone()).into_primitive();
        let dx = wanted[0].then(|| {
            let dx = Dispatch::conv2d_x_backward(x.clone(), kernel.clone(), gradient.clone(), self.options());
            channels_last(Tensor::from_primitive(dx))
        });
        let dkernel = wanted[1].then(|| {
            let dkernel = Dispatch::conv2d_weight_backward(x.clone(), kernel.clone(), gradient.clone(), self.options());
            Tensor::from_primitive(dkernel).permute(&[2, 3, 1, 0])
        });
        [dx, dkernel].into_iter().chain(dbias).collect()
    }
}

/// `(batch, height, width, channels)` as Burn's `(batch, channels, height, width)`.
pub(super) fn channels_first(x: Tensor) -> Tensor {
    x.permute(&[0, 3, 1, 2])
}

/// The inverse of [`channels_first`].
pub(super) fn channels_last(x: Tensor) -> Tensor {
    x.permute(&[0, 2, 3, 1])
}

fn filters_first(kernel: Tensor) -> Tensor {
    kernel.permute(&[3, 2, 0, 1])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, on_ndarray, on_threads, tensor};

    #[derive(Clone, Copy, Debug)]
    struct Case {
        window: Window,
        batch: usize,
        input: [usize; 2],
        groups: usize,
        /// Channels and filters of a group.
        depth: [usize; 2],
        bias: bool,
        activation: Activation,
    }

    fn cases() -> impl Strategy<Value = Case> {
        let two = |range: std::ops::Range<usize>| [range.clone(), range];
        let window = (two(1..4), two(1..4), [two(0..3), two(0..3)], two(1..3));
        let window = window.prop_map(|(size, strides, padding, dilation)| Window { size, strides, padding, dilation });
        let activation = prop::sample::select(&[Activation::None, Activation::Tanh][..]);
        // Many groups are thin: whole blocks of filters and a rest. One group may be deep.
        let groups = prop_oneof![Just(1usize), 1usize..4, 4usize..100];
        (window, 1usize..5, two(1..8), groups, two(1..20), any::<bool>(), activation)
            .prop_map(|(window, batch, input, groups, [depth, filters], bias, activation)| Case {
                window,
                batch,
                input,
                groups,
                depth: match groups {
                    1 => [depth, filters],
                    2..50 => [1 + depth % 3, 1 + filters % 3],
                    _ => [1, 1 + filters % 3],
                },
                bias,
                activation,
            })
            .prop_filter("the window fits", |case| {
                (0..2).all(|axis| {
                    let extent = (case.window.size[axis] - 1) * case.window.dilation[axis] + 1;
                    case.input[axis] + case.window.padding[axis].iter().sum::<usize>() >= extent
                })
            })
    }

    impl Case {
        fn operation(&self) -> Conv2d {
            let Window { strides, padding, dilation, .. } = self.window;
            Conv2d { strides, padding, dilation, groups: self.groups, activation: self.activation }
        }

        /// Input, kernel and bias.
        fn inputs<E: Real>(&self, seed: u64) -> Vec<Tensor> {
            let [depth, filters] = self.depth;
            let [kh, kw] = self.window.size;
            let mut inputs = vec![
                tensor::<E>(seed, &[self.batch, self.input[0], self.input[1], depth * self.groups]),
                tensor::<E>(seed ^ 1, &[kh, kw, depth, filters * self.groups]),
            ];
            if self.bias {
                inputs.push(tensor::<E>(seed ^ 2, &[filters * self.groups]));
            }
            inputs
        }

        /// Calls `body(output, input, kernel element)` for each product of the sum, by places in row-major order.
        fn for_products(&self, mut body: impl FnMut(usize, usize, usize)) {
            let Window { size: [kh, kw], strides, padding, dilation } = self.window;
            let [height, width] = self.input;
            let [out_height, out_width] = self.output();
            let ([depth, filters], groups) = (self.depth, self.groups);
            for b in 0..self.batch {
                for (row, column) in (0..out_height).flat_map(|row| (0..out_width).map(move |column| (row, column))) {
                    for (i, j) in (0..kh).flat_map(|i| (0..kw).map(move |j| (i, j))) {
                        let y = (row * strides[0] + i * dilation[0]) as i64 - padding[0][0] as i64;
                        let x = (column * strides[1] + j * dilation[1]) as i64 - padding[1][0] as i64;
                        if y < 0 || x < 0 || y >= height as i64 || x >= width as i64 {
                            continue;
                        }
                        let pixel = (b * height + y as usize) * width + x as usize;
                        for f in 0..filters * groups {
                            let output = ((b * out_height + row) * out_width + column) * filters * groups + f;
                            for c in 0..depth {
                                let input = pixel * depth * groups + f / filters * depth + c;
                                body(output, input, ((i * kw + j) * depth + c) * filters * groups + f);
                            }
                        }
                    }
                }
            }
        }

        fn output(&self) -> [usize; 2] {
            let Window { size, strides, padding, dilation } = self.window;
            [0, 1].map(|axis| {
                let padded = self.input[axis] + padding[axis][0] + padding[axis][1];
                (padded - (size[axis] - 1) * dilation[axis] - 1) / strides[axis] + 1
            })
        }

        /// Value and gradients (input, kernel, bias if any) by single products.
        fn naive(&self, inputs: &[Vec<f64>], gradient: &[f64]) -> (Vec<f64>, Vec<Vec<f64>>) {
            let filters = self.depth[1] * self.groups;
            let mut y: Vec<f64> =
                (0..gradient.len()).map(|place| inputs.get(2).map_or(0.0, |bias| bias[place % filters])).collect();
            self.for_products(|output, input, kernel| y[output] += inputs[0][input] * inputs[1][kernel]);
            let mut g = gradient.to_vec();
            if self.activation == Activation::Tanh {
                y.iter_mut().for_each(|y| *y = y.tanh());
                g.iter_mut().zip(&y).for_each(|(g, y)| *g *= 1.0 - y * y);
            }
            let mut found: Vec<Vec<f64>> = inputs.iter().map(|input| vec![0.0; input.len()]).collect();
            self.for_products(|output, input, kernel| {
                found[0][input] += g[output] * inputs[1][kernel];
                found[1][kernel] += g[output] * inputs[0][input];
            });
            if let Some(bias) = found.get_mut(2) {
                g.iter().enumerate().for_each(|(place, g)| bias[place % filters] += g);
            }
            (y, found)
        }

        fn check<E: Real>(&self, seed: u64, tolerance: f64) {
            let inputs = self.inputs::<E>(seed);
            let [height, width] = self.output();
            let shape = [self.batch, height, width, self.depth[1] * self.groups];
            let gradient = tensor::<E>(seed ^ 3, &shape);
            let wide: Vec<Vec<f64>> = inputs.iter().map(Tensor::to_f64).collect();
            let (y, gradients) = self.naive(&wide, &gradient.to_f64());
            for on_other in [false, true] {
                let inputs = inputs.clone();
                let place = |tensor: Tensor| if on_other { on_ndarray::<E>(&tensor) } else { tensor };
                let inputs: Tensors = inputs.into_iter().map(place).collect();
                let found = run(&self.operation(), inputs, place(gradient.clone()));
                assert_eq!(found.0.shape(), shape);
                assert_close(&found.0.to_f64(), &y, tolerance);
                for (found, expected) in found.1.iter().zip(&gradients) {
                    assert_close(&found.to_f64(), expected, tolerance);
                }
                assert_eq!(found.1.len(), gradients.len());
            }
        }
    }

    fn run(operation: &Conv2d, inputs: Tensors, gradient: Tensor) -> (Tensor, Vec<Tensor>) {
        let context = crate::testing::context(&inputs[0]);
        let wanted = vec![true; inputs.len()];
        let shapes = inputs.iter().map(Tensor::shape).collect();
        let y = operation.evaluate(inputs.clone(), &context).value;
        let kept = Kept { inputs, shapes, output: Some(y.clone()), saved: Default::default() };
        let gradients = operation.gradient(kept, gradient, &wanted).into_iter().map(|found| found.expect("wanted"));
        (y, gradients.collect())
    }

    proptest! {
        #[test]
        fn values_and_gradients_agree_with_single_products(case in cases(), seed: u64) {
            case.check::<f64>(seed, 1e-12);
            case.check::<f32>(seed, 1e-4);
        }
    }

    /// Channels that fill registers, under windows of 3 by 3: tiles.
    fn tiled() -> impl Strategy<Value = Case> {
        let side = 3usize..12;
        let activation = prop::sample::select(&[Activation::None, Activation::Tanh][..]);
        let padding = [0usize..4, 0..4, 0..4, 0..4];
        (padding, 1usize..7, [side.clone(), side], [1usize..4, 1..4], any::<bool>(), activation).prop_map(
            |([top, bottom, left, right], batch, input, depth, bias, activation)| Case {
                window: Window {
                    size: [3, 3],
                    strides: [1, 1],
                    padding: [[top, bottom], [left, right]],
                    dilation: [1, 1],
                },
                batch,
                input,
                groups: 1,
                depth: depth.map(|depth| 16 * depth),
                bias,
                activation,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn tiles_agree_with_single_products(case in tiled(), seed: u64) {
            case.check::<f64>(seed, 1e-11);
            case.check::<f32>(seed, 2e-4);
        }
    }

    #[test]
    fn tiles_round_little_more_than_plain_sums() {
        let case = Case {
            window: Window { size: [3, 3], strides: [1, 1], padding: [[1, 1], [1, 1]], dilation: [1, 1] },
            batch: 4,
            input: [12, 12],
            groups: 1,
            depth: [64, 64],
            bias: false,
            activation: Activation::None,
        };
        let inputs = case.inputs::<f32>(5);
        let gradient = tensor::<f32>(6, &[4, 12, 12, 64]);
        let wide: Vec<Vec<f64>> = inputs.iter().map(Tensor::to_f64).collect();
        let (y, gradients) = case.naive(&wide, &gradient.to_f64());
        let (found_y, found_gradients) = run(&case.operation(), inputs.into(), gradient);
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
        for (found, exact) in [(found_y, y)].into_iter().chain(found_gradients.into_iter().zip(gradients)) {
            let error = norm(&mut found.to_f64().iter().zip(&exact).map(|(found, exact)| found - exact));
            let error = error / norm(&mut exact.into_iter());
            // Plain sums have 2e-7 to 4e-7; tiles by the points 0, 1, -1, 2, -2 and infinity 1.1e-6 to 1.9e-6.
            assert!(error < 8.5e-7, "{error:e}");
        }
    }

    #[test]
    fn a_batch_is_the_same_among_any_number_of_threads() {
        for depth in [[3, 5], [16, 32]] {
            let case = Case {
                window: Window { size: [3, 3], strides: [1, 1], padding: [[1, 1], [1, 1]], dilation: [1, 1] },
                batch: 37,
                input: [9, 8],
                groups: 1,
                depth,
                bias: true,
                activation: Activation::Relu,
            };
            let [one, two, three] = on_threads(|| {
                let gradient = tensor::<f32>(9, &[37, 9, 8, depth[1]]);
                let (y, gradients) = run(&case.operation(), case.inputs::<f32>(4).into(), gradient);
                (y.to_f64(), gradients.iter().map(Tensor::to_f64).collect::<Vec<_>>())
            });
            assert!(one == two && one == three);
        }
    }

    #[test]
    fn only_wanted_gradients_are_made() {
        let inputs = vec![tensor::<f32>(1, &[2, 3, 3, 1]), tensor::<f32>(2, &[2, 2, 1, 2]), tensor::<f32>(3, &[2])];
        let operation: Conv2d = serde_json::from_str("{}").expect("defaults");
        for place in 0..3 {
            let wanted: Vec<bool> = (0..3).map(|index| index == place).collect();
            let shapes = inputs.iter().map(Tensor::shape).collect();
            let kept = Kept { inputs: inputs.clone().into(), shapes, output: None, saved: Default::default() };
            let found = operation.gradient(kept, tensor::<f32>(4, &[2, 2, 2, 2]), &wanted);
            assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), wanted);
        }
    }
}
