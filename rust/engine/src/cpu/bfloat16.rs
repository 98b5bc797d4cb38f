//! Products of bfloat16 matrices by the instruction that some processors have for them: pairs of terms, added to float32.

use half::bf16;

use super::factor::Factor;
use super::gemm::Matrix;

/// Whether this processor has the instruction.
#[cfg(target_arch = "x86_64")]
pub fn is_available() -> bool {
    // The compiler takes the second to be part of the third.
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16")
}

/// Whether this processor has the instruction.
#[cfg(not(target_arch = "x86_64"))]
pub fn is_available() -> bool {
    false
}

/// Only where [`is_available`].
impl Factor for bf16 {
    type Sum = f32;

    const PARALLEL_WORK: usize = 1 << 21;

    fn multiply_among(
        threads: usize,
        out: &mut [f32],
        accumulate: bool,
        a: Matrix<'_, Self>,
        b: Matrix<'_, Self>,
        sizes: [usize; 3],
    ) {
        gemm(out, accumulate, a, b, sizes, threads);
    }

    #[inline(always)]
    fn widened(self) -> f32 {
        self.to_f32()
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn gemm(_: &mut [f32], _: bool, _: Matrix<'_, bf16>, _: Matrix<'_, bf16>, _: [usize; 3], _: usize) {
    unreachable!("no processor of this kind has the instruction");
}

#[cfg(target_arch = "x86_64")]
use x86::gemm;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use half::bf16;

    use super::is_available;
    use crate::cpu::columns::to_columns;
    use crate::cpu::gemm::{Matrix, cut};
    use crate::memory::Block;
    use crate::threads::join;

    /// Pairs of terms that one pass adds to each sum: as many rows of a panel of `b` as the first cache holds.
    const DEPTH: usize = 256;

    /// The most rows of a tile: with two registers across, so many sums leave room for the factors.
    const ROWS: usize = 12;

    /// Sums in a register.
    const LANES: usize = 16;

    /// Columns of a panel of `b`, and of the widest tile.
    const WIDTH: usize = 2 * LANES;

    /// Rows and columns at which products are split.
    const GRAIN: [usize; 2] = [ROWS, WIDTH];

    /// `out (+)= a · b`: `out` row-major `[m, n]`, `a` `[m, k]`, `b` `[k, n]`. What an element is depends on its row and its
    /// column only. Denormal numbers count as 0.
    pub fn gemm(
        out: &mut [f32],
        accumulate: bool,
        a: Matrix<'_, bf16>,
        b: Matrix<'_, bf16>,
        [m, k, n]: [usize; 3],
        threads: usize,
    ) {
        assert!(is_available(), "a product that this processor cannot compute");
        assert!(out.len() >= m * n && a.holds(m, k) && b.holds(k, n), "matrix outside its storage");
        if m == 0 || n == 0 {
            return;
        }
        if k == 0 && !accumulate {
            return out[..m * n].fill(0.0);
        }
        let (a, b) = (Factors::new(a, k), Factors::new(b.t(), k));
        Product { out: out.as_mut_ptr(), out_step: n, a, b, rows: m, columns: n, terms: k, accumulate }
            .shared_out(threads);
    }

    /// Vectors of factors, in memory: the rows of `a`, the columns of `b`.
    #[derive(Clone, Copy)]
    struct Factors {
        values: *const bf16,
        /// Elements to the next vector.
        step: isize,
        /// Elements to the vector's next term.
        term: isize,
        /// Whether pairs of terms can be read where they lie.
        paired: bool,
    }

    impl Factors {
        fn new(matrix: Matrix<'_, bf16>, terms: usize) -> Self {
            let (step, term) = (matrix.row_stride, matrix.column_stride);
            Self { values: matrix.values.as_ptr(), step, term, paired: term == 1 && terms.is_multiple_of(2) }
        }

        /// Those from a vector on.
        fn behind(self, vectors: usize) -> Self {
            Self { values: self.values.wrapping_offset(vectors as isize * self.step), ..self }
        }

        /// Copies pairs of terms of some vectors together: rows of `width`, one a pair, with zeros where there is no factor.
        ///
        /// # Safety
        /// The factors must be readable.
        #[target_feature(enable = "avx512f")]
        unsafe fn pack(self, to: &mut [u32], width: usize, vectors: usize, [from, terms]: [usize; 2]) {
            let start = self.values.wrapping_offset(from as isize * self.term);
            // SAFETY: as the caller promised.
            let at = |vector: usize, term: usize| unsafe {
                u32::from((*start.offset(vector as isize * self.step + term as isize * self.term)).to_bits())
            };
            let pairs = terms.div_ceil(2);
            if vectors < width {
                to[..pairs * width].fill(0);
            }
            if self.paired {
                let step = self.step * size_of::<bf16>() as isize;
                assert!(to.len() >= pairs * width && vectors <= width, "a panel without room");
                // SAFETY: as the caller promised, and there is room.
                return unsafe { to_columns(start.cast(), step, to.as_mut_ptr(), width, [vectors, pairs]) };
            }
            for (pair, to) in to.chunks_exact_mut(width).take(pairs).enumerate() {
                let term = 2 * pair;
                if term + 1 < terms {
                    to[..vectors].iter_mut().enumerate().for_each(|(v, to)| *to = at(v, term) | at(v, term + 1) << 16);
                } else {
                    to[..vectors].iter_mut().enumerate().for_each(|(v, to)| *to = at(v, term));
                }
            }
        }
    }

    /// A product, or a part of one, whose operands were checked.
    #[derive(Clone, Copy)]
    struct Product {
        out: *mut f32,
        out_step: usize,
        a: Factors,
        b: Factors,
        rows: usize,
        columns: usize,
        terms: usize,
        accumulate: bool,
    }

    // SAFETY: parts write to places of their own, and only read besides.
    unsafe impl Send for Product {}

    impl Product {
        /// Splits the longer side among threads.
        fn shared_out(self, threads: usize) {
            let Some((axis, at)) = cut([self.rows, self.columns], GRAIN, threads) else {
                // SAFETY: `gemm` checked the operands and the processor.
                return unsafe { self.compute() };
            };
            let (mut first, mut rest) = (self, self);
            if axis == 0 {
                (first.rows, rest.rows) = (at, self.rows - at);
                (rest.a, rest.out) = (self.a.behind(at), self.out.wrapping_add(at * self.out_step));
            } else {
                (first.columns, rest.columns) = (at, self.columns - at);
                (rest.b, rest.out) = (self.b.behind(at), self.out.wrapping_add(at));
            }
            join(move || first.shared_out(threads / 2), move || rest.shared_out(threads - threads / 2));
        }

        /// # Safety
        /// The operands must lie where they are said to, and the processor have the instructions.
        #[target_feature(enable = "avx512f,avx512bf16")]
        unsafe fn compute(self) {
            let deepest = DEPTH.min(self.terms.div_ceil(2));
            let mut panel = Block::<u32>::uninitialised(deepest * WIDTH);
            let mut rows = (!self.a.paired).then(|| Block::<u32>::uninitialised(deepest * self.rows));
            for from in (0..self.terms).step_by(2 * DEPTH) {
                let terms = (2 * DEPTH).min(self.terms - from);
                let (a, a_step, a_pair) = match &mut rows {
                    Some(rows) => {
                        // SAFETY: as the caller promised.
                        unsafe { self.a.pack(rows, self.rows, self.rows, [from, terms]) };
                        (rows.as_ptr(), 2, 2 * self.rows)
                    }
                    None => (self.a.values.wrapping_add(from).cast(), self.a.step as usize, 2),
                };
                for column in (0..self.columns).step_by(WIDTH) {
                    let columns = WIDTH.min(self.columns - column);
                    // SAFETY: as the caller promised.
                    unsafe { self.b.behind(column).pack(&mut panel, WIDTH, columns, [from, terms]) };
                    // Tiles of about the same size.
                    let tile_rows = self.rows.div_ceil(self.rows.div_ceil(ROWS));
                    for row in (0..self.rows).step_by(tile_rows) {
                        let tile = Tile {
                            a: a.cast::<bf16>().wrapping_add(row * a_step),
                            a_step,
                            a_pair,
                            b: panel.as_ptr(),
                            pairs: terms.div_ceil(2),
                            out: self.out.wrapping_add(row * self.out_step + column),
                            out_step: self.out_step,
                            columns,
                            accumulate: self.accumulate || from > 0,
                        };
                        // SAFETY: as the caller promised.
                        unsafe { tile.compute(tile_rows.min(self.rows - row)) };
                    }
                }
            }
        }
    }

    /// Some rows of a panel's columns: where its operands lie, steps in factors.
    struct Tile {
        a: *const bf16,
        a_step: usize,
        a_pair: usize,
        b: *const u32,
        pairs: usize,
        out: *mut f32,
        out_step: usize,
        columns: usize,
        accumulate: bool,
    }

    impl Tile {
        /// # Safety
        /// As for [`Product::compute`].
        #[target_feature(enable = "avx512f,avx512bf16")]
        unsafe fn compute(self, rows: usize) {
            macro_rules! of_rows {
                ($($rows:literal)*) => {
                    match rows {
                        // SAFETY: as the caller promised.
                        $($rows => unsafe {
                            if self.columns <= LANES { self.of_size::<$rows, 1>() } else { self.of_size::<$rows, 2>() }
                        })*
                        rows => unreachable!("{rows} rows in a tile"),
                    }
                };
            }
            of_rows!(1 2 3 4 5 6 7 8 9 10 11 12);
        }

        /// `M` rows of `N` registers.
        #[target_feature(enable = "avx512f,avx512bf16")]
        unsafe fn of_size<const M: usize, const N: usize>(self) {
            let mut sums = [[_mm512_setzero_ps(); N]; M];
            let (mut a, mut b) = (self.a, self.b);
            for _ in 0..self.pairs {
                // SAFETY: as the caller promised; 32 bits are a pair of factors, and any 512 are 16 of them.
                unsafe {
                    let mut pairs: [__m512bh; N] = std::mem::zeroed();
                    for (register, pairs) in pairs.iter_mut().enumerate() {
                        *pairs = b.add(register * LANES).cast::<__m512bh>().read_unaligned();
                    }
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let factor = _mm512_set1_epi32(a.add(row * self.a_step).cast::<i32>().read_unaligned());
                        let factor: __m512bh = std::mem::transmute(factor);
                        for (sum, &pairs) in sums.iter_mut().zip(&pairs) {
                            *sum = _mm512_dpbf16_ps(*sum, factor, pairs);
                        }
                    }
                }
                (a, b) = (a.wrapping_add(self.a_pair), b.wrapping_add(WIDTH));
            }
            for (row, sums) in sums.into_iter().enumerate() {
                for (register, sum) in sums.into_iter().enumerate() {
                    let columns = (self.columns - register * LANES).min(LANES);
                    let mask = u16::MAX >> (LANES - columns);
                    // SAFETY: so many columns of the row are in the output.
                    unsafe {
                        let to = self.out.add(row * self.out_step + register * LANES);
                        let old = if self.accumulate { _mm512_maskz_loadu_ps(mask, to) } else { _mm512_setzero_ps() };
                        _mm512_mask_storeu_ps(to, mask, if self.accumulate { _mm512_add_ps(old, sum) } else { sum });
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cpu::gemm::tests::{lay, naive};
    use crate::testing::{numbers, on_threads};

    fn rounded(seed: u64, count: usize) -> Vec<bf16> {
        numbers(seed, count).into_iter().map(bf16::from_f64).collect()
    }

    fn wide(values: &[bf16]) -> Vec<f64> {
        values.iter().map(|value| value.to_f64()).collect()
    }

    /// Fails unless each sum is right but for roundings to float32, which grow with the terms.
    #[track_caller]
    fn assert_summed(found: &[f32], expected: &[f64], terms: usize) {
        assert_eq!(found.len(), expected.len());
        let tolerance = (terms + 2) as f64 * f64::from(f32::EPSILON);
        for (index, (&found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((f64::from(found) - expected).abs() <= tolerance, "element {index}: {found}, expected {expected}");
        }
    }

    proptest! {
        #[test]
        fn products_agree_with_three_loops(
            [m, n] in [prop_oneof![4 => 0usize..50, 1 => Just(1)], prop_oneof![4 => 0usize..70, 1 => Just(1)]],
            k in prop_oneof![3 => 0usize..60, 1 => 500usize..530],
            by_columns: [bool; 2],
            gaps in [0usize..3, 0usize..3],
            accumulate: bool,
            seed: u64,
        ) {
            if !is_available() {
                return Ok(());
            }
            let storage = [rounded(seed, 53 * 533), rounded(seed ^ 1, 73 * 533)];
            let start: Vec<f32> = numbers(seed ^ 2, m * n).into_iter().map(|value| value as f32).collect();
            let exact = [wide(&storage[0]), wide(&storage[1])];
            let mut expected: Vec<f64> = start.iter().map(|&value| value.into()).collect();
            let of = |which: usize, rows, columns| lay(&exact[which], rows, columns, by_columns[which], gaps[which]);
            naive(&mut expected, accumulate, of(0, m, k), of(1, k, n), [m, k, n]);
            for threads in [1, 2] {
                let mut out = start.clone();
                let of = |which: usize, rows, columns| lay(&storage[which], rows, columns, by_columns[which], gaps[which]);
                bf16::multiply_among(threads, &mut out, accumulate, of(0, m, k), of(1, k, n), [m, k, n]);
                assert_summed(&out, &expected, k);
            }
        }
    }

    #[test]
    fn large_products_are_the_same_among_any_number_of_threads() {
        if !is_available() {
            return;
        }
        for (sizes, by_columns) in [([250, 131, 140], [false, true]), ([140, 132, 250], [true, false])] {
            let [m, k, n] = sizes;
            let (a, b) = (rounded(1, m * k), rounded(2, k * n));
            let [one, two, three] = on_threads(|| {
                let mut out = vec![0.0; m * n];
                bf16::multiply(
                    &mut out,
                    false,
                    lay(&a, m, k, by_columns[0], 0),
                    lay(&b, k, n, by_columns[1], 0),
                    sizes,
                );
                out
            });
            assert!(one == two && one == three);
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        if !is_available() {
            return;
        }
        // The last of an odd number of terms has nothing beside it that might spoil it.
        for (value, expected) in
            [(bf16::INFINITY, f32::INFINITY), (bf16::NAN, f32::NAN), (bf16::MAX, f32::from(bf16::MAX))]
        {
            let a = [bf16::ONE, bf16::ONE, value, bf16::NAN];
            let mut out = [0.0];
            bf16::multiply(&mut out, false, Matrix::rows(&a, 3), Matrix::rows(&[bf16::ONE; 3], 1), [1, 3, 1]);
            assert!(out[0] == expected || out[0].is_nan() && expected.is_nan(), "{out:?}");
        }
    }

    #[test]
    #[should_panic(expected = "matrix outside its storage")]
    fn a_matrix_larger_than_its_storage_is_refused() {
        assert!(is_available(), "matrix outside its storage");
        let values = [bf16::ONE; 5];
        bf16::multiply(&mut [0.0; 4], false, Matrix::rows(&values, 3), Matrix::rows(&[bf16::ONE; 6], 2), [2, 3, 2]);
    }
}
