//! Convolution with windows of 3 by 3 by Winograd's algorithm F(4x4, 3x3): 36 products where there were 144.
//!
//! With d a tile of 6 by 6 pixels and g the kernel, the 4 by 4 outputs of the tile are `Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A`
//! (Lavin and Gray, 2016, <https://arxiv.org/abs/1509.09308>). Over channels and filters, ⊙ is one product of matrices for each of
//! the 36 places. Gradients are the transposed maps.
//!
//! The maps are those of polynomials at the points 0, ±5/8, ±3/2 and ∞: in 32 bits twice the rounding of plain sums, where the
//! usual 0, ±1, ±2 and ∞ have five times (Barabasz et al., 2018, <https://arxiv.org/abs/1803.10986>, on the choice of points).

use std::marker::PhantomData;

use pulp::{Arch, Simd, WithSimd};

use super::convolution::Sizes;
use super::gemm::{Matrix, gemm_serial};
use super::kernel::Vectors;
use crate::memory::Block;
use crate::tensor::Real;

/// Channels and filters come in as many as the widest register holds.
const LANES: usize = 16;
/// Rows and columns of output that a tile gives.
const OUT: usize = 4;
/// Rows and columns of a tile.
const SIDE: usize = OUT + 2;
/// Places of a transformed tile.
const PLACES: usize = SIDE * SIDE;
/// The points, which are negative too, of few bits, so that the maps of inputs and outputs have exact numbers. Of those with up to
/// four behind the point these round least.
const NEAR: f64 = 0.625;
const FAR: f64 = 1.5;
/// Elements between planes, the matrices of the places: lengths are powers of 2 often, and a cache holds few lines that lie so far
/// apart.
const GAP: usize = 16;
/// Bytes of transformed tiles that are worked on together, which the second-level cache holds,
const TOGETHER: usize = 512 * 1024;
/// and the fewest of them: enough rows for the products.
const FEWEST: usize = 16;

/// A convolution that tiles can compute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Winograd(Sizes);

/// Some tiles, counted from the first of the first image on.
#[derive(Clone, Copy)]
struct Tiles {
    first: usize,
    count: usize,
}

/// Elements from a plane to the next.
fn plane(rows: usize, width: usize) -> usize {
    rows * width + GAP
}

/// Planes of so many rows.
fn planes<E: Real>(rows: usize, width: usize) -> Block<E> {
    Block::uninitialised(PLACES * plane(rows, width))
}

impl Winograd {
    /// `None` where the window is another one, channels do not fill registers, or tiles reach too far beyond the output.
    pub(super) fn of(sizes: &Sizes) -> Option<Self> {
        let Sizes { window, input: [.., channels], output, groups, filters } = *sizes;
        let fits = window.size == [3, 3] && window.strides == [1, 1] && window.dilation == [1, 1] && groups == 1;
        let whole = channels > 0 && channels % LANES == 0 && filters > 0 && filters % LANES == 0;
        (fits && whole && output.iter().all(|&length| length >= OUT - 1)).then_some(Self(*sizes))
    }

    /// Rows and columns of tiles on an image.
    fn grid(&self) -> [usize; 2] {
        self.0.output.map(|length| length.div_ceil(OUT))
    }

    fn tiles_an_image(&self) -> usize {
        self.grid().iter().product()
    }

    /// How many tiles of some images are worked on together, and all of them by so many.
    fn tiles<E>(&self, x: &[E]) -> (usize, impl Iterator<Item = Tiles>) {
        let all = x.len() / self.0.image() * self.tiles_an_image();
        let tile = PLACES * (self.0.input[2] + self.0.filters) * size_of::<E>();
        let blocks = all.div_ceil((TOGETHER / tile).max(FEWEST));
        let together = all.div_ceil(blocks.max(1)).max(1);
        let tiles = (0..all).step_by(together).map(move |first| Tiles { first, count: together.min(all - first) });
        (together, tiles)
    }

    /// What tiles read of the input.
    fn input<'a, E>(&self, values: &'a [E], beyond: &'a [E]) -> Images<'a, E> {
        Images { values, size: self.0.input, border: [0, 1].map(|axis| self.0.window.padding[axis][0]), beyond }
    }

