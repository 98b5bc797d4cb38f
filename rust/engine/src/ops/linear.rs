//! The affine map of dense layers, with its bias and activation fused.

use std::ops::Range;
use std::sync::Arc;

use half::bf16;
use serde::Deserialize;
use smallvec::smallvec;

use super::elementwise::Activation;
use super::reduction::sum_to;
use super::{Affine, Arithmetic, Context, Entry, Evaluation, Gradients, Keeps, Kept, Operation, Reach, Tensors, entry};
use crate::Device;
use crate::cpu;
use crate::cpu::bfloat16;
use crate::cpu::factor::Factor;
use crate::cpu::gemm::Matrix;
use crate::memory::Block;
use crate::program::{Kind, Type, show};
use crate::tensor::{DType, Tensor};

/// `activation(x · kernel + bias)`: x `(…, in)`, kernel `(in, out)`, bias `(out,)` or absent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    #[serde(default)]
    activation: Activation,
}

/// The lines of the table.
pub(super) const ENTRIES: &[Entry] = &[entry::<Linear>("linear", 2, Some(3))];

impl Operation for Linear {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        inputs.iter().try_for_each(|input| input.expect_kind(Kind::Float))?;
        let (x, kernel) = (inputs[0], inputs[1]);
        x.expect_rank(2, "the input")?;
        let features = x.shape[x.rank() - 1];
        if kernel.rank() != 2 || kernel.shape[0] != features {
            return Err(format!(
                "the kernel must have shape ({features}, out) for an input of shape {}, got {}",
                show(&x.shape),
                show(&kernel.shape)
            ));
        }
        let out = kernel.shape[1];
        if let Some(bias) = inputs.get(2)
            && bias.shape != [out]
        {
            return Err(format!("the bias must have shape ({out},), got {}", show(&bias.shape)));
        }
        let mut shape = x.shape.clone();
        shape[x.rank() - 1] = out;
        Ok(Type::float(shape))
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Half
    }

    fn has_kernel(&self, half: DType) -> bool {
        half == DType::BF16 && bfloat16::is_available()
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn affine(&self, inputs: &[&Type]) -> Option<&dyn Affine> {
        inputs.iter().skip(1).all(|input| input.shape.iter().all(|dim| !dim.batch)).then_some(self)
    }

    fn evaluate(&self, inputs: Tensors, _: &Context) -> Evaluation {
        value(self.activation, inputs).into()
    }

    fn keeps(&self) -> Keeps {
        Keeps { inputs: true, output: self.activation.needs_output() }
    }

    fn rectifies(&self) -> bool {
        self.activation.rectifies()
    }

    fn activated(&self, activation: Activation) -> Option<Arc<dyn Operation>> {
        (self.activation == Activation::None).then(|| Arc::new(Self { activation }) as _)
    }

    fn gradient(&self, kept: Kept, gradient: Tensor, wanted: &[bool]) -> Gradients {
        let gradient = self.activation.backward(kept.output, gradient);
        match gradient.dtype() {
            DType::F32 if gradient.is_cpu() => backward::<f32>(&kept.inputs, gradient, wanted),
            DType::F64 if gradient.is_cpu() => backward::<f64>(&kept.inputs, gradient, wanted),
            DType::BF16 if gradient.is_cpu() && bfloat16::is_available() => {
                backward::<bf16>(&kept.inputs, gradient, wanted)
            }
            _ => backward_tensors(&kept.inputs, gradient, wanted),
        }
    }
}

impl Affine for Linear {
    fn moves(&self, input: usize) -> bool {
        input > 0
    }

    fn before_activation(&self, inputs: Tensors) -> Tensor {
        value(Activation::None, inputs)
    }

    fn activate(&self, z: Tensor) -> Tensor {
        self.activation.of_tensor(z)
    }

    fn directions(&self, inputs: &[Tensor], input: usize, range: Range<usize>) -> Tensor {
        if input == 1 { features(&inputs[0], range) } else { ones(&inputs[0], rows(&inputs[0])) }
    }

    fn is_product(&self) -> bool {
        true
    }
}

/// A range of columns of `x`, the last axis, as rows on the `cpu` device.
pub(super) fn features(x: &Tensor, range: Range<usize>) -> Tensor {
    let width = *x.shape().last().expect("rank at least 2");
    let rows = x.len() / width;
    let x = x.clone().reshape(&[rows, width]);
    x.slice(&[0, range.start], &[rows, range.end], &[1, 1]).transpose().into_cpu()
}

/// The direction of a bias: every position of the output, on the `cpu` device.
pub(super) fn ones(like: &Tensor, positions: usize) -> Tensor {
    Tensor::full(&[1, positions], 1.0, like.dtype(), &Device::cpu())
}

