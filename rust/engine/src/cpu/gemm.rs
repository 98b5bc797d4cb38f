//! Matrix products over strided slices.

use pulp::Arch;

use super::columns::to_columns;
use super::kernel::{ACROSS, MOST_ROWS, Tile, tile_rows};
use crate::memory::Block;
use crate::tensor::Real;
use crate::threads::join;

/// Multiply-adds below which one thread is faster (measured on MLP sizes).
pub(super) const PARALLEL_WORK: usize = 1 << 20;

/// Multiply-adds in the time that an element takes to come from memory.
const WORK_OF_AN_ELEMENT: usize = 8;

/// How many threads share a product for which one is faster below so many multiply-adds.
pub(super) fn threads_for(sizes: [usize; 3], least: usize) -> usize {
    let [m, k, n] = sizes;
    // A product of few rows waits for its elements.
    let work = (m * k * n).max(WORK_OF_AN_ELEMENT * (m * k + k * n + m * n));
    if work >= least { rayon::current_num_threads() } else { 1 }
}

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

    /// Without the first elements of its storage.
    fn behind(self, elements: usize) -> Self {
        Self { values: &self.values[elements..], ..self }
    }

    /// Whether so many rows and columns lie within its storage.
    pub(super) fn holds(&self, rows: usize, columns: usize) -> bool {
        if rows == 0 || columns == 0 {
            return true;
        }
        let last = (rows - 1) as isize * self.row_stride + (columns - 1) as isize * self.column_stride;
        self.row_stride >= 0 && self.column_stride >= 0 && (last as usize) < self.values.len()
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
    gemm_with(out, row_stride, accumulate, a, b, sizes, threads_for(sizes, PARALLEL_WORK));
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
    gemm_with(out, row_stride, accumulate, a, b, sizes, 1);
}

/// `out (+)= Σ a_r · b_r` over runs of terms on the calling thread: `a_r` `[m, k]` lie `a_run` elements apart, `b` is
/// `[runs · k, n]`.
pub fn gemm_serial_runs<E: Real>(
    out: &mut [E],
    accumulate: bool,
    a: Matrix<'_, E>,
    (runs, a_run): (usize, usize),
    b: Matrix<'_, E>,
    [m, k, n]: [usize; 3],
) {
    if runs == 0 || k == 0 {
        return gemm_serial(out, accumulate, a, b, [m, 0, n]);
    }
    if runs * k > DEPTH {
        for run in 0..runs {
            let (a, b) = (a.behind(run * a_run), b.behind(run * k * b.row_stride as usize));
            gemm_serial(out, accumulate || run > 0, a, b, [m, k, n]);
        }
        return;
    }
    let last = a.behind((runs - 1) * a_run);
    assert!(out.len() >= m * n && last.holds(m, k) && b.holds(runs * k, n), "matrix outside its storage");
    if m > 0 && n > 0 {
        Arch::new().dispatch(Product {
            runs,
            a_run: a_run as isize,
            ..Product::new(out, n, accumulate, a, b, [m, k, n])
        });
    }
}

/// Terms that one pass adds to each sum: as many rows of a panel of `b` as the first cache holds.
const DEPTH: usize = 512;

/// Rows of `a` from which on panels of `b` are copied together first: near rows, and those that lie about a page apart, which come
/// slowly a few elements at a time.
const MANY_ROWS: [usize; 2] = [256, 8];

/// Bytes of the panels that are copied together, row by row, which the second cache holds beside what else is needed.
const PANELS: usize = 256 * 1024;

/// Bytes after which the places of the first cache come again.
const PLACES: isize = 4096;

/// Elements between rows that were copied together, so that they have places of their own.
const NEAR: usize = DEPTH + 16;

/// Bytes between rows from which on they lie far apart.
const FAR: usize = 3584;

