"""Functions of one number, element by element; integers are taken as floats."""

from __future__ import annotations

import math

from .._value import Operand, Value, apply, binary, cast

__all__ = [
    "abs",
    "ceil",
    "clip",
    "cos",
    "erf",
    "exp",
    "expm1",
    "floor",
    "full_like",
    "isfinite",
    "isnan",
    "log",
    "log1p",
    "log2",
    "log10",
    "negative",
    "ones_like",
    "reciprocal",
    "round",
    "rsqrt",
    "sign",
    "sin",
    "sqrt",
    "square",
    "stop_gradient",
    "tan",
    "trunc",
    "zeros_like",
]


def _unary(operation: str, x: Operand) -> Value:
    return apply(operation, cast(x, "float"))


def negative(x: Operand) -> Value:
    """Return -x."""
    return _unary("neg", x)


def exp(x: Operand) -> Value:
    """Return e^x."""
    return _unary("exp", x)


def log(x: Operand) -> Value:
    """Return the natural logarithm of x."""
    return _unary("log", x)


def log1p(x: Operand) -> Value:
    """Return log(1 + x), exact for small x."""
    return _unary("log1p", x)


def log2(x: Operand) -> Value:
    """Return the logarithm of x to base 2."""
    return binary("multiply", log(x), 1.0 / math.log(2.0))


def log10(x: Operand) -> Value:
    """Return the logarithm of x to base 10."""
    return binary("multiply", log(x), 1.0 / math.log(10.0))


def expm1(x: Operand) -> Value:
    """Return e^x - 1, exact for small x."""
    return _unary("expm1", x)


def sqrt(x: Operand) -> Value:
    """Return the square root of x."""
    return _unary("sqrt", x)


def rsqrt(x: Operand) -> Value:
    """Return 1 / sqrt(x)."""
    return _unary("rsqrt", x)


def reciprocal(x: Operand) -> Value:
    """Return 1 / x."""
    return _unary("reciprocal", x)


def square(x: Operand) -> Value:
    """Return x²."""
    return _unary("square", x)


def abs(x: Operand) -> Value:  # noqa: A001  NumPy's name
    """Return |x|; its slope at 0 is 0."""
    return _unary("abs", x)


def sign(x: Operand) -> Value:
    """Return -1, 0 or 1 by the sign of x; no gradient passes."""
    return _unary("sign", x)


def sin(x: Operand) -> Value:
    """Return the sine of x in radians."""
    return _unary("sin", x)


def cos(x: Operand) -> Value:
    """Return the cosine of x in radians."""
    return _unary("cos", x)


def tan(x: Operand) -> Value:
    """Return the tangent of x in radians."""
    return binary("divide", sin(x), cos(x))


def erf(x: Operand) -> Value:
    """Return the error function 2/sqrt(pi) · the integral of exp(-t²) from 0 to x."""
    return _unary("erf", x)


def floor(x: Operand) -> Value:
    """Return the greatest whole number not above x; no gradient passes."""
    return _unary("floor", x)


def ceil(x: Operand) -> Value:
    """Return the least whole number not below x; no gradient passes."""
    return _unary("ceil", x)


def round(x: Operand) -> Value:  # noqa: A001  NumPy's name
    """Return the nearest whole number, halves to even; no gradient passes."""
    return _unary("round", x)


def trunc(x: Operand) -> Value:
    """Return x without what follows the point, cut towards zero; no gradient passes."""
    return binary("multiply", sign(x), floor(abs(x)))


def isnan(x: Operand) -> Value:
    """Return whether x is not a number, element by element."""
    x = cast(x, "float")
    return binary("not_equal", x, x)


def isfinite(x: Operand) -> Value:
    """Return whether x is neither infinite nor NaN, element by element."""
    return binary("less", abs(x), math.inf)


def clip(x: Operand, low: Operand, high: Operand) -> Value:
    """Return x held between low and high."""
    return binary("minimum", binary("maximum", x, low), high)


def stop_gradient(x: Operand) -> Value:
    """Return x as a constant to gradients."""
    return _unary("stop_gradient", x)


def ones_like(x: Operand) -> Value:
    """Return ones in the shape of x."""
    positive = binary("greater", x, 0.0)
    return stop_gradient(_unary("square", _unary("sign", apply("where", positive, cast(x, "float"), -1.0))))


def zeros_like(x: Operand) -> Value:
    """Return zeros in the shape of x."""
    return binary("multiply", ones_like(x), 0.0)


def full_like(x: Operand, value: Operand) -> Value:
    """Return a value, broadcast, in the shape of x."""
    return binary("add", zeros_like(x), value)
