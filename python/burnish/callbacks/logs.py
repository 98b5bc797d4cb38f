"""What writes down the logs."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, ClassVar

from .._errors import boolean
from .base import Callback, Logs

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["CSVLogger"]


class CSVLogger(Callback):
    """Write a row of the logs to a CSV file after each epoch.

    Parameters
    ----------
    filename : path
        Where to.
    separator : str, default ","
        What stands between numbers.
    append : bool, default False
        Whether an existing file is continued.
    """

    adds: ClassVar[tuple[str, ...] | None] = ()

    def __init__(self, filename: str | PathLike[str], separator: str = ",", append: bool = False) -> None:  # noqa: FBT001, FBT002
        self.filename = os.fspath(filename)
        self.separator = separator
        self.append = boolean("append", append)
        self._file: IO[str] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Open the file."""
        self._file = open(self.filename, "a" if self.append else "w", newline="", encoding="utf-8")  # noqa: PTH123, SIM115
        self._header = self._file.tell() == 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write a row."""
        if self._file is None:
            return
        import csv

        row = {"epoch": epoch, **(logs or {})}
        writer = csv.writer(self._file, delimiter=self.separator)
        if self._header:
            writer.writerow(row)
            self._header = False
        writer.writerow(row.values())
        self._file.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
