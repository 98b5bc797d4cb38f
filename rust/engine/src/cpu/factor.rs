//! What matrices are made of: numbers with a way to multiply and add them up.

use bytemuck::Pod;

use super::gemm::{Matrix, gemm, gemm_serial};
use crate::tensor::{Element, Real};

/// An element of a matrix on the `cpu` device.
pub trait Factor: Element + Pod + Send + Sync {
    /// What products are added up in.
    type Sum: Real;

    /// [`gemm`].
    fn multiply(out: &mut [Self::Sum], accumulate: bool, a: Matrix<'_, Self>, b: Matrix<'_, Self>, sizes: [usize; 3]);

    /// [`gemm_serial`].
    fn multiply_serial(
        out: &mut [Self::Sum],
        accumulate: bool,
        a: Matrix<'_, Self>,
        b: Matrix<'_, Self>,
        sizes: [usize; 3],
    );

    /// Exact.
    fn widened(self) -> Self::Sum;
}

macro_rules! factor {
    ($type:ty) => {
        impl Factor for $type {
            type Sum = Self;

            fn multiply(
                out: &mut [Self],
                accumulate: bool,
                a: Matrix<'_, Self>,
                b: Matrix<'_, Self>,
                sizes: [usize; 3],
            ) {
                gemm(out, accumulate, a, b, sizes);
            }

            fn multiply_serial(
                out: &mut [Self],
                accumulate: bool,
                a: Matrix<'_, Self>,
                b: Matrix<'_, Self>,
                sizes: [usize; 3],
            ) {
                gemm_serial(out, accumulate, a, b, sizes);
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
