//! Convolution over `(batch, height, width, channels)` as products of matrices, images shared out among threads: by tiles, by rows
//! of the image, or by patches that are copied together, a few images at a time so that they stay in the cache.

use rayon::prelude::*;

use super::direct::Direct;
use super::gemm::{Matrix, gemm_serial};
use super::grouped::Grouped;
use super::winograd::Winograd;
use super::{for_shares, vectorised};
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

/// The most pieces of a batch that are differentiated side by side.
const SHARES: usize = 16;

impl Sizes {
    pub(super) fn image(&self) -> usize {
        self.input.iter().product()
    }

    pub(super) fn pixels(&self) -> usize {
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

    /// The convolution of the output's gradient that gives the input's, with the kernel [`turned`](Self::turned).
    fn transposed(&self) -> Option<Self> {
        let Self { window, input, output, groups, filters } = *self;
        if window.strides != [1, 1] || groups > 1 {
            return None;
        }
        let mut padding = [[0; 2]; 2];
        for (axis, padding) in padding.iter_mut().enumerate() {
            let reach = (window.size[axis] - 1) * window.dilation[axis];
            for (side, padding) in padding.iter_mut().enumerate() {
                *padding = reach.checked_sub(window.padding[axis][side])?;
            }
        }
        Some(Self {
            window: Window { padding, ..window },
            input: [output[0], output[1], filters],
            output: [input[0], input[1]],
            groups,
            filters: input[2],
        })
    }

    /// The kernel of [`Self::transposed`]: upside down, with inputs and filters swapped.
    fn turned<E: Real>(&self, kernel: &[E]) -> Block<E> {
        let (channels, filters) = (self.input[2], self.filters);
        let mut turned = Block::<E>::uninitialised(kernel.len());
        let places = turned.chunks_exact_mut((channels * filters).max(1));
        for (to, from) in places.zip(kernel.chunks_exact((channels * filters).max(1)).rev()) {
            for (filter, to) in to.chunks_exact_mut(channels).enumerate() {
                to.iter_mut().enumerate().for_each(|(channel, to)| *to = from[channel * filters + filter]);
            }
        }
        turned
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

/// How a convolution is computed.
enum Way<E> {
    /// Few products for each element: many thin groups.
    Grouped(Grouped),
    /// By tiles, with the transformed kernel.
    Winograd(Winograd, Block<E>),
    /// By products of the image's rows where they lie.
    Direct(Direct),
    /// By products of patches that are copied together.
    Patches,
}

impl<E: Real> Way<E> {
    fn of(sizes: &Sizes, kernel: &[E]) -> Self {
        if let Some(winograd) = Winograd::of(sizes) {
            return Self::Winograd(winograd, winograd.kernel(kernel));
        }
        let grouped = Grouped::of(sizes).map(Self::Grouped);
        grouped.or_else(|| Direct::of(sizes).map(Self::Direct)).unwrap_or(Self::Patches)
    }

    /// The output of some images.
    fn forward(
        &self,
        sizes: &Sizes,
        x: &[E],
        kernel: &[E],
        bias: Option<&[E]>,
        activate: &impl Fn(&mut [E]),
        y: &mut [E],
    ) {
        if let Self::Winograd(winograd, kernel) = self {
            return winograd.forward(x, kernel, bias, activate, y);
        }
        let mut room = match self {
            Self::Direct(direct) => direct.room(),
            Self::Patches => sizes.patches(),
            _ => Block::uninitialised(0),
        };
        let output = sizes.pixels() * sizes.filters;
        for (y, x) in y.chunks_exact_mut(output).zip(x.chunks_exact(sizes.image())) {
            if let (Some(bias), Self::Direct(_) | Self::Patches) = (bias, self) {
                y.chunks_exact_mut(sizes.filters).for_each(|pixel| copy_run(pixel, bias));
            }
            match self {
                Self::Grouped(grouped) => grouped.forward(x, kernel, bias, y),
                Self::Direct(direct) => direct.forward(direct.framed(x, &mut room), kernel, bias.is_some(), y),
                _ => forward_image(sizes, x, kernel, bias.is_some(), &mut room, y),
            }
            activate(y);
        }
    }
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
    let way = Way::of(sizes, kernel);
    y.par_chunks_mut((images * output).max(1)).zip(x.par_chunks((images * image).max(1))).for_each(|(y, x)| {
        way.forward(sizes, x, kernel, bias, &activate, y);
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

/// Gradients of the input and of the kernel, where they are wanted.
pub(crate) fn backward<E: Real>(
    sizes: &Sizes,
    x: &[E],
    kernel: &[E],
    gradient: &[E],
    wanted: [bool; 2],
) -> (Option<Block<E>>, Option<Block<E>>) {
    let (image, output) = (sizes.image(), sizes.pixels() * sizes.filters);
    let batch = x.len() / image.max(1);
    let images = batch.div_ceil((PARTIAL_ELEMENTS / kernel.len().max(1)).clamp(4, SHARES)).max(1);
    let shares = if output == 0 { 0 } else { batch.div_ceil(images) };
    let zeros = |wanted: bool, count: usize| Block::full(if wanted { count } else { 0 }, E::default());
    let way = Backward::of(sizes, kernel, wanted[0]);
    // One convolution writes each element; patches are added.
    let mut dx = if way.input.is_some() { Block::uninitialised(x.len()) } else { zeros(wanted[0], x.len()) };
    let mut kernels = zeros(wanted[1], shares * kernel.len());
    let steps = [images * image, kernel.len()];
    for_shares(0..shares, [&mut dx, &mut kernels], steps, &|share, [dx, dkernel]| {
        let [x, gradient] = [(x, image), (gradient, output)]
            .map(|(values, length)| &values[share * images * length..values.len().min((share + 1) * images * length)]);
        way.add(sizes, x, kernel, gradient, dx, dkernel);
    });
    let dkernel = wanted[1].then(|| {
        let mut sum = zeros(true, kernel.len());
        kernels.chunks_exact(kernel.len().max(1)).for_each(|part| add_run(&mut sum, part));
        sum
    });
    (wanted[0].then_some(dx), dkernel)
}

/// How a convolution is differentiated.
struct Backward<E> {
    kernel: KernelWay,
    /// The convolution that gives the input's gradient, and its kernel; where there is none, patches do.
    input: Option<(Sizes, Way<E>, Block<E>)>,
}

/// How the kernel's gradient is found.
enum KernelWay {
    /// That of the input too.
    Grouped(Grouped),
    Winograd(Winograd),
    Direct(Direct),
    /// That of the input too.
    Patches,
}

impl<E: Real> Backward<E> {
    fn of(sizes: &Sizes, kernel: &[E], input_wanted: bool) -> Self {
        let transposed = sizes.transposed().filter(|sizes| Direct::of(sizes).is_some());
        let by_patches = input_wanted && transposed.is_none();
        let way = match (Grouped::of(sizes), Winograd::of(sizes), Direct::of(sizes)) {
            (Some(grouped), ..) => KernelWay::Grouped(grouped),
            _ if by_patches => KernelWay::Patches,
            (_, Some(winograd), _) => KernelWay::Winograd(winograd),
            (.., Some(direct)) => KernelWay::Direct(direct),
            _ => KernelWay::Patches,
        };
        let input = transposed
            .filter(|_| input_wanted && matches!(way, KernelWay::Winograd(_) | KernelWay::Direct(_)))
            .map(|transposed| {
                let turned = sizes.turned(kernel);
                let way = Way::of(&transposed, &turned);
                (transposed, way, turned)
            });
        Self { kernel: way, input }
    }

    /// Adds the gradients from some images to those that are wanted, which have elements and are 0.
    fn add(&self, sizes: &Sizes, x: &[E], kernel: &[E], gradient: &[E], dx: &mut [E], dkernel: &mut [E]) {
        match &self.kernel {
            KernelWay::Grouped(grouped) => return grouped.backward(x, kernel, gradient, dx, dkernel),
            KernelWay::Patches => return backward_patches(sizes, x, kernel, gradient, dx, dkernel),
            _ if dkernel.is_empty() => {}
            KernelWay::Winograd(winograd) => winograd.kernel_gradient(x, gradient, dkernel),
            KernelWay::Direct(direct) => {
                let (mut room, mut wide) = (direct.room(), direct.wide_room());
                let output = sizes.pixels() * sizes.filters;
                for (x, gradient) in x.chunks_exact(sizes.image()).zip(gradient.chunks_exact(output)) {
                    direct.kernel_gradient(direct.framed(x, &mut room), gradient, &mut wide, dkernel);
                }
            }
        }
        if let Some((transposed, way, turned)) = &self.input {
            way.forward(transposed, gradient, turned, None, &|_| {}, dx);
        }
    }
}

/// The gradients from some images by way of patches.
fn backward_patches<E: Real>(sizes: &Sizes, x: &[E], kernel: &[E], gradient: &[E], dx: &mut [E], dkernel: &mut [E]) {
    let wanted = [!dx.is_empty(), !dkernel.is_empty()];
    let (image, output) = (sizes.image(), sizes.pixels() * sizes.filters);
    let mut patches = sizes.patches::<E>();
    for (index, (x, gradient)) in x.chunks_exact(image).zip(gradient.chunks_exact(output)).enumerate() {
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
