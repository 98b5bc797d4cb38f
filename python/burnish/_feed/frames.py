"""Tables of pandas, polars, pyarrow, narwhals and whatever speaks Arrow, as arrays; none of these is needed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .._structure import is_dict, is_sequence

if TYPE_CHECKING:
    from .arrays import Array

__all__ = ["column_array", "column_names", "frame_array", "in_order", "is_arrow", "opened"]


def column_names(value: Any) -> list[Any] | None:
    """Return the names of the columns of a table, None for what is none."""
    if isinstance(value, (dict, np.ndarray)) or not all(hasattr(value, each) for each in ("__len__", "__getitem__")):
        return None
    names: Any = getattr(value, "column_names", None)  # pyarrow's `columns` are arrays
    names = getattr(value, "columns", None) if names is None else names
    return [*names] if hasattr(names, "__iter__") else None


def is_arrow(value: Any) -> bool:
    """Say whether a value hands over Arrow's memory by the PyCapsule interface."""
    return hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__")


def opened(value: Any, argument: str) -> Any:
    """Return what has only Arrow's interface as a table, and everything else as it is."""
    return _table_of(value, argument) if is_arrow(value) and not hasattr(value, "__array__") else value


def in_order(argument: str, value: Any, known: dict[str, list[str]]) -> Any:
    """Put the columns of tables in the order that they had at first, which `known` keeps by the tables' names."""
    if is_dict(value):
        return {key: in_order(f"{argument}.{key}", leaf, known) for key, leaf in value.items()}
    if isinstance(value, tuple):
        leaves = cast("tuple[Any, ...]", value)
        return tuple(in_order(f"{argument}.{index}", leaf, known) for index, leaf in enumerate(leaves))
    value = opened(value, argument)
    names = column_names(value)
    if not names or not all(isinstance(name, str) for name in names):
        return value
    first = known.setdefault(argument, names)
    if first == names:
        return value
    if sorted(first) != sorted(names):
        raise ValueError(f"`{argument}` must have the columns {', '.join(first)}, got {', '.join(names)}")
    return value.select(first) if hasattr(value, "select") else value[first]


def frame_array(value: Any, names: list[Any], argument: str) -> Array:
    """Return the columns of a table side by side, missing numbers as NaN."""
    if not names:
        raise ValueError(f"`{argument}` must have at least one column, got none")
    if len(set(names)) < len(names):
        raise ValueError(f"`{argument}` must have columns of different names, got {', '.join(map(str, names))}")
    columns = [column_array(value[name], argument, name) for name in names]
    whole: Any = getattr(value, "values", None)
    if isinstance(whole, np.ndarray) and cast("Array", whole).dtype == columns[0].dtype:
        return cast("Array", whole)  # pandas holds columns of one type together: nothing is copied
    tables = [column.reshape(len(column), -1) for column in columns]
    return np.concatenate(tables, axis=1) if len(columns) > 1 or columns[0].ndim == 1 else columns[0]


def column_array(column: Any, argument: str, name: Any = None) -> Array:
    """Return a column's numbers, missing ones as NaN."""
    array = np.asarray(column if hasattr(column, "__array__") else column.to_numpy())
    if array.dtype == object:
        array = _numbers(array)
    if array.dtype.kind not in "biuf":
        place = f"`{argument}`" if name is None else f"`{argument}`: column {name!r}"
        kind = getattr(column, "dtype", getattr(column, "type", array.dtype))
        raise TypeError(f"{place} must hold numbers, got {kind}; encode texts and categories as numbers first")
    return array


def _numbers(array: Array) -> Array:
    """Return what Python objects mean as numbers: None is NaN, lists of one length are rows; else the objects."""
    values = array.tolist()
    if any(isinstance(value, (str, bytes)) for value in values):
        return array
    try:
        if values and (is_sequence(values[0]) or isinstance(values[0], np.ndarray)):
            return np.stack([np.asarray(value) for value in values])
        return np.array([_number(value) for value in values], np.float64)
    except (TypeError, ValueError):
        return array


def _number(value: Any) -> float:
    if value is None or type(value).__name__ == "NAType":  # that of pandas
        return np.nan
    if not hasattr(value, "__float__"):
        raise TypeError
    return float(value)


def _table_of(value: Any, argument: str) -> Any:
    """Return an Arrow stream of columns as a table of pyarrow or polars, whichever is installed."""
    for package, reader in (("pyarrow", "table"), ("polars", "DataFrame")):
        try:
            return getattr(import_module(package), reader)(value)
        except ImportError:
            continue
    raise TypeError(
        f"`{argument}`: {type(value).__name__} hands over Arrow memory, which takes pyarrow or polars to read: "
        "pip install 'burnish[arrow]'"
    )
