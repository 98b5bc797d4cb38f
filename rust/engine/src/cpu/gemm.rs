//! Matrix products over strided slices.

use crate::tensor::Real;

/// Multiply-adds below which one thread is faster (measured on MLP sizes).
const PARALLEL_WORK: usize = 1 << 20;

/// A matrix in memory: storage, step to the next row, step to the next column.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, E> {
    /// The storage, from the first element on.
    pub values: &'a [E],
    /// Elements to the next row.
    pub row_stride: isize,
    /// Elements to the next column.
    pub column_stride: isize,
}

impl<'a, E> Matrix<'a, E> {
    /// Row-major, `columns` wide.
    pub fn rows(values: &'a [E], columns: usize) -> Self {
        Self { values, row_stride: columns as isize, column_stride: 1 }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        Self { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }
}

/// `out = a · b`, or `out += a · b` if `accumulate`: `out` row-major `[m, n]`, `a` `[m, k]`, `b` `[k, n]`.
pub fn gemm<E: Real>(out: &mut [E], accumulate: bool, a: Matrix<'_, E>, b: Matrix<'_, E>, sizes: [usize; 3]) {
    gemm_strided(out, sizes[2], accumulate, a, b, sizes);
}

/// [`gemm`] into rows that lie `row_stride` elements apart.
pub fn gemm_strided<E: Real>(
    out: &mut [E],
    row_stride: usize,
    accumulate: bool,
    a: Matrix<'_, E>,
    b: Matrix<'_, E>,
    sizes: [usize; 3],
) {
    let work: usize = sizes.iter().product();
    let parallelism = if work >= PARALLEL_WORK { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    gemm_with(out, row_stride, accumulate, a, b, sizes, parallelism);
}

/// [`gemm`] on the calling thread alone, for callers that split the work themselves.
pub fn gemm_serial<E: Real>(out: &mut [E], accumulate: bool, a: Matrix<'_, E>, b: Matrix<'_, E>, sizes: [usize; 3]) {
    gemm_serial_strided(out, sizes[2], accumulate, a, b, sizes);
}

/// [`gemm_serial`] into rows that lie `row_stride` elements apart.
pub fn gemm_serial_strided<E: Real>(
    out: &mut [E],
    row_stride: usize,
    accumulate: bool,
    a: Matrix<'_, E>,
    b: Matrix<'_, E>,
    sizes: [usize; 3],
) {
    gemm_with(out, row_stride, accumulate, a, b, sizes, gemm::Parallelism::None);
}

fn gemm_with<E: Real>(
    out: &mut [E],
    out_stride: usize,
    accumulate: bool,
    a: Matrix<'_, E>,
    b: Matrix<'_, E>,
    [m, k, n]: [usize; 3],
    parallelism: gemm::Parallelism,
) {
    if m == 0 || n == 0 {
        return;
    }
    let room = (m - 1) * out_stride + n;
    assert!(out_stride >= n && out.len() >= room && holds(a, m, k) && holds(b, k, n), "matrix outside its storage");
    let (zero, one) = (E::from_f64(0.0), E::from_f64(1.0));
    let keep = if accumulate { one } else { zero };
    // SAFETY: the assertion above keeps every index inside the three slices; `out` is exclusively borrowed.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_stride as isize,
            accumulate,
            a.values.as_ptr(),
            a.column_stride,
            a.row_stride,
            b.values.as_ptr(),
            b.column_stride,
            b.row_stride,
            keep,
            one,
            false,
            false,
            false,
            parallelism,
        );
    }
}

