//! Convolution with windows of 3 by 3 by Winograd's algorithm F(2x2, 3x3): 16 products where there were 36.
//!
//! With d a tile of 4 by 4 pixels and g the kernel, the 2 by 2 outputs of the tile are `Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A`
//! (Lavin and Gray, 2016, <https://arxiv.org/abs/1509.09308>). Over channels and filters, ⊙ is one product of matrices for each of
//! the 16 places. Gradients are the transposed maps.

use pulp::{Arch, Simd, WithSimd};

use super::convolution::Sizes;
use super::gemm::{Matrix, gemm_serial};
use super::kernel::Vectors;
use crate::memory::Block;
use crate::tensor::Real;

/// Channels and filters come in as many as the widest register holds.
const LANES: usize = 16;
/// Places of a transformed tile.
const PLACES: usize = 16;
/// Elements between planes, the matrices of the places: lengths are powers of 2 often, and a cache holds few lines that lie so far
/// apart.
const GAP: usize = 16;
/// About how many tiles are transformed together: enough rows for the products, few enough for the second-level cache.
const TILES: usize = 64;

/// A convolution that tiles can compute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Winograd(Sizes);

/// Some tiles, counted from the first of the first image of a group on.
#[derive(Clone, Copy)]
struct Tiles {
    first: usize,
    count: usize,
    /// The images of the group.
    images: usize,
}

/// Elements from a plane to the next.
fn plane(rows: usize, width: usize) -> usize {
    rows * width + GAP
}

impl Winograd {
    /// `None` where the window is another one, or channels do not fill registers.
    pub(super) fn of(sizes: &Sizes) -> Option<Self> {
        let Sizes { window, input: [.., channels], output, groups, filters } = *sizes;
        let fits = window.size == [3, 3] && window.strides == [1, 1] && window.dilation == [1, 1] && groups == 1;
        let whole = channels > 0 && channels % LANES == 0 && filters > 0 && filters % LANES == 0;
        (fits && whole && output[0] > 1 && output[1] > 1).then_some(Self(*sizes))
    }

    /// Rows and columns of tiles on an image.
    fn grid(&self) -> [usize; 2] {
        self.0.output.map(|length| length.div_ceil(2))
    }

    fn tiles_an_image(&self) -> usize {
        self.grid().iter().product()
    }

    /// Height and width of an image with its border, as far as tiles reach.
    fn framed(&self) -> [usize; 2] {
        self.grid().map(|tiles| 2 * tiles + 2)
    }

    fn channels(&self) -> usize {
        self.0.input[2]
    }

    /// Images that are worked on together.
    fn images(&self) -> usize {
        (TILES / self.tiles_an_image()).max(1)
    }

    /// `G g Gᵀ`: the kernel `[3, 3, channels, filters]` in 16 planes `[channels, filters]`.
    pub(super) fn kernel<E: Real>(&self, kernel: &[E]) -> Block<E> {
        let mut transformed = Block::uninitialised(PLACES * plane(self.channels(), self.0.filters));
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
        let (channels, filters) = (self.channels(), self.0.filters);
        let mut room = Room::new(self);
        let mut products = Block::<E>::uninitialised(PLACES * plane(room.most, filters));
        let image = self.0.output[0] * self.0.output[1] * filters;
        self.for_tiles(x, &mut room, |first_image, tiles, transformed| {
            for place in 0..PLACES {
                gemm_serial(
                    &mut products[place * plane(tiles.count, filters)..],
                    false,
                    Matrix::rows(&transformed[place * plane(tiles.count, channels)..], channels),
                    Matrix::rows(&kernel[place * plane(channels, filters)..], filters),
                    [tiles.count, channels, filters],
                );
            }
            let y = &mut y[first_image * image..][..tiles.images * image];
            Arch::new().dispatch(Outputs { winograd: self, tiles, products: &products, bias, y: &mut *y });
            if tiles.first + tiles.count == tiles.images * self.tiles_an_image() {
                activate(y);
            }
        });
    }

    /// Adds the gradient of the kernel from some images.
    pub(super) fn kernel_gradient<E: Real>(&self, x: &[E], gradient: &[E], dkernel: &mut [E]) {
        let (channels, filters) = (self.channels(), self.0.filters);
        let mut room = Room::new(self);
        let mut spread = Block::<E>::uninitialised(PLACES * plane(room.most, filters));
        let mut sums = Block::<E>::uninitialised(PLACES * plane(channels, filters));
        let image = self.0.output[0] * self.0.output[1] * filters;
        let mut started = false;
        self.for_tiles(x, &mut room, |first_image, tiles, transformed| {
            let (winograd, gradient) = (self, &gradient[first_image * image..]);
            Arch::new().dispatch(Spread { winograd, tiles, gradient, spread: &mut spread });
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
        });
        if started {
            Arch::new().dispatch(KernelGradient { transformed: &sums, dkernel });
        }
    }

