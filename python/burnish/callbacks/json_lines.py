"""Figures as JSON lines: a file that every tool reads and that is whole up to the last epoch, however a fit ends."""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from typing import IO, TYPE_CHECKING, Any, ClassVar

from .._errors import boolean, path
from .base import Callback, Logs

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["JSONLogger"]


class JSONLogger(Callback):
    """Write a line of JSON after each epoch: "epoch", "time" (seconds since 1970) and the logs.

    What is not finite is null. A line reaches the operating system before the next epoch begins, so that it survives
    the process. A disk that fails does not end the fit: it is told once, as a RuntimeWarning. A fit that is resumed
    goes on after the line of its checkpoint's epoch. To read it: `pandas.read_json(filename, lines=True)`.

    Parameters
    ----------
    filename : path
        Where to; folders are made.
    append : bool, default False
        Whether an existing file is continued.
    """

    adds: ClassVar[tuple[str, ...] | None] = ()

    def __init__(self, filename: str | PathLike[str], append: bool = False) -> None:  # noqa: FBT001, FBT002
        self.filename = path("filename", filename)
        self.append = boolean("append", append)
        self._file: IO[bytes] | None = None
        self._kept: int | None = None
        self._failed = False

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Begin anew; the file is opened by the first line, when it is known whether a run is resumed."""
        self._kept, self._failed = None, False

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write a line."""
        self.write(epoch, logs or {})

    def on_train_end(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def state(self) -> dict[str, Any]:
        """Return how much of the file belongs to the run."""
        return {"bytes": self._kept if self._file is None else self._file.tell()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Forget what was written after the checkpoint."""
        self._kept = state["bytes"]

    def write(self, epoch: int, figures: Logs) -> None:
        """Write a line; what goes wrong is told once."""
        if self._failed:
            return
        numbers = {name: _plain(value) for name, value in figures.items()}
        line = json.dumps({"epoch": epoch, "time": round(time.time(), 3), **numbers})
        try:
            file = self._file = self._file or self._opened()
            file.write(line.encode() + b"\n")
            file.flush()
        except OSError as error:
            self._failed = True
            warnings.warn(
                f"{type(self).__name__}: {self.filename!r} cannot be written, the fit goes on: {error}",
                RuntimeWarning,
                stacklevel=2,
            )

    def _opened(self) -> IO[bytes]:
        folder = os.path.dirname(self.filename)  # noqa: PTH120
        os.makedirs(folder or ".", exist_ok=True)  # noqa: PTH103
        resumed = self._kept is not None and os.path.exists(self.filename)  # noqa: PTH110
        file = open(self.filename, "r+b" if resumed else "ab" if self.append else "wb")  # noqa: PTH123, SIM115
        if resumed and self._kept is not None:
            file.truncate(min(self._kept, file.seek(0, os.SEEK_END)))
            file.seek(0, os.SEEK_END)
        return file


def _plain(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
