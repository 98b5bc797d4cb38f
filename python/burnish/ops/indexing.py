"""Looking up by index."""

from __future__ import annotations

from .._errors import integer
from .._node import Node, record
from .._symbol import Symbol
from .._value import Operand, Value, apply, cast, kind_of, shape_of
from .reduction import one_axis

__all__ = ["one_hot", "take", "take_along_axis"]


def as_index(x: Operand, count: int | None) -> Operand:
    """Return x as integers used as indices below `count`; a model's input is then checked for it."""
    if isinstance(x, Node):
        return record(as_index, (x, count), {})
    if isinstance(x, Symbol):
        x.mark_index(count)
    elif kind_of(x) == "float":
        raise TypeError("indices must be integers, got floats")
    return cast(x, "int")


def take(table: Operand, indices: Operand, axis: int = 0) -> Value:
    """Return entries of a table by index along an axis: `table (n, …), indices (…) -> (…, …)` for axis 0."""
    place = one_axis(table, axis)
    return apply("take", table, as_index(indices, shape_of(table)[place]), axis=place)


def take_along_axis(x: Operand, indices: Operand, axis: int = -1) -> Value:
    """Return one element of x per index along an axis; both have the same other lengths."""
    place = one_axis(x, axis)
    return apply("take_along_axis", x, as_index(indices, shape_of(x)[place]), axis=place)


def one_hot(indices: Operand, depth: int) -> Value:
    """Return 1 at each index and 0 elsewhere along a new last axis: `(…) -> (…, depth)`."""
    return apply("one_hot", as_index(indices, depth), depth=integer("depth", depth, 1))
