"""What a fit prints: a bar on a terminal, otherwise a line an epoch."""

from __future__ import annotations

import sys
import time
from typing import Any, ClassVar

from .callbacks.base import Callback, Logs

__all__ = ["ProgressBar", "progress"]

_WIDTH = 24
_PERIOD = 0.1


def progress(verbose: Any) -> list[Callback]:
    """Return what prints: nothing for 0, a bar for 1 (on a terminal), a line an epoch for 2; "auto" is 1."""
    if verbose not in (0, 1, 2, "auto"):
        raise ValueError(f"`verbose` must be 0, 1, 2 or 'auto', got {verbose!r}")
    if verbose == 0:
        return []
    return [ProgressBar(bar=verbose != 2 and _is_terminal())]


def _is_terminal() -> bool:
    """Say whether the output is a terminal that can show the bar; it may be any object, or None."""
    try:
        "━╌".encode(sys.stdout.encoding or "ascii")
        return sys.stdout.isatty()
    except (AttributeError, LookupError, TypeError, UnicodeEncodeError):
        return False


class ProgressBar(Callback):
    """A line an epoch; with `bar`, it grows while the epoch runs. It needs no batch hook: chunks stay whole."""

    adds: ClassVar[tuple[str, ...] | None] = ()

    def __init__(self, *, bar: bool) -> None:
        self.bar = bar
        self._drawn = 0.0
        self._length = 0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Start the clock."""
        self._epoch, self._started = epoch, time.perf_counter()

    def on_progress(self, done: int, logs: Logs, samples: int) -> None:  # noqa: ARG002
        """Draw the bar again if it is time."""
        now = time.perf_counter()
        if not self.bar or now - self._drawn < _PERIOD:
            return
        self._drawn = now
        total = self.params["steps"]
        filled = round(_WIDTH * done / total) if total else 0
        bar = f"{'━' * filled}{'╌' * (_WIDTH - filled)} {done}/{total}" if total else f"{done} batches"
        self._write(f"{self._head()} {bar}  {_numbers(logs)}", end="")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Print the epoch's line."""
        seconds = time.perf_counter() - self._started
        self._write(f"{self._head()}  {_numbers(logs or {})}  {seconds:.1f} s", end="\n")

    def on_train_end(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Leave a half-drawn bar on its own line."""
        if self._length:
            self._write("", end="\n")

    def _head(self) -> str:
        epochs = str(self.params["epochs"])
        return f"epoch {self._epoch + 1:>{len(epochs)}}/{epochs}"

    def _write(self, text: str, end: str) -> None:
        blank = " " * max(self._length - len(text), 0)
        start = "\r" if self.bar else ""
        print(f"{start}{text}{blank if self.bar else ''}", end=end, flush=True)
        self._length = 0 if end else len(text)


def _numbers(logs: Logs) -> str:
    return "  ".join(
        f"{name} {value:.4f}" if 1e-3 <= abs(value) < 1e4 else f"{name} {value:.3g}" for name, value in logs.items()
    )
