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
    let work: usize = sizes.iter().product();
    let parallelism = if work >= PARALLEL_WORK { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    gemm_with(out, sizes[2], accumulate, a, b, sizes, parallelism);
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
