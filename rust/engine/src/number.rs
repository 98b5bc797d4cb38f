//! The small numeric trait that lets one formula serve CPU loops and device tensors.

use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::cpu::exponential;

/// A number, or a tensor of them: what an element-wise formula is written over.
///
/// Implemented by `f32` and `f64` (fused loops over slices) and by [`Tensor`](crate::Tensor) (any device).
/// NaN is never hidden: the greater of two is NaN if either is.
pub trait Number:
    Clone + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    /// `self + constant`.
    fn plus(self, constant: f64) -> Self;
    /// `self * constant`.
    fn times(self, constant: f64) -> Self;
    /// `constant / self`.
    fn recip_of(self, constant: f64) -> Self;
    /// The greater of two; NaN if either is.
    fn greater_of(self, other: Self) -> Self;
    /// The lesser of two; NaN if either is.
    fn lesser_of(self, other: Self) -> Self;
    /// The greater of `self` and `constant`.
    fn at_least(self, constant: f64) -> Self;
    /// The lesser of `self` and `constant`.
    fn at_most(self, constant: f64) -> Self;
    /// 1 where positive, else 0.
    fn step(self) -> Self;
    /// -1, 0 or 1.
    fn sign(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Exponential.
    fn exp(self) -> Self;
    /// `e^self - 1`, exact to the last places near 0 too.
    fn expm1(self) -> Self;
    /// Natural logarithm.
    fn log(self) -> Self;
    /// `log(1 + self)`.
    fn log1p(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Sine.
    fn sin(self) -> Self;
    /// Cosine.
    fn cos(self) -> Self;
    /// Error function.
    fn erf(self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// Largest integer not above.
    fn floor(self) -> Self;
    /// Smallest integer not below.
    fn ceil(self) -> Self;
    /// Nearest integer, ties to even.
    fn round(self) -> Self;
    /// A number of the same shape with every element `constant`.
    fn constant(&self, constant: f64) -> Self;

    /// `self * self`.
    #[inline(always)]
    fn square(self) -> Self {
        self.clone() * self
    }
    /// `1 / (1 + exp(-self))`: where the exponential is infinite, 0.
    #[inline(always)]
    fn sigmoid(self) -> Self {
        (-self).exp().plus(1.0).recip_of(1.0)
    }
}

/// Whether a value differs from itself.
#[inline(always)]
#[allow(clippy::eq_op)]
pub(crate) fn is_nan<T: PartialOrd + Copy>(value: T) -> bool {
    value != value
}

/// `a` if it is preferred or NaN, else `b`: so NaN of either stays, in two comparisons that vectorise.
#[inline(always)]
pub(crate) fn prefer<T: PartialOrd + Copy>(preferred: bool, a: T, b: T) -> T {
    if preferred || is_nan(a) { a } else { b }
}

macro_rules! float_number {
    ($float:ty, $exp:path, $expm1:path, $log:path, $log1p:path, $tanh:path, $erf:path) => {
        impl Number for $float {
            #[inline(always)]
            fn plus(self, constant: f64) -> Self {
                self + constant as $float
            }
            #[inline(always)]
            fn times(self, constant: f64) -> Self {
                self * constant as $float
            }
            #[inline(always)]
            fn recip_of(self, constant: f64) -> Self {
                constant as $float / self
            }
            #[inline(always)]
            fn greater_of(self, other: Self) -> Self {
                prefer(self > other, self, other)
            }
            #[inline(always)]
            fn lesser_of(self, other: Self) -> Self {
                prefer(self < other, self, other)
            }
            // The constant goes first: that it is no NaN is then found out once, outside the loop.
            #[inline(always)]
            fn at_least(self, constant: f64) -> Self {
                (constant as $float).greater_of(self)
            }
            #[inline(always)]
            fn at_most(self, constant: f64) -> Self {
                (constant as $float).lesser_of(self)
            }
            #[inline(always)]
            fn step(self) -> Self {
                if self > 0.0 { 1.0 } else { 0.0 }
            }
            #[inline(always)]
            fn sign(self) -> Self {
                if self > 0.0 {
                    1.0
                } else if self < 0.0 {
                    -1.0
                } else {
                    self * 0.0
                }
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$float>::sqrt(self)
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $exp(self)
            }
            #[inline(always)]
            fn expm1(self) -> Self {
                $expm1(self)
            }
            #[inline(always)]
            fn log(self) -> Self {
                $log(self)
            }
            #[inline(always)]
            fn log1p(self) -> Self {
                $log1p(self)
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                $tanh(self)
            }
            #[inline(always)]
            fn sin(self) -> Self {
                <$float>::sin(self)
            }
            #[inline(always)]
            fn cos(self) -> Self {
                <$float>::cos(self)
            }
            #[inline(always)]
            fn erf(self) -> Self {
                $erf(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                <$float>::abs(self)
            }
            #[inline(always)]
            fn floor(self) -> Self {
                <$float>::floor(self)
            }
            #[inline(always)]
            fn ceil(self) -> Self {
                <$float>::ceil(self)
            }
            #[inline(always)]
            fn round(self) -> Self {
                <$float>::round_ties_even(self)
            }
            #[inline(always)]
            fn constant(&self, constant: f64) -> Self {
                constant as $float
            }
        }
    };
}

float_number!(
    f32,
    exponential::exp,
    exponential::expm1,
    exponential::log,
    exponential::log1p,
    exponential::tanh,
    exponential::erf
);
float_number!(f64, f64::exp, f64::exp_m1, f64::ln, f64::ln_1p, f64::tanh, libm::erf);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Tensor};

    /// Every pair of these, by IEEE 754's `maximum` and `minimum` (which keep NaN).
    const VALUES: [f64; 6] = [f64::NAN, f64::NEG_INFINITY, -1.5, 0.0, 2.0, f64::INFINITY];

    fn extremes(a: f64, b: f64) -> [f64; 2] {
        if a.is_nan() || b.is_nan() { [f64::NAN; 2] } else { [a.max(b), a.min(b)] }
    }

    #[track_caller]
    fn check(found: [f64; 2], expected: [f64; 2], what: &str) {
        assert_eq!(found.map(f64::to_bits), expected.map(f64::to_bits), "{what}: {found:?}, not {expected:?}");
    }

    #[test]
    fn extremes_keep_nan_of_either_operand() {
        for a in VALUES {
            for b in VALUES {
                let expected = extremes(a, b).map(|value| if value.is_nan() { f64::NAN } else { value });
                let canonical = |value: f64| if value.is_nan() { f64::NAN } else { value };
                check([a.greater_of(b), a.lesser_of(b)].map(canonical), expected, "two f64");
                check([a.at_least(b), a.at_most(b)].map(canonical), expected, "f64 and a constant");
                let (x, y) = (a as f32, b as f32);
                let narrow = [x.greater_of(y), x.lesser_of(y)].map(|value| canonical(value.into()));
                check(narrow, expected, "two f32");
                for device in [Device::cpu(), Device::ndarray()] {
                    let [x, y] = [a, b].map(|value| Tensor::from_values(vec![value], &[1], &device));
                    let both = [x.clone().greater_of(y.clone()), x.clone().lesser_of(y)];
                    check(both.map(|found| canonical(found.scalar())), expected, "two tensors");
                    let one = [x.clone().at_least(b), x.at_most(b)];
                    check(one.map(|found| canonical(found.scalar())), expected, "a tensor and a constant");
                }
            }
        }
    }
}
