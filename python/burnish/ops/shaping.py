"""Changes of shape: nothing is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._value import Operand, Value, apply, cast, kind_of, shape_of
from .reduction import one_axis

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "broadcast_to",
    "concatenate",
    "expand_dims",
    "flip",
    "pad",
    "reshape",
    "slice",
    "squeeze",
    "stack",
    "transpose",
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
    return apply("flip", x, axes=[one_axis(x, n) for n in ([axis] if isinstance(axis, int) else axis)])
