"""Changes of shape: nothing is computed."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import integer
from .._value import Operand, Value, apply, cast, kind_of, shape_of
from .reduction import one_axis, part, several_axes, static_axis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "broadcast_to",
    "concatenate",
    "expand_dims",
    "flip",
    "moveaxis",
    "pad",
    "repeat",
    "reshape",
    "roll",
    "slice",
    "split",
    "squeeze",
    "stack",
    "swapaxes",
    "tile",
    "transpose",
    "tril",
    "triu",
]


def reshape(x: Operand, shape: Sequence[int | None]) -> Value:
    """Return x in another shape; one -1 (or None) is worked out. Inside a model that one holds the batch."""
    return apply("reshape", x, shape=[-1 if n is None else int(n) for n in shape])


def transpose(x: Operand, axes: Sequence[int] | None = None) -> Value:
    """Return x with its axes in this order (default: reversed)."""
    order = range(len(shape_of(x)))
    return apply("transpose", x, axes=list(reversed(order)) if axes is None else [one_axis(x, axis) for axis in axes])


def broadcast_to(x: Operand, shape: Sequence[int | None]) -> Value:
    """Return x repeated to a shape; -1 (or None) keeps an axis."""
    return apply("broadcast_to", x, shape=[-1 if n is None else int(n) for n in shape])


def expand_dims(x: Operand, axis: int) -> Value:
    """Return x with a new axis of length 1 at this place."""
    shape = list(shape_of(x))
    place = axis if axis >= 0 else axis + len(shape) + 1
    if not 0 <= place <= len(shape):
        raise ValueError(f"`axis` must be from {-len(shape) - 1} to {len(shape)}, got {axis}")
    return reshape(x, [*shape[:place], 1, *shape[place:]])


def squeeze(x: Operand, axis: int) -> Value:
    """Return x without this axis of length 1."""
    shape = list(shape_of(x))
    place = one_axis(x, axis)
    if shape[place] != 1:
        raise ValueError(f"axis {axis} must have length 1 to be squeezed, got shape {tuple(shape)}")
    return reshape(x, [*shape[:place], *shape[place + 1 :]])


def concatenate(values: Sequence[Operand], axis: int = -1) -> Value:
    """Return values joined along an axis; all other lengths agree."""
    values = list(values)
    if not values:
        raise ValueError("`values` must hold at least one value")
    kind = "float" if any(kind_of(value) == "float" for value in values) else kind_of(values[0])
    return apply("concatenate", *(cast(value, kind) for value in values), axis=one_axis(values[0], axis))


def stack(values: Sequence[Operand], axis: int = 0) -> Value:
    """Return values of one shape joined along a new axis."""
    expanded = [expand_dims(value, axis) for value in values]
    return concatenate(expanded, axis)


def split(x: Operand, sections: int | Sequence[int], axis: int = -1) -> list[Value]:
    """Return equal parts of x along an axis, as many as `sections`, or the parts between places, as NumPy's `split`."""
    place, length = static_axis(x, axis)
    if isinstance(sections, int):
        if sections < 1 or length % sections:
            raise ValueError(f"`sections` must divide the length {length} of axis {axis}, got {sections}")
        sections = range(length // sections, length, length // sections)
    bounds = [0, *sections, length]
    if bounds != sorted(bounds):
        raise ValueError(f"`sections` must be places from 0 to {length} in order, got {list(sections)}")
    return [part(x, place, start, stop) for start, stop in pairwise(bounds)]


def repeat(x: Operand, repeats: int, axis: int) -> Value:
    """Return x with each element repeated so many times along an axis."""
    place, shape = one_axis(x, axis), shape_of(x)
    copies = [-1] * (len(shape) + 1)
    copies[place + 1] = integer("repeats", repeats, 1)
    length = shape[place]
    shown = [*shape[:place], None if length is None else length * repeats, *shape[place + 1 :]]
    return reshape(broadcast_to(expand_dims(x, place + 1), copies), shown)


def tile(x: Operand, repeats: Sequence[int]) -> Value:
    """Return x as a whole repeated so many times along each axis."""
    if len(repeats) != len(shape_of(x)):
        raise ValueError(f"`repeats` must hold a number for each of {len(shape_of(x))} axes, got {list(repeats)}")
    for axis, count in enumerate(repeats):
        if integer("repeats", count, 1) > 1:
            x = concatenate([x] * count, axis)
    return x if isinstance(x, Value) else reshape(x, shape_of(x))


def roll(x: Operand, shift: int, axis: int) -> Value:
    """Return x moved by so many places along an axis; what leaves at one end comes in at the other."""
    place, length = static_axis(x, axis)
    at = -shift % max(length, 1)
    return concatenate([part(x, place, at, length), part(x, place, 0, at)], place) if at else concatenate([x], place)


def swapaxes(x: Operand, first: int, second: int) -> Value:
    """Return x with two axes exchanged."""
    a, b = one_axis(x, first), one_axis(x, second)
    order = list(range(len(shape_of(x))))
    order[a], order[b] = b, a
    return transpose(x, order)


def moveaxis(x: Operand, source: int, destination: int) -> Value:
    """Return x with one axis at another place, the others in their order."""
    a, b = one_axis(x, source), one_axis(x, destination)
    order = [axis for axis in range(len(shape_of(x))) if axis != a]
    return transpose(x, [*order[:b], a, *order[b:]])


def tril(x: Operand, k: int = 0) -> Value:
    """Return x with 0 above the k-th diagonal of its last two axes."""
    return _triangle(x, lambda rows, columns: columns <= rows + k)


def triu(x: Operand, k: int = 0) -> Value:
    """Return x with 0 below the k-th diagonal of its last two axes."""
    return _triangle(x, lambda rows, columns: columns >= rows + k)


def _triangle(x: Operand, inside: Callable[[Any, Any], Any]) -> Value:
    if len(shape_of(x)) < 2:
        raise ValueError(f"a triangle needs two axes, got shape {shape_of(x)}")
    rows, columns = (static_axis(x, axis)[1] for axis in (-2, -1))
    return apply("where", inside(*np.indices((rows, columns))), x, cast(0, kind_of(x)))


def slice(  # noqa: A001  the engine's name
    x: Operand, starts: Sequence[int], stops: Sequence[int | None], steps: Sequence[int] | None = None
) -> Value:
    """Return x[start:stop:step] with one entry an axis; the stop None is the end. `x[1:, ::2]` says the same."""
    return apply("slice", x, starts=list(starts), stops=list(stops), steps=list(steps or [1] * len(starts)))


def pad(x: Operand, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Value:
    """Return x with `(before, after)` elements of a value added at the ends of each axis."""
    return apply("pad", x, widths=[list(width) for width in widths], value=value)


def flip(x: Operand, axis: int | Sequence[int]) -> Value:
    """Return x with these axes reversed."""
    return apply("flip", x, axes=several_axes(x, axis))
