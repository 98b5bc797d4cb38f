"""What the numbers of the data must be: finite, labels among the classes, targets in their range; few passes each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import _burnish

if TYPE_CHECKING:
    from ._build import Built
    from ._feed.arrays import Array, Data

__all__ = ["check_labels", "check_values"]

_OVERFLOW = 2.0**128 - 2.0**103  # float32 rounds what is as large as this to infinity


def check_values(data: Data, built: Built, rows: Array | None = None) -> None:
    """Raise for the first NaN or infinity, label that is no whole number below its classes, or number out of range.

    `rows` are the numbers that the rows have in the whole of which these are a part.
    """
    for name, array in data.inputs.items():
        _check_finite(name, array, rows)
        if built.compiled is None or built.compiled.precision != "float64":
            _check_float32(name, array, rows)
        if name in built.classes:
            check_labels(name, array, built.classes[name], rows)
        if name in built.ranges:
            _check_range(name, array, *built.ranges[name])


def _check_range(name: str, array: Array, low: float | None, high: float | None) -> None:
    least, greatest = array.min(), array.max()
    if (low is None or least >= low) and (high is None or greatest <= high):
        return
    ends = [f"at {word} {end:g}" for word, end in (("least", low), ("most", high)) if end is not None]
    wanted = f"lie in [{low:g}, {high:g}]" if len(ends) == 2 else f"be {ends[0]}"
    raise ValueError(f"`{name}` must {wanted} for this loss, got values from {least} to {greatest}")


def _check_finite(name: str, array: Array, rows: Array | None) -> None:
    found = _burnish.check_finite(array) if array.dtype.kind == "f" else None
    if found is not None:
        place = (_row(found[0], rows), *found[1:])
        raise ValueError(f"`{name}` holds {array[found]} at {_place(place)}; check_data=False leaves this check out")


def _check_float32(name: str, array: Array, rows: Array | None) -> None:
    """Raise for the first number that is infinite in single precision."""
    if array.dtype.kind != "f" or array.dtype.itemsize < 8 or (array.min() > -_OVERFLOW and array.max() < _OVERFLOW):
        return
    found = tuple(np.argwhere(np.abs(array) >= _OVERFLOW)[0].tolist())
    raise ValueError(
        f"`{name}` holds {array[found]} at {_place((_row(found[0], rows), *found[1:]))}, which is infinite in single "
        "precision; precision='float64' of compile holds it, check_data=False leaves this check out"
    )


def check_labels(name: str, array: Array, count: int | None, rows: Array | None = None) -> None:
    """Raise for the first label (or index, of an input) that is no whole number below the count."""
    bad = _burnish.check_labels(array, 2**31 if count is None else count)
    if bad is None:
        return
    row, value, reason = bad
    least = "at least 0" if count is None else f"from 0 to {count - 1}"
    numbers = "labels" if name.partition(".")[0] in {"y", "target"} else "indices"
    whole = "whole numbers" if reason == "fraction" else numbers
    raise ValueError(f"`{name}` must hold {whole} {least}, got {value:g} at row {_row(row, rows)}")


def _row(row: int, rows: Array | None) -> int:
    return row if rows is None else int(rows[row])


def _place(place: tuple[int, ...]) -> str:
    if len(place) == 1:
        return f"row {place[0]}"
    return f"row {place[0]}, column {place[1]}" if len(place) == 2 else f"row {place[0]}, index {tuple(place[1:])}"
