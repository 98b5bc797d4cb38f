//! The small numeric trait that lets one formula serve CPU loops and device tensors.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// A number, or a tensor of them: what an element-wise formula is written over.
///
/// Implemented by `f32` and `f64` (fused loops over slices) and by [`Tensor`](crate::Tensor) (any device).
/// Comparisons follow IEEE 754 so that NaN is never hidden: `greater_of(NaN, x)` is NaN.
pub trait Number:
    Clone + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    /// `self + constant`.
    fn plus(self, constant: f64) -> Self;
    /// `self * constant`.
    fn times(self, constant: f64) -> Self;
    /// `constant / self`.
    fn recip_of(self, constant: f64) -> Self;
    /// The larger of `self` and `constant`.
    fn at_least(self, constant: f64) -> Self;
    /// The smaller of `self` and `constant`.
    fn at_most(self, constant: f64) -> Self;
    /// The larger of two.
    fn greater_of(self, other: Self) -> Self;
    /// 1 where positive, else 0.
    fn step(self) -> Self;
    /// -1, 0 or 1.
    fn sign(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Exponential.
    fn exp(self) -> Self;
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
    /// `1 / (1 + exp(-self))`, never overflowing.
    #[inline(always)]
    fn sigmoid(self) -> Self {
        self.times(0.5).tanh().times(0.5).plus(0.5)
    }
}

macro_rules! float_number {
    ($float:ty, $erf:path) => {
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
            fn at_least(self, constant: f64) -> Self {
                self.greater_of(constant as $float)
            }
            #[inline(always)]
            fn at_most(self, constant: f64) -> Self {
                let constant = constant as $float;
                if self > constant { constant } else { self }
            }
            #[inline(always)]
            fn greater_of(self, other: Self) -> Self {
                if self < other { other } else { self }
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
                <$float>::exp(self)
            }
            #[inline(always)]
            fn log(self) -> Self {
                <$float>::ln(self)
            }
            #[inline(always)]
            fn log1p(self) -> Self {
                <$float>::ln_1p(self)
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                <$float>::tanh(self)
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

float_number!(f32, libm::erff);
float_number!(f64, libm::erf);
