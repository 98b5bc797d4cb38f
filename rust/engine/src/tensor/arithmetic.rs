//! Arithmetic over whole tensors with NumPy broadcasting: what runs where no fused CPU kernel does.

use std::ops::{Add, Div, Mul, Neg, Sub};

use burn_backend::Scalar;
use burn_backend::ops::{BoolTensorOps, FloatTensorOps, IntTensorOps};
use burn_dispatch::{Dispatch, DispatchTensor};

use super::{DType, Tensor};
use crate::Number;

/// How two values compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `a == b`
    Equal,
    /// `a != b`
    NotEqual,
    /// `a > b`
    Greater,
    /// `a >= b`
    GreaterEqual,
    /// `a < b`
    Less,
    /// `a <= b`
    LessEqual,
}

type Binary = fn(DispatchTensor, DispatchTensor) -> DispatchTensor;

impl Tensor {
    fn unary(self, function: fn(DispatchTensor) -> DispatchTensor) -> Self {
        Self::from_primitive(function(self.into_primitive()))
    }

    fn with_scalar(self, constant: f64, function: fn(DispatchTensor, Scalar) -> DispatchTensor) -> Self {
        Self::from_primitive(function(self.into_primitive(), Scalar::Float(constant)))
    }

    /// Applies a float or an integer function after making the ranks equal.
    fn binary(self, other: Self, float: Binary, int: Binary) -> Self {
        let function = if self.dtype().is_int() { int } else { float };
        let (a, b) = Self::same_rank(self, other);
        Self::from_primitive(function(a.into_primitive(), b.into_primitive()))
    }

    /// `self ^ other`.
    pub fn power(self, other: Self) -> Self {
        self.binary(other, Dispatch::float_powf, |_, _| panic!("power is defined for floats"))
    }

    /// `self` where it compares so to `other` or is NaN, else `other`.
    fn extreme(self, comparison: Comparison, other: Self) -> Self {
        let nan = self.clone().compare(Comparison::NotEqual, self.clone());
        let mask = self.clone().compare(comparison, other.clone()).or(nan);
        Self::choose(mask, self, other)
    }

    /// `self` unless it compares so to `bound`, then `bound`; NaN of either stays.
    fn bounded(self, comparison: Comparison, bound: f64) -> Self {
        if bound.is_nan() {
            return self.plus(bound);
        }
        let outside = self.clone().compare_with(comparison, bound);
        self.filled(outside, bound)
    }

    /// `mask ? a : b`, broadcasting all three.
    pub fn choose(mask: Self, a: Self, b: Self) -> Self {
        let shape = crate::program::broadcast_lengths(&[&mask.shape(), &a.shape(), &b.shape()]);
        let int = a.dtype().is_int();
        let [mask, a, b] = [mask, a, b].map(|tensor| tensor.broadcast_to(&shape).into_primitive());
        Self::from_primitive(if int {
            Dispatch::int_mask_where(b, mask, a)
        } else {
            Dispatch::float_mask_where(b, mask, a)
        })
    }

    /// Compares element by element.
    pub fn compare(self, comparison: Comparison, other: Self) -> Self {
        let store = self.device().bool_storage();
        let int = self.dtype().is_int();
        let shape = crate::program::broadcast_lengths(&[&self.shape(), &other.shape()]);
        let [a, b] = [self, other].map(|tensor| tensor.broadcast_to(&shape).into_primitive());
        use Comparison::{Equal, Greater, GreaterEqual, Less, LessEqual, NotEqual};
        Self::from_primitive(match (comparison, int) {
            (Equal, false) => Dispatch::float_equal(a, b, store),
            (NotEqual, false) => Dispatch::float_not_equal(a, b, store),
            (Greater, false) => Dispatch::float_greater(a, b, store),
            (GreaterEqual, false) => Dispatch::float_greater_equal(a, b, store),
            (Less, false) => Dispatch::float_lower(a, b, store),
            (LessEqual, false) => Dispatch::float_lower_equal(a, b, store),
            (Equal, true) => Dispatch::int_equal(a, b, store),
            (NotEqual, true) => Dispatch::int_not_equal(a, b, store),
            (Greater, true) => Dispatch::int_greater(a, b, store),
            (GreaterEqual, true) => Dispatch::int_greater_equal(a, b, store),
            (Less, true) => Dispatch::int_lower(a, b, store),
            (LessEqual, true) => Dispatch::int_lower_equal(a, b, store),
        })
    }

