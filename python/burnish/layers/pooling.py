"""Pooling, channels last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import ops
from .._errors import choice, integer
from ..losses import show
from ._window import check_images, check_sequence, paddings, pair
from .base import Layer, OneInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._value import Value

__all__ = ["AvgPool1D", "AvgPool2D", "GlobalAvgPool", "GlobalMaxPool", "MaxPool1D", "MaxPool2D"]


class _Pool2D(OneInput):
    def __init__(
        self,
        pool_size: int | tuple[int, int] = 2,
        strides: int | tuple[int, int] | None = None,
        padding: str = "valid",
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.pool_size = pair("pool_size", pool_size)
        self.strides = self.pool_size if strides is None else pair("strides", strides)
        self.padding = choice("padding", padding, ("same", "valid"))

    def _pooled(self, pool: Callable[..., Value], x: Any) -> Value:
        check_images(self.default_name, x.shape)
        around = paddings(self.padding, x.shape[1:3], self.pool_size, self.strides, (1, 1))
        return pool(x, self.pool_size, self.strides, around)


class MaxPool2D(_Pool2D):
    """The largest element of each window: `(batch, h, w, c) -> (batch, h', w', c)`.

    Parameters
    ----------
    pool_size, strides : int or pair of int
        The window and its steps (default: the window's size).
    padding : {"valid", "same"}
        As for `Conv2D`; padding never wins.
    """

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return self._pooled(ops.max_pool2d, x)


class AvgPool2D(_Pool2D):
    """The mean of each window: `(batch, h, w, c) -> (batch, h', w', c)`; padding does not count. See `MaxPool2D`."""

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return self._pooled(ops.avg_pool2d, x)


class _Pool1D(OneInput):
    def __init__(
        self, pool_size: int = 2, strides: int | None = None, padding: str = "valid", *, name: str | None = None
    ) -> None:
        super().__init__(name)
        self.pool_size = integer("pool_size", pool_size, 1)
        self.strides = self.pool_size if strides is None else integer("strides", strides, 1)
        self.padding = choice("padding", padding, ("same", "valid"))

    def _pooled(self, pool: Callable[..., Value], x: Any) -> Value:
        check_sequence(self.default_name, x.shape)
        batch, length, channels = x.shape
        size, strides = (1, self.pool_size), (1, self.strides)
        around = paddings(self.padding, (1, length), size, strides, (1, 1))
        rows = ops.reshape(x, (batch, 1, length, channels))  # images one row high
        return ops.squeeze(pool(rows, size, strides, around), 1)


class MaxPool1D(_Pool1D):
    """The largest element of each window: `(batch, time, c) -> (batch, time', c)`.

    Parameters
    ----------
    pool_size, strides : int
        The window and its step (default: the window's size).
    padding : {"valid", "same"}
        As for `Conv2D`; padding never wins.
    """

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return self._pooled(ops.max_pool2d, x)


class AvgPool1D(_Pool1D):
    """The mean of each window: `(batch, time, c) -> (batch, time', c)`; padding does not count. See `MaxPool1D`."""

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return self._pooled(ops.avg_pool2d, x)


class GlobalAvgPool(OneInput):
    """The mean over all places: `(batch, …, c) -> (batch, c)`."""

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return ops.mean(x, _places(self, x))


class GlobalMaxPool(OneInput):
    """The largest element over all places: `(batch, …, c) -> (batch, c)`."""

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return ops.max(x, _places(self, x))


def _places(layer: Layer, x: Any) -> list[int]:
    if x.ndim < 3:
        raise ValueError(
            f"{layer.default_name}: expected shape (batch, …, channels) with places between, got {show(x.shape)}"
        )
    return list(range(1, x.ndim - 1))
