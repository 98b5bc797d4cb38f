"""Sums, means, extremes and softmax over axes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TypeAlias

from .._value import Operand, Value, apply, binary, cast, kind_of, shape_of

__all__ = [
    "all",
    "any",
    "argmax",
    "argmin",
    "cumprod",
    "cumsum",
    "log_softmax",
    "logsumexp",
    "max",
    "mean",
    "min",
    "norm",
    "normalize",
    "prod",
    "softmax",
    "standard_deviation",
    "sum",
    "variance",
]

Axes: TypeAlias = int | Sequence[int] | None


def one_axis(x: Operand, axis: int) -> int:
    """Return an axis counted from the front."""
    try:
        place = operator.index(axis)
    except TypeError:
        raise TypeError(f"`axis` must be an integer, got {axis!r}") from None
    ndim = len(shape_of(x))
    if not -ndim <= place < ndim:
        raise ValueError(f"`axis` must be from {-ndim} to {ndim - 1} for {ndim} axes, got {place}")
    return place % ndim


def several_axes(x: Operand, axis: int | Sequence[int]) -> list[int]:
    """Return one axis or several counted from the front."""
    return [one_axis(x, n) for n in (axis if hasattr(axis, "__len__") else [axis])]  # type: ignore[union-attr]


def reduce(operation: str, x: Operand, axis: Axes, *, keepdims: bool) -> Value:
    """Apply a reduction over axes, all of them if `axis` is None."""
    axes = None if axis is None else several_axes(x, axis)
    x = cast(x, "float") if operation == "mean" or kind_of(x) == "bool" else x
    return apply(operation, x, axes=axes, keepdims=keepdims)


def sum(x: Operand, axis: Axes = None, *, keepdims: bool = False) -> Value:  # noqa: A001  NumPy's name
    """Return the sum over axes."""
    return reduce("sum", x, axis, keepdims=keepdims)


def mean(x: Operand, axis: Axes = None, *, keepdims: bool = False) -> Value:
    """Return the mean over axes."""
    return reduce("mean", x, axis, keepdims=keepdims)


def max(x: Operand, axis: Axes = None, *, keepdims: bool = False) -> Value:  # noqa: A001  NumPy's name
    """Return the largest element over axes."""
    return reduce("max", x, axis, keepdims=keepdims)


def min(x: Operand, axis: Axes = None, *, keepdims: bool = False) -> Value:  # noqa: A001  NumPy's name
    """Return the smallest element over axes."""
    return reduce("min", x, axis, keepdims=keepdims)


def variance(x: Operand, axis: Axes = None, *, keepdims: bool = False) -> Value:
    """Return the mean squared distance from the mean over axes (biased: divided by n)."""
    centred = binary("subtract", x, mean(x, axis, keepdims=True))
    return mean(binary("multiply", centred, centred), axis, keepdims=keepdims)


def standard_deviation(x: Operand, axis: Axes = None, *, keepdims: bool = False) -> Value:
    """Return the square root of the (biased) variance over axes; its slope where all elements are equal is 0."""
    return _root(variance(x, axis, keepdims=keepdims))


def any(x: Operand, axis: Axes = None, *, keepdims: bool = False) -> Value:  # noqa: A001  NumPy's name
    """Return whether one element or more is not 0, over axes."""
    return binary("greater", reduce("sum", cast(x, "bool"), axis, keepdims=keepdims), 0.0)


def all(x: Operand, axis: Axes = None, *, keepdims: bool = False) -> Value:  # noqa: A001  NumPy's name
    """Return whether no element is 0, over axes."""
    return binary("equal", reduce("sum", apply("logical_not", cast(x, "bool")), axis, keepdims=keepdims), 0.0)


def prod(x: Operand, axis: int = -1, *, keepdims: bool = False) -> Value:
    """Return the product along an axis (not that of the batch); its gradient is exact where elements are 0, too."""
    place, length = static_axis(x, axis)
    if not length:
        raise ValueError(f"axis {axis} has no elements to multiply; shape {shape_of(x)}")
    value = cast(x, "float") if kind_of(x) == "bool" else x
    while length > 1:
        half = length // 2
        pairs = binary("multiply", part(value, place, 0, half), part(value, place, half, 2 * half))
        rest = [part(value, place, 2 * half, length)] if length % 2 else []
        value = apply("concatenate", pairs, *rest, axis=place) if rest else pairs
        length = half + length % 2
    return reduce("sum", value, place, keepdims=keepdims)


def cumsum(x: Operand, axis: int = -1) -> Value:
    """Return the sums of the elements up to each one along an axis (not that of the batch)."""
    return _scanned("add", 0.0, x, axis)


def cumprod(x: Operand, axis: int = -1) -> Value:
    """Return the products of the elements up to each one along an axis (not that of the batch)."""
    return _scanned("multiply", 1.0, x, axis)


def norm(x: Operand, axis: Axes = None, *, keepdims: bool = False) -> Value:
    """Return the Euclidean norm sqrt(Σ x²) over axes; its slope at 0 is 0."""
    return _root(reduce("sum", apply("square", cast(x, "float")), axis, keepdims=keepdims))


def normalize(x: Operand, axis: Axes = -1, eps: float = 1e-12) -> Value:
    """Return x / max(norm, eps), of length 1 over axes."""
    return binary("divide", x, binary("maximum", norm(x, axis, keepdims=True), eps), floating=True)


def argmax(x: Operand, axis: int = -1) -> Value:
    """Return the index of the largest element along an axis, the first one of equals."""
    return apply("argmax", x, axis=one_axis(x, axis))


def argmin(x: Operand, axis: int = -1) -> Value:
    """Return the index of the smallest element along an axis, the first one of equals."""
    return apply("argmin", x, axis=one_axis(x, axis))


def logsumexp(x: Operand, axis: int = -1, *, keepdims: bool = False) -> Value:
    """Return log Σ exp(x) along an axis without overflow."""
    return apply("logsumexp", cast(x, "float"), axis=one_axis(x, axis), keepdims=keepdims)


def softmax(x: Operand, axis: int = -1) -> Value:
    """Return exp(x) / Σ exp(x) along an axis without overflow."""
    return apply("softmax", cast(x, "float"), axis=one_axis(x, axis))


def log_softmax(x: Operand, axis: int = -1) -> Value:
    """Return x - log Σ exp(x) along an axis without overflow."""
    return apply("log_softmax", cast(x, "float"), axis=one_axis(x, axis))


def _root(x: Operand) -> Value:
    """Return the square root of x, whose slope at 0 is 0."""
    zero = binary("equal", x, 0.0)
    return apply("where", zero, 0.0, apply("sqrt", apply("where", zero, 1.0, x)))


def _scanned(operation: str, neutral: float, x: Operand, axis: int) -> Value:
    """Join each element with those before it, 1, 2, 4 and so on places back."""
    place, length = static_axis(x, axis)
    value, step = cast(x, "float") if kind_of(x) == "bool" else x, 1
    while step < length:
        widths = [[step if each == place else 0, 0] for each in range(len(shape_of(x)))]
        earlier = apply("pad", part(value, place, 0, length - step), widths=widths, value=neutral)
        value, step = binary(operation, value, earlier), 2 * step
    return value if isinstance(value, Value) else apply("concatenate", value, axis=place)


def part(x: Operand, axis: int, start: int, stop: int) -> Value:
    """Return the elements from start to before stop along an axis counted from the front."""
    ndim = len(shape_of(x))
    starts, stops = [0] * ndim, [None] * ndim
    starts[axis], stops[axis] = start, stop  # type: ignore[call-overload]
    return apply("slice", x, starts=starts, stops=stops, steps=[1] * ndim)


def static_axis(x: Operand, axis: int) -> tuple[int, int]:
    """Return an axis counted from the front and its length."""
    place = one_axis(x, axis)
    length = shape_of(x)[place]
    if length is None:
        raise ValueError(f"axis {axis} is the batch, whose length is not fixed; shape {shape_of(x)}")
    return place, length
