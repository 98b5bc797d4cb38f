"""Convolution and pooling of sequences: images one row high."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._value import Operand, Value, shape_of
from .neural import avg_pool2d, conv2d, max_pool2d
from .shaping import expand_dims, reshape, squeeze

if TYPE_CHECKING:
    from .neural import Padding, Pair

__all__ = ["avg_pool1d", "conv1d", "max_pool1d"]


def conv1d(
    x: Operand,
    kernel: Operand,
    bias: Operand | None = None,
    *,
    stride: int = 1,
    padding: Pair = (0, 0),
    dilation: int = 1,
    groups: int = 1,
    activation: str = "none",
) -> Value:
    """Return the cross-correlation of sequences with a kernel, channels last.

    `x (batch, time, in), kernel (k, in / groups, out), bias (out,) -> (batch, time', out)`; `padding` is zeros before
    and after.
    """
    y = conv2d(
        expand_dims(x, 1),
        reshape(kernel, (1, *shape_of(kernel))),
        bias,
        strides=(1, stride),
        padding=((0, 0), padding),
        dilation=(1, dilation),
        groups=groups,
        activation=activation,
    )
    return squeeze(y, 1)


def max_pool1d(x: Operand, size: int, stride: int | None = None, padding: Pair = (0, 0)) -> Value:
    """Return the largest element of each window of sequences, channels last; padding never wins."""
    return squeeze(max_pool2d(expand_dims(x, 1), *_windows(size, stride, padding)), 1)


def avg_pool1d(x: Operand, size: int, stride: int | None = None, padding: Pair = (0, 0)) -> Value:
    """Return the mean of each window of sequences, channels last; padding does not count."""
    return squeeze(avg_pool2d(expand_dims(x, 1), *_windows(size, stride, padding)), 1)


def _windows(size: int, stride: int | None, padding: Pair) -> tuple[Pair, Pair, Padding]:
    return (1, size), (1, size if stride is None else stride), ((0, 0), padding)
