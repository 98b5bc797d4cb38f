"""Layers that enlarge, pad and crop sequences and images, channels last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import ops
from .._errors import choice, integer
from .._structure import is_sequence
from ._window import check_images, check_sequence, pair
from .base import OneInput

if TYPE_CHECKING:
    import numpy.typing as npt

    from .._value import Value

__all__ = ["Cropping1D", "Cropping2D", "UpSampling1D", "UpSampling2D", "ZeroPadding1D", "ZeroPadding2D"]


class UpSampling1D(OneInput):
    """Every step repeated `size` times: `(batch, time, c) -> (batch, time · size, c)`."""

    def __init__(self, size: int = 2, *, name: str | None = None) -> None:
        super().__init__(name)
        self.size = integer("size", size, 1)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        check_sequence(self.default_name, x.shape)
        batch, length, channels = x.shape
        repeated = ops.broadcast_to(ops.expand_dims(x, 2), (batch, length, self.size, channels))
        return ops.reshape(repeated, (batch, length * self.size, channels))


class UpSampling2D(OneInput):
    """Images `size` times as large: `(batch, h, w, c) -> (batch, h · size, w · size, c)`.

    Parameters
    ----------
    size : int or pair of int, default 2
        The factors of height and width.
    interpolation : {"nearest", "bilinear"}
        "nearest" repeats every pixel; "bilinear" interpolates between the pixels' centres and repeats the border, as
        PyTorch's `Upsample(align_corners=False)`.
    """

    def __init__(
        self, size: int | tuple[int, int] = 2, interpolation: str = "nearest", *, name: str | None = None
    ) -> None:
        super().__init__(name)
        self.size = pair("size", size)
        self.interpolation = choice("interpolation", interpolation, ("bilinear", "nearest"))

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        check_images(self.default_name, x.shape)
        return self._bilinear(x) if self.interpolation == "bilinear" else self._nearest(x)

    def _nearest(self, x: Any) -> Value:
        batch, height, width, channels = x.shape
        down, across = self.size
        apart = ops.reshape(x, (batch, height, 1, width, 1, channels))
        repeated = ops.broadcast_to(apart, (batch, height, down, width, across, channels))
        return ops.reshape(repeated, (batch, height * down, width * across, channels))

    def _bilinear(self, x: Any) -> Value:
        batch, height, width, channels = x.shape
        rows = ops.reshape(x, (batch, height, width * channels))
        tall = ops.matmul(_between(height, self.size[0]), rows)
        images = ops.reshape(tall, (batch, height * self.size[0], width, channels))
        return ops.matmul(_between(width, self.size[1]), images)


def _between(length: int, factor: int) -> npt.NDArray[np.float64]:
    """Return the matrix `(length · factor, length)` that interpolates linearly between the centres of pixels."""
    centres = np.clip((np.arange(length * factor) + 0.5) / factor - 0.5, 0, length - 1)
    return np.maximum(1 - np.abs(centres[:, None] - np.arange(length)), 0.0)


class ZeroPadding1D(OneInput):
    """Zeros before and after: `(batch, time, c) -> (batch, before + time + after, c)`; an integer means both."""

    def __init__(self, padding: int | tuple[int, int] = 1, *, name: str | None = None) -> None:
        super().__init__(name)
        self.padding = _ends("padding", padding)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        check_sequence(self.default_name, x.shape)
        return ops.pad(x, [(0, 0), self.padding, (0, 0)])


class ZeroPadding2D(OneInput):
    """Zeros around images: `(batch, h, w, c) -> (batch, top + h + bottom, left + w + right, c)`.

    Parameters
    ----------
    padding : int, (int, int) or ((int, int), (int, int)), default 1
        For all sides; for height and width; or ((top, bottom), (left, right)).
    """

    def __init__(
        self, padding: int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]] = 1, *, name: str | None = None
    ) -> None:
        super().__init__(name)
        self.padding = _sides("padding", padding)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        check_images(self.default_name, x.shape)
        return ops.pad(x, [(0, 0), *self.padding, (0, 0)])


class Cropping1D(OneInput):
    """Steps cut off at the ends: `(batch, time, c) -> (batch, time - before - after, c)`; an integer means both."""

    def __init__(self, cropping: int | tuple[int, int] = 1, *, name: str | None = None) -> None:
        super().__init__(name)
        self.cropping = _ends("cropping", cropping)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        check_sequence(self.default_name, x.shape)
        return x[:, _kept(self.default_name, x.shape[1], self.cropping)]


class Cropping2D(OneInput):
    """Borders cut off images: `(batch, h, w, c) -> (batch, h - top - bottom, w - left - right, c)`.

    Parameters
    ----------
    cropping : int, (int, int) or ((int, int), (int, int)), default 0
        For all sides; for height and width; or ((top, bottom), (left, right)).
    """

    def __init__(
        self, cropping: int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]] = 0, *, name: str | None = None
    ) -> None:
        super().__init__(name)
        self.cropping = _sides("cropping", cropping)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        check_images(self.default_name, x.shape)
        rows, columns = (_kept(self.default_name, x.shape[axis + 1], self.cropping[axis]) for axis in (0, 1))
        return x[:, rows, columns]


def _ends(argument: str, value: Any) -> tuple[int, int]:
    """Return the widths at both ends, from one for both or two."""
    values = value if is_sequence(value) else (value, value)
    if len(values) != 2:
        raise ValueError(f"`{argument}` must be an integer or a pair of them, got {value!r}")
    return integer(argument, values[0], 0), integer(argument, values[1], 0)


def _sides(argument: str, value: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    values = value if is_sequence(value) else (value, value)
    if len(values) != 2:
        raise ValueError(f"`{argument}` must be an integer, a pair, or a pair of pairs, got {value!r}")
    return _ends(argument, values[0]), _ends(argument, values[1])


def _kept(name: str, length: int, widths: tuple[int, int]) -> slice:
    if sum(widths) >= length:
        raise ValueError(f"{name}: nothing is left of a length of {length} after cropping {widths}")
    return slice(widths[0], length - widths[1])
