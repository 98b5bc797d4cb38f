"""Inverse and hyperbolic functions, made of roots, exponentials and logarithms; exact to a few last digits."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

from .._value import Operand, Value, apply, binary, cast
from .elementwise import expm1, log1p, reciprocal, sqrt, square

__all__ = ["arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "cosh", "sinh"]

_HALVINGS = 2  # of an angle of at most π/4: tan is at most 0.2 then, and the 11th term of the series below 1e-17
_TERMS = 11


def sinh(x: Operand) -> Value:
    """Return the hyperbolic sine (e^x - e^-x) / 2."""
    x = cast(x, "float")
    return binary("multiply", binary("subtract", expm1(x), expm1(apply("neg", x))), 0.5)


def cosh(x: Operand) -> Value:
    """Return the hyperbolic cosine (e^x + e^-x) / 2."""
    size = apply("abs", cast(x, "float"))
    return 1.0 - expm1(size) * expm1(-size) * 0.5  # whose slope cancels nothing near 0


def arcsinh(x: Operand) -> Value:
    """Return the number whose hyperbolic sine is x."""
    number = cast(x, "float")
    size = _size(number)
    scale = apply("stop_gradient", binary("maximum", size, 1.0))  # squares of what is divided by it do not overflow
    root = scale * sqrt(square(size / scale) + square(reciprocal(scale)))
    result = log1p(size + size * (size / (root + 1.0)))
    return apply("where", number < 0.0, -result, result)


def arccosh(x: Operand) -> Value:
    """Return the number of at least 0 whose hyperbolic cosine is x ≥ 1."""
    above = binary("subtract", cast(x, "float"), 1.0)
    return log1p(above + sqrt(above) * sqrt(above + 2.0))


def arctanh(x: Operand) -> Value:
    """Return the number whose hyperbolic tangent is x, between -1 and 1."""
    x = cast(x, "float")
    return (log1p(x) - log1p(apply("neg", x))) * 0.5


def arctan(x: Operand) -> Value:
    """Return the angle between -π/2 and π/2 whose tangent is x."""
    number = cast(x, "float")
    large = abs(number) > 1.0
    inverse = reciprocal(apply("where", large, number, 1.0))
    angle = _arctan_of_at_most_one(apply("where", large, inverse, number))
    right = apply("where", number < 0.0, -math.pi / 2, math.pi / 2)
    return apply("where", large, right - angle, angle)


def arcsin(x: Operand) -> Value:
    """Return the angle between -π/2 and π/2 whose sine is x, between -1 and 1."""
    return arctan2(x, _leg(x))


def arccos(x: Operand) -> Value:
    """Return the angle between 0 and π whose cosine is x, between -1 and 1."""
    return arctan2(_leg(x), x)


def arctan2(y: Operand, x: Operand) -> Value:
    """Return the angle between -π and π of the point (x, y) of the plane, 0 at its origin."""
    up, right = cast(y, "float"), cast(x, "float")  # by operators, an array goes where the other value is
    scale = apply("stop_gradient", binary("maximum", abs(up), abs(right)))  # of which the angle does not depend
    scale = apply("where", scale > 0.0, scale, 1.0)
    up, right = up / scale, right / scale
    squares = right * right + up * up
    radius = sqrt(apply("where", squares > 0.0, squares, 1.0))
    half = _arctan_of_at_most_one(up / (radius + _size(right)))
    behind = apply("where", up < 0.0, -math.pi, math.pi)
    return apply("where", right < 0.0, behind - 2.0 * half, 2.0 * half)


def _size(x: Any) -> Value:
    """Return |x|, whose slope at 0 is 1."""
    return apply("where", x < 0.0, -x, x)


def _leg(x: Operand) -> Value:
    return sqrt(binary("subtract", 1.0, x) * binary("add", 1.0, x))  # 1 - x² would round before it cancels


def _arctan_of_at_most_one(t: Value) -> Value:
    """Return arctan(t) by its series after halving the angle: tan(a/2) = t / (1 + sqrt(1 + t²))."""
    for _ in range(_HALVINGS):
        t = t / (sqrt(square(t) + 1.0) + 1.0)
    s = square(t)
    terms = [(-1.0) ** n / (2 * n + 1) for n in range(_TERMS)]
    series = reduce(lambda sum_, term: sum_ * s + term, reversed(terms[:-1]), s * 0.0 + terms[-1])
    return t * series * 2.0**_HALVINGS
