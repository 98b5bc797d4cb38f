"""Parquet files, read row group by row group."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _burnish
from .._errors import integer, unknown
from .._feed.frames import column_array, frame_array
from .._optional import required
from .._structure import flatten, is_dict, is_sequence, skeleton, unflatten
from .base import Dataset

if TYPE_CHECKING:
    from .._feed.arrays import Array

__all__ = ["Parquet"]

_STEP = 0x9E3779B97F4A7C15  # sets the seeds of windows far apart


class _Group(NamedTuple):
    """One row group: its file, its place there, and the numbers of its rows."""

    file: int
    place: int
    first: int
    rows: int


class Parquet(Dataset):
    """Columns of Parquet files, read row group by row group; needs pyarrow (`pip install 'burnish[arrow]'`).

    A shuffled epoch takes the row groups in a random order and mixes the rows of as many of them as make up a window.
    What is in memory is about two windows, however large the files are.

    Parameters
    ----------
    path : path or list of paths
        Files, or directories of `.parquet` files, which are read in the order of their names.
    x : str, list of str, or dict of them, optional
        A column `(rows,)`, several side by side `(rows, columns)`, or the model's inputs by name; by default all
        columns but those of `y` and `sample_weight`, side by side. A column of lists of one length is several columns.
    y : str, list of str, or dict of them, optional
        The targets, likewise; none for a prediction.
    sample_weight : str, optional
        The column of the weights.
    window : int, default 131072
        How many rows are mixed; at least one row group.

    Notes
    -----
    Missing numbers become NaN, which `fit` tells. The order of an epoch is a function of its seed and number, so that a
    run goes on exactly after an interruption.

    Examples
    --------
    >>> import burnish as bn
    >>> def train(model):
    ...     rows = bn.data.Parquet("trips.parquet", x=["distance", "hour"], y="price")
    ...     return model.fit(rows, validation_split=0.1)
    """

    def __init__(
        self,
        path: Any,
        x: Any = None,
        y: Any = None,
        *,
        sample_weight: str | None = None,
        window: int = 1 << 17,
    ) -> None:
        self.window = integer("window", window, 1)
        self.files = _files(path)
        self._metadata = [_pyarrow().read_metadata(os.fspath(file)) for file in self.files]
        self._groups = _groups(self._metadata)
        self._starts = np.array([group.first for group in self._groups], np.int64)
        self._names = _same_columns(self.files, self._metadata)
        named = {"y": y, "sample_weight": sample_weight}
        taken = {name for argument, value in named.items() for name in self._flat(argument, value)}
        self._columns = {"x": [name for name in self._names if name not in taken] if x is None else x, **named}
        self._wanted = [name for argument, value in self._columns.items() for name in self._flat(argument, value)]
        largest = max((group.rows for group in self._groups), default=0)
        self.ahead_rows = max(self.window, largest)
        self._kept: OrderedDict[int, dict[str, Array]] = OrderedDict()
        self._room = 2 * self.ahead_rows + largest
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sum(group.rows for group in self._groups)

    def read(self, rows: Array) -> Any:
        """Return some rows, keeping the row groups that they are in for those that follow."""
        groups = np.searchsorted(self._starts, rows, "right") - 1
        with self._lock:
            parts = {group: self._group(group) for group in np.unique(groups).tolist()}
        places = {group: np.flatnonzero(groups == group) for group in parts}
        within = rows - self._starts[groups]
        arrays = {name: _taken(parts, name, places, within) for name in next(iter(parts.values()))}
        x, y, weight = (
            None if value is None else unflatten(skeleton(argument, value), arrays)
            for argument, value in self._columns.items()
        )
        return x, y, weight

    def order(self, seed: int, epoch: int) -> Array:
        """Return row groups in a random order, and within each window of them the rows."""
        windows = self._windows(seed, epoch)
        mixed: list[Array] = []
        for index, groups in enumerate(windows):
            rows = np.concatenate([np.arange(group.first, group.first + group.rows) for group in groups])
            own = (seed + (index + 1) * _STEP) % (1 << 64)
            mixed.append(rows[_burnish.permutation(own, epoch, len(rows))])
        return np.concatenate(mixed)

    def description(self) -> dict[str, Any]:
        """Return columns and window."""
        return {"columns": self._columns, "row_groups": len(self._groups), "window": self.window}

    def _windows(self, seed: int, epoch: int) -> list[list[_Group]]:
        windows: list[list[_Group]] = []
        rows = self.window
        for group in (self._groups[int(place)] for place in _burnish.permutation(seed, epoch, len(self._groups))):
            if rows >= self.window:
                windows.append([])
                rows = 0
            windows[-1].append(group)
            rows += group.rows
        return windows

    def _group(self, index: int) -> dict[str, Array]:
        """Return the arrays of a row group, from memory if it was asked for lately."""
        if index not in self._kept:
            self._kept[index] = self._load(self._groups[index])
        self._kept.move_to_end(index)
        while len(self._kept) > 1 and sum(self._groups[kept].rows for kept in self._kept) > self._room:
            self._kept.popitem(last=False)
        return self._kept[index]

    def _load(self, group: _Group) -> dict[str, Array]:
        file = os.fspath(self.files[group.file])
        with _pyarrow().ParquetFile(file, metadata=self._metadata[group.file]) as opened:
            table = opened.read_row_group(group.place, columns=self._wanted)
        leaves = {argument: value for argument, value in self._columns.items() if value is not None}
        return {
            name: _array(table, columns, name)
            for argument, value in leaves.items()
            for name, columns in flatten(argument, value).items()
        }

    def _flat(self, argument: str, value: Any) -> list[str]:
        """Return the names of the columns in an argument, all of which must be there."""
        if value is None:
            return []
        several = list(value.values()) if is_dict(value) else [value]
        names: list[Any] = [name for each in several for name in (each if is_sequence(each) else [each])]
        if not names or not all(isinstance(name, str) for name in names):
            raise TypeError(f"`{argument}` must be a column's name, a list of names or a dict of them, got {value!r}")
        for name in names:
            if name not in self._names:
                raise unknown(argument, name, self._names)
        return names


def _taken(parts: dict[int, dict[str, Array]], name: str, places: dict[int, Array], within: Array) -> Array:
    """Return the rows of one array from those of the row groups, by their places there."""
    pieces = {group: part[name] for group, part in parts.items()}
    tail = next(iter(pieces.values())).shape[1:]
    found = np.empty((len(within), *tail), np.result_type(*(piece.dtype for piece in pieces.values())))
    for group, piece in pieces.items():
        found[places[group]] = piece[within[places[group]]]
    return found


def _array(table: Any, columns: Any, argument: str) -> Array:
    """Return a column, or several side by side."""
    if isinstance(columns, str):
        return column_array(table[columns], argument, columns)
    return frame_array(table.select(list(columns)), list(columns), argument)


def _pyarrow() -> Any:
    return required("pyarrow.parquet", "arrow")


def _files(path: Any) -> list[Path]:
    """Return the files that were named, and those of directories."""
    found: list[Path] = []
    for each in path if is_sequence(path) else [path]:
        try:
            place = Path(os.fsdecode(each))
        except TypeError:
            raise TypeError(f"`path` must be a path or a list of paths, got {each!r}") from None
        found += sorted(place.glob("*.parquet")) if place.is_dir() else [place]
    if not found:
        raise ValueError(f"`path` must name Parquet files, got none in {path!r}")
    return found


def _groups(metadata: list[Any]) -> list[_Group]:
    """Return all row groups with the numbers of their first rows, empty ones left out."""
    found: list[_Group] = []
    first = 0
    for file, each in enumerate(metadata):
        for place in range(each.num_row_groups):
            rows = int(each.row_group(place).num_rows)
            if rows:
                found.append(_Group(file, place, first, rows))
            first += rows
    return found


def _same_columns(files: list[Path], metadata: list[Any]) -> list[str]:
    """Return the columns' names, which every file must have."""
    first, *others = [each.schema.to_arrow_schema().names for each in metadata]
    for file, names in zip(files[1:], others, strict=True):
        if set(names) != set(first):
            raise ValueError(
                f"`path`: {file.name} must have the columns {', '.join(first)} of {files[0].name}, "
                f"got {', '.join(names)}"
            )
    return first
