//! Convolution over `(batch, height, width, channels)` as products of unrolled patches, a few images at a time so that
//! the patches stay in the cache, images shared out among threads.

use rayon::prelude::*;

use super::direct::Direct;
use super::gemm::{Matrix, gemm_serial};
use super::grouped::Grouped;
use super::vectorised;
use crate::memory::Block;
use crate::ops::Window;
use crate::tensor::Real;

/// The sizes of one convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub window: Window,
    /// Height, width and channels of an image.
    pub input: [usize; 3],
    /// Height and width of the output.
    pub output: [usize; 2],
    pub groups: usize,
    /// Output channels of all groups.
    pub filters: usize,
}

/// Bytes of unrolled patches that fit the second-level cache beside the kernel and the output.
const TILE_BYTES: usize = 192 * 1024;

/// Elements of all partial gradients of a kernel together. How many there are depends on sizes alone and not on the number of
/// threads, so that the order of additions does not either.
const PARTIAL_ELEMENTS: usize = 1 << 23;

impl Sizes {
    fn image(&self) -> usize {
        self.input.iter().product()
    }

    fn pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }

    pub(super) fn group_channels(&self) -> usize {
        self.input[2] / self.groups
    }

    /// Elements of one patch of one group.
    fn patch(&self) -> usize {
        self.window.size[0] * self.window.size[1] * self.group_channels()
    }

    pub(super) fn group_filters(&self) -> usize {
        self.filters / self.groups
    }

    /// Rows of output that one tile covers.
    fn tile_rows<E>(&self) -> usize {
        let row = self.output[1] * self.patch() * size_of::<E>();
        (TILE_BYTES / row.max(1)).clamp(1, self.output[0].max(1))
    }

    /// Room for the patches of a tile.
    fn patches<E: Real>(&self) -> Block<E> {
        Block::uninitialised(self.tile_rows::<E>() * self.output[1] * self.patch())
    }

    /// The kernel of a group: `[patch, group_filters]` inside `[kh, kw, in/groups, filters]`.
    fn kernel<'a, E>(&self, kernel: &'a [E], group: usize) -> Matrix<'a, E> {
        let values = &kernel[group * self.group_filters()..];
        Matrix { values, row_stride: self.filters as isize, column_stride: 1 }
    }

    /// Images of a batch that one thread takes.
    fn images_a_thread(&self, batch: usize) -> usize {
        batch.div_ceil(rayon::current_num_threads()).max(1)
    }
}

/// Calls `body(place in the patches, place in the image or `None` in the border, length)` for each run of neighbours of
/// the patches under some rows of output: `[rows · width, patch]`.
#[inline(always)]
fn for_runs(
    sizes: &Sizes,
    group: usize,
    rows: std::ops::Range<usize>,
    mut body: impl FnMut(usize, Option<usize>, usize),
) {
    let [height, width, channels] = sizes.input;
    let depth = sizes.group_channels();
    let window = &sizes.window;
    let run = window.size[1] * depth;
    let mut patch = 0;
    for row in rows {
        for column in 0..sizes.output[1] {
            for window_row in 0..window.size[0] {
                let Some(y) = window.source(0, row, window_row, height) else {
                    body(patch, None, run);
                    patch += run;
                    continue;
                };
                let first = window.source(1, column, 0, width);
                let last = window.source(1, column, window.size[1] - 1, width);
                if let (Some(x), Some(_), 1, true) = (first, last, window.dilation[1], depth == channels) {
                    body(patch, Some((y * width + x) * channels), run);
                    patch += run;
                    continue;
                }
                for window_column in 0..window.size[1] {
                    let x = window.source(1, column, window_column, width);
                    body(patch, x.map(|x| (y * width + x) * channels + group * depth), depth);
                    patch += depth;
                }
            }
        }
    }
}

/// Copies the patches under some rows of output out of an image.
#[inline(always)]
fn unroll<E: Real>(sizes: &Sizes, image: &[E], group: usize, rows: std::ops::Range<usize>, patches: &mut [E]) {
    for_runs(sizes, group, rows, |patch, place, length| {
        let run = &mut patches[patch..patch + length];
        match place {
            Some(place) => copy_run(run, &image[place..place + length]),
            None => run.fill(E::default()),
        }
    });
}

/// A copy without the call that `memcpy` costs on the few elements of thin images.
#[inline(always)]
fn copy_run<E: Real>(to: &mut [E], from: &[E]) {
    if to.len() <= 8 {
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
    } else {
        to.copy_from_slice(from);
    }
}