    /// `G g Gᵀ`: the kernel `[3, 3, channels, filters]` in planes `[channels, filters]`.
    pub(super) fn kernel<E: Real>(&self, kernel: &[E]) -> Block<E> {
        let mut transformed = planes(self.0.input[2], self.0.filters);
        Arch::new().dispatch(Kernel { kernel, transformed: &mut transformed });
        transformed
    }

    /// The output of some images: `kernel` is [`Self::kernel`], `bias` is added.
    pub(super) fn forward<E: Real>(
        &self,
        x: &[E],
        kernel: &[E],
        bias: Option<&[E]>,
        activate: &impl Fn(&mut [E]),
        y: &mut [E],
    ) {
        let (channels, filters) = (self.0.input[2], self.0.filters);
        let (together, blocks) = self.tiles(x);
        let (mut transformed, mut products) = (planes(together, channels), planes(together, filters));
        let beyond = Block::full(channels, E::default());
        for tiles in blocks {
            self.transform::<E, OfInput, SIDE>(tiles, self.input(x, &beyond), &mut transformed);
            for place in 0..PLACES {
                gemm_serial(
                    &mut products[place * plane(tiles.count, filters)..],
                    false,
                    Matrix::rows(&transformed[place * plane(tiles.count, channels)..], channels),
                    Matrix::rows(&kernel[place * plane(channels, filters)..], filters),
                    [tiles.count, channels, filters],
                );
            }
            Arch::new().dispatch(Outputs { winograd: self, tiles, products: &products, bias, y: &mut *y });
            let ready = [tiles.first, tiles.first + tiles.count].map(|tile| tile / self.tiles_an_image());
            let [first, end] = ready.map(|image| image * self.0.pixels() * filters);
            activate(&mut y[first..end]);
        }
    }

    /// Adds the gradient of the kernel from some images.
    pub(super) fn kernel_gradient<E: Real>(&self, x: &[E], gradient: &[E], dkernel: &mut [E]) {
        let (channels, filters) = (self.0.input[2], self.0.filters);
        let (together, blocks) = self.tiles(x);
        let (mut transformed, mut spread) = (planes(together, channels), planes(together, filters));
        let mut sums = planes(channels, filters);
        let beyond = Block::full(channels.max(filters), E::default());
        let [height, width] = self.0.output;
        let outputs = Images { values: gradient, size: [height, width, filters], border: [0; 2], beyond: &beyond };
        let mut started = false;
        for tiles in blocks {
            self.transform::<E, OfInput, SIDE>(tiles, self.input(x, &beyond), &mut transformed);
            self.transform::<E, OfGradient, OUT>(tiles, outputs, &mut spread);
            for place in 0..PLACES {
                gemm_serial(
                    &mut sums[place * plane(channels, filters)..],
                    started,
                    Matrix::rows(&transformed[place * plane(tiles.count, channels)..], channels).t(),
                    Matrix::rows(&spread[place * plane(tiles.count, filters)..], filters),
                    [channels, tiles.count, filters],
                );
            }
            started = true;
        }
        if started {
            Arch::new().dispatch(KernelGradient { sums: &sums, dkernel });
        }
    }

    /// Maps tiles of `N` by `N` pixels to planes `[tiles, channels]`.
    fn transform<E: Real, L: Lines<N, SIDE>, const N: usize>(
        &self,
        tiles: Tiles,
        images: Images<'_, E>,
        planes: &mut [E],
    ) {
        Arch::new().dispatch(Transform::<_, L, N> { winograd: self, tiles, images, planes, map: PhantomData });
    }

    /// The image of a tile, and the first row and column of its output.
    #[inline(always)]
    fn place(&self, tile: usize) -> (usize, [usize; 2]) {
        let [rows, columns] = self.grid();
        (tile / (rows * columns), [tile / columns % rows * OUT, tile % columns * OUT])
    }
}

/// Elements from a place on, as many as a register holds.
///
/// # Safety
/// There are so many.
#[inline(always)]
unsafe fn read<E: Real, S: Simd>(from: *const E) -> E::Vector<S> {
    // SAFETY: as the caller promised.
    unsafe { from.cast::<E::Vector<S>>().read_unaligned() }
}

