"""What the numbers of the data must be: finite, and labels among the classes. One pass each, in the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _burnish

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._data import Array, Data

__all__ = ["check_values"]


def check_values(data: Data, classes: Mapping[str, int | None]) -> None:
    """Raise for the first NaN or infinity, and for the first label that is no whole number below its classes."""
    for name, array in data.inputs.items():
        _check_finite(name, array)
        if name in classes:
            _check_labels(name, array, classes[name])


def _check_finite(name: str, array: Array) -> None:
    place = _burnish.check_finite(array) if array.dtype.kind == "f" else None
    if place is not None:
        raise ValueError(f"`{name}` holds {array[place]} at {_place(place)}; check_data=False leaves this check out")


def _check_labels(name: str, array: Array, count: int | None) -> None:
    bad = _burnish.check_labels(array, 2**31 if count is None else count)
    if bad is None:
        return
    row, value, reason = bad
    least = "at least 0" if count is None else f"from 0 to {count - 1}"
    whole = "whole numbers" if reason == "fraction" else "labels"
    raise ValueError(f"`{name}` must hold {whole} {least}, got {value:g} at row {row}")


def _place(place: tuple[int, ...]) -> str:
    if len(place) == 1:
        return f"row {place[0]}"
    return f"row {place[0]}, column {place[1]}" if len(place) == 2 else f"row {place[0]}, index {tuple(place[1:])}"
