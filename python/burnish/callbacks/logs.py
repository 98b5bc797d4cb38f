"""What writes down the logs."""

from __future__ import annotations

import os
import time
import warnings
from typing import IO, TYPE_CHECKING, Any, ClassVar

from .._errors import boolean, path
from .base import Callback, Logs

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["CSVLogger", "Timer"]


class CSVLogger(Callback):
    """Write a row of the logs to a CSV file after each epoch.

    Parameters
    ----------
    filename : path
        Where to.
    separator : str, default ","
        What stands between numbers: one character.
    append : bool, default False
        Whether an existing file is continued. A fit that is resumed always continues its file, from the checkpoint on:
        rows of epochs that will be trained again are removed.
    """

    adds: ClassVar[tuple[str, ...] | None] = ()

    def __init__(self, filename: str | PathLike[str], separator: str = ",", append: bool = False) -> None:  # noqa: FBT001, FBT002
        self.filename = path("filename", filename)
        self.separator = _separator(separator)
        self.append = boolean("append", append)
        self._file: IO[str] | None = None
        self._keep: int | None = None  # how much of the file stays, until the first row is written
        self._made = False  # whether the file was not there before

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Open the file; what it holds is removed with the first row, if at all."""
        self._made = not os.path.exists(self.filename)  # noqa: PTH110
        self._file = open(self.filename, "a", newline="", encoding="utf-8")  # noqa: PTH123, SIM115
        self._keep = self._file.tell() if self.append else 0

    def state(self) -> dict[str, Any]:
        """Return how long the file is."""
        return {"size": self._keep if self._keep is not None or self._file is None else self._file.tell()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Keep the rows that were written by then."""
        self._keep = state["size"]

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write a row."""
        if self._file is None:
            return
        import csv

        if self._keep is not None:
            self._cut(self._file, self._keep)
            self._keep = None
        row = {"epoch": epoch, **(logs or {})}
        writer = csv.writer(self._file, delimiter=self.separator)
        if self._file.tell() == 0:
            writer.writerow(row)
        writer.writerow(row.values())
        self._file.flush()

    def _cut(self, file: IO[str], size: int) -> None:
        if file.tell() < size:
            warnings.warn(
                f"{self.filename!r} is shorter than when the checkpoint was written: rows are missing",
                RuntimeWarning,
                stacklevel=5,
            )
            return
        file.truncate(size)
        file.seek(size)

    def on_train_end(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Close the file; one without a row is removed if it was not there before."""
        if self._file is None:
            return
        self._file.close()
        self._file = None
        if self._made and self._keep is not None:
            os.remove(self.filename)  # noqa: PTH107


def _separator(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"`separator` must be one character, got {value!r}")
    if len(value) != 1 or value in '"\r\n':
        raise ValueError(f"`separator` must be one character, no quote and no end of line, got {value!r}")
    return value


class Timer(Callback):
    """Put "seconds" and "samples_per_second" of an epoch's training batches into its logs; validation is left out."""

    adds: ClassVar[tuple[str, ...] | None] = ("seconds", "samples_per_second")

    def __init__(self) -> None:
        self._seconds, self._samples, self._since = 0.0, 0, 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Start the clock."""
        self._seconds, self._samples, self._since = 0.0, 0, time.perf_counter()

    def on_progress(self, done: int, logs: Logs, samples: int) -> None:  # noqa: ARG002
        """Take the time since the last piece."""
        now = time.perf_counter()
        self._seconds, self._samples, self._since = self._seconds + now - self._since, self._samples + samples, now

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Note the figures."""
        if logs is not None:
            logs["seconds"] = self._seconds
            logs["samples_per_second"] = self._samples / max(self._seconds, 1e-9)

    def state(self) -> dict[str, Any]:
        """Return time and samples of this epoch so far."""
        return {"seconds": self._seconds, "samples": self._samples}

    def load_state(self, state: dict[str, Any]) -> None:
        """Count on from there."""
        self._seconds, self._samples, self._since = state["seconds"], state["samples"], time.perf_counter()
