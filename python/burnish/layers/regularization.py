"""Layers that act in training only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import ops
from .._errors import number
from .base import OneInput

if TYPE_CHECKING:
    from .._value import Value

__all__ = ["Dropout", "GaussianNoise"]


class Dropout(OneInput):
    """In training, set a random fraction `rate` of x to 0 and divide the rest by 1 - rate (Srivastava et al. 2014)."""

    def __init__(self, rate: float, *, name: str | None = None) -> None:
        super().__init__(name)
        self.rate = number("rate", rate, 0, 1, below=True)

    def call(self, x: Any, *, training: bool = False) -> Value:
        """Compute the layer's value."""
        return ops.dropout(x, self.rate) if training and self.rate > 0 else x


class GaussianNoise(OneInput):
    """In training, add normal noise of standard deviation `stddev`."""

    def __init__(self, stddev: float, *, name: str | None = None) -> None:
        super().__init__(name)
        self.stddev = number("stddev", stddev, 0)

    def call(self, x: Any, *, training: bool = False) -> Value:
        """Compute the layer's value."""
        return x + self.stddev * ops.random_normal_like(x) if training and self.stddev > 0 else x
