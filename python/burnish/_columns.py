"""Columns of numbers that grow by rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._feed.arrays import Array

__all__ = ["Columns"]


class Columns:
    """Columns of one length. What was read stays as it is: rows are added behind it, and nothing is written over."""

    def __init__(self, rows: Mapping[str, Array]) -> None:
        self._memory = {name: np.asarray(values) for name, values in rows.items()}
        self._count = self._room = len(next(iter(rows.values()), ()))

    def takes(self, rows: Mapping[str, Array]) -> bool:
        """Say whether rows have these columns, and numbers of their types."""
        memory = self._memory
        return memory.keys() == rows.keys() and all(memory[name].dtype == rows[name].dtype for name in memory)

    def append(self, rows: Mapping[str, Array]) -> None:
        """Add rows; memory grows by powers of two, so that each row is copied a few times only."""
        start, end = self._count, self._count + len(next(iter(rows.values()), ()))
        if end > self._room:
            self._grow(1 << (end - 1).bit_length())
        for name, values in rows.items():
            self._memory[name][start:end] = values
        self._count = end

    def _grow(self, room: int) -> None:
        for name, column in self.read().items():
            self._memory[name] = np.empty(room, column.dtype)
            self._memory[name][: self._count] = column
        self._room = room

    def set_last(self, name: str, value: float) -> None:
        """Change a number of the last row."""
        self._memory[name] = self._memory[name].copy()
        self._memory[name][self._count - 1] = value

    def read(self) -> dict[str, Array]:
        """Return the columns, not to be written to."""
        return {name: memory[: self._count] for name, memory in self._memory.items()}
