"""Checkpoints: the whole state of a run in a file, written beside the training."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar

from .._errors import choice, integer, number
from .base import Callback, Logs

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from .._fit import Run
    from .._snapshot import Snapshot

__all__ = ["Checkpoint"]

UNITS = ("step", "epoch", "seconds")


class Checkpoint(Callback):
    """Write everything that `fit(resume_from=directory)` needs to go on as if nothing had happened, as files.

    `Checkpoint.every(100, "run")` writes after every 100 batches, `Checkpoint.every(1, "run", "epoch")` after every
    epoch and `Checkpoint.every(600, "run", "seconds")` every ten minutes. All of them write one more when the fit ends
    and when Ctrl-C ends it. A file is there whole or not at all, whenever the process is killed.

    Training waits for the copy of the state only; a thread writes it. Where files are due faster than the disk takes
    them, of those by steps or seconds the newest is written next and the others are left out. A write that fails ends
    the fit with its error; the files before it stay.

    Parameters
    ----------
    directory : path
        Where to, made if it is not there: one directory for one run. Names sort by time.
    n : int, or float for seconds
        How often.
    unit : {"step", "epoch", "seconds"}
        What `n` counts: batches as in `History.steps`, epochs, or seconds.
    keep : int or None, default 3
        How many files stay. Older ones are removed once the new one is safe on the disk; None: all stay.

    Raises
    ------
    ValueError
        At the beginning of a fit that starts anew although the directory holds checkpoints of another run.

    Examples
    --------
    One command line for the first and every later start::

        model.fit(x, y, epochs=100, callbacks=[bn.callbacks.Checkpoint.every(500, "run")], resume_from="run")
    """

    adds: ClassVar[tuple[str, ...] | None] = ()

    def __init__(self, directory: str | PathLike[str], n: float = 1, unit: str = "epoch", keep: int | None = 3) -> None:
        self.directory = Path(directory)
        self.unit = choice("unit", unit, UNITS)
        self.n = number("n", n, 0, above=True) if unit == "seconds" else integer("n", n, 1)
        self.keep = None if keep is None else integer("keep", keep, 1)
        self._writer = Writer()
        self._saved: Any = None
        self._started = 0.0

    @classmethod
    def every(
        cls,
        n: float,
        dir: str | PathLike[str],  # noqa: A002  the name that the design fixed
        unit: str = "step",
        keep: int | None = 3,
    ) -> Checkpoint:
        """Return a callback that writes to a directory every `n` batches, epochs or seconds; see the class."""
        return cls(dir, n, unit, keep)

    def next_stop(self, step: int) -> int | None:
        """Return the next multiple of `n`, if that counts batches."""
        return (step // int(self.n) + 1) * int(self.n) if self.unit == "step" else None

    def prepare(self, resumed: Path | None) -> None:
        """Make the directory, before the fit; raise if what it holds is not what the fit goes on from."""
        from .._snapshot import checkpoints_in

        self.directory.mkdir(parents=True, exist_ok=True)
        present = checkpoints_in(self.directory)
        if present and (resumed is None or resumed.resolve().parent != self.directory.resolve()):
            raise ValueError(
                f"Checkpoint: {str(self.directory)!r} holds checkpoints of another run ({present[-1].name}); "
                "give `resume_from` to go on with it, or another directory"
            )

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Start the clock."""
        self._saved, self._started = None, time.monotonic()

    def after_batches(self, run: Run) -> None:
        """Save between two pieces of work, if it is due."""
        self._writer.poll()
        by_step = self.unit == "step" and run.step % int(self.n) == 0
        if by_step or (self.unit == "seconds" and time.monotonic() - self._started >= self.n):
            self.save(run)

    def after_epoch(self, run: Run) -> None:
        """Save between two epochs, if it is due."""
        if self.unit == "epoch" and run.epoch % int(self.n) == 0:
            self.save(run)

    def save(self, run: Run) -> None:
        """Copy the state and have it written, unless nothing has happened since the last time."""
        from .._snapshot import capture

        if run.step == 0 or self._saved == run.place():
            return
        snapshot = capture(run)
        self._saved, self._started = run.place(), time.monotonic()
        self._writer.put(lambda: self._write(snapshot), wait=self.unit == "epoch")

    def _write(self, snapshot: Snapshot) -> None:
        from .._snapshot import checkpoints_in

        snapshot.write(self.directory / snapshot.name)
        present = checkpoints_in(self.directory)
        here = [path.name for path in present].index(snapshot.name)
        # Later ones are damaged, or of a run that was gone back from.
        older = [] if self.keep is None else present[: max(here + 1 - self.keep, 0)]
        for path in [*older, *present[here + 1 :]]:
            path.unlink(missing_ok=True)

    def on_train_end(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Wait until what was saved is written."""
        self._writer.finish()


class Writer:
    """One job at a time, in a thread that the interpreter waits for; of those that wait, the newest."""

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._error: BaseException | None = None
        self._waiting: Callable[[], None] | None = None

    def put(self, job: Callable[[], None], *, wait: bool) -> None:
        """Do a job soon; with `wait`, none before it is left out."""
        if wait:
            self.finish()
        self._waiting = job
        self.poll()

    def poll(self) -> None:
        """Raise what went wrong; begin the next job if the last one is done."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = None
        job, self._waiting = self._waiting, None
        error, self._error = self._error, None
        if error is not None:
            raise error
        if job is not None:
            self._thread = Thread(target=self._run, args=(job,), name="burnish checkpoint")
            self._thread.start()

    def finish(self) -> None:
        """Wait for all jobs."""
        while self._thread is not None:
            self._thread.join()
            self.poll()

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            self._error = error
