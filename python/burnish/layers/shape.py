"""Layers that change the shape of a sample; axis 0 stays the batch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .. import ops
from .._errors import integer
from .._structure import is_sequence
from ..losses import show
from .base import OneInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._value import Value

__all__ = ["Flatten", "Permute", "RepeatVector", "Reshape"]


class Flatten(OneInput):
    """`(batch, a, b, …) -> (batch, a · b · …)`."""

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return ops.reshape(x, (x.shape[0], math.prod(x.shape[1:])))


class Reshape(OneInput):
    """`(batch, …) -> (batch, *target_shape)`; one length may be -1 and is worked out."""

    def __init__(self, target_shape: int | Sequence[int], *, name: str | None = None) -> None:
        super().__init__(name)
        lengths = target_shape if is_sequence(target_shape) else (target_shape,)
        self.target_shape = tuple(integer("target_shape", length, -1) for length in lengths)
        if self.target_shape.count(-1) > 1:
            raise ValueError(f"`target_shape` may hold one -1, got {self.target_shape}")

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        size = math.prod(x.shape[1:])
        known = math.prod(length for length in self.target_shape if length != -1)
        whole = size % known == 0 if -1 in self.target_shape and known else size == known
        if not whole:
            raise ValueError(f"{self.default_name}: {size} elements of {x.shape} do not fit {self.target_shape}")
        shape = [size // known if length == -1 else length for length in self.target_shape]
        return ops.reshape(x, (x.shape[0], *shape))


class Permute(OneInput):
    """Reorder the axes of a sample, counted from 1: `Permute((2, 1))` turns `(batch, a, b)` into `(batch, b, a)`."""

    def __init__(self, dims: Sequence[int], *, name: str | None = None) -> None:
        super().__init__(name)
        self.dims = tuple(integer("dims", axis, 1) for axis in (dims if is_sequence(dims) else (dims,)))
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ValueError(f"`dims` must be an order of 1 to {len(self.dims)}, got {self.dims}")

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        if x.ndim != len(self.dims) + 1:
            raise ValueError(f"{self.default_name}: expected {len(self.dims) + 1} axes, got shape {show(x.shape)}")
        return ops.transpose(x, (0, *self.dims))


class RepeatVector(OneInput):
    """A vector repeated as a sequence: `(batch, features) -> (batch, n, features)`."""

    def __init__(self, n: int, *, name: str | None = None) -> None:
        super().__init__(name)
        self.n = integer("n", n, 1)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        if x.ndim != 2:
            raise ValueError(f"{self.default_name}: expected shape (batch, features), got {show(x.shape)}")
        return ops.broadcast_to(ops.expand_dims(x, 1), (x.shape[0], self.n, x.shape[1]))
