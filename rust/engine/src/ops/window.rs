//! The geometry that convolution and pooling share: windows that slide over height and width.

use crate::program::{Dim, Type, show};

/// Sizes, steps and borders of windows over (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub size: [usize; 2],
    pub strides: [usize; 2],
    /// Before and after, of height and of width.
    pub padding: [[usize; 2]; 2],
    pub dilation: [usize; 2],
}

/// Longer windows, steps and borders are mistakes, and would overflow.
const GREATEST: usize = 1 << 24;

impl Window {
    /// The size with the gaps of dilation.
    fn extent(&self, axis: usize) -> usize {
        (self.size[axis] - 1) * self.dilation[axis] + 1
    }

    /// The output's height and width for an input's.
    pub(crate) fn output(&self, input: [usize; 2]) -> [usize; 2] {
        [0, 1].map(|axis| {
            let padded = input[axis] + self.padding[axis][0] + self.padding[axis][1];
            (padded - self.extent(axis)) / self.strides[axis] + 1
        })
    }

    /// The output's height and width for an input `(batch, height, width, channels)`, or why there is none.
    pub(crate) fn infer(&self, x: &Type) -> Result<[usize; 2], String> {
        if x.rank() != 4 || x.shape[1..].iter().any(|dim| dim.batch) {
            return Err(format!("the input must have shape (batch, height, width, channels), got {}", show(&x.shape)));
        }
        let numbers = self.size.iter().chain(&self.strides).chain(&self.dilation);
        if numbers.clone().any(|&number| number == 0 || number > GREATEST)
            || self.padding.iter().flatten().any(|&number| number > GREATEST)
        {
            return Err("window sizes, strides and dilation must be at least 1 (and all below 2^24)".to_owned());
        }
        let input = [x.shape[1].count, x.shape[2].count];
        for (axis, name) in ["height", "width"].into_iter().enumerate() {
            let padded = input[axis] + self.padding[axis][0] + self.padding[axis][1];
            if padded < self.extent(axis) {
                return Err(format!(
                    "the window's {name} is {}, the input's only {padded} (padding included)",
                    self.extent(axis)
                ));
            }
        }
        Ok(self.output(input))
    }

    /// The type of an output with `channels`.
    pub(crate) fn output_type(&self, x: &Type, channels: Dim) -> Result<Type, String> {
        let [height, width] = self.infer(x)?;
        Ok(Type::float(vec![x.shape[0], Dim::known(height), Dim::known(width), channels]))
    }

    /// The input's place along an axis under an output's place and a window's place; `None` in the border.
    #[inline(always)]
    pub(crate) fn source(&self, axis: usize, output: usize, window: usize, length: usize) -> Option<usize> {
        let place = output * self.strides[axis] + window * self.dilation[axis];
        place.checked_sub(self.padding[axis][0]).filter(|&place| place < length)
    }
}