/// The transpose of [`unroll`]: adds patches to the image.
#[inline(always)]
fn roll<E: Real>(sizes: &Sizes, patches: &[E], group: usize, rows: std::ops::Range<usize>, image: &mut [E]) {
    for_runs(sizes, group, rows, |patch, place, length| {
        if let Some(place) = place {
            add_run(&mut image[place..place + length], &patches[patch..patch + length]);
        }
    });
}

/// `to += from`, by blocks in registers: runs are short, and a check for aliases would cost as much as the sum.
#[inline(always)]
fn add_run<E: Real>(to: &mut [E], from: &[E]) {
    let (to_blocks, to_rest) = to.as_chunks_mut::<8>();
    let (from_blocks, from_rest) = from.as_chunks::<8>();
    for (to, from) in to_blocks.iter_mut().zip(from_blocks) {
        *to = std::array::from_fn(|lane| to[lane] + from[lane]);
    }
    to_rest.iter_mut().zip(from_rest).for_each(|(to, &from)| *to = *to + from);
}

/// `activation(conv(x) + bias)` for a whole batch.
pub(crate) fn forward<E: Real>(
    sizes: &Sizes,
    x: &[E],
    kernel: &[E],
    bias: Option<&[E]>,
    activate: impl Fn(&mut [E]) + Sync,
) -> Block<E> {
    let (image, output) = (sizes.image(), sizes.pixels() * sizes.filters);
    let batch = x.len() / image.max(1);
    let mut y = Block::<E>::uninitialised(batch * output);
    let images = sizes.images_a_thread(batch);
    let (grouped, direct) = (Grouped::of(sizes), Direct::of(sizes));
    y.par_chunks_mut((images * output).max(1)).zip(x.par_chunks((images * image).max(1))).for_each(|(y, x)| {
        let mut room = direct.map_or_else(|| sizes.patches(), |direct| direct.room());
        for (y, x) in y.chunks_exact_mut(output).zip(x.chunks_exact(image)) {
            if let Some(grouped) = &grouped {
                grouped.forward(x, kernel, bias, y);
            } else {
                if let Some(bias) = bias {
                    y.chunks_exact_mut(sizes.filters).for_each(|pixel| copy_run(pixel, bias));
                }
                match &direct {
                    Some(direct) => direct.forward(direct.framed(x, &mut room), kernel, bias.is_some(), y),
                    None => forward_image(sizes, x, kernel, bias.is_some(), &mut room, y),
                }
            }
            activate(y);
        }
    });
    y
}

/// The output of one image by way of its patches, added to what is there if `started`.
fn forward_image<E: Real>(sizes: &Sizes, x: &[E], kernel: &[E], started: bool, patches: &mut [E], y: &mut [E]) {
    for_tiles::<E>(sizes, |group, rows| {
        let pixels = rows.len() * sizes.output[1];
        let patches = &mut patches[..pixels * sizes.patch()];
        vectorised!(unroll(sizes, x, group, rows.clone(), patches));
        let start = rows.start * sizes.output[1] * sizes.filters + group * sizes.group_filters();
        super::gemm::gemm_serial_strided(
            &mut y[start..],
            sizes.filters,
            started,
            Matrix::rows(patches, sizes.patch()),
            sizes.kernel(kernel, group),
            [pixels, sizes.patch(), sizes.group_filters()],
        );
    });
}

fn for_tiles<E>(sizes: &Sizes, mut body: impl FnMut(usize, std::ops::Range<usize>)) {
    let rows = sizes.tile_rows::<E>();
    for group in 0..sizes.groups {
        for start in (0..sizes.output[0]).step_by(rows) {
            body(group, start..(start + rows).min(sizes.output[0]));
        }
    }
}

/// Gradients of the kernel and, if wanted, of the input.
pub(crate) fn backward<E: Real>(
    sizes: &Sizes,
    x: &[E],
    kernel: &[E],
    gradient: &[E],
    wanted: [bool; 2],
) -> (Option<Block<E>>, Option<Block<E>>) {
    let (image, output) = (sizes.image(), sizes.pixels() * sizes.filters);
    let batch = x.len() / image.max(1);
    let images = batch.div_ceil((PARTIAL_ELEMENTS / kernel.len().max(1)).clamp(4, 32)).max(1);
    let shares = if output == 0 { 0 } else { batch.div_ceil(images) };
    let zeros = |wanted: bool, count: usize| Block::full(if wanted { count } else { 0 }, E::default());
    let mut dx = zeros(wanted[0], x.len());
    let mut kernels = zeros(wanted[1], shares * kernel.len());
    let steps = [images * image, kernel.len()];
    for_shares(0..shares, [&mut dx, &mut kernels], steps, &|share, [dx, dkernel]| {
        let [x, gradient] = [(x, image), (gradient, output)]
            .map(|(values, length)| &values[share * images * length..values.len().min((share + 1) * images * length)]);
        backward_images(sizes, x, kernel, gradient, dx, dkernel);
    });
    let dkernel = wanted[1].then(|| {
        let mut sum = zeros(true, kernel.len());
        kernels.chunks_exact(kernel.len().max(1)).for_each(|part| add_run(&mut sum, part));
        sum
    });
    (wanted[0].then_some(dx), dkernel)
}

