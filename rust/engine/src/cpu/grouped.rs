//! Convolution in thin groups, depthwise above all: products of matrices would have a few columns each. Instead the first
//! channels of all groups meet their filters, then the second ones, and so on; a block of filters is summed in registers.

use super::convolution::Sizes;
use super::vectorised;
use crate::memory::Block;
use crate::tensor::Real;

/// Runs a block for each run of filters, `WIDTH` of them at a time: as many as fill a few registers while there are so many.
macro_rules! in_blocks {
    ($count:expr, |$start:ident, $width:ident| $body:block) => {{
        let mut $start = 0;
        in_blocks!(@width 64, $count, $start, $width, $body);
        in_blocks!(@width 16, $count, $start, $width, $body);
        in_blocks!(@width 4, $count, $start, $width, $body);
        in_blocks!(@width 1, $count, $start, $width, $body);
    }};
    (@width $lanes:literal, $count:expr, $start:ident, $width:ident, $body:block) => {{
        const $width: usize = $lanes;
        while $start + $width <= $count {
            $body
            $start += $width;
        }
    }};
}

/// Channels times filters of a group, up to which it is thin: 16 gain by it, 1,024 lose.
const THIN: usize = 64;

/// Two places along an axis that meet: that of the kernel, and that of the other image.
type Meetings = Vec<Vec<[usize; 2]>>;

/// A convolution in thin groups, with what meets what along height and width.
#[derive(Debug)]
pub(super) struct Grouped {
    sizes: Sizes,
    /// For each place of the output: of the kernel and of the input.
    outputs: [Meetings; 2],
    /// For each place of the input: of the kernel and of the output.
    inputs: [Meetings; 2],
    /// For each column of the kernel: of the output and of the input.
    kernels: Meetings,
}

impl Grouped {
    /// `None` where groups are wide enough for products of matrices.
    pub(super) fn of(sizes: &Sizes) -> Option<Self> {
        let weights = sizes.group_channels() * sizes.group_filters();
        if sizes.groups < 2 || weights == 0 || sizes.group_channels() > 1 && weights > THIN {
            return None;
        }
        let along = |axis: usize, count: usize, order: fn([usize; 3]) -> [usize; 3]| {
            let mut found = vec![Vec::new(); count];
            for output in 0..sizes.output[axis] {
                for kernel in 0..sizes.window.size[axis] {
                    if let Some(input) = sizes.window.source(axis, output, kernel, sizes.input[axis]) {
                        let [place, first, second] = order([output, kernel, input]);
                        found[place].push([first, second]);
                    }
                }
            }
            found
        };
        let outputs =
            [0, 1].map(|axis| along(axis, sizes.output[axis], |[output, kernel, input]| [output, kernel, input]));
        let inputs =
            [0, 1].map(|axis| along(axis, sizes.input[axis], |[output, kernel, input]| [input, kernel, output]));
        let kernels = along(1, sizes.window.size[1], |[output, kernel, input]| [kernel, output, input]);
        Some(Self { sizes: *sizes, outputs, inputs, kernels })
    }

    /// The convolution of an image, and its bias.
    pub(super) fn forward<E: Real>(&self, x: &[E], kernel: &[E], bias: Option<&[E]>, y: &mut [E]) {
        match bias {
            Some(bias) => y.chunks_exact_mut(bias.len()).for_each(|pixel| pixel.copy_from_slice(bias)),
            None => y.fill(E::default()),
        }
        for channel in 0..self.sizes.group_channels() {
            let (wide, width) = (self.widened(x, channel), self.sizes.input[1]);
            vectorised!(self.gather(&self.outputs, width, &wide, kernel, channel, y));
        }
    }

    /// Adds the gradients from some images to those that are wanted, which have elements.
    pub(super) fn backward<E: Real>(&self, x: &[E], kernel: &[E], gradient: &[E], dx: &mut [E], dkernel: &mut [E]) {
        let (image, wanted) = (self.sizes.image(), [!dx.is_empty(), !dkernel.is_empty()]);
        let gradients = gradient.chunks_exact(self.sizes.pixels() * self.sizes.filters);
        for (index, (x, gradient)) in x.chunks_exact(image).zip(gradients).enumerate() {
            if wanted[1] {
                self.kernel_gradient(x, gradient, dkernel);
            }
            if wanted[0] {
                self.input_gradient(gradient, kernel, &mut dx[index * image..][..image]);
            }
        }
    }