    /// Compares each element with a number.
    pub fn compare_with(self, comparison: Comparison, number: f64) -> Self {
        let store = self.device().bool_storage();
        let int = self.dtype().is_int();
        let number = if int { Scalar::Int(number as i64) } else { Scalar::Float(number) };
        let a = self.into_primitive();
        use Comparison::{Equal, Greater, GreaterEqual, Less, LessEqual, NotEqual};
        Self::from_primitive(match (comparison, int) {
            (Equal, false) => Dispatch::float_equal_elem(a, number, store),
            (NotEqual, false) => Dispatch::float_not_equal_elem(a, number, store),
            (Greater, false) => Dispatch::float_greater_elem(a, number, store),
            (GreaterEqual, false) => Dispatch::float_greater_equal_elem(a, number, store),
            (Less, false) => Dispatch::float_lower_elem(a, number, store),
            (LessEqual, false) => Dispatch::float_lower_equal_elem(a, number, store),
            (Equal, true) => Dispatch::int_equal_elem(a, number, store),
            (NotEqual, true) => Dispatch::int_not_equal_elem(a, number, store),
            (Greater, true) => Dispatch::int_greater_elem(a, number, store),
            (GreaterEqual, true) => Dispatch::int_greater_equal_elem(a, number, store),
            (Less, true) => Dispatch::int_lower_elem(a, number, store),
            (LessEqual, true) => Dispatch::int_lower_equal_elem(a, number, store),
        })
    }

    /// Integers brought into `least..=greatest`.
    pub fn within(self, least: i64, greatest: i64) -> Self {
        let [least, greatest] = [least, greatest].map(Scalar::Int);
        Self::from_primitive(Dispatch::int_clamp(self.into_primitive(), least, greatest))
    }

    /// The number where the mask, which is broadcast, is true.
    pub fn filled(self, mask: Self, number: f64) -> Self {
        let int = self.dtype().is_int();
        let mask = mask.broadcast_to(&self.shape()).into_primitive();
        let values = self.into_primitive();
        Self::from_primitive(if int {
            Dispatch::int_mask_fill(values, mask, Scalar::Int(number as i64))
        } else {
            Dispatch::float_mask_fill(values, mask, Scalar::Float(number))
        })
    }

    /// Both true.
    pub fn and(self, other: Self) -> Self {
        self.logical(other, Dispatch::bool_and)
    }

    /// Either true.
    pub fn or(self, other: Self) -> Self {
        self.logical(other, Dispatch::bool_or)
    }

    /// True where it is false.
    pub fn negated(self) -> Self {
        self.unary(Dispatch::bool_not)
    }

    fn logical(self, other: Self, function: Binary) -> Self {
        let shape = crate::program::broadcast_lengths(&[&self.shape(), &other.shape()]);
        let [a, b] = [self, other].map(|tensor| tensor.broadcast_to(&shape).into_primitive());
        Self::from_primitive(function(a, b))
    }

    /// Matrix product over the last two axes; leading axes broadcast.
    pub fn matmul(self, other: Self) -> Self {
        let (a, b) = Self::same_rank(self, other);
        Self::from_primitive(Dispatch::float_matmul(a.into_primitive(), b.into_primitive()))
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $float:path, $int:path) => {
        impl $trait for Tensor {
            type Output = Self;
            fn $method(self, other: Self) -> Self {
                self.binary(other, $float, $int)
            }
        }
    };
}

operator!(Add, add, Dispatch::float_add, Dispatch::int_add);
operator!(Sub, sub, Dispatch::float_sub, Dispatch::int_sub);
operator!(Mul, mul, Dispatch::float_mul, Dispatch::int_mul);
operator!(Div, div, Dispatch::float_div, Dispatch::int_div);

