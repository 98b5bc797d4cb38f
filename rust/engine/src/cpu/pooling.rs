//! Pooling over `(batch, height, width, channels)`, vectorised over channels, images shared out among threads.

use rayon::prelude::*;

use super::{uninitialised, vectorised};
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

    /// Calls `body(output pixel, input pixel)` for each pair under a window.
    #[inline(always)]
    fn for_pairs(&self, mut body: impl FnMut(usize, usize)) {
        let [height, width, _] = self.input;
        for row in 0..self.output[0] {
            for column in 0..self.output[1] {
                for window_row in 0..self.window.size[0] {
                    let Some(y) = self.window.source(0, row, window_row, height) else {
                        continue;
                    };
                    for window_column in 0..self.window.size[1] {
                        if let Some(x) = self.window.source(1, column, window_column, width) {
                            body(row * self.output[1] + column, y * width + x);
                        }
                    }
                }
            }
        }
    }

    /// The number of pixels inside the image under each window.
    pub(crate) fn counts<E: Real>(&self) -> Vec<E> {
        let mut counts = vec![0.0; self.pixels()];
        self.for_pairs(|output, _| counts[output] += 1.0);
        counts.into_iter().map(E::from_f64).collect()
    }
}

/// Runs `body(y, x)` on each image of a batch, in parallel.
fn for_images<E: Real>(out: &mut [E], length: usize, body: impl Fn(usize, &mut [E]) + Sync) {
    out.par_chunks_mut(length.max(1)).enumerate().for_each(|(index, image)| vectorised!(body(index, image)));
}

/// The greatest under each window; NaN if one is there.
pub(crate) fn max<E: Real>(sizes: &Sizes, x: &[E]) -> Vec<E> {
    let channels = sizes.input[2];
    let images = x.len() / sizes.image().max(1);
    let mut y = uninitialised::<E>(images * sizes.pixels() * channels);
    for_images(&mut y, sizes.pixels() * channels, |index, y| {
        let x = &x[index * sizes.image()..][..sizes.image()];
        y.fill(E::from_f64(f64::NEG_INFINITY));
        sizes.for_pairs(|output, input| {
            let y = &mut y[output * channels..][..channels];
            for (y, &x) in y.iter_mut().zip(&x[input * channels..][..channels]) {
                // Written so that NaN, once there, stays.
                *y = if *y >= x || *y != *y { *y } else { x };
            }
        });
    });
    y
}

/// Sends each gradient to the first place under its window that holds the greatest value.
pub(crate) fn max_backward<E: Real>(sizes: &Sizes, x: &[E], y: &[E], gradient: &[E]) -> Vec<E> {
    let channels = sizes.input[2];
    let output_length = sizes.pixels() * channels;
    let mut dx = vec![E::default(); x.len()];
    for_images(&mut dx, sizes.image(), |index, dx| {
        let x = &x[index * sizes.image()..][..sizes.image()];
        let y = &y[index * output_length..][..output_length];
        let mut left = gradient[index * output_length..][..output_length].to_vec();
        sizes.for_pairs(|output, input| {
            let (out, inp) = (output * channels, input * channels);
            let dx = &mut dx[inp..inp + channels];
            let left = &mut left[out..out + channels];
            let (x, y) = (&x[inp..inp + channels], &y[out..out + channels]);
            for channel in 0..channels {
                let here = x[channel] == y[channel];
                let share = if here { left[channel] } else { E::default() };
                dx[channel] = dx[channel] + share;
                left[channel] = if here { E::default() } else { left[channel] };
            }
        });
    });
    dx
}

/// The mean of the pixels inside the image under each window.
pub(crate) fn average<E: Real>(sizes: &Sizes, x: &[E]) -> Vec<E> {
    let channels = sizes.input[2];
    let images = x.len() / sizes.image().max(1);
    let counts = sizes.counts::<E>();
    let mut y = vec![E::default(); images * sizes.pixels() * channels];
    for_images(&mut y, sizes.pixels() * channels, |index, y| {
        let x = &x[index * sizes.image()..][..sizes.image()];
        sizes.for_pairs(|output, input| {
            let y = &mut y[output * channels..][..channels];
            y.iter_mut().zip(&x[input * channels..]).for_each(|(y, &x)| *y = *y + x);
        });
        for (pixel, &count) in y.chunks_exact_mut(channels.max(1)).zip(&counts) {
            pixel.iter_mut().for_each(|y| *y = *y / count);
        }
    });
    y
}

/// Shares each gradient out equally among the pixels under its window.
pub(crate) fn average_backward<E: Real>(sizes: &Sizes, gradient: &[E]) -> Vec<E> {
    let channels = sizes.input[2];
    let output_length = sizes.pixels() * channels;
    let images = gradient.len() / output_length.max(1);
    let counts = sizes.counts::<E>();
    let mut dx = vec![E::default(); images * sizes.image()];
    for_images(&mut dx, sizes.image(), |index, dx| {
        let gradient = &gradient[index * output_length..][..output_length];
        sizes.for_pairs(|output, input| {
            let dx = &mut dx[input * channels..][..channels];
            for (dx, &g) in dx.iter_mut().zip(&gradient[output * channels..]) {
                *dx = *dx + g / counts[output];
            }
        });
    });
    dx
}
