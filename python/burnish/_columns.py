"""Columns of numbers that grow by rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Rows = npt.NDArray[np.float64]

__all__ = ["Columns"]


class Columns:
    """Rows of numbers, in columns with names. What was read stays as it is: rows are added behind it, none changes."""

    def __init__(self, names: tuple[str, ...], rows: Rows) -> None:
        self.names = names
        self._memory = rows
        self._count = len(rows)

    def append(self, rows: Rows) -> None:
        """Add rows; memory grows by powers of two, so that each row is copied a few times only."""
        end = self._count + len(rows)
        if end > len(self._memory):
            memory = np.empty((1 << (end - 1).bit_length(), len(self.names)))
            memory[: self._count] = self.read()
            self._memory = memory
        self._memory[self._count : end] = rows
        self._count = end

    def set_last(self, values: dict[str, float]) -> None:
        """Change numbers of the last row."""
        self._memory = self._memory.copy()
        for name, value in values.items():
            self._memory[self._count - 1, self.names.index(name)] = value

    def read(self) -> Rows:
        """Return the rows, not to be written to."""
        return self._memory[: self._count]