/// Writes a register's elements.
///
/// # Safety
/// There is room for them.
#[inline(always)]
unsafe fn write<E: Real, S: Simd>(to: *mut E, value: E::Vector<S>) {
    // SAFETY: as the caller promised.
    unsafe { to.cast::<E::Vector<S>>().write_unaligned(value) }
}

/// `a + b`
#[inline(always)]
fn add<E: Real, S: Simd>(simd: S, a: E::Vector<S>, b: E::Vector<S>) -> E::Vector<S> {
    <E as Vectors>::add(simd, a, b)
}

/// `number · a`
#[inline(always)]
fn times<E: Real, S: Simd>(simd: S, number: f64, a: E::Vector<S>) -> E::Vector<S> {
    E::multiply(simd, E::splat(simd, E::from_f64(number)), a)
}

/// `number · a + b`
#[inline(always)]
fn times_plus<E: Real, S: Simd>(simd: S, number: f64, a: E::Vector<S>, b: E::Vector<S>) -> E::Vector<S> {
    E::multiply_add(simd, E::splat(simd, E::from_f64(number)), a, b)
}

/// `±point · odd + even` on both sides of both points.
#[inline(always)]
fn on_both_sides<E: Real, S: Simd>(
    simd: S,
    [near, far]: [f64; 2],
    evens: [E::Vector<S>; 2],
    odds: [E::Vector<S>; 2],
) -> [E::Vector<S>; 4] {
    [
        times_plus::<E, S>(simd, near, odds[0], evens[0]),
        times_plus::<E, S>(simd, -near, odds[0], evens[0]),
        times_plus::<E, S>(simd, far, odds[1], evens[1]),
        times_plus::<E, S>(simd, -far, odds[1], evens[1]),
    ]
}

/// `Σ weight · point^power · a` over both points.
#[inline(always)]
fn of_powers<E: Real, S: Simd>(simd: S, weights: [f64; 2], power: i32, [a, b]: [E::Vector<S>; 2]) -> E::Vector<S> {
    let [near, far] = [weights[0] * NEAR.powi(power), weights[1] * FAR.powi(power)];
    times_plus::<E, S>(simd, near, a, times::<E, S>(simd, far, b))
}

/// Where the pixels of a tile lie. (A closure would not be compiled into its caller, with its instructions.)
trait Pixels<E> {
    /// The first channel of one.
    fn pixel(&self, row: usize, column: usize) -> *const E;
}

/// Pixels that lie so many elements apart.
struct Strided<E> {
    from: *const E,
    steps: [usize; 2],
}

impl<E> Pixels<E> for Strided<E> {
    #[inline(always)]
    fn pixel(&self, row: usize, column: usize) -> *const E {
        self.from.wrapping_add(row * self.steps[0] + column * self.steps[1])
    }
}

/// Pixels anywhere.
struct Listed<E, const N: usize>([[*const E; N]; N]);

impl<E, const N: usize> Pixels<E> for Listed<E, N> {
    #[inline(always)]
    fn pixel(&self, row: usize, column: usize) -> *const E {
        self.0[row][column]
    }
}

/// Images whose tiles begin on a border around them.
#[derive(Clone, Copy)]
struct Images<'a, E> {
    values: &'a [E],
    /// Height, width and channels.
    size: [usize; 3],
    border: [usize; 2],
    /// A pixel of zeros, which all pixels beyond the image are.
    beyond: &'a [E],
}

