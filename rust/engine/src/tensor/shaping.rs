//! Shapes, axes, indices and reductions of whole tensors.

use burn_backend::ops::{BoolTensorOps, FloatTensorOps, IntTensorOps};
use burn_backend::tensor::IndexingUpdateOp;
use burn_backend::{Shape, Slice};
use burn_dispatch::{Dispatch, DispatchTensor};

use super::{DType, Tensor, Values};

/// Tensors that are joined by one kernel of a device: some give a kernel no more than 31.
const JOINED_AT_ONCE: usize = 24;

/// Elements that a device passes over in less time than it takes to ask for that.
pub(crate) const BRIEF: usize = 1 << 20;

/// Dispatches on the kind of element: the primitives of float, int and bool tensors differ in name only.
macro_rules! by_kind {
    ($tensor:expr, $float:ident, $int:ident, $bool:ident $(, $argument:expr)*) => {{
        let dtype = $tensor.dtype();
        let primitive = $tensor.into_primitive();
        Tensor::from_primitive(match dtype {
            DType::Bool => Dispatch::$bool(primitive $(, $argument)*),
            DType::I32 | DType::I64 => Dispatch::$int(primitive $(, $argument)*),
            _ => Dispatch::$float(primitive $(, $argument)*),
        })
    }};
}

/// [`by_kind`] without truth values.
macro_rules! by_number {
    ($tensor:expr, $float:ident, $int:ident $(, $argument:expr)*) => {{
        let is_int = $tensor.dtype().is_int();
        let primitive = $tensor.into_primitive();
        Tensor::from_primitive(if is_int {
            Dispatch::$int(primitive $(, $argument)*)
        } else {
            Dispatch::$float(primitive $(, $argument)*)
        })
    }};
}

fn slices(starts: &[usize], stops: &[usize], steps: &[usize]) -> Vec<Slice> {
    let bounds = starts.iter().zip(stops).zip(steps);
    bounds.map(|((&start, &stop), &step)| Slice::new(start as isize, Some(stop as isize), step as isize)).collect()
}

impl Tensor {
    /// The same elements in row-major order under another shape.
    pub fn reshape(self, shape: &[usize]) -> Self {
        if shape.is_empty() && !self.is_cpu() {
            return self.into_number();
        }
        match self.values {
            Values::Dense(dense) => return Self::from_dense(dense.reshape(shape)),
            Values::Rows(rows) => return rows.reshape(shape),
            Values::Burn(_) => {}
        }
        let shape = Shape::from(shape.to_vec());
        by_kind!(self, float_reshape, int_reshape, bool_reshape, shape)
    }

    /// Reorders the axes.
    pub fn permute(self, axes: &[usize]) -> Self {
        if axes.is_empty() {
            return self;
        }
        by_kind!(self, float_permute, int_permute, bool_permute, axes)
    }

    /// Swaps the last two axes.
    pub fn transpose(self) -> Self {
        let rank = self.rank();
        let mut axes: Vec<usize> = (0..rank).collect();
        axes.swap(rank - 2, rank - 1);
        self.permute(&axes)
    }

    /// Reverses axes.
    pub fn flip(self, axes: &[usize]) -> Self {
        if self.is_empty() {
            return self;
        }
        by_kind!(self, float_flip, int_flip, bool_flip, axes)
    }

    /// Repeats axes of length 1, after adding leading ones.
    pub fn broadcast_to(self, shape: &[usize]) -> Self {
        if self.shape() == shape {
            return self;
        }
        if shape.is_empty() {
            return self.reshape(shape);
        }
        if self.is_cpu() && self.len() == 1 && matches!(self.dtype(), DType::F32 | DType::F64) {
            // Memory filled at once: the kernels would copy a view with strides of 0 element by element.
            return Self::full(shape, self.scalar(), self.dtype(), &self.device());
        }
        let tensor = self.with_rank(shape.len());
        let shape = Shape::from(shape.to_vec());
        by_kind!(tensor, float_expand, int_expand, bool_expand, shape)
    }

    /// Adds leading axes of length 1.
    pub fn with_rank(self, rank: usize) -> Self {
        let shape = self.shape();
        if shape.len() == rank {
            return self;
        }
        let mut longer = vec![1; rank - shape.len()];
        longer.extend(shape);
        self.reshape(&longer)
    }

    pub(super) fn same_rank(a: Self, b: Self) -> (Self, Self) {
        let rank = a.rank().max(b.rank());
        (a.with_rank(rank), b.with_rank(rank))
    }

    /// The part from `starts` to `stops` by `steps`.
    pub fn slice(self, starts: &[usize], stops: &[usize], steps: &[usize]) -> Self {
        by_kind!(self, float_slice, int_slice, bool_slice, &slices(starts, stops, steps))
    }

    /// Writes `value` over the part from `starts` to `stops` by `steps`.
    pub fn slice_assign(self, starts: &[usize], stops: &[usize], steps: &[usize], value: Self) -> Self {
        let slices = slices(starts, stops, steps);
        let value = value.into_primitive();
        by_kind!(self, float_slice_assign, int_slice_assign, bool_slice_assign, &slices, value)
    }

