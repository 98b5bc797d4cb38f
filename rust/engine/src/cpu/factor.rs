//! What matrices are made of: numbers with a way to multiply and add them up.

use bytemuck::Pod;

use super::gemm::{self, Matrix, gemm_with, threads_for};
use crate::tensor::{Element, Real};

/// An element of a matrix on the `cpu` device.
pub trait Factor: Element + Pod + Send + Sync {
    /// What products are added up in.
    type Sum: Real;

    /// Multiply-adds below which one thread is faster.
    const PARALLEL_WORK: usize;

    /// `out = a · b`, or `out += a · b` if `accumulate`, among so many threads: `out` row-major `[m, n]`, `a` `[m, k]`, `b` `[k, n]`.
    fn multiply_among(
        threads: usize,
        out: &mut [Self::Sum],
        accumulate: bool,
        a: Matrix<'_, Self>,
        b: Matrix<'_, Self>,
        sizes: [usize; 3],
    );

    /// Exact.
    fn widened(self) -> Self::Sum;

    /// [`Self::multiply_among`] as many threads as it pays for.
    fn multiply(out: &mut [Self::Sum], accumulate: bool, a: Matrix<'_, Self>, b: Matrix<'_, Self>, sizes: [usize; 3]) {
        Self::multiply_among(threads_for(sizes, Self::PARALLEL_WORK), out, accumulate, a, b, sizes);
    }
}

macro_rules! factor {
    ($type:ty) => {
        impl Factor for $type {
            type Sum = Self;

            const PARALLEL_WORK: usize = gemm::PARALLEL_WORK;

            fn multiply_among(
                threads: usize,
                out: &mut [Self],
                accumulate: bool,
                a: Matrix<'_, Self>,
                b: Matrix<'_, Self>,
                sizes: [usize; 3],
            ) {
                gemm_with(out, sizes[2], accumulate, a, b, sizes, threads);
            }

            #[inline(always)]
            fn widened(self) -> Self {
                self
            }
        }
    };
}

factor!(f32);
factor!(f64);
