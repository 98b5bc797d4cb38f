//! Pooling over `(batch, height, width, channels)`, vectorised over channels, images shared out among threads.

use rayon::prelude::*;

use super::vectorised;
use crate::memory::Block;
use crate::ops::Window;
use crate::tensor::Real;

/// Shape of the images and of the windows over them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub window: Window,
    /// Height, width and channels of an image.
    pub input: [usize; 3],
    /// Height and width of the output.
    pub output: [usize; 2],
}

impl Sizes {
    fn image(&self) -> usize {
        self.input.iter().product()
    }

    fn pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Calls `body(output pixel, first, input pixels counted from there)` for each window with the pixels inside the image under it.
    #[inline(always)]
    fn for_windows(&self, mut body: impl FnMut(usize, usize, &[usize])) {
        let [height, width, _] = self.input;
        let window = &self.window;
        let size = window.size[0] * window.size[1];
        let inside = Block::collect((0..size).map(|place| {
            let [row, column] = [place / window.size[1], place % window.size[1]];
            row * window.dilation[0] * width + column * window.dilation[1]
        }));
        let mut places = Block::uninitialised(size);
        let ends = |axis: usize, place: usize, length: usize| {
            let of = |offset: usize| window.source(axis, place, offset, length);
            of(0).filter(|_| of(window.size[axis] - 1).is_some())
        };
        for row in 0..self.output[0] {
            let top = ends(0, row, height);
            for column in 0..self.output[1] {
                let pixel = row * self.output[1] + column;
                if let (Some(top), Some(left)) = (top, ends(1, column, width)) {
                    body(pixel, top * width + left, &inside);
                    continue;
                }
                let mut count = 0;
                for y in (0..window.size[0]).filter_map(|y| window.source(0, row, y, height)) {
                    for x in (0..window.size[1]).filter_map(|x| window.source(1, column, x, width)) {
                        places[count] = y * width + x;
                        count += 1;
                    }
                }
                body(pixel, 0, &places[..count]);
            }
        }
    }

    /// Whether each pixel lies under exactly one window.
    fn is_tiling(&self) -> bool {
        let Window { size, strides, padding, dilation } = self.window;
        let covered = (0..2).all(|axis| self.output[axis] * size[axis] == self.input[axis]);
        size == strides && padding == [[0; 2]; 2] && dilation == [1, 1] && covered
    }

    /// Room for the gradient of the input: zeros, unless each is written once anyway.
    fn gradient_room<E: Real>(&self, count: usize) -> Block<E> {
        if self.is_tiling() { Block::uninitialised(count) } else { Block::full(count, E::default()) }
    }

    /// The number of pixels inside the image under each window.
    pub(crate) fn counts(&self) -> Vec<f64> {
        let mut counts = vec![0.0; self.pixels()];
        self.for_windows(|output, _, places| counts[output] = places.len() as f64);
        counts
    }

    /// The elements of image `index` of a batch, `length` each.
    fn of_image<E>(values: &[E], index: usize, length: usize) -> &[E] {
        &values[index * length..][..length]
    }
}

/// Channels that one pass handles in registers: local arrays leave the compiler no alias to check.
const LANES: usize = 16;

/// Runs a function of a block of channels over all of them.
macro_rules! for_channels {
    ($channels:expr, |$channel:ident| $block:ident($($argument:expr),*)) => {
        let whole = $channels / LANES * LANES;
        for $channel in (0..whole).step_by(LANES) {
            $block::<E, LANES>($($argument),*);
        }
        for $channel in whole..$channels {
            $block::<E, 1>($($argument),*);
        }
    };
}

#[inline(always)]
fn load<E: Real, const L: usize>(values: &[E], at: usize) -> [E; L] {
    values[at..at + L].try_into().expect("L elements")
}

#[inline(always)]
fn store<E: Real, const L: usize>(values: &mut [E], at: usize, block: [E; L]) {
    values[at..at + L].copy_from_slice(&block);
}

/// The greatest under each window; NaN if one is there.
pub(crate) fn max<E: Real>(sizes: &Sizes, x: &[E]) -> Block<E> {
    let channels = sizes.input[2];
    let (image, output) = (sizes.image(), sizes.pixels() * channels);
    let mut y = Block::<E>::uninitialised(x.len() / image.max(1) * output);
    y.par_chunks_mut(output.max(1)).enumerate().for_each(|(index, y)| {
        let x = Sizes::of_image(x, index, image);
        vectorised!(sizes.for_windows(|pixel, first, places| {
            let (x, at) = (&x[first * channels..], pixel * channels);
            for_channels!(channels, |channel| max_block(x, y, places, channels, at, channel));
        }));
    });
    y
}