    /// Joins along an axis.
    pub fn concatenate(mut tensors: Vec<Self>, axis: usize) -> Self {
        // Devices join a few by one kernel, and many by one kernel each.
        if !tensors[0].is_cpu() && tensors.iter().all(|tensor| tensor.len() <= BRIEF) {
            while tensors.len() > JOINED_AT_ONCE {
                let few = tensors.chunks(JOINED_AT_ONCE).map(|few| Self::concatenate(few.to_vec(), axis));
                tensors = few.collect();
            }
        }
        let dtype = tensors[0].dtype();
        let primitives: Vec<DispatchTensor> = tensors.into_iter().map(Self::into_primitive).collect();
        Self::from_primitive(match dtype {
            DType::Bool => Dispatch::bool_cat(primitives, axis),
            DType::I32 | DType::I64 => Dispatch::int_cat(primitives, axis),
            _ => Dispatch::float_cat(primitives, axis),
        })
    }

    /// Rows `indices` (rank 1) along an axis.
    pub fn select(self, axis: usize, indices: Self) -> Self {
        if self.dtype() == DType::Bool {
            // Flex's own kernel answers with bytes that are no truth values.
            return self.cast(DType::I32).select(axis, indices).cast(DType::Bool);
        }
        let indices = indices.into_primitive();
        by_number!(self, float_select, int_select, axis, indices)
    }

    /// Adds `value` to rows `indices` (rank 1) along an axis; an index may come again.
    pub fn select_add(self, axis: usize, indices: Self, value: Self) -> Self {
        Self::from_primitive(Dispatch::float_select_assign(
            self.into_primitive(),
            axis,
            indices.into_primitive(),
            value.into_primitive(),
            IndexingUpdateOp::Add,
        ))
    }

    /// One element per position along an axis, as NumPy's `take_along_axis`.
    pub fn gather(self, axis: usize, indices: Self) -> Self {
        let indices = indices.into_primitive();
        let dtype = self.dtype();
        let primitive = self.into_primitive();
        Self::from_primitive(if dtype.is_int() {
            Dispatch::int_gather(axis, primitive, indices)
        } else {
            Dispatch::float_gather(axis, primitive, indices)
        })
    }

    /// The transpose of [`Self::gather`]: adds `value` where `indices` say.
    pub fn scatter_add(self, axis: usize, indices: Self, value: Self) -> Self {
        if !self.device().adds_in_any_order() || indices.shape()[axis] == 1 {
            return self.scatter_primitive(axis, indices, value);
        }
        // With one index each, nothing is added to twice by a kernel, and kernels keep their order.
        let (mut starts, mut stops) = (vec![0; indices.rank()], indices.shape().to_vec());
        let steps = vec![1; indices.rank()];
        let mut sum = self;
        for place in 0..stops[axis] {
            (starts[axis], stops[axis]) = (place, place + 1);
            let part = |of: &Self| of.clone().slice(&starts, &stops, &steps);
            sum = sum.scatter_primitive(axis, part(&indices), part(&value));
        }
        sum
    }

    fn scatter_primitive(self, axis: usize, indices: Self, value: Self) -> Self {
        Self::from_primitive(Dispatch::float_scatter(
            axis,
            self.into_primitive(),
            indices.into_primitive(),
            value.into_primitive(),
            IndexingUpdateOp::Add,
        ))
    }

    /// Sum over an axis, which stays with length 1.
    pub fn sum_axis(self, axis: usize) -> Self {
        by_number!(self, float_sum_dim, int_sum_dim, axis)
    }

    /// Sum over axes, which stay with length 1.
    pub fn sum_axes(self, axes: &[usize]) -> Self {
        axes.iter().fold(self, |tensor, &axis| tensor.sum_axis(axis))
    }

    /// Greatest over an axis, which stays with length 1.
    pub fn max_axis(self, axis: usize) -> Self {
        by_number!(self, float_max_dim, int_max_dim, axis)
    }

    /// Index of the greatest along an axis, which stays with length 1.
    pub fn argmax(self, axis: usize) -> Self {
        let int = DType::I32.burn_int();
        if self.dtype().is_int() {
            return Self::from_primitive(Dispatch::int_argmax(self.into_primitive(), axis));
        }
        Self::from_primitive(Dispatch::float_argmax(self.into_primitive(), axis, int))
    }

    /// Least over an axis, which stays with length 1.
    pub fn min_axis(self, axis: usize) -> Self {
        by_number!(self, float_min_dim, int_min_dim, axis)
    }

    /// Index of the least along an axis, which stays with length 1.
    pub fn argmin(self, axis: usize) -> Self {
        let int = DType::I32.burn_int();
        if self.dtype().is_int() {
            return Self::from_primitive(Dispatch::int_argmin(self.into_primitive(), axis));
        }
        Self::from_primitive(Dispatch::float_argmin(self.into_primitive(), axis, int))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{on_ndarray, tensor};

    #[test]
    fn many_tensors_are_joined_in_order_on_every_device() {
        for count in [1, JOINED_AT_ONCE, JOINED_AT_ONCE + 1, 2 * JOINED_AT_ONCE * JOINED_AT_ONCE + 1] {
            let host: Vec<Tensor> =
                (0..count).map(|index| tensor::<f32>(index as u64, &[2, 1 + index % 3, 2])).collect();
            let device = host.iter().map(on_ndarray::<f32>).collect();
            let [expected, found] = [host, device].map(|tensors| Tensor::concatenate(tensors, 1));
            assert_eq!(found.shape(), expected.shape());
            assert_eq!(found.to_f64(), expected.to_f64());
        }
    }
}