    /// Calls `body(first image, tiles counted from there, their Bᵀ d B, 16 planes [tiles, channels])` for all tiles of some images.
    fn for_tiles<E: Real>(&self, x: &[E], room: &mut Room<E>, mut body: impl FnMut(usize, Tiles, &[E])) {
        let image = self.0.input.iter().product::<usize>().max(1);
        for (group, x) in x.chunks(self.images() * image).enumerate() {
            self.frame(x, &mut room.framed);
            let images = x.len() / image;
            let tiles = images * self.tiles_an_image();
            let count = tiles.div_ceil(tiles.div_ceil(TILES));
            for first in (0..tiles).step_by(count) {
                let tiles = Tiles { first, count: count.min(tiles - first), images };
                let transformed = &mut *room.transformed;
                Arch::new().dispatch(Inputs { winograd: self, tiles, framed: &room.framed, transformed });
                body(group * self.images(), tiles, &room.transformed);
            }
        }
    }

    /// Copies images into the middle of their frames.
    fn frame<E: Real>(&self, x: &[E], framed: &mut [E]) {
        let Sizes { window, input: [height, width, channels], .. } = self.0;
        let [frame_height, frame_width] = self.framed();
        let [top, left] = [0, 1].map(|axis| window.padding[axis][0]);
        let frames = framed.chunks_exact_mut(frame_height * frame_width * channels);
        for (frame, image) in frames.zip(x.chunks_exact(height * width * channels)) {
            let rows = frame.chunks_exact_mut(frame_width * channels).skip(top);
            for (to, from) in rows.zip(image.chunks_exact(width * channels)) {
                to[left * channels..][..width * channels].copy_from_slice(from);
            }
        }
    }

    /// The first element of a tile in the output, and how many of its rows and columns lie there.
    #[inline(always)]
    fn corner(&self, tile: usize) -> (usize, [usize; 2]) {
        let [rows, columns] = self.grid();
        let [height, width] = self.0.output;
        let (image, row, column) = (tile / (rows * columns), 2 * (tile / columns % rows), 2 * (tile % columns));
        (((image * height + row) * width + column) * self.0.filters, [(height - row).min(2), (width - column).min(2)])
    }
}

/// What one thread needs beside.
struct Room<E> {
    framed: Block<E>,
    transformed: Block<E>,
    /// The most tiles that are transformed together.
    most: usize,
}

impl<E: Real> Room<E> {
    fn new(winograd: &Winograd) -> Self {
        let [height, width] = winograd.framed();
        let tiles = winograd.images() * winograd.tiles_an_image();
        let most = tiles.min(TILES);
        Self {
            framed: Block::full(winograd.images() * height * width * winograd.channels(), E::default()),
            transformed: Block::uninitialised(PLACES * plane(most, winograd.channels())),
            most,
        }
    }
}

