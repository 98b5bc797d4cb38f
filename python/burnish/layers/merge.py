"""Layers that join several values: `Add()([a, b])` or `Add()(a, b)`."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

from .. import ops
from .._errors import integer
from .._structure import is_sequence
from .base import Layer

if TYPE_CHECKING:
    from .._value import Value

__all__ = ["Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract"]


def _several(layer: Layer, inputs: tuple[Any, ...]) -> list[Any]:
    values = list(inputs[0]) if len(inputs) == 1 and is_sequence(inputs[0]) else list(inputs)
    if len(values) < 2:
        raise ValueError(f"{layer.default_name}: expected at least two values, got {len(values)}")
    return values


class Add(Layer):
    """The sum of values, broadcast as in NumPy."""

    def call(self, *inputs: Any) -> Value:
        """Compute the layer's value."""
        return reduce(ops.add, _several(self, inputs))


class Multiply(Layer):
    """The product of values, element by element, broadcast as in NumPy."""

    def call(self, *inputs: Any) -> Value:
        """Compute the layer's value."""
        return reduce(ops.multiply, _several(self, inputs))


class Subtract(Layer):
    """The first of two values minus the second, broadcast as in NumPy."""

    def call(self, *inputs: Any) -> Value:
        """Compute the layer's value."""
        values = _several(self, inputs)
        if len(values) != 2:
            raise ValueError(f"{self.default_name}: expected two values, got {len(values)}")
        return ops.subtract(*values)


class Average(Layer):
    """The mean of values, element by element, broadcast as in NumPy."""

    def call(self, *inputs: Any) -> Value:
        """Compute the layer's value."""
        values = _several(self, inputs)
        return ops.divide(reduce(ops.add, values), float(len(values)))


class Maximum(Layer):
    """The largest of values, element by element, broadcast as in NumPy."""

    def call(self, *inputs: Any) -> Value:
        """Compute the layer's value."""
        return reduce(ops.maximum, _several(self, inputs))


class Minimum(Layer):
    """The smallest of values, element by element, broadcast as in NumPy."""

    def call(self, *inputs: Any) -> Value:
        """Compute the layer's value."""
        return reduce(ops.minimum, _several(self, inputs))


class Concatenate(Layer):
    """Values joined along an axis; all other lengths agree."""

    def __init__(self, axis: int = -1, *, name: str | None = None) -> None:
        super().__init__(name)
        self.axis = integer("axis", axis, -(2**31))
        if axis == 0:
            raise ValueError("`axis` must not be 0, the batch")

    def call(self, *inputs: Any) -> Value:
        """Compute the layer's value."""
        values = _several(self, inputs)
        if self.axis == -values[0].ndim:
            raise ValueError(f"`axis` must not be 0, the batch, got {self.axis} for {values[0].ndim} axes")
        return ops.concatenate(values, self.axis)