impl<E: Real> Images<'_, E> {
    /// A pixel of an image, by its place in the border's frame; `None` if it lies beyond the image.
    #[inline(always)]
    fn pixel(&self, image: usize, place: [usize; 2]) -> Option<*const E> {
        let [height, width, channels] = self.size;
        let [row, column] = [0, 1].map(|axis| place[axis].wrapping_sub(self.border[axis]));
        let inside = row < height && column < width;
        inside.then(|| self.values[((image * height + row) * width + column) * channels..][..channels].as_ptr())
    }

    /// The `N` by `N` pixels from a place on, if all of them lie in the image.
    #[inline(always)]
    fn whole<const N: usize>(&self, image: usize, from: [usize; 2]) -> Option<Strided<E>> {
        let [_, width, channels] = self.size;
        self.pixel(image, from.map(|place| place + N - 1))?;
        self.pixel(image, from).map(|from| Strided { from, steps: [width * channels, channels] })
    }

    /// The `N` by `N` pixels from a place on.
    #[inline(always)]
    fn listed<const N: usize>(&self, image: usize, from: [usize; 2]) -> Listed<E, N> {
        let mut pixels = [[self.beyond.as_ptr(); N]; N];
        for (row, pixels) in pixels.iter_mut().enumerate() {
            for (column, pixel) in pixels.iter_mut().enumerate() {
                *pixel = self.pixel(image, [from[0] + row, from[1] + column]).unwrap_or(*pixel);
            }
        }
        Listed(pixels)
    }
}

/// A map of the lines of a tile: its rows, then its columns.
trait Lines<const N: usize, const M: usize> {
    /// Of one line.
    fn line<E: Real, S: Simd>(simd: S, line: [E::Vector<S>; N]) -> [E::Vector<S>; M];

    /// Of rows, as columns of the results, from a channel on; the map of these columns is that of the tile.
    ///
    /// # Safety
    /// All pixels have so many channels, and as many more as a register holds.
    #[inline(always)]
    unsafe fn of_rows<E: Real, S: Simd>(simd: S, pixels: &impl Pixels<E>, channel: usize) -> [[E::Vector<S>; N]; M] {
        let zero = E::splat(simd, E::default());
        let mut columns = [[zero; N]; M];
        for row in 0..N {
            let mut line = [zero; N];
            for (column, value) in line.iter_mut().enumerate() {
                // SAFETY: as the caller promised.
                *value = unsafe { read::<E, S>(pixels.pixel(row, column).add(channel)) };
            }
            for (column, value) in columns.iter_mut().zip(Self::line::<E, S>(simd, line)) {
                column[row] = value;
            }
        }
        columns
    }

    /// Maps a tile to its places in planes.
    ///
    /// # Safety
    /// Its pixels have so many channels, a multiple of a register's, and there is room for them in each plane.
    #[inline(always)]
    unsafe fn to_planes<E: Real, S: Simd>(
        simd: S,
        pixels: &impl Pixels<E>,
        channels: usize,
        planes: *mut E,
        plane: usize,
    ) {
        for channel in (0..channels).step_by(E::lanes::<S>()) {
            // SAFETY: as the caller promised.
            unsafe {
                for (column, line) in Self::of_rows::<E, S>(simd, pixels, channel).into_iter().enumerate() {
                    for (row, value) in Self::line::<E, S>(simd, line).into_iter().enumerate() {
                        write::<E, S>(planes.add((row * M + column) * plane + channel), value);
                    }
                }
            }
        }
    }
}

/// `Bᵀ d`
struct OfInput;

impl Lines<SIDE, SIDE> for OfInput {
    #[inline(always)]
    fn line<E: Real, S: Simd>(simd: S, [a, b, c, d, e, f]: [E::Vector<S>; SIDE]) -> [E::Vector<S>; SIDE] {
        const SUM: f64 = NEAR * NEAR + FAR * FAR;
        const PRODUCT: f64 = NEAR * NEAR * FAR * FAR;
        let evens = [times_plus::<E, S>(simd, -FAR * FAR, c, e), times_plus::<E, S>(simd, -NEAR * NEAR, c, e)];
        let odds = [times_plus::<E, S>(simd, -FAR * FAR, b, d), times_plus::<E, S>(simd, -NEAR * NEAR, b, d)];
        let [g, h, i, j] = on_both_sides::<E, S>(simd, [NEAR, FAR], evens, odds);
        [
            times_plus::<E, S>(simd, PRODUCT, a, times_plus::<E, S>(simd, -SUM, c, e)),
            g,
            h,
            i,
            j,
            times_plus::<E, S>(simd, PRODUCT, b, times_plus::<E, S>(simd, -SUM, d, f)),
        ]
    }
}

/// `Aᵀ m`
struct OfProducts;