pub(super) fn gemm_with<E: Real>(
    out: &mut [E],
    out_stride: usize,
    accumulate: bool,
    a: Matrix<'_, E>,
    b: Matrix<'_, E>,
    [m, k, n]: [usize; 3],
    threads: usize,
) {
    if m == 0 || n == 0 {
        return;
    }
    if m == 1 && n > 1 && b.row_stride == 1 && b.column_stride != 1 {
        // The transpose has the same sums, and what it reads lies in rows already.
        return gemm_with(out, 1, accumulate, b.t(), a.t(), [n, k, 1], threads);
    }
    let room = (m - 1) * out_stride + n;
    assert!(out_stride >= n && out.len() >= room && a.holds(m, k) && b.holds(k, n), "matrix outside its storage");
    if k == 0 && !accumulate {
        return out.chunks_mut(out_stride).take(m).for_each(|row| row[..n].fill(E::default()));
    }
    Product::new(out, out_stride, accumulate, a, b, [m, k, n]).shared_out(threads);
}

/// A product, or a part of one, whose operands were checked.
#[derive(Clone, Copy)]
struct Product<E> {
    out: *mut E,
    out_step: isize,
    a: *const E,
    a_steps: [isize; 2],
    b: *const E,
    b_steps: [isize; 2],
    sizes: [usize; 3],
    /// Runs of terms, with their distance in `a`; `sizes` counts the terms of one.
    runs: usize,
    a_run: isize,
    accumulate: bool,
    /// Whether panels of `b` are copied together.
    pack: bool,
}

// SAFETY: parts write to places of their own, and only read besides.
unsafe impl<E: Send> Send for Product<E> {}

/// Rows and columns at which products are split, a multiple of every tile's.
const GRAIN: [usize; 2] = [12, 32];

/// Where a product of so many rows and columns falls in two for its threads: along which of the two, the longer one in grains, and
/// at which; `None` if it stays whole.
pub(super) fn cut([m, n]: [usize; 2], grain: [usize; 2], threads: usize) -> Option<(usize, usize)> {
    let grains = [m.div_ceil(grain[0]), n.div_ceil(grain[1])];
    let axis = usize::from(grains[1] > grains[0]);
    let at = (grains[axis] * (threads / 2) / threads).max(1) * grain[axis];
    (threads > 1 && grains[axis] > 1).then_some((axis, at))
}

impl<E: Real> Product<E> {
    /// Of operands that were checked.
    fn new(
        out: &mut [E],
        out_stride: usize,
        accumulate: bool,
        a: Matrix<'_, E>,
        b: Matrix<'_, E>,
        [m, k, n]: [usize; 3],
    ) -> Self {
        let far = b.row_stride as usize * size_of::<E>() >= FAR;
        Self {
            out: out.as_mut_ptr(),
            out_step: out_stride as isize,
            a: a.values.as_ptr(),
            a_steps: [a.row_stride, a.column_stride],
            b: b.values.as_ptr(),
            b_steps: [b.row_stride, b.column_stride],
            sizes: [m, k, n],
            runs: 1,
            a_run: 0,
            accumulate,
            pack: b.column_stride != 1 && n > 1 || m >= MANY_ROWS[usize::from(far)],
        }
    }

    /// Splits the longer side among threads. What an element is does not depend on it.
    fn shared_out(self, threads: usize) {
        let [m, _, n] = self.sizes;
        // Where columns of `b` are copied together, threads that share rows would each copy all of them.
        let grain = if self.b_steps[1] == 1 { GRAIN } else { [2 * GRAIN[0], GRAIN[1]] };
        let Some((axis, at)) = cut([m, n], grain, threads) else {
            return Arch::new().dispatch(self);
        };
        let (first, rest) = self.split(axis, at);
        join(move || first.shared_out(threads / 2), move || rest.shared_out(threads - threads / 2));
    }

    /// The parts before and behind a row (axis 0) or column (axis 1).
    fn split(self, axis: usize, at: usize) -> (Self, Self) {
        let (mut first, mut rest) = (self, self);
        let of_sizes = 2 * axis;
        first.sizes[of_sizes] = at;
        rest.sizes[of_sizes] -= at;
        let at = at as isize;
        if axis == 0 {
            (rest.a, rest.out) =
                (self.a.wrapping_offset(at * self.a_steps[0]), self.out.wrapping_offset(at * self.out_step));
        } else {
            (rest.b, rest.out) = (self.b.wrapping_offset(at * self.b_steps[1]), self.out.wrapping_offset(at));
        }
        (first, rest)
    }