impl Neg for Tensor {
    type Output = Self;
    fn neg(self) -> Self {
        self.unary(Dispatch::float_neg)
    }
}

impl Number for Tensor {
    fn plus(self, constant: f64) -> Self {
        self.with_scalar(constant, Dispatch::float_add_scalar)
    }
    fn times(self, constant: f64) -> Self {
        self.with_scalar(constant, Dispatch::float_mul_scalar)
    }
    fn recip_of(self, constant: f64) -> Self {
        let reciprocal = self.unary(Dispatch::float_recip);
        if constant == 1.0 { reciprocal } else { reciprocal.times(constant) }
    }
    fn greater_of(self, other: Self) -> Self {
        self.extreme(Comparison::Greater, other)
    }
    fn lesser_of(self, other: Self) -> Self {
        self.extreme(Comparison::Less, other)
    }
    fn at_least(self, constant: f64) -> Self {
        self.bounded(Comparison::Less, constant)
    }
    fn at_most(self, constant: f64) -> Self {
        self.bounded(Comparison::Greater, constant)
    }
    fn step(self) -> Self {
        let dtype = self.dtype();
        self.compare_with(Comparison::Greater, 0.0).cast(dtype)
    }
    fn sign(self) -> Self {
        self.unary(Dispatch::float_sign)
    }
    fn sqrt(self) -> Self {
        self.unary(Dispatch::float_sqrt)
    }
    fn exp(self) -> Self {
        self.unary(Dispatch::float_exp)
    }
    fn expm1(self) -> Self {
        // Burn has none.
        self.clone().times(0.5).tanh() * self.exp().plus(1.0)
    }
    fn log(self) -> Self {
        self.unary(Dispatch::float_log)
    }
    fn log1p(self) -> Self {
        self.unary(Dispatch::float_log1p)
    }
    fn tanh(self) -> Self {
        self.unary(Dispatch::float_tanh)
    }
    fn sin(self) -> Self {
        self.unary(Dispatch::float_sin)
    }
    fn cos(self) -> Self {
        self.unary(Dispatch::float_cos)
    }
    fn erf(self) -> Self {
        self.unary(Dispatch::float_erf)
    }
    fn abs(self) -> Self {
        self.unary(Dispatch::float_abs)
    }
    fn floor(self) -> Self {
        self.unary(Dispatch::float_floor)
    }
    fn ceil(self) -> Self {
        self.unary(Dispatch::float_ceil)
    }
    fn round(self) -> Self {
        self.unary(Dispatch::float_round)
    }
    fn constant(&self, constant: f64) -> Self {
        Self::full(&vec![1; self.rank()], constant, self.dtype(), &self.device())
    }
}

impl Tensor {
    /// `sum + self` of equal shapes, in place where the storage allows; `self` if there is no sum yet.
    pub(crate) fn added_to(self, sum: Option<Self>) -> Self {
        fn in_place<E: crate::tensor::Real>(sum: &mut Tensor, term: &Tensor) -> bool {
            match (sum.as_mut_slice::<E>(), term.as_slice::<E>(), term.rows()) {
                (Some(sum), Some(term), _) => crate::cpu::accumulate(sum, term),
                (Some(sum), _, Some(rows)) => rows.add_to(sum),
                _ => return false,
            }
            true
        }
        let Some(mut sum) = sum else {
            return self;
        };
        if sum.rows().is_some() {
            return match self.dense() {
                Some(dense) => sum.added_to(Some(dense)),
                None => sum.added_to(Some(self)),
            };
        }
        if sum.is_narrow_cpu() {
            let dtype = sum.dtype();
            return self.cast(DType::F32).added_to(Some(sum.cast(DType::F32))).cast(dtype);
        }
        let done = in_place::<f32>(&mut sum, &self) || in_place::<f64>(&mut sum, &self);
        if done { sum } else { sum + self }
    }
}
