"""Sums, means, extremes and softmax over axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from .._value import Operand, Value, apply, binary, cast, kind_of, shape_of

__all__ = [
    "argmax",
    "argmin",
    "log_softmax",
    "logsumexp",
    "max",
    "mean",
    "min",
    "softmax",
    "standard_deviation",
    "sum",
    "variance",
]

Axes: TypeAlias = int | Sequence[int] | None


def one_axis(x: Operand, axis: int) -> int:
    """Return an axis counted from the front."""
    ndim = len(shape_of(x))
    if not -ndim <= axis < ndim:
        raise ValueError(f"`axis` must be from {-ndim} to {ndim - 1} for {ndim} axes, got {axis}")
    return axis % ndim


def reduce(operation: str, x: Operand, axis: Axes, *, keepdims: bool) -> Value:
    """Apply a reduction over axes, all of them if `axis` is None."""
    axes = None if axis is None else [one_axis(x, n) for n in ([axis] if isinstance(axis, int) else axis)]
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
    """Return the square root of the (biased) variance over axes."""
    return apply("sqrt", variance(x, axis, keepdims=keepdims))


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