    /// Adds the gradient of an image's input.
    fn input_gradient<E: Real>(&self, gradient: &[E], kernel: &[E], dx: &mut [E]) {
        let (depth, filters, width) = (self.sizes.group_channels(), self.sizes.group_filters(), self.sizes.output[1]);
        if depth == 1 && filters == 1 {
            return vectorised!(self.gather(&self.inputs, width, gradient, kernel, 0, dx));
        }
        let mut wide = Block::<E>::uninitialised(dx.len() / depth * filters);
        for channel in 0..depth {
            wide.fill(E::default());
            vectorised!(self.gather(&self.inputs, width, gradient, kernel, channel, &mut wide));
            for (dx, wide) in dx.chunks_exact_mut(depth).zip(wide.chunks_exact(filters)) {
                dx[channel] = wide.iter().fold(dx[channel], |sum, &part| sum + part);
            }
        }
    }

    /// Adds the gradient of the kernel from one image.
    fn kernel_gradient<E: Real>(&self, x: &[E], gradient: &[E], dkernel: &mut [E]) {
        for channel in 0..self.sizes.group_channels() {
            let wide = self.widened(x, channel);
            vectorised!(self.correlate(&wide, gradient, channel, dkernel));
        }
    }

    /// A channel of each group, once for each filter of the group.
    fn widened<'x, E: Real>(&self, x: &'x [E], channel: usize) -> Widened<'x, E> {
        let (depth, filters) = (self.sizes.group_channels(), self.sizes.group_filters());
        if depth == 1 && filters == 1 {
            return Widened::Same(x);
        }
        let mut wide = Block::<E>::uninitialised(x.len() / depth * filters);
        wide.chunks_exact_mut(filters).zip(x.chunks_exact(depth)).for_each(|(to, group)| to.fill(group[channel]));
        Widened::Copied(wide)
    }

    /// Where the weights of a channel of each group begin, at a place of the kernel.
    #[inline(always)]
    fn weights(&self, row: usize, column: usize, channel: usize) -> usize {
        ((row * self.sizes.window.size[1] + column) * self.sizes.group_channels() + channel) * self.sizes.filters
    }

    /// `to += Σ from · kernel` over all meetings.
    #[inline(always)]
    fn gather<E: Real>(
        &self,
        [rows, columns]: &[Meetings; 2],
        from_width: usize,
        from: &[E],
        kernel: &[E],
        channel: usize,
        to: &mut [E],
    ) {
        let filters = self.sizes.filters;
        let pixels = rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column)));
        for ((row, column), pixel) in pixels.zip(to.chunks_exact_mut(filters)) {
            in_blocks!(filters, |start, WIDTH| {
                let mut sum = *block::<E, WIDTH>(pixel, start);
                for &[kernel_row, from_row] in row {
                    for &[kernel_column, from_column] in column {
                        let a = block::<E, WIDTH>(from, (from_row * from_width + from_column) * filters + start);
                        let place = self.weights(kernel_row, kernel_column, channel);
                        add_product(&mut sum, a, block(kernel, place + start));
                    }
                }
                pixel[start..start + WIDTH].copy_from_slice(&sum);
            });
        }
    }

    /// `dkernel += Σ x · gradient` over all meetings, a row of output at a time.
    #[inline(always)]
    fn correlate<E: Real>(&self, x: &[E], gradient: &[E], channel: usize, dkernel: &mut [E]) {
        let (filters, [_, width]) = (self.sizes.filters, self.sizes.output);
        for (row, met) in self.outputs[0].iter().enumerate() {
            for &[kernel_row, x_row] in met {
                for (kernel_column, columns) in self.kernels.iter().enumerate() {
                    let place = self.weights(kernel_row, kernel_column, channel);
                    in_blocks!(filters, |start, WIDTH| {
                        let mut sum = [E::default(); WIDTH];
                        for &[column, x_column] in columns {
                            let a = block::<E, WIDTH>(gradient, (row * width + column) * filters + start);
                            let b = (x_row * self.sizes.input[1] + x_column) * filters + start;
                            add_product(&mut sum, a, block(x, b));
                        }
                        let to = &mut dkernel[place + start..][..WIDTH];
                        to.iter_mut().zip(sum).for_each(|(to, part)| *to = *to + part);
                    });
                }
            }
        }
    }
}

#[inline(always)]
fn block<E, const WIDTH: usize>(values: &[E], start: usize) -> &[E; WIDTH] {
    values[start..].first_chunk().expect("a block inside the image")
}

/// `sum += a · b`
#[inline(always)]
fn add_product<E: Real, const WIDTH: usize>(sum: &mut [E; WIDTH], a: &[E; WIDTH], b: &[E; WIDTH]) {
    *sum = std::array::from_fn(|lane| sum[lane] + a[lane] * b[lane]);
}

/// A channel of each group, once for each filter of it.
enum Widened<'x, E> {
    /// As it lies in the image.
    Same(&'x [E]),
    Copied(Block<E>),
}

impl<E> std::ops::Deref for Widened<'_, E> {
    type Target = [E];
    fn deref(&self) -> &[E] {
        match self {
            Self::Same(values) => values,
            Self::Copied(values) => values,
        }
    }
}
