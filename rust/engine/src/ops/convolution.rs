//! Two-dimensional convolution, channels last, with its bias and activation fused.

use burn_backend::ops::{ConvOptions, ModuleOps};
use burn_dispatch::Dispatch;
use serde::Deserialize;

use super::elementwise::Activation;
use super::{Context, Entry, Evaluation, Keeps, Kept, Operation, Window, entry};
use crate::cpu;
use crate::cpu::convolution::{Sizes, backward, forward};
use crate::program::{Kind, Type, show};
use crate::tensor::{DType, Real, Tensor};

/// `activation(Σ x[b, i·s + k·d - p, c] · kernel[k, c, f] + bias[f])`: x `(batch, height, width, in)`,
/// kernel `(height, width, in/groups, out)`, bias `(out,)` or absent (cross-correlation, as everywhere in the field).
#[derive(Debug, Deserialize)]
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

    fn evaluate(&self, inputs: Vec<Tensor>, _: &Context) -> Evaluation {
        match inputs[0].dtype() {
            DType::F32 if inputs[0].is_cpu() => self.forward_cpu::<f32>(inputs),
            DType::F64 if inputs[0].is_cpu() => self.forward_cpu::<f64>(inputs),
            _ => self.forward_tensors(inputs),
        }
        .into()
    }

    fn keeps(&self) -> Keeps {
        Keeps { inputs: true, output: self.activation.needs_output() }
    }

    fn gradient(&self, kept: Kept, gradient: Tensor, wanted: &[bool]) -> Vec<Option<Tensor>> {
        let gradient = self.activation.backward(kept.output, gradient);
        match gradient.dtype() {
            DType::F32 if gradient.is_cpu() => self.backward_cpu::<f32>(&kept.inputs, gradient, wanted),
            DType::F64 if gradient.is_cpu() => self.backward_cpu::<f64>(&kept.inputs, gradient, wanted),
            _ => self.backward_tensors(&kept.inputs, gradient, wanted),
        }
    }
}

impl Conv2d {
    fn forward_cpu<E: Real>(&self, inputs: Vec<Tensor>) -> Tensor {
        let inputs: Vec<Tensor> =
            inputs.into_iter().map(|input| input.contiguous_cpu::<E>().expect("on the cpu device")).collect();
        let slice = |index: usize| inputs[index].as_slice::<E>().expect("contiguous");
        let shape = inputs[0].shape();
        let sizes = self.sizes(&shape, &inputs[1].shape());
        let bias = (inputs.len() == 3).then(|| slice(2));
        let y = forward(&sizes, slice(0), slice(1), bias, |image| self.activation.apply(image));
        Tensor::from_vec(y, &[shape[0], sizes.output[0], sizes.output[1], sizes.filters])
    }

    fn backward_cpu<E: Real>(&self, inputs: &[Tensor], gradient: Tensor, wanted: &[bool]) -> Vec<Option<Tensor>> {
        let contiguous = |tensor: &Tensor| tensor.clone().contiguous_cpu::<E>().expect("on the cpu device");
        let (x, kernel, gradient) = (contiguous(&inputs[0]), contiguous(&inputs[1]), contiguous(&gradient));
        let sizes = self.sizes(&x.shape(), &kernel.shape());
        let g = gradient.as_slice::<E>().expect("contiguous");
        let (dx, dkernel) = backward(
            &sizes,
            x.as_slice::<E>().expect("contiguous"),
            kernel.as_slice::<E>().expect("contiguous"),
            g,
            [wanted[0], wanted[1]],
        );
        let mut gradients = vec![
            dx.map(|dx| Tensor::from_vec(dx, &x.shape())),
            dkernel.map(|dkernel| Tensor::from_vec(dkernel, &kernel.shape())),
        ];
        if let Some(&wanted) = wanted.get(2) {
            let sums = || Tensor::from_vec(cpu::column_sums(g, sizes.filters), &[sizes.filters]);
            gradients.push(wanted.then(sums));
        }
        gradients
    }

    fn forward_tensors(&self, inputs: Vec<Tensor>) -> Tensor {
        let mut inputs = inputs.into_iter();
        let x = channels_first(inputs.next().expect("x"));
        let kernel = filters_first(inputs.next().expect("kernel"));
        let bias = inputs.next().map(Tensor::into_primitive);
        let y = Dispatch::conv2d(x.into_primitive(), kernel.into_primitive(), bias, self.options());
        self.activation.value(channels_last(Tensor::from_primitive(y)))
    }

    fn backward_tensors(&self, inputs: &[Tensor], gradient: Tensor, wanted: &[bool]) -> Vec<Option<Tensor>> {
        let x = channels_first(inputs[0].clone()).into_primitive();
        let kernel = filters_first(inputs[1].clone()).into_primitive();
        let filters = inputs[1].shape()[3];
        let dbias = || gradient.clone().sum_to(&[filters]);
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