    /// Copies panels of `b` together, one behind the other: rows of `width`, with zeros behind the columns that there are.
    #[inline(always)]
    fn packed(&self, panels: &mut [E], width: usize, [from, depth]: [usize; 2], [first, columns]: [usize; 2]) {
        let start = self.b.wrapping_offset(from as isize * self.b_steps[0] + first as isize * self.b_steps[1]);
        if self.b_steps[1] == 1 {
            for row in 0..depth {
                // SAFETY: the row lies within `b`.
                let from = unsafe { std::slice::from_raw_parts(start.offset(row as isize * self.b_steps[0]), columns) };
                let whole = columns / width * width;
                for column in (0..whole).step_by(width) {
                    panels[column * depth + row * width..][..width].copy_from_slice(&from[column..][..width]);
                }
                if whole < columns {
                    let (to, rest) = (&mut panels[whole * depth + row * width..][..width], &from[whole..]);
                    to[..rest.len()].copy_from_slice(rest);
                    to[rest.len()..].fill(E::default());
                }
            }
            return;
        }
        for (panel, column) in panels.chunks_exact_mut(depth * width).zip((0..columns).step_by(width)) {
            let start = start.wrapping_offset(column as isize * self.b_steps[1]);
            self.packed_columns(panel, width, start, [width.min(columns - column), depth]);
        }
    }

    /// [`Self::packed`] for one panel, whose rows do not lie in memory.
    #[inline(always)]
    fn packed_columns(&self, panel: &mut [E], width: usize, start: *const E, [columns, depth]: [usize; 2]) {
        if columns < width {
            panel.fill(E::default());
        }
        if self.b_steps[0] == 1 {
            let step = self.b_steps[1] * size_of::<E>() as isize;
            // SAFETY: these are columns of `b`, and the panel has room for them.
            return unsafe { to_columns(start, step, panel.as_mut_ptr(), width, [columns, depth]) };
        }
        for (row, to) in panel.chunks_exact_mut(width).enumerate() {
            for (column, to) in to[..columns].iter_mut().enumerate() {
                // SAFETY: the element lies within `b`.
                *to = unsafe { *start.offset(row as isize * self.b_steps[0] + column as isize * self.b_steps[1]) };
            }
        }
    }

    /// Whether the first cache has one place for the same term of all rows of `a`, and there are few enough rows to copy them.
    fn a_collides(&self) -> bool {
        let [row, term] = self.a_steps.map(|step| step * size_of::<E>() as isize);
        let copied = (2..=MANY_ROWS[0]).contains(&self.sizes[0]) && self.sizes[2] >= GRAIN[1];
        self.runs == 1 && term == size_of::<E>() as isize && row % PLACES == 0 && copied
    }

    /// Copies some terms of the rows of `a` to rows of [`NEAR`].
    #[inline(always)]
    fn brought_near(&self, to: &mut [E], [from, depth]: [usize; 2]) {
        for (row, to) in to.chunks_exact_mut(NEAR).enumerate() {
            // SAFETY: the terms lie within `a`.
            let terms = unsafe {
                let start = self.a.offset(row as isize * self.a_steps[0] + from as isize);
                std::slice::from_raw_parts(start, depth)
            };
            to[..depth].copy_from_slice(terms);
        }
    }

    /// Computes a tile, of so many columns if they are fewer than a panel's.
    ///
    /// # Safety
    /// As for [`Tile::compute`], and what the tile reads of `b` fills its registers.
    #[inline(always)]
    unsafe fn compute<S: pulp::Simd>(&self, simd: S, tile: Tile<E>, columns: usize, room: &mut [E]) {
        let lanes = E::lanes::<S>();
        let width = ACROSS * lanes;
        // SAFETY: as the caller promised.
        unsafe {
            if columns >= width {
                tile.compute(simd, ACROSS);
            } else if columns.is_multiple_of(lanes) {
                tile.compute(simd, columns / lanes);
            } else {
                // A tile that does not fill its registers is computed beside the output.
                let (out, out_step) = (room.as_mut_ptr(), width as isize);
                Tile { out, out_step, accumulate: false, ..tile }.compute(simd, columns.div_ceil(lanes));
                self.put(room, width, &tile, columns);
            }
        }
    }