/// `a + b`
#[inline(always)]
fn add<E: Real, S: Simd>(simd: S, a: E::Vector<S>, b: E::Vector<S>) -> E::Vector<S> {
    <E as Vectors>::add(simd, a, b)
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

/// A map of the lines of a tile: its rows, then its columns.
trait Lines<const N: usize, const M: usize> {
    /// Of one line.
    fn line<E: Real, S: Simd>(simd: S, line: [E::Vector<S>; N]) -> [E::Vector<S>; M];

    /// Of rows, then of columns. (Closures would not be compiled into their caller, with its instructions.)
    #[inline(always)]
    fn both_ways<E: Real, S: Simd>(simd: S, tile: [[E::Vector<S>; N]; N]) -> [[E::Vector<S>; M]; M] {
        // SAFETY: zeros are a register.
        let zero: E::Vector<S> = unsafe { std::mem::zeroed() };
        let (mut columns, mut out) = ([[zero; N]; M], [[zero; M]; M]);
        for (row, line) in tile.into_iter().enumerate() {
            for (column, value) in Self::line::<E, S>(simd, line).into_iter().enumerate() {
                columns[column][row] = value;
            }
        }
        for (column, line) in columns.into_iter().enumerate() {
            for (row, value) in Self::line::<E, S>(simd, line).into_iter().enumerate() {
                out[row][column] = value;
            }
        }
        out
    }
}

/// `Bᵀ d`
struct OfInput;

impl Lines<4, 4> for OfInput {
    #[inline(always)]
    fn line<E: Real, S: Simd>(simd: S, [a, b, c, d]: [E::Vector<S>; 4]) -> [E::Vector<S>; 4] {
        let minus_c = E::subtract(simd, a, c);
        [minus_c, add::<E, S>(simd, b, c), E::subtract(simd, c, b), E::subtract(simd, b, d)]
    }
}

/// `Aᵀ m`
struct OfProducts;

impl Lines<4, 2> for OfProducts {
    #[inline(always)]
    fn line<E: Real, S: Simd>(simd: S, [a, b, c, d]: [E::Vector<S>; 4]) -> [E::Vector<S>; 2] {
        let (sum, difference) = (add::<E, S>(simd, b, c), E::subtract(simd, b, c));
        [add::<E, S>(simd, a, sum), E::subtract(simd, difference, d)]
    }
}

/// `A dy`
struct OfGradient;

impl Lines<2, 4> for OfGradient {
    #[inline(always)]
    fn line<E: Real, S: Simd>(simd: S, [a, b]: [E::Vector<S>; 2]) -> [E::Vector<S>; 4] {
        // SAFETY: zeros are a register.
        let zero: E::Vector<S> = unsafe { std::mem::zeroed() };
        [a, add::<E, S>(simd, a, b), E::subtract(simd, a, b), E::subtract(simd, zero, b)]
    }
}

/// `G g`
struct OfKernel;

impl Lines<3, 4> for OfKernel {
    #[inline(always)]
    fn line<E: Real, S: Simd>(simd: S, [a, b, c]: [E::Vector<S>; 3]) -> [E::Vector<S>; 4] {
        let half = E::splat(simd, E::from_f64(0.5));
        let (ends, middle) = (E::multiply(simd, half, add::<E, S>(simd, a, c)), E::multiply(simd, half, b));
        [a, add::<E, S>(simd, ends, middle), E::subtract(simd, ends, middle), c]
    }
}

/// `Gᵀ u`
struct OfSums;

impl Lines<4, 3> for OfSums {
    #[inline(always)]
    fn line<E: Real, S: Simd>(simd: S, [a, b, c, d]: [E::Vector<S>; 4]) -> [E::Vector<S>; 3] {
        let half = E::splat(simd, E::from_f64(0.5));
        let sum = E::multiply(simd, half, add::<E, S>(simd, b, c));
        let difference = E::multiply(simd, half, E::subtract(simd, b, c));
        [add::<E, S>(simd, a, sum), difference, add::<E, S>(simd, sum, d)]
    }
}

/// Reads `N` rows of `N` registers, so many elements apart.
///
/// # Safety
/// They are there.
#[inline(always)]
unsafe fn read_tile<E: Real, S: Simd, const N: usize>(from: *const E, steps: [usize; 2]) -> [[E::Vector<S>; N]; N] {
    // SAFETY: as the caller promised; zeros are a register.
    unsafe {
        let mut tile: [[E::Vector<S>; N]; N] = [[std::mem::zeroed(); N]; N];
        for (row, line) in tile.iter_mut().enumerate() {
            for (column, value) in line.iter_mut().enumerate() {
                *value = read::<E, S>(from.add(row * steps[0] + column * steps[1]));
            }
        }
        tile
    }
}

/// Writes a tile to its place in each plane.
///
/// # Safety
/// There is room in each.
#[inline(always)]
unsafe fn write_places<E: Real, S: Simd>(to: *mut E, plane: usize, tile: [[E::Vector<S>; 4]; 4]) {
    for (place, value) in tile.into_iter().flatten().enumerate() {
        // SAFETY: as the caller promised.
        unsafe { write::<E, S>(to.add(place * plane), value) };
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
        for lane in (0..count).step_by(E::lanes::<S>()) {
            // SAFETY: there are nine matrices of the kernel and 16 planes of what it is transformed to.
            unsafe {
                let kernel = read_tile::<E, S, 3>(self.kernel.as_ptr().add(lane), [3 * count, count]);
                let to = self.transformed.as_mut_ptr().add(lane);
                write_places::<E, S>(to, plane, OfKernel::both_ways::<E, S>(simd, kernel));
            }
        }
    }
}

/// `dkernel += Gᵀ u G`
struct KernelGradient<'a, E> {
    transformed: &'a [E],
    dkernel: &'a mut [E],
}

impl<E: Real> WithSimd for KernelGradient<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let count = self.dkernel.len() / 9;
        let plane = plane(1, count);
        assert!(self.transformed.len() >= PLACES * plane && count.is_multiple_of(LANES));
        for lane in (0..count).step_by(E::lanes::<S>()) {
            // SAFETY: as for the kernel.
            unsafe {
                let sums = read_tile::<E, S, 4>(self.transformed.as_ptr().add(lane), [4 * plane, plane]);
                for (place, value) in OfSums::both_ways::<E, S>(simd, sums).into_iter().flatten().enumerate() {
                    let to = self.dkernel.as_mut_ptr().add(lane + place * count);
                    write::<E, S>(to, add::<E, S>(simd, read::<E, S>(to), value));
                }
            }
        }
    }
}

