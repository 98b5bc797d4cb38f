//! Matrix products.

use std::ops::Range;

use half::bf16;
use serde::Deserialize;
use smallvec::smallvec;

use super::linear::features;
use super::reduction::sum_to;
use super::{Affine, Arithmetic, Context, Entry, Evaluation, Gradients, Kept, Operation, Reach, Tensors, entry};
use crate::cpu;
use crate::cpu::bfloat16;
use crate::cpu::factor::Factor;
use crate::cpu::gemm::Matrix;
use crate::memory::Block;
use crate::program::{Kind, Type, broadcast, broadcast_lengths, show};
use crate::tensor::{DType, Lengths, Strides, Tensor};

/// The lines of the table.
pub(super) const ENTRIES: &[Entry] = &[entry::<Matmul>("matmul", 2, Some(2))];

/// `a · b` over the last two axes, `(…, m, k)` and `(…, k, n)` to `(…, m, n)`; the axes before them broadcast.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Matmul {}

impl Operation for Matmul {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        inputs.iter().try_for_each(|input| input.expect_kind(Kind::Float))?;
        let (a, b) = (inputs[0], inputs[1]);
        a.expect_rank(2, "the first matrix")?;
        b.expect_rank(2, "the second matrix")?;
        let (batch_a, matrix_a) = a.shape.split_at(a.rank() - 2);
        let (batch_b, matrix_b) = b.shape.split_at(b.rank() - 2);
        if matrix_a[1] != matrix_b[0] {
            return Err(format!(
                "the second matrix must have {} rows like the first has columns, got shapes {} and {}",
                matrix_a[1],
                show(&a.shape),
                show(&b.shape)
            ));
        }
        let mut shape = broadcast(&[batch_a, batch_b])?;
        shape.extend([matrix_a[0], matrix_b[1]]);
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
        let kernel = &inputs[1].shape;
        (kernel.len() == 2 && kernel.iter().all(|dim| !dim.batch)).then_some(self)
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        let (b, a) = (inputs.pop().expect("b"), inputs.pop().expect("a"));
        product(a, b).into()
    }

    /// `da = g · bᵀ`, `db = aᵀ · g`, summed over what was broadcast
    fn gradient(&self, kept: Kept, gradient: Tensor, wanted: &[bool]) -> Gradients {
        let (a, b) = (&kept.inputs[0], &kept.inputs[1]);
        let dtype = gradient.dtype();
        let da = wanted[0].then(|| sum_to(sums(gradient.clone(), b.clone().transpose()), &a.shape()).cast(dtype));
        let db = wanted[1].then(|| gradient_of_second(a.clone(), &b.shape(), gradient).cast(dtype));
        smallvec![da, db]
    }
}

impl Affine for Matmul {
    fn moves(&self, input: usize) -> bool {
        input == 1
    }

    fn before_activation(&self, mut inputs: Tensors) -> Tensor {
        let (b, a) = (inputs.pop().expect("b"), inputs.pop().expect("a"));
        product(a, b)
    }

    fn directions(&self, inputs: &[Tensor], _: usize, range: Range<usize>) -> Tensor {
        features(&inputs[0], range)
    }

    fn is_product(&self) -> bool {
        true
    }
}

/// The gradient of `b`; one product over all rows at once where `b` is one matrix.
fn gradient_of_second(a: Tensor, shape: &[usize], gradient: Tensor) -> Tensor {
    let (width, columns) = (shape[shape.len() - 2], shape[shape.len() - 1]);
    if is_one_matrix(shape)
        && a.rank() == gradient.rank()
        && a.shape()[..a.rank() - 2] == gradient.shape()[..a.rank() - 2]
    {
        let rows = a.shape()[..a.rank() - 1].iter().product();
        let (a, gradient) = (a.reshape(&[rows, width]), gradient.reshape(&[rows, columns]));
        return sums(a.transpose(), gradient).reshape(shape);
    }
    sum_to(sums(a.transpose(), gradient), shape)
}

fn is_one_matrix(shape: &[usize]) -> bool {
    shape[..shape.len() - 2].iter().all(|&length| length == 1)
}

/// `a · b`, whose leading axes broadcast.
fn product(a: Tensor, b: Tensor) -> Tensor {
    let dtype = a.dtype();
    sums(a, b).cast(dtype)
}

/// `a · b` in what its kernel adds up in, for what is summed further and rounded then.
fn sums(a: Tensor, b: Tensor) -> Tensor {
    match a.dtype() {
        DType::F32 if a.is_cpu() => product_cpu::<f32>(a, b),
        DType::F64 if a.is_cpu() => product_cpu::<f64>(a, b),
        DType::BF16 if a.is_cpu() && bfloat16::is_available() => product_cpu::<bf16>(a, b),
        _ => a.matmul(b),
    }
}

fn product_cpu<E: Factor>(a: Tensor, b: Tensor) -> Tensor {
    let (a_shape, b_shape) = (a.shape(), b.shape());
    let (batch_a, matrix_a) = a_shape.split_at(a_shape.len() - 2);
    let (batch_b, matrix_b) = b_shape.split_at(b_shape.len() - 2);
    let mut shape = broadcast_lengths(&[batch_a, batch_b]);
    let (batch, sizes) = (shape.iter().product(), [matrix_a[0], matrix_a[1], matrix_b[1]]);
    shape.extend([sizes[0], sizes[2]]);
    if is_one_matrix(&a_shape) && is_one_matrix(&b_shape) {
        let (a, b) = (a.reshape(matrix_a), b.reshape(matrix_b));
        return matrix_product::<E>(&a, &b, sizes).reshape(&shape);
    }
    if is_one_matrix(&b_shape) {
        let rows = batch * sizes[0];
        let (a, b) = (a.reshape(&[rows, sizes[1]]), b.reshape(matrix_b));
        return matrix_product::<E>(&a, &b, [rows, sizes[1], sizes[2]]).reshape(&shape);
    }
    let rank = shape.len();
    let whole = |tensor: Tensor, matrix: &[usize]| {
        let mut to = shape[..rank - 2].to_vec();
        to.extend(matrix);
        tensor.broadcast_to(&to)
    };
    let (a, b) = (whole(a, matrix_a), whole(b, matrix_b));
    batched_product::<E>(Stack::of(&a), Stack::of(&b), batch, sizes, &shape)
}

