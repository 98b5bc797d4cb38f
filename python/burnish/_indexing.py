"""Indexing of values: integers, slices, `...`, None, and one array of indices."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _hints
from ._structure import is_sequence
from ._value import Value, apply

if TYPE_CHECKING:
    import numpy.typing as npt

    from ._value import Shape

__all__ = ["getitem"]


def getitem(x: Value, key: Any) -> Value:
    """Return `x[key]` by NumPy's rules; an array of indices must stand alone."""
    if isinstance(key, Value) and key.kind == "bool":
        raise IndexError(_hints.MASK)
    if isinstance(key, (Value, np.ndarray, list)):
        from .ops import indexing

        return indexing.take(x, key if isinstance(key, Value) else _rows(key, x.shape[0]), axis=0)
    if is_sequence(key) and any(isinstance(k, Value) for k in key):
        raise TypeError(_hints.INDEX)
    keys = _expanded(tuple(key) if is_sequence(key) else (key,), x.ndim)
    steps = [k for k in keys if k is not None]
    return _reshaped(_sliced(x, steps) if any(k != slice(None) for k in steps) else x, keys)


def _rows(key: Any, length: int | None) -> npt.NDArray[Any]:
    """Return indices of the first axis counted from its start."""
    indices: npt.NDArray[Any] = np.asarray(key)
    if indices.dtype.kind not in "iu" and indices.size:
        raise IndexError(f"an array of indices must hold integers, got {indices.dtype}; use bn.ops.where for a mask")
    if length is None:
        raise IndexError("the batch axis of a model's value cannot be indexed")
    wrong = indices[(indices < -length) | (indices >= length)]
    if wrong.size:
        raise IndexError(f"index {wrong.flat[0]} is out of range for axis 0 of length {length}")
    return np.where(indices < 0, indices + length, indices).astype(np.int64)


def _expanded(keys: tuple[Any, ...], ndim: int) -> list[Any]:
    """Replace `...` by whole axes and append those left out."""
    used = sum(k is not None and k is not Ellipsis for k in keys)
    if used > ndim:
        raise IndexError(f"{used} indices for {ndim} axes")
    at = next((i for i, k in enumerate(keys) if k is Ellipsis), len(keys))
    rest = keys[at + 1 :]
    if any(k is Ellipsis for k in rest):
        raise IndexError("an index can have only one `...`")
    return [*keys[:at], *[slice(None)] * (ndim - used), *rest]


def _sliced(x: Value, keys: list[Any]) -> Value:
    bounds = [_bounds(key, length, axis) for axis, (key, length) in enumerate(zip(keys, x.shape, strict=True))]
    starts, stops, steps = zip(*bounds, strict=True)
    return apply("slice", x, starts=list(starts), stops=list(stops), steps=list(steps))


def _bounds(key: Any, length: int | None, axis: int) -> tuple[int, int | None, int]:
    if isinstance(key, slice):
        if key == slice(None):
            return 0, None, 1
        if length is None:
            raise IndexError("the batch axis of a model's value cannot be sliced")
        start, stop, step = key.indices(length)
        if step < 1:
            raise IndexError("a slice must have a step of at least 1; use bn.ops.flip to reverse")
        return start, max(stop, start), step
    if isinstance(key, bool) or not hasattr(key, "__index__"):
        raise TypeError(f"an index must be an integer, a slice, `...` or None, got {type(key).__name__}")
    if length is None:
        raise IndexError("the batch axis of a model's value cannot be indexed")
    place = operator.index(key)
    if not -length <= place < length:
        raise IndexError(f"index {place} is out of range for axis {axis} of length {length}")
    return place % length, place % length + 1, 1


def _reshaped(x: Value, keys: list[Any]) -> Value:
    """Drop the axes of integers and add those of None."""
    lengths = iter(x.shape)
    shape: list[int | None] = []
    for key in keys:
        if key is None:
            shape.append(1)
        elif isinstance(key, slice):
            shape.append(next(lengths))
        else:
            next(lengths)
    return _to_shape(x, tuple(shape))


def _to_shape(x: Value, shape: Shape) -> Value:
    return x if shape == x.shape else x.reshape(*shape)
