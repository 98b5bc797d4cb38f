//! What finite differences may know of an operation, so that a perturbed copy costs less than evaluating it alone.

use std::ops::Range;

use super::Tensors;
use crate::tensor::Tensor;

/// How far a change of an input reaches in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nowhere: only the shapes of the inputs count.
    Nothing,
    /// To the same place alone, by NumPy's broadcasting.
    Element,
    /// To the same sample (index of axis 0) alone, where inputs and output hold the batch there and nowhere else; an input
    /// without the batch may reach everywhere.
    Sample,
    /// Anywhere.
    Everything,
}

/// An operation `activation(z)` whose `z` is affine in some of its inputs: one element of such an input moves one column
/// (place on the last axis) of `z`.
///
/// Element `e` moves column `e % width`, `width` being the length of the last axis of input and output, by
/// `directions[e / width]` times its own change.
pub trait Affine: Send + Sync {
    /// Whether an input is such a one.
    fn moves(&self, input: usize) -> bool;

    /// `z`.
    fn before_activation(&self, inputs: Tensors) -> Tensor;

    /// The output from `z`.
    fn activate(&self, z: Tensor) -> Tensor {
        z
    }

    /// The directions of a range of `e / width` on the `cpu` device: `(range, positions)`, where positions are all axes of the
    /// output but the last.
    fn directions(&self, inputs: &[Tensor], input: usize, range: Range<usize>) -> Tensor;

    /// Whether `z` is also the product of input 0 and a kernel, input 1 of shape `(in, out)`, so that a change of column `c` of
    /// input 0 moves `z` by its product with row `c` of the kernel.
    fn is_product(&self) -> bool {
        false
    }
}