/// The product of two tensors of rank 2, read where they lie.
fn matrix_product<E: Factor>(a: &Tensor, b: &Tensor, sizes: [usize; 3]) -> Tensor {
    let mut out = Block::uninitialised(sizes[0] * sizes[2]);
    E::multiply(&mut out, false, Stack::<E>::of(a).matrix(0), Stack::of(b).matrix(0), sizes);
    Tensor::from_block(out, &[sizes[0], sizes[2]])
}

fn batched_product<E: Factor>(a: Stack<E>, b: Stack<E>, batch: usize, sizes: [usize; 3], shape: &[usize]) -> Tensor {
    let size = sizes[0] * sizes[2];
    let mut out = Block::uninitialised(batch * size);
    if size == 0 {
        return Tensor::from_block(out, shape);
    }
    // Few large products split themselves among the threads; many share them out whole.
    if batch < rayon::current_num_threads() {
        for (index, out) in out.chunks_exact_mut(size).enumerate() {
            E::multiply(out, false, a.matrix(index), b.matrix(index), sizes);
        }
    } else {
        cpu::for_rows(&mut out, size, |first, piece| {
            for (index, out) in piece.chunks_exact_mut(size).enumerate() {
                E::multiply_among(1, out, false, a.matrix(first + index), b.matrix(first + index), sizes);
            }
        });
    }
    Tensor::from_block(out, shape)
}

/// Matrices in a strided tensor, in row-major order of its leading axes.
struct Stack<E> {
    tensor: Tensor,
    strides: Strides,
    shape: Lengths,
    element: std::marker::PhantomData<E>,
}

impl<E: Factor> Stack<E> {
    fn of(tensor: &Tensor) -> Self {
        let shape = tensor.shape();
        let tensor = match tensor.strided::<E>() {
            Some(_) => tensor.clone(),
            // Steps backwards are no matrix to the kernel.
            None => tensor.clone().contiguous::<E>(),
        };
        let strides = tensor.strided::<E>().expect("contiguous").1;
        Self { tensor, strides, shape, element: std::marker::PhantomData }
    }

    fn matrix(&self, mut index: usize) -> Matrix<'_, E> {
        let mut offset = 0;
        let leading = self.shape.len() - 2;
        for axis in (0..leading).rev() {
            offset += (index % self.shape[axis]) * self.strides[axis] as usize;
            index /= self.shape[axis];
        }
        let (values, _) = self.tensor.strided::<E>().expect("checked when made");
        Matrix {
            values: &values[offset..],
            row_stride: self.strides[leading],
            column_stride: self.strides[leading + 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize], step: i32) -> Tensor {
        let count = shape.iter().product::<usize>() as i32;
        Tensor::from_vec((0..count).map(|index| f64::from(index * step % 17 - 8)).collect::<Vec<f64>>(), shape)
    }

    /// `g · bᵀ` and `aᵀ · g` the slow way: the derivative of `Σ g · (a b)`, which is linear in each input.
    fn check(a: &[usize], b: &[usize]) {
        let (a, b) = (tensor(a, 5), tensor(b, 7));
        let y = product(a.clone(), b.clone());
        assert_eq!(y.to_f64(), a.clone().matmul(b.clone()).to_f64());
        let g = tensor(&y.shape(), 3);
        let kept = Kept {
            inputs: smallvec![a.clone(), b.clone()],
            shapes: smallvec![a.shape(), b.shape()],
            output: None,
            saved: Default::default(),
        };
        let gradients = Matmul {}.gradient(kept, g.clone(), &[true, true]);
        for (which, gradient) in gradients.into_iter().enumerate() {
            let gradient = gradient.expect("wanted").to_f64();
            for (index, slope) in gradient.into_iter().enumerate() {
                let mut inputs = [a.clone(), b.clone()];
                let mut unit = vec![0.0; inputs[which].len()];
                unit[index] = 1.0;
                inputs[which] = Tensor::from_vec(unit, &inputs[which].shape());
                let [a, b] = inputs;
                let change: f64 = product(a, b).to_f64().iter().zip(g.to_f64()).map(|(y, g)| y * g).sum();
                assert_eq!(slope, change);
            }
        }
    }

    #[test]
    fn gradients_of_broadcast_products() {
        check(&[2, 3], &[3, 4]);
        check(&[5, 2, 3], &[3, 4]);
        check(&[2, 3], &[5, 3, 4]);
        check(&[2, 1, 2, 3], &[4, 3, 2]);
        check(&[1, 2, 3], &[1, 3, 2]);
        check(&[4, 2, 3], &[4, 3, 2]);
    }

    #[test]
    fn flipped_and_transposed_views_are_read_rightly() {
        let (a, b) = (tensor(&[4, 3], 5), tensor(&[2, 3], 7).transpose().flip(&[0]));
        let expected = a.clone().matmul(b.clone());
        assert_eq!(product(a, b).to_f64(), expected.to_f64());
    }
}