    /// Copies what belongs to the output out of a tile that was computed beside it, in rows of `width`.
    #[inline(always)]
    fn put(&self, room: &[E], width: usize, tile: &Tile<E>, columns: usize) {
        for (row, sums) in room.chunks_exact(width).take(tile.rows).enumerate() {
            for (column, &sum) in sums[..columns].iter().enumerate() {
                // SAFETY: the element lies within the output.
                unsafe {
                    let to = tile.out.offset(row as isize * tile.out_step).add(column);
                    *to = if tile.accumulate { *to + sum } else { sum };
                }
            }
        }
    }
}

/// The most elements of a register.
const MOST_LANES: usize = 16;

impl<E: Real> pulp::WithSimd for Product<E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let [m, k, n] = self.sizes;
        let lanes = E::lanes::<S>();
        let width = ACROSS * lanes;
        let terms = DEPTH.min(k) * self.runs;
        let panel = terms * width;
        // Columns whose panels are copied at once.
        let together = if self.pack { (PANELS / (panel * size_of::<E>()).max(1)).max(1) * width } else { width };
        let count = together.min(n).div_ceil(width);
        let mut panels = (self.pack || n % lanes > 0).then(|| Block::<E>::uninitialised(count * panel));
        let mut near = self.a_collides().then(|| Block::<E>::uninitialised(m * NEAR));
        let mut room = [E::default(); MOST_ROWS * ACROSS * MOST_LANES];
        for from in (0..k).step_by(DEPTH) {
            let depth = DEPTH.min(k - from);
            let (a, a_steps) = match &mut near {
                Some(near) => {
                    self.brought_near(near, [from, depth]);
                    (near.as_ptr(), [NEAR as isize, 1])
                }
                None => (self.a.wrapping_offset(from as isize * self.a_steps[1]), self.a_steps),
            };
            for first in (0..n).step_by(together) {
                let columns = together.min(n - first);
                let (b, steps) = match &mut panels {
                    Some(panels) if self.pack || columns % lanes > 0 => {
                        self.packed(panels, width, [from, depth * self.runs], [first, columns]);
                        (panels.as_ptr(), [width, depth * self.runs])
                    }
                    _ => (
                        self.b.wrapping_offset(from as isize * self.b_steps[0] + first as isize),
                        [self.b_steps[0] as usize, 1],
                    ),
                };
                // Tiles of about the same size.
                let rows = m.div_ceil(m.div_ceil(tile_rows::<S>(columns.div_ceil(lanes).min(ACROSS))));
                for row in (0..m).step_by(rows) {
                    let of_row = Tile {
                        depth,
                        runs: self.runs,
                        a_run: self.a_run,
                        a: a.wrapping_offset(row as isize * a_steps[0]),
                        a_steps,
                        b,
                        b_step: steps[0] as isize,
                        out: self.out.wrapping_offset(row as isize * self.out_step + first as isize),
                        out_step: self.out_step,
                        rows: rows.min(m - row),
                        accumulate: self.accumulate || from > 0,
                    };
                    for column in (0..columns).step_by(width) {
                        let (b, out) = (b.wrapping_add(column * steps[1]), of_row.out.wrapping_add(column));
                        let tile = Tile { b, out, ..of_row };
                        // SAFETY: `gemm_with` checked that all tiles lie within the operands, and parts write to places of
                        // their own; panels of narrow tiles are packed, and there is room for every tile.
                        unsafe { self.compute(simd, tile, columns - column, &mut room) };
                    }
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, on_threads, reals};

    /// How a matrix lies in memory: by rows or by columns, with a gap after each.
    pub fn lay<E>(values: &[E], rows: usize, columns: usize, by_columns: bool, gap: usize) -> Matrix<'_, E> {
        if by_columns {
            return lay(values, columns, rows, false, gap).t();
        }
        Matrix { values, row_stride: (columns + gap) as isize, column_stride: 1 + (rows == 1) as isize * gap as isize }
    }

    fn at(matrix: Matrix<'_, f64>, row: usize, column: usize) -> f64 {
        matrix.values[row * matrix.row_stride as usize + column * matrix.column_stride as usize]
    }

    /// `out (+)= a · b` by three loops.
    pub fn naive(out: &mut [f64], accumulate: bool, a: Matrix<'_, f64>, b: Matrix<'_, f64>, [m, k, n]: [usize; 3]) {
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
        fn runs_add_up(
            [m, k, n] in [0usize..30, 0usize..250, 0usize..40],
            runs in 0usize..5,
            gap in 0usize..20,
            accumulate: bool,
            seed: u64,
        ) {
            let storage = [reals::<f64>(seed, 30 * 250 + 5 * 20), reals::<f64>(seed ^ 1, 5 * 250 * 40)];
            let (a, b) = (Matrix::rows(&storage[0], k), Matrix::rows(&storage[1], n));
            let mut expected = reals::<f64>(seed ^ 2, m * n);
            let mut out = expected.clone();
            gemm_serial_runs(&mut out, accumulate, a, (runs, gap), b, [m, k, n]);
            for run in 0..runs {
                naive(&mut expected, accumulate || run > 0, a.behind(run * gap), b.behind(run * k * n), [m, k, n]);
            }
            if runs == 0 && !accumulate {
                expected.fill(0.0);
            }
            assert_close(&out, &expected, 1e-12);
        }

        #[test]
        fn products_agree_with_three_loops(
            (m, k, n) in (prop_oneof![3 => 0usize..40, 1 => Just(1)], 0usize..40, 0usize..40),
            by_columns: [bool; 2],
            gaps in [0usize..3, 0usize..3],
            accumulate: bool,
            seed: u64,
        ) {
            let sizes = [m, k, n];
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
    fn threads_share_what_takes_long_to_compute_or_to_read() {
        let threads = |sizes| on_threads(|| threads_for(sizes, PARALLEL_WORK));
        assert_eq!(threads([32, 64, 64]), [1, 1, 1]);
        assert_eq!(threads([128, 128, 128]), [1, 2, 3]);
        assert_eq!(threads([1, 1000, 1000]), [1, 2, 3]);
    }

    #[test]
    fn rows_a_page_apart_are_multiplied_as_others() {
        for (sizes, gaps) in [([100, 700, 450], [324, 62]), ([3, 512, 33], [0, 0]), ([257, 512, 40], [0, 500])] {
            let [m, k, n] = sizes;
            let storage = [reals::<f64>(1, m * (k + gaps[0])), reals::<f64>(2, k * (n + gaps[1]))];
            let (a, b) = (lay(&storage[0], m, k, false, gaps[0]), lay(&storage[1], k, n, false, gaps[1]));
            let start = reals::<f64>(3, m * n);
            for accumulate in [false, true] {
                let mut expected = start.clone();
                naive(&mut expected, accumulate, a, b, sizes);
                for threads in [1, 2] {
                    let mut out = start.clone();
                    gemm_with(&mut out, n, accumulate, a, b, sizes, threads);
                    assert_close(&out, &expected, 1e-12);
                }
            }
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
    fn a_product_without_terms_is_zero_and_nothing_behind_it_is_touched() {
        let mut out = [7.0f32; 20];
        gemm_serial_strided(&mut out, 4, false, Matrix::rows(&[], 0), Matrix::rows(&[], 3), [2, 0, 3]);
        assert_eq!(out[..8], [0.0, 0.0, 0.0, 7.0, 0.0, 0.0, 0.0, 7.0]);
        assert_eq!(out[8..], [7.0; 12]);
    }

    #[test]
    #[should_panic(expected = "matrix outside its storage")]
    fn a_matrix_larger_than_its_storage_is_refused() {
        let values = [0.0f32; 5];
        gemm(&mut [0.0; 4], false, Matrix::rows(&values, 3), Matrix::rows(&[0.0; 6], 2), [2, 3, 2]);
    }
}