fn holds<E>(matrix: Matrix<'_, E>, rows: usize, columns: usize) -> bool {
    if rows == 0 || columns == 0 {
        return true;
    }
    let last = (rows - 1) as isize * matrix.row_stride + (columns - 1) as isize * matrix.column_stride;
    matrix.row_stride >= 0 && matrix.column_stride >= 0 && (last as usize) < matrix.values.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, on_threads, reals};

    /// How a matrix lies in memory: by rows or by columns, with a gap after each.
    fn lay<E>(values: &[E], rows: usize, columns: usize, by_columns: bool, gap: usize) -> Matrix<'_, E> {
        if by_columns {
            return lay(values, columns, rows, false, gap).t();
        }
        Matrix { values, row_stride: (columns + gap) as isize, column_stride: 1 + (rows == 1) as isize * gap as isize }
    }

    fn at(matrix: Matrix<'_, f64>, row: usize, column: usize) -> f64 {
        matrix.values[row * matrix.row_stride as usize + column * matrix.column_stride as usize]
    }

    fn naive(out: &mut [f64], accumulate: bool, a: Matrix<'_, f64>, b: Matrix<'_, f64>, [m, k, n]: [usize; 3]) {
        for row in 0..m {
            for column in 0..n {
                let sum: f64 = (0..k).map(|inner| at(a, row, inner) * at(b, inner, column)).sum();
                let old = if accumulate { out[row * n + column] } else { 0.0 };
                out[row * n + column] = old + sum;
            }
        }
    }

    proptest! {
        #[test]
        fn products_agree_with_three_loops(
            sizes in [0usize..40, 0usize..40, 0usize..40],
            by_columns: [bool; 2],
            gaps in [0usize..3, 0usize..3],
            accumulate: bool,
            seed: u64,
        ) {
            let [m, k, n] = sizes;
            let room = 45 * 45;
            let storage = [reals::<f64>(seed, room), reals::<f64>(seed ^ 1, room)];
            let a = lay(&storage[0], m, k, by_columns[0], gaps[0]);
            let b = lay(&storage[1], k, n, by_columns[1], gaps[1]);
            let start = reals::<f64>(seed ^ 2, m * n);
            let mut expected = start.clone();
            naive(&mut expected, accumulate, a, b, sizes);
            for multiply in [gemm::<f64>, gemm_serial::<f64>] {
                let mut out = start.clone();
                multiply(&mut out, accumulate, a, b, sizes);
                assert_close(&out, &expected, 1e-12);
            }
            // Into rows that lie apart: what is between them stays.
            let mut out = vec![7.0; m * (n + 2)];
            (0..m).for_each(|row| out[row * (n + 2)..][..n].copy_from_slice(&start[row * n..][..n]));
            gemm_serial_strided(&mut out, n + 2, accumulate, a, b, sizes);
            for row in out.chunks(n + 2).zip(0..m).map(|(row, _)| row) {
                prop_assert_eq!(&row[n..], [7.0, 7.0]);
            }
            let found: Vec<f64> = out.chunks(n + 2).flat_map(|row| row[..n].to_vec()).collect();
            assert_close(&found, &expected, 1e-12);
        }
    }

    #[test]
    fn large_products_are_the_same_among_any_number_of_threads() {
        let sizes = [150, 130, 140];
        let (a, b) = (reals::<f32>(1, 150 * 130), reals::<f32>(2, 130 * 140));
        let [one, two, three] = on_threads(|| {
            let mut out = vec![0.0; 150 * 140];
            gemm(&mut out, false, Matrix::rows(&a, 130), Matrix::rows(&b, 140), sizes);
            out
        });
        assert!(one == two && one == three);
        let wide: Vec<f64> = one.iter().map(|&value| value.into()).collect();
        let [a, b] = [&a, &b].map(|values| values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>());
        let mut expected = vec![0.0; 150 * 140];
        naive(&mut expected, false, Matrix::rows(&a, 130), Matrix::rows(&b, 140), sizes);
        assert_close(&wide, &expected, 1e-5);
    }

    #[test]
    #[should_panic(expected = "matrix outside its storage")]
    fn a_matrix_larger_than_its_storage_is_refused() {
        let values = [0.0f32; 5];
        gemm(&mut [0.0; 4], false, Matrix::rows(&values, 3), Matrix::rows(&[0.0; 6], 2), [2, 3, 2]);
    }
}