fn value(activation: Activation, inputs: Tensors) -> Tensor {
    let x = &inputs[0];
    match x.dtype() {
        DType::F32 if x.is_cpu() => forward::<f32>(activation, inputs),
        DType::F64 if x.is_cpu() => forward::<f64>(activation, inputs),
        DType::BF16 if x.is_cpu() && bfloat16::is_available() => forward::<bf16>(activation, inputs),
        _ => forward_tensors(activation, inputs),
    }
}

fn forward_tensors(activation: Activation, inputs: Tensors) -> Tensor {
    let mut inputs = inputs.into_iter();
    let (x, kernel) = (inputs.next().expect("x"), inputs.next().expect("kernel"));
    let mut shape = x.shape();
    let out = kernel.shape()[1];
    let features = shape.pop().expect("rank at least 2");
    let rows = shape.iter().product();
    shape.push(out);
    let mut y = x.reshape(&[rows, features]).matmul(kernel);
    if let Some(bias) = inputs.next() {
        y = y + bias;
    }
    activation.value(y.reshape(&shape))
}

/// The number of vectors that an input holds.
fn rows(x: &Tensor) -> usize {
    x.shape()[..x.rank() - 1].iter().product()
}

fn backward_tensors(inputs: &[Tensor], gradient: Tensor, wanted: &[bool]) -> Gradients {
    let (x, kernel) = (&inputs[0], &inputs[1]);
    let [features, out] = [kernel.shape()[0], kernel.shape()[1]];
    let rows = rows(x);
    let gradient = gradient.reshape(&[rows, out]);
    let dx = wanted[0].then(|| gradient.clone().matmul(kernel.clone().transpose()).reshape(&x.shape()));
    let dkernel = wanted[1].then(|| x.clone().reshape(&[rows, features]).transpose().matmul(gradient.clone()));
    let dbias = wanted.get(2).copied().unwrap_or(false).then(|| sum_to(gradient, &[out]));
    let mut gradients = smallvec![dx, dkernel];
    if wanted.len() == 3 {
        gradients.push(dbias);
    }
    gradients
}

fn forward<E: Factor>(activation: Activation, inputs: Tensors) -> Tensor {
    let mut inputs: Tensors = inputs.into_iter().map(|input| input.contiguous::<E>()).collect();
    let bias = (inputs.len() == 3).then(|| inputs.remove(2));
    let (x, kernel) = (&inputs[0], &inputs[1]);
    let [features, width] = [kernel.shape()[0], kernel.shape()[1]];
    let mut shape = x.shape();
    *shape.last_mut().expect("rank at least 2") = width;
    let rows = shape[..shape.len() - 1].iter().product();
    let mut y = Block::uninitialised(rows * width);
    if let Some(bias) = &bias {
        let bias = bias.elements::<E>();
        cpu::for_rows(&mut y, width, |_, rows| {
            for row in rows.chunks_exact_mut(width.max(1)) {
                row.iter_mut().zip(bias).for_each(|(y, &bias)| *y = bias.widened());
            }
        });
    }
    E::multiply(
        &mut y,
        bias.is_some(),
        Matrix::rows(x.elements::<E>(), features),
        Matrix::rows(kernel.elements::<E>(), width),
        [rows, features, width],
    );
    cpu::for_pieces(&mut y, |_, piece| activation.apply(piece));
    Tensor::from_block(y, &shape).cast(x.dtype())
}

fn backward<E: Factor>(inputs: &[Tensor], gradient: Tensor, wanted: &[bool]) -> Gradients {
    let contiguous = |tensor: &Tensor| tensor.clone().contiguous::<E>();
    let (x, kernel, gradient) = (contiguous(&inputs[0]), contiguous(&inputs[1]), contiguous(&gradient));
    let [features, width] = [kernel.shape()[0], kernel.shape()[1]];
    let (rows, dtype) = (rows(&x), gradient.dtype());
    let g = Matrix::rows(gradient.elements::<E>(), width);
    let dx = wanted[0].then(|| {
        let kernel = Matrix::rows(kernel.elements::<E>(), width);
        product(g, kernel.t(), [rows, width, features], &x.shape()).cast(dtype)
    });
    let dkernel = wanted[1].then(|| {
        let x = Matrix::rows(x.elements::<E>(), features);
        product(x.t(), g, [features, rows, width], &kernel.shape()).cast(dtype)
    });
    let mut gradients = smallvec![dx, dkernel];
    if let Some(&wanted) = wanted.get(2) {
        gradients.push(wanted.then(|| sum_to(gradient.clone(), &[width])));
    }
    gradients
}

fn product<E: Factor>(a: Matrix<'_, E>, b: Matrix<'_, E>, sizes: [usize; 3], shape: &[usize]) -> Tensor {
    let mut out = Block::uninitialised(sizes[0] * sizes[2]);
    E::multiply(&mut out, false, a, b, sizes);
    Tensor::from_block(out, shape)
}
