"""Layers that act in training only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import ops
from .._errors import number
from ..losses import show
from .base import OneInput

if TYPE_CHECKING:
    from .._value import Value

__all__ = ["Dropout", "GaussianNoise", "SpatialDropout"]


class Dropout(OneInput):
    """In training, set a random fraction `rate` of x to 0 and divide the rest by 1 - rate (Srivastava et al. 2014)."""

    def __init__(self, rate: float, *, name: str | None = None) -> None:
        super().__init__(name)
        self.rate = number("rate", rate, 0, 1, below=True)

    def call(self, x: Any, *, training: bool = False) -> Value:
        """Compute the layer's value."""
        return ops.dropout(x, self.rate) if training and self.rate > 0 else x


class SpatialDropout(OneInput):
    """In training, set whole channels to 0 at a random fraction `rate` and divide the rest by 1 - rate.

    For sequences and images, `(batch, …, channels)`: neighbours are alike, so single elements would be known from those
    around them (Tompson et al. 2015). Keras's `SpatialDropout1D` and `SpatialDropout2D`.
    """

    def __init__(self, rate: float, *, name: str | None = None) -> None:
        super().__init__(name)
        self.rate = number("rate", rate, 0, 1, below=True)

    def call(self, x: Any, *, training: bool = False) -> Value:
        """Compute the layer's value."""
        if x.ndim < 3:
            raise ValueError(f"{self.default_name}: expected shape (batch, …, channels), got {show(x.shape)}")
        if not training or self.rate == 0:
            return x
        one_place = x[(slice(None), *[slice(1)] * (x.ndim - 2))]
        return x * ops.dropout(ops.ones_like(one_place), self.rate)


class GaussianNoise(OneInput):
    """In training, add normal noise of standard deviation `stddev`."""

    def __init__(self, stddev: float, *, name: str | None = None) -> None:
        super().__init__(name)
        self.stddev = number("stddev", stddev, 0)

    def call(self, x: Any, *, training: bool = False) -> Value:
        """Compute the layer's value."""
        return x + self.stddev * ops.random_normal_like(x) if training and self.stddev > 0 else x
