//! The product of a few rows with a few columns, in registers: what matrix products are made of.

use pulp::{NullaryFnOnce, Simd};

/// Elements as the vector registers of a processor hold them.
pub trait Vectors: Copy + 'static {
    /// A register.
    type Vector<S: Simd>: Copy;
    /// The elements of a register.
    fn lanes<S: Simd>() -> usize;
    /// The same element in every lane.
    fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S>;
    /// `a · b + c`
    fn multiply_add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;
    /// `a + b`
    fn add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `a - b`
    fn subtract<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `a · b`
    fn multiply<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
}

macro_rules! vectors {
    ($type:ty, $vector:ident, $lanes:ident, $splat:ident, $multiply_add:ident, $add:ident, $subtract:ident, $multiply:ident) => {
        impl Vectors for $type {
            type Vector<S: Simd> = S::$vector;
            #[inline(always)]
            fn lanes<S: Simd>() -> usize {
                S::$lanes
            }
            #[inline(always)]
            fn splat<S: Simd>(simd: S, value: Self) -> S::$vector {
                simd.$splat(value)
            }
            #[inline(always)]
            fn multiply_add<S: Simd>(simd: S, a: S::$vector, b: S::$vector, c: S::$vector) -> S::$vector {
                simd.$multiply_add(a, b, c)
            }
            #[inline(always)]
            fn add<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$add(a, b)
            }
            #[inline(always)]
            fn subtract<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$subtract(a, b)
            }
            #[inline(always)]
            fn multiply<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$multiply(a, b)
            }
        }
    };
}

vectors!(f32, f32s, F32_LANES, splat_f32s, mul_add_e_f32s, add_f32s, sub_f32s, mul_f32s);
vectors!(f64, f64s, F64_LANES, splat_f64s, mul_add_e_f64s, add_f64s, sub_f64s, mul_f64s);

/// Registers across a tile.
pub(super) const ACROSS: usize = 2;

/// The most rows of a tile so many registers wide: as many as fit beside those of `b` and one of `a`; enough sums besides that
/// none waits for the one before.
#[inline(always)]
pub(super) fn tile_rows<S: Simd>(registers: usize) -> usize {
    match (S::REGISTER_COUNT < 32, registers) {
        (true, _) => 6,
        (false, 1) => MOST_ROWS,
        (false, _) => 12,
    }
}

/// The most rows of any tile.
pub(super) const MOST_ROWS: usize = 16;

/// The tile `out (+)= a · b`: where its operands lie, in elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile<E> {
    /// Terms of each sum in a run.
    pub depth: usize,
    /// Runs of terms, one behind the other in `b`, and so many elements apart in `a`.
    pub runs: usize,
    pub a_run: isize,
    pub a: *const E,
    pub a_steps: [isize; 2],
    /// Rows of adjacent elements.
    pub b: *const E,
    pub b_step: isize,
    pub out: *mut E,
    pub out_step: isize,
    pub rows: usize,
    pub accumulate: bool,
}

impl<E: Vectors> Tile<E> {
    /// Computes the tile, so many whole registers wide; each element is the same sum in the same order whatever the tile's size.
    ///
    /// # Safety
    /// `a`, `b` and `out` must be readable, and `out` writable by nobody else, as far as the numbers say; there are 1 to
    /// [`tile_rows`] rows and 1 to [`ACROSS`] registers.
    #[inline(always)]
    pub(super) unsafe fn compute<S: Simd>(&self, simd: S, registers: usize) {
        // SAFETY: as the caller promised.
        unsafe { if registers == 1 { self.of_width::<S, 1>(simd) } else { self.of_width::<S, ACROSS>(simd) } }
    }

    #[inline(always)]
    unsafe fn of_width<S: Simd, const N: usize>(&self, simd: S) {
        macro_rules! of_rows {
            ($($rows:literal)*) => {
                match self.rows {
                    $($rows if $rows <= 6 || S::REGISTER_COUNT >= 32 && (N == 1 || $rows <= 12) => {
                        // A function of its own for each size: all in one would take a compiler minutes.
                        simd.vectorize(OfSize::<_, _, $rows, N> { tile: *self, simd })
                    })*
                    rows => unreachable!("{rows} rows in a tile"),
                }
            };
        }
        of_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
    }

    /// [`Self::compute`] for `M` rows of `N` registers.
    #[inline(always)]
    unsafe fn of_size<S: Simd, const M: usize, const N: usize>(&self, simd: S) {
        let lanes = E::lanes::<S>();
        // SAFETY: as the caller promised; a register may lie anywhere, and zeros are one.
        unsafe {
            let zero: E::Vector<S> = std::mem::zeroed();
            let mut sums = [[zero; N]; M];
            let mut b = self.b;
            for run in 0..self.runs {
                let mut a = self.a.wrapping_offset(run as isize * self.a_run);
                for _ in 0..self.depth {
                    let row: [E::Vector<S>; N] =
                        std::array::from_fn(|register| b.add(register * lanes).cast::<E::Vector<S>>().read_unaligned());
                    for (index, sums) in sums.iter_mut().enumerate() {
                        let factor = E::splat(simd, *a.offset(index as isize * self.a_steps[0]));
                        for (sum, &row) in sums.iter_mut().zip(&row) {
                            *sum = E::multiply_add(simd, factor, row, *sum);
                        }
                    }
                    (a, b) = (a.wrapping_offset(self.a_steps[1]), b.wrapping_offset(self.b_step));
                }
            }
            for (index, sums) in sums.iter().enumerate() {
                let row = self.out.offset(index as isize * self.out_step);
                for (register, &sum) in sums.iter().enumerate() {
                    let to = row.add(register * lanes).cast::<E::Vector<S>>();
                    to.write_unaligned(if self.accumulate { E::add(simd, to.read_unaligned(), sum) } else { sum });
                }
            }
        }
    }
}

/// A tile of `M` rows of `N` registers.
struct OfSize<E, S, const M: usize, const N: usize> {
    tile: Tile<E>,
    simd: S,
}

impl<E: Vectors, S: Simd, const M: usize, const N: usize> NullaryFnOnce for OfSize<E, S, M, N> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        // SAFETY: as the caller of `Tile::compute` promised.
        unsafe { self.tile.of_size::<S, M, N>(self.simd) }
    }
}