/// `body(share, its pieces)` for each share, which has so many elements of each array (none of one that is empty), in parallel.
fn for_shares<E: Real>(
    shares: std::ops::Range<usize>,
    arrays: [&mut [E]; 2],
    steps: [usize; 2],
    body: &(impl Fn(usize, [&mut [E]; 2]) + Sync),
) {
    match shares.len() {
        0 => {}
        1 => body(shares.start, arrays),
        count => {
            let half = count / 2;
            let [(a, a_rest), (b, b_rest)] = {
                let [a, b] = arrays;
                let at = [(half * steps[0]).min(a.len()), (half * steps[1]).min(b.len())];
                [a.split_at_mut(at[0]), b.split_at_mut(at[1])]
            };
            let middle = shares.start + half;
            rayon::join(
                || for_shares(shares.start..middle, [a, b], steps, body),
                || for_shares(middle..shares.end, [a_rest, b_rest], steps, body),
            );
        }
    }
}

/// Adds the gradients from some images to those that are wanted, which have elements.
fn backward_images<E: Real>(sizes: &Sizes, x: &[E], kernel: &[E], gradient: &[E], dx: &mut [E], dkernel: &mut [E]) {
    let wanted = [!dx.is_empty(), !dkernel.is_empty()];
    let (image, output) = (sizes.image(), sizes.pixels() * sizes.filters);
    if let Some(direct) = Direct::of(sizes) {
        let transposed = direct.transposed();
        if transposed.is_some() || !wanted[0] {
            let images = [x.chunks_exact(image), gradient.chunks_exact(output)];
            return backward_direct(&direct, transposed.as_ref(), images, kernel, dx, dkernel);
        }
    }
    let grouped = Grouped::of(sizes);
    let mut patches = sizes.patches::<E>();
    for (index, (x, gradient)) in x.chunks_exact(image).zip(gradient.chunks_exact(output)).enumerate() {
        if let Some(grouped) = &grouped {
            if wanted[1] {
                grouped.kernel_gradient(x, gradient, dkernel);
            }
            if wanted[0] {
                grouped.input_gradient(gradient, kernel, &mut dx[index * image..(index + 1) * image]);
            }
            continue;
        }
        for_tiles::<E>(sizes, |group, rows| {
            let pixels = rows.len() * sizes.output[1];
            let patches = &mut patches[..pixels * sizes.patch()];
            let start = rows.start * sizes.output[1] * sizes.filters + group * sizes.group_filters();
            let gradient = Matrix { values: &gradient[start..], row_stride: sizes.filters as isize, column_stride: 1 };
            if wanted[1] {
                vectorised!(unroll(sizes, x, group, rows.clone(), patches));
                super::gemm::gemm_serial_strided(
                    &mut dkernel[group * sizes.group_filters()..],
                    sizes.filters,
                    true,
                    Matrix::rows(&*patches, sizes.patch()).t(),
                    gradient,
                    [sizes.patch(), pixels, sizes.group_filters()],
                );
            }
            if wanted[0] {
                gemm_serial(
                    patches,
                    false,
                    gradient,
                    sizes.kernel(kernel, group).t(),
                    [pixels, sizes.group_filters(), sizes.patch()],
                );
                let dx = &mut dx[index * image..(index + 1) * image];
                vectorised!(roll(sizes, patches, group, rows.clone(), dx));
            }
        });
    }
}

/// [`backward_images`] by [`Direct`] products.
fn backward_direct<E: Real>(
    direct: &Direct,
    transposed: Option<&Direct>,
    [x, gradient]: [std::slice::ChunksExact<'_, E>; 2],
    kernel: &[E],
    dx: &mut [E],
    dkernel: &mut [E],
) {
    let (mut room, mut wide) = (direct.room(), direct.wide_room());
    if !dkernel.is_empty() {
        for (x, gradient) in x.zip(gradient.clone()) {
            direct.kernel_gradient(direct.framed(x, &mut room), gradient, &mut wide, dkernel);
        }
    }
    let Some(transposed) = transposed.filter(|_| !dx.is_empty()) else {
        return;
    };
    let (turned, mut room) = (direct.turned(kernel), transposed.room());
    let image = dx.len() / gradient.len();
    for (dx, gradient) in dx.chunks_exact_mut(image).zip(gradient) {
        transposed.forward(transposed.framed(gradient, &mut room), &turned, false, dx);
    }
}