impl Lines<SIDE, OUT> for OfProducts {
    #[inline(always)]
    fn line<E: Real, S: Simd>(simd: S, [a, b, c, d, e, f]: [E::Vector<S>; SIDE]) -> [E::Vector<S>; OUT] {
        let sums = [add::<E, S>(simd, b, c), add::<E, S>(simd, d, e)];
        let differences = [E::subtract(simd, b, c), E::subtract(simd, d, e)];
        [
            add::<E, S>(simd, a, add::<E, S>(simd, sums[0], sums[1])),
            of_powers::<E, S>(simd, [1.0; 2], 1, differences),
            of_powers::<E, S>(simd, [1.0; 2], 2, sums),
            add::<E, S>(simd, of_powers::<E, S>(simd, [1.0; 2], 3, differences), f),
        ]
    }
}

/// `A dy`
struct OfGradient;

impl Lines<OUT, SIDE> for OfGradient {
    #[inline(always)]
    fn line<E: Real, S: Simd>(simd: S, [a, b, c, d]: [E::Vector<S>; OUT]) -> [E::Vector<S>; SIDE] {
        let evens = [times_plus::<E, S>(simd, NEAR * NEAR, c, a), times_plus::<E, S>(simd, FAR * FAR, c, a)];
        let odds = [times_plus::<E, S>(simd, NEAR * NEAR, d, b), times_plus::<E, S>(simd, FAR * FAR, d, b)];
        let [e, f, g, h] = on_both_sides::<E, S>(simd, [NEAR, FAR], evens, odds);
        [a, e, f, g, h, d]
    }
}

/// The weights of the points in `G`: at 0, and at the two others on both sides of it.
const WEIGHTS: [f64; 3] = {
    let [near, far] = [NEAR * NEAR, FAR * FAR];
    [1.0 / (near * far), 0.5 / (near * (near - far)), 0.5 / (far * (far - near))]
};

/// `G g`
struct OfKernel;

impl Lines<3, SIDE> for OfKernel {
    #[inline(always)]
    fn line<E: Real, S: Simd>(simd: S, [a, b, c]: [E::Vector<S>; 3]) -> [E::Vector<S>; SIDE] {
        let [zero, near, far] = WEIGHTS;
        let evens = [
            times_plus::<E, S>(simd, near * NEAR * NEAR, c, times::<E, S>(simd, near, a)),
            times_plus::<E, S>(simd, far * FAR * FAR, c, times::<E, S>(simd, far, a)),
        ];
        let [d, e, f, g] = on_both_sides::<E, S>(simd, [near * NEAR, far * FAR], evens, [b; 2]);
        [times::<E, S>(simd, zero, a), d, e, f, g, c]
    }
}

/// `Gᵀ u`
struct OfSums;

impl Lines<SIDE, 3> for OfSums {
    #[inline(always)]
    fn line<E: Real, S: Simd>(simd: S, [a, b, c, d, e, f]: [E::Vector<S>; SIDE]) -> [E::Vector<S>; 3] {
        let [zero, near, far] = WEIGHTS;
        let sums = [add::<E, S>(simd, b, c), add::<E, S>(simd, d, e)];
        let differences = [E::subtract(simd, b, c), E::subtract(simd, d, e)];
        let weights = [near, far];
        [
            times_plus::<E, S>(simd, zero, a, of_powers::<E, S>(simd, weights, 0, sums)),
            of_powers::<E, S>(simd, weights, 1, differences),
            add::<E, S>(simd, of_powers::<E, S>(simd, weights, 2, sums), f),
        ]
    }
}

/// `transformed = G g Gᵀ`
struct Kernel<'a, E> {
    kernel: &'a [E],
    transformed: &'a mut [E],
}

impl<E: Real> WithSimd for Kernel<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let count = self.kernel.len() / 9;
        let plane = plane(1, count);
        assert!(self.transformed.len() >= PLACES * plane && count.is_multiple_of(LANES));
        let kernel = Strided { from: self.kernel.as_ptr(), steps: [3 * count, count] };
        // SAFETY: there are nine matrices of the kernel and all planes of what it is transformed to.
        unsafe { OfKernel::to_planes(simd, &kernel, count, self.transformed.as_mut_ptr(), plane) }
    }
}