/// `transformed = Bᵀ d B` of tiles: 16 planes `[tiles, channels]`.
struct Inputs<'a, E> {
    winograd: &'a Winograd,
    tiles: Tiles,
    framed: &'a [E],
    transformed: &'a mut [E],
}

impl<E: Real> WithSimd for Inputs<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ([rows, columns], [height, width]) = (self.winograd.grid(), self.winograd.framed());
        let channels = self.winograd.channels();
        let plane = plane(self.tiles.count, channels);
        assert!(self.transformed.len() >= PLACES * plane && channels.is_multiple_of(LANES));
        for index in 0..self.tiles.count {
            let tile = self.tiles.first + index;
            let (image, row, column) = (tile / (rows * columns), tile / columns % rows, tile % columns);
            let start = ((image * height + 2 * row) * width + 2 * column) * channels;
            assert!(start + (3 * width + 4) * channels <= self.framed.len());
            for lane in (0..channels).step_by(E::lanes::<S>()) {
                // SAFETY: four rows of four pixels lie within the frame, and a tile has its place in each plane.
                unsafe {
                    let steps = [width * channels, channels];
                    let tile = read_tile::<E, S, 4>(self.framed.as_ptr().add(start + lane), steps);
                    let to = self.transformed.as_mut_ptr().add(index * channels + lane);
                    write_places::<E, S>(to, plane, OfInput::both_ways::<E, S>(simd, tile));
                }
            }
        }
    }
}

/// `Aᵀ m A` of tiles, and the bias, at their places in the output of the images from the first of the group on.
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
        let (filters, width) = (self.winograd.0.filters, self.winograd.0.output[1]);
        let plane = plane(self.tiles.count, filters);
        assert!(self.products.len() >= PLACES * plane && filters.is_multiple_of(LANES));
        assert!(self.bias.is_none_or(|bias| bias.len() == filters));
        // SAFETY: zeros are a register.
        let zero: E::Vector<S> = unsafe { std::mem::zeroed() };
        for index in 0..self.tiles.count {
            let (start, there) = self.winograd.corner(self.tiles.first + index);
            assert!(start + ((there[0] - 1) * width + there[1]) * filters <= self.y.len());
            for lane in (0..filters).step_by(E::lanes::<S>()) {
                // SAFETY: a tile has its place in each plane, and only pixels that lie within the output are written.
                unsafe {
                    let from = self.products.as_ptr().add(index * filters + lane);
                    let products = read_tile::<E, S, 4>(from, [4 * plane, plane]);
                    let bias = match self.bias {
                        Some(bias) => read::<E, S>(bias.as_ptr().add(lane)),
                        None => zero,
                    };
                    let to = self.y.as_mut_ptr().add(start + lane);
                    let found = OfProducts::both_ways::<E, S>(simd, products);
                    for (row, values) in found.into_iter().enumerate() {
                        for (column, value) in values.into_iter().enumerate() {
                            if row < there[0] && column < there[1] {
                                write::<E, S>(to.add((row * width + column) * filters), add::<E, S>(simd, value, bias));
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `spread = A dy Aᵀ` of tiles: 16 planes `[tiles, filters]`.
struct Spread<'a, E> {
    winograd: &'a Winograd,
    tiles: Tiles,
    gradient: &'a [E],
    spread: &'a mut [E],
}

impl<E: Real> WithSimd for Spread<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (filters, width) = (self.winograd.0.filters, self.winograd.0.output[1]);
        let plane = plane(self.tiles.count, filters);
        assert!(self.spread.len() >= PLACES * plane && filters.is_multiple_of(LANES));
        // SAFETY: zeros are a register.
        let zero: E::Vector<S> = unsafe { std::mem::zeroed() };
        for index in 0..self.tiles.count {
            let (start, there) = self.winograd.corner(self.tiles.first + index);
            assert!(start + ((there[0] - 1) * width + there[1]) * filters <= self.gradient.len());
            for lane in (0..filters).step_by(E::lanes::<S>()) {
                // SAFETY: only pixels that lie within the output are read, and a tile has its place in each plane.
                unsafe {
                    let from = self.gradient.as_ptr().add(start + lane);
                    let mut tile = [[zero; 2]; 2];
                    for (row, line) in tile.iter_mut().enumerate() {
                        for (column, value) in line.iter_mut().enumerate() {
                            if row < there[0] && column < there[1] {
                                *value = read::<E, S>(from.add((row * width + column) * filters));
                            }
                        }
                    }
                    let to = self.spread.as_mut_ptr().add(index * filters + lane);
                    write_places::<E, S>(to, plane, OfGradient::both_ways::<E, S>(simd, tile));
                }
            }
        }
    }
}