#[inline(always)]
fn max_block<E: Real, const L: usize>(
    x: &[E],
    y: &mut [E],
    places: &[usize],
    channels: usize,
    at: usize,
    channel: usize,
) {
    let mut greatest = [E::from_f64(f64::NEG_INFINITY); L];
    for place in places {
        let values = load::<E, L>(x, place * channels + channel);
        (0..L).for_each(|lane| greatest[lane] = greatest[lane].greater_of(values[lane]));
    }
    store(y, at + channel, greatest);
}

/// Sends each gradient to the first place under its window that holds the greatest value.
pub(crate) fn max_backward<E: Real>(sizes: &Sizes, x: &[E], y: &[E], gradient: &[E]) -> Block<E> {
    let channels = sizes.input[2];
    let (image, output) = (sizes.image(), sizes.pixels() * channels);
    let mut dx = sizes.gradient_room::<E>(x.len());
    let once = sizes.is_tiling();
    dx.par_chunks_mut(image.max(1)).enumerate().for_each(|(index, dx)| {
        let x = Sizes::of_image(x, index, image);
        let [y, gradient] = [y, gradient].map(|values| Sizes::of_image(values, index, output));
        vectorised!(sizes.for_windows(|pixel, first, places| {
            let (at, x, dx) = (pixel * channels, &x[first * channels..], &mut dx[first * channels..]);
            for_channels!(channels, |channel| max_backward_block(
                x,
                load(y, at + channel),
                load(gradient, at + channel),
                (&mut *dx, once),
                places,
                channels,
                channel
            ));
        }));
    });
    dx
}

#[inline(always)]
fn max_backward_block<E: Real, const L: usize>(
    x: &[E],
    greatest: [E; L],
    mut left: [E; L],
    (dx, once): (&mut [E], bool),
    places: &[usize],
    channels: usize,
    channel: usize,
) {
    for place in places {
        let at = place * channels + channel;
        let values = load::<E, L>(x, at);
        let mut to = if once { [E::default(); L] } else { load::<E, L>(dx, at) };
        for lane in 0..L {
            let here = values[lane] == greatest[lane];
            to[lane] = to[lane] + if here { left[lane] } else { E::default() };
            left[lane] = if here { E::default() } else { left[lane] };
        }
        store(dx, at, to);
    }
}

/// The mean of the pixels inside the image under each window.
pub(crate) fn average<E: Real>(sizes: &Sizes, x: &[E]) -> Block<E> {
    let channels = sizes.input[2];
    let (image, output) = (sizes.image(), sizes.pixels() * channels);
    let mut y = Block::<E>::uninitialised(x.len() / image.max(1) * output);
    y.par_chunks_mut(output.max(1)).enumerate().for_each(|(index, y)| {
        let x = Sizes::of_image(x, index, image);
        vectorised!(sizes.for_windows(|pixel, first, places| {
            let (x, at) = (&x[first * channels..], pixel * channels);
            for_channels!(channels, |channel| average_block(x, y, places, channels, at, channel));
        }));
    });
    y
}

#[inline(always)]
fn average_block<E: Real, const L: usize>(
    x: &[E],
    y: &mut [E],
    places: &[usize],
    channels: usize,
    at: usize,
    channel: usize,
) {
    let mut sum = [E::default(); L];
    for place in places {
        let values = load::<E, L>(x, place * channels + channel);
        (0..L).for_each(|lane| sum[lane] = sum[lane] + values[lane]);
    }
    let count = E::from_f64(places.len() as f64);
    store(y, at + channel, sum.map(|sum| sum / count));
}

/// Shares each gradient out equally among the pixels under its window.
pub(crate) fn average_backward<E: Real>(sizes: &Sizes, gradient: &[E]) -> Block<E> {
    let channels = sizes.input[2];
    let (image, output) = (sizes.image(), sizes.pixels() * channels);
    let mut dx = sizes.gradient_room::<E>(gradient.len() / output.max(1) * image);
    let once = sizes.is_tiling();
    dx.par_chunks_mut(image.max(1)).enumerate().for_each(|(index, dx)| {
        let gradient = Sizes::of_image(gradient, index, output);
        vectorised!(sizes.for_windows(|pixel, first, places| {
            let (at, dx) = (pixel * channels, &mut dx[first * channels..]);
            for_channels!(channels, |channel| average_backward_block(
                load(gradient, at + channel),
                (&mut *dx, once),
                places,
                channels,
                channel
            ));
        }));
    });
    dx
}

#[inline(always)]
fn average_backward_block<E: Real, const L: usize>(
    gradient: [E; L],
    (dx, once): (&mut [E], bool),
    places: &[usize],
    channels: usize,
    channel: usize,
) {
    let count = E::from_f64(places.len() as f64);
    for place in places {
        let at = place * channels + channel;
        let mut to = if once { [E::default(); L] } else { load::<E, L>(dx, at) };
        (0..L).for_each(|lane| to[lane] = to[lane] + gradient[lane] / count);
        store(dx, at, to);
    }
}
