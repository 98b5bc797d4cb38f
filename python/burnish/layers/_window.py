"""Windows of convolution and pooling: pairs and paddings."""

from __future__ import annotations

from typing import Any

from .._errors import choice, integer
from .._structure import is_sequence
from ..losses import show

__all__ = ["check_images", "check_sequence", "paddings", "pair"]


def pair(argument: str, value: Any) -> tuple[int, int]:
    """Return a pair of positive integers from one integer or two."""
    values = value if is_sequence(value) else (value, value)
    if len(values) != 2:
        raise ValueError(f"`{argument}` must be an integer or a pair of them, got {value!r}")
    return integer(argument, values[0], 1), integer(argument, values[1], 1)


def check_images(name: str, shape: tuple[int | None, ...]) -> None:
    """Raise unless the shape is that of images."""
    if len(shape) != 4:
        hint = "; give grey images a channel: x[..., np.newaxis]" if len(shape) == 3 else ""
        raise ValueError(f"{name}: expected images of shape (batch, height, width, channels), got {show(shape)}{hint}")


def check_sequence(name: str, shape: tuple[int | None, ...]) -> None:
    """Raise unless the shape is that of sequences of vectors."""
    if len(shape) != 3:
        raise ValueError(f"{name}: expected sequences of shape (batch, time, channels), got {show(shape)}")


def paddings(
    padding: str, lengths: tuple[int, int], size: tuple[int, int], strides: tuple[int, int], dilation: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return zeros before and after each axis: none for "valid"; "same" makes lengths ceil(length / stride)."""
    if choice("padding", padding, ("same", "valid")) == "valid":
        return (0, 0), (0, 0)
    first, second = (
        _same(length, width, stride, dilated)
        for length, width, stride, dilated in zip(lengths, size, strides, dilation, strict=True)
    )
    return first, second


def _same(length: int, size: int, stride: int, dilation: int) -> tuple[int, int]:
    windows = -(-length // stride)
    total = max((windows - 1) * stride + (size - 1) * dilation + 1 - length, 0)
    return total // 2, total - total // 2