/// `dkernel += Gᵀ u G`
struct KernelGradient<'a, E> {
    sums: &'a [E],
    dkernel: &'a mut [E],
}

impl<E: Real> WithSimd for KernelGradient<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let count = self.dkernel.len() / 9;
        let plane = plane(1, count);
        assert!(self.sums.len() >= PLACES * plane && count.is_multiple_of(LANES));
        let sums = Strided { from: self.sums.as_ptr(), steps: [SIDE * plane, plane] };
        for lane in (0..count).step_by(E::lanes::<S>()) {
            // SAFETY: as for the kernel.
            unsafe {
                for (column, line) in OfSums::of_rows::<E, S>(simd, &sums, lane).into_iter().enumerate() {
                    for (row, value) in OfSums::line::<E, S>(simd, line).into_iter().enumerate() {
                        let to = self.dkernel.as_mut_ptr().add(lane + (row * 3 + column) * count);
                        write::<E, S>(to, add::<E, S>(simd, read::<E, S>(to), value));
                    }
                }
            }
        }
    }
}

/// Maps tiles of `N` by `N` pixels to planes `[tiles, channels]`.
struct Transform<'a, E, L, const N: usize> {
    winograd: &'a Winograd,
    tiles: Tiles,
    images: Images<'a, E>,
    planes: &'a mut [E],
    map: PhantomData<L>,
}

impl<E: Real, L: Lines<N, SIDE>, const N: usize> WithSimd for Transform<'_, E, L, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let channels = self.images.size[2];
        let plane = plane(self.tiles.count, channels);
        assert!(self.planes.len() >= PLACES * plane && channels.is_multiple_of(LANES));
        assert!(self.images.beyond.len() >= channels);
        for index in 0..self.tiles.count {
            let (image, from) = self.winograd.place(self.tiles.first + index);
            let to = self.planes[index * channels..].as_mut_ptr();
            // SAFETY: all pixels that a tile may have are whole ones, and a tile has its place in each plane.
            unsafe {
                match self.images.whole::<N>(image, from) {
                    Some(pixels) => L::to_planes(simd, &pixels, channels, to, plane),
                    None => L::to_planes(simd, &self.images.listed::<N>(image, from), channels, to, plane),
                }
            }
        }
    }
}

/// `Aᵀ m A` of tiles, and the bias, at their places in the output.
struct Outputs<'a, E> {
    winograd: &'a Winograd,
    tiles: Tiles,
    products: &'a [E],
    bias: Option<&'a [E]>,
    y: &'a mut [E],
}

impl<E: Real> WithSimd for Outputs<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Sizes { output: [height, width], filters, .. } = self.winograd.0;
        let plane = plane(self.tiles.count, filters);
        assert!(self.products.len() >= PLACES * plane && filters.is_multiple_of(LANES));
        assert!(self.bias.is_none_or(|bias| bias.len() == filters));
        let zero = E::splat(simd, E::default());
        for index in 0..self.tiles.count {
            let (image, [row, column]) = self.winograd.place(self.tiles.first + index);
            let [rows, columns] = [(height - row).min(OUT), (width - column).min(OUT)];
            let y = &mut self.y[((image * height + row) * width + column) * filters..];
            assert!(((rows - 1) * width + columns) * filters <= y.len());
            let products = Strided { from: self.products[index * filters..].as_ptr(), steps: [SIDE * plane, plane] };
            for lane in (0..filters).step_by(E::lanes::<S>()) {
                // SAFETY: a tile has its place in each plane, and only pixels that lie within the output are written.
                unsafe {
                    let bias = match self.bias {
                        Some(bias) => read::<E, S>(bias.as_ptr().add(lane)),
                        None => zero,
                    };
                    let to = y.as_mut_ptr().add(lane);
                    let lines = OfProducts::of_rows::<E, S>(simd, &products, lane);
                    for (column, line) in lines.into_iter().enumerate() {
                        for (row, value) in OfProducts::line::<E, S>(simd, line).into_iter().enumerate() {
                            if row < rows && column < columns {
                                write::<E, S>(to.add((row * width + column) * filters), add::<E, S>(simd, value, bias));
                            }
                        }
                    }
                }
            }
        }
    }
}
