//! Tensors that are zero but for some rows, which alone are held: gradients of tables of which a batch picks a few rows.

use super::{DType, Lengths, Real, Tensor, Values};
use crate::cpu;
use crate::memory::Block;

/// The rows of a table (a tensor along its first axis) on the `cpu` device that may be other than zero.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    /// Their places among all rows, in ascending order.
    places: Tensor,
    /// Their elements, row after row.
    values: Tensor,
    /// The lengths of the table's axes.
    lengths: Lengths,
}

impl Rows {
    /// Of a table of `lengths`; `values` holds as many rows as there are `places`, which ascend.
    pub fn new<E: Real>(places: Block<i32>, values: Block<E>, lengths: &[usize]) -> Self {
        let width: usize = lengths[1..].iter().product();
        assert_eq!(values.len(), places.len() * width, "as many values as rows");
        assert!(places.is_sorted_by(|a, b| a < b) && places.last().is_none_or(|&last| (last as usize) < lengths[0]));
        let count = places.len();
        let values = Tensor::from_block(values, &[count, width]);
        Self { places: Tensor::from_block(places, &[count]), values, lengths: lengths.into() }
    }

    /// The places of the rows among all, in ascending order.
    pub fn places(&self) -> &[i32] {
        self.places.elements()
    }

    /// The rows' elements, of shape `(rows held, elements of one)`.
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    /// The elements of a row.
    pub fn width(&self) -> usize {
        self.lengths[1..].iter().product()
    }

    pub(super) fn lengths(&self) -> &Lengths {
        &self.lengths
    }

    /// The same table with other axes; whole unless the first one stays.
    pub(super) fn reshape(mut self, lengths: &[usize]) -> Tensor {
        if lengths.first() != self.lengths.first() {
            return self.dense().reshape(lengths);
        }
        self.lengths = lengths.into();
        Tensor::from_rows(self)
    }

    /// The whole table.
    pub(super) fn dense(&self) -> Tensor {
        match self.values.dtype() {
            DType::F64 => self.dense_of::<f64>(),
            _ => self.dense_of::<f32>(),
        }
    }

    fn dense_of<E: Real>(&self) -> Tensor {
        let mut all = Block::uninitialised(self.lengths.iter().product());
        self.for_rows_in(&mut all, |piece| piece.fill(E::default()), <[E]>::copy_from_slice);
        Tensor::from_block(all, &self.lengths)
    }

    /// Adds the rows to those of a table of the same shape.
    pub(super) fn add_to<E: Real>(&self, all: &mut [E]) {
        let add = |sums: &mut [E], row: &[E]| sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum = *sum + value);
        self.for_rows_in(all, |_| {}, add);
    }

    /// Calls `begin` on each piece of a table of the same shape, then `each` on the rows there that are held, with these.
    fn for_rows_in<E: Real>(
        &self,
        all: &mut [E],
        begin: impl Fn(&mut [E]) + Sync,
        each: impl Fn(&mut [E], &[E]) + Sync,
    ) {
        let (places, values, width) = (self.places(), self.values.elements::<E>(), self.width().max(1));
        cpu::for_rows(all, width, |first, piece| {
            begin(piece);
            let [from, to] =
                [first, first + piece.len() / width].map(|end| places.partition_point(|&place| (place as usize) < end));
            for (&place, row) in places[from..to].iter().zip(values[from * width..].chunks_exact(width)) {
                each(&mut piece[(place as usize - first) * width..][..width], row);
            }
        });
    }
}

impl Tensor {
    /// A table on the `cpu` device of which only some rows are held. Whatever does not know of it sees all rows.
    pub(crate) fn from_rows(rows: Rows) -> Self {
        Self { dtype: rows.values.dtype, values: Values::Rows(Box::new(rows)), number: false }
    }

    /// The rows, if it is held by those that may be other than zero.
    pub(crate) fn rows(&self) -> Option<&Rows> {
        match &self.values {
            Values::Rows(rows) => Some(rows),
            _ => None,
        }
    }

    /// The same values, every element held; `None` if they are already.
    pub(super) fn dense(&self) -> Option<Self> {
        self.rows().map(Rows::dense)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table<E: Real>(places: &[i32], values: &[E], lengths: &[usize]) -> Tensor {
        Tensor::from_rows(Rows::new(Block::copy(places), Block::copy(values), lengths))
    }

    #[test]
    fn what_does_not_know_of_rows_sees_a_table() {
        let rows = || table(&[1, 3], &[1.0f32, 2.0, -3.0, 4.0], &[4, 2]);
        let expected = [0.0, 0.0, 1.0, 2.0, 0.0, 0.0, -3.0, 4.0];
        assert_eq!((rows().shape().to_vec(), rows().rank(), rows().len()), (vec![4, 2], 2, 8));
        assert!(rows().is_cpu() && rows().dtype() == DType::F32);
        assert_eq!(rows().to_f64(), expected);
        assert_eq!(rows().into_vec::<f32>(), expected.map(|value| value as f32));
        assert_eq!(rows().reshape(&[2, 4]).to_f64(), expected);
        assert_eq!(rows().reshape(&[4, 1, 2]).rows().map(Rows::places), Some(&[1, 3][..]));
        assert_eq!(rows().reshape(&[4, 1, 2]).to_f64(), expected);
        assert_eq!(rows().cast(DType::F64).to_f64(), expected);
        assert_eq!(rows().transpose().to_f64(), [0.0, 1.0, 0.0, -3.0, 0.0, 2.0, 0.0, 4.0]);
        assert_eq!(rows().unique::<f32>().elements::<f32>(), expected.map(|value| value as f32));
        assert_eq!((rows() + rows()).to_f64(), expected.map(|value| 2.0 * value));
    }

    #[test]
    fn rows_are_added_to_whatever_is_there() {
        let rows = || table(&[0, 2], &[1.0f64, 2.0, 3.0, 4.0], &[3, 2]);
        let other = || table(&[1, 2], &[5.0f64, 6.0, 7.0, 8.0], &[3, 2]);
        let whole = || Tensor::from_vec(vec![1.0f64; 6], &[3, 2]);
        assert_eq!(rows().added_to(Some(other())).to_f64(), [1.0, 2.0, 5.0, 6.0, 10.0, 12.0]);
        for sum in [rows().added_to(Some(whole())), whole().added_to(Some(rows()))] {
            assert_eq!(sum.to_f64(), [2.0, 3.0, 1.0, 1.0, 4.0, 5.0]);
        }
        let held = whole();
        assert_eq!(rows().added_to(Some(held.clone())).to_f64(), [2.0, 3.0, 1.0, 1.0, 4.0, 5.0]);
        assert_eq!(held.to_f64(), [1.0; 6]);
    }

    #[test]
    fn a_large_table_is_filled_by_several_threads() {
        let (rows, width) = (3000, 40);
        let places: Vec<i32> = (0..rows as i32).filter(|place| place % 7 == 3).collect();
        let values = crate::testing::reals::<f32>(1, places.len() * width);
        let mut expected = vec![0.0; rows * width];
        for (&place, row) in places.iter().zip(values.chunks(width)) {
            expected[place as usize * width..][..width].copy_from_slice(row);
        }
        for found in crate::testing::on_threads(|| table(&places, &values, &[rows, width]).into_vec::<f32>()) {
            assert_eq!(found, expected);
        }
    }
}
