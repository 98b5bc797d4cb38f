//! Convolution as products of rows of the padded image with the kernel, read where they lie: no patch is copied.
//!
//! Under a row of output and a row of the window, the patches of neighbours overlap in memory: as a matrix they are as many
//! rows, one stride apart, as the output is wide, of as many elements as the window's row has.

use super::convolution::Sizes;
use super::gemm::{Matrix, gemm_serial, gemm_serial_runs};
use crate::memory::Block;
use crate::tensor::Real;

/// Elements of a window's row from which on products are worth it.
const LEAST_DEPTH: usize = 3;

/// A convolution whose windows' rows lie together in the image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Direct(Sizes);

impl Direct {
    /// `None` where patches have to be copied.
    pub(super) fn of(sizes: &Sizes) -> Option<Self> {
        let together = sizes.groups == 1 && sizes.window.dilation[1] == 1;
        (together && sizes.window.size[1] * sizes.input[2] >= LEAST_DEPTH).then_some(Self(*sizes))
    }

    /// Height and width with the border.
    fn padded(&self) -> [usize; 2] {
        let Sizes { window, input, .. } = &self.0;
        [0, 1].map(|axis| input[axis] + window.padding[axis].iter().sum::<usize>())
    }

    fn has_border(&self) -> bool {
        self.0.window.padding != [[0; 2]; 2]
    }

    /// Room for an image with its border, which is 0; none where there is no border.
    pub(super) fn room<E: Real>(&self) -> Block<E> {
        let [height, width] = self.padded();
        Block::full(if self.has_border() { height * width * self.0.input[2] } else { 0 }, E::default())
    }

    /// The image with its border, in `room` where there is one.
    pub(super) fn framed<'a, E: Real>(&self, image: &'a [E], room: &'a mut [E]) -> &'a [E] {
        if !self.has_border() {
            return image;
        }
        let Sizes { window, input: [_, width, channels], .. } = self.0;
        let [top, left] = [0, 1].map(|axis| window.padding[axis][0]);
        let rows = room.chunks_exact_mut(self.padded()[1] * channels).skip(top);
        for (to, from) in rows.zip(image.chunks_exact(width * channels)) {
            to[left * channels..][..width * channels].copy_from_slice(from);
        }
        room
    }

    /// The elements under a row of the window, for outputs from the first of a row on.
    fn under<'a, E>(&self, framed: &'a [E], row: usize, window_row: usize) -> Matrix<'a, E> {
        let Sizes { window, input: [_, _, channels], .. } = &self.0;
        let row = row * window.strides[0] + window_row * window.dilation[0];
        let values = &framed[row * self.padded()[1] * channels..];
        Matrix { values, row_stride: (window.strides[1] * channels) as isize, column_stride: 1 }
    }

    /// The output of one framed image, added to what is there if `started`.
    pub(super) fn forward<E: Real>(&self, framed: &[E], kernel: &[E], started: bool, y: &mut [E]) {
        let Sizes { window, input: [_, _, channels], output, filters, .. } = self.0;
        let depth = window.size[1] * channels;
        let runs = (window.size[0], window.dilation[0] * self.padded()[1] * channels);
        for (row, y) in y.chunks_exact_mut((output[1] * filters).max(1)).enumerate() {
            let (x, kernel) = (self.under(framed, row, 0), Matrix::rows(kernel, filters));
            gemm_serial_runs(y, started, x, runs, kernel, [output[1], depth, filters]);
        }
    }

    /// Room for [`Self::kernel_gradient`].
    pub(super) fn wide_room<E: Real>(&self) -> Block<E> {
        let [width, height] = [self.padded()[1], self.0.output[0]];
        Block::full(if self.whole_rows() { height * width * self.0.filters } else { 0 }, E::default())
    }

    /// Whether outputs of all rows are one stride apart, so that one product does for all of them.
    fn whole_rows(&self) -> bool {
        self.0.window.strides == [1, 1]
    }

    /// Adds the kernel's gradient from one framed image. `wide` is kept from image to image.
    pub(super) fn kernel_gradient<E: Real>(&self, framed: &[E], gradient: &[E], wide: &mut [E], dkernel: &mut [E]) {
        let Sizes { window, input: [_, _, channels], output, filters, .. } = self.0;
        let depth = window.size[1] * channels;
        let dkernels = dkernel.chunks_exact_mut((depth * filters).max(1)).enumerate();
        if !self.whole_rows() {
            for (window_row, dkernel) in dkernels {
                for (row, gradient) in gradient.chunks_exact((output[1] * filters).max(1)).enumerate() {
                    let x = self.under(framed, row, window_row).t();
                    gemm_serial(dkernel, true, x, Matrix::rows(gradient, filters), [depth, output[1], filters]);
                }
            }
            return;
        }
        // Rows as wide as the framed image's: what lies beyond the output's counts 0 times.
        let width = self.padded()[1];
        let rows = wide.chunks_exact_mut((width * filters).max(1));
        for (to, from) in rows.zip(gradient.chunks_exact((output[1] * filters).max(1))) {
            to[..from.len()].copy_from_slice(from);
        }
        let terms = (output[0] - 1) * width + output[1];
        for (window_row, dkernel) in dkernels {
            let x = self.under(framed, 0, window_row).t();
            gemm_serial(dkernel, true, x, Matrix::rows(wide, filters), [depth, terms, filters]);
        }
    }
}
