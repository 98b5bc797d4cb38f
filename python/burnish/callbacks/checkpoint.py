"""Checkpoints: the whole state of a run in a file, written beside the training."""

from __future__ import annotations

import os
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread, current_thread
from typing import TYPE_CHECKING, Any, ClassVar

from .._errors import choice, integer, number
from .base import Callback, Logs

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from .._fit import Run
    from .._snapshot import Folder

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
        How many files stay; None: all. Older ones are removed once the new one is written, and the only one once the
        new one is safe on the disk: at every moment a whole one is. On Linux, the place of one that was removed (of
        64 MB at most, and only if nobody else has it open or linked) is kept for the next while the fit lasts, as a
        hidden file.

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
        self._folder: Folder | None = None  # while a fit runs
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
        self._writer, self._saved, self._started = Writer(), None, time.monotonic()

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
        if run.step == 0 or self._saved == run.place():
            return
        folder = self._opened()
        snapshot = folder.capture(run)
        self._saved, self._started = run.place(), time.monotonic()
        self._writer.put(lambda: folder.write(snapshot), wait=self.unit == "epoch")

    def _opened(self) -> Folder:
        if self._folder is None:
            from .._snapshot import Folder

            self._folder = Folder(os.fspath(self.directory), self.keep)
        return self._folder

    def on_train_end(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Wait until what was saved is written."""
        try:
            self._writer.finish()
        finally:
            self._folder = None


class Writer:
    """One job at a time, in a thread that the interpreter waits for; of those that wait, the newest."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._waiting: Callable[[], None] | None = None

    def put(self, job: Callable[[], None], *, wait: bool) -> None:
        """Do a job soon; with `wait`, none before it is left out."""
        if wait:
            self._settle()
        self._waiting = job
        self.poll()

    def poll(self) -> None:
        """Raise what went wrong; begin the next job if the last one is done."""
        if self._worker is not None and self._worker.busy and not self._worker.is_done():
            return
        job, self._waiting = self._waiting, None
        if self._worker is not None:
            self._worker.wait()
        if job is not None:
            self._worker = self._worker or Worker()
            self._worker.begin(job)

    def finish(self) -> None:
        """Wait for all jobs, and for the thread."""
        try:
            self._settle()
        finally:
            if self._worker is not None:
                self._worker.stop()
                self._worker = None

    def _settle(self) -> None:
        while self._worker is not None and self._worker.busy:
            self._worker.wait()
            self.poll()


class Worker:
    """A thread that waits for jobs: starting one for each costs more than handing them over."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._outcomes: SimpleQueue[BaseException | None] = SimpleQueue()
        self.busy = False
        queues = (self._jobs, self._outcomes, current_thread())
        self._thread = Thread(target=_work, args=queues, name="burnish checkpoint")
        self._thread.start()

    def begin(self, job: Callable[[], None]) -> None:
        """Hand a job over."""
        self.busy = True
        self._jobs.put(job)

    def is_done(self) -> bool:
        """Say whether `wait` would return at once."""
        return not self._outcomes.empty()

    def wait(self) -> None:
        """Wait for the job, if there is one, and raise what it raised."""
        error = self._outcomes.get() if self.busy else None
        self.busy = False
        if error is not None:
            raise error

    def stop(self) -> None:
        """Do the job that is there, and no more."""
        self._jobs.put(None)
        self._thread.join()


def _work(jobs: SimpleQueue[Any], outcomes: SimpleQueue[BaseException | None], owner: Thread) -> None:
    # The interpreter waits for this thread, so it must not outlive the one that would have told it to stop.
    while owner.is_alive():
        try:
            job = jobs.get(timeout=1.0)
        except Empty:
            continue
        if job is None:
            return
        error = None
        try:
            job()
        except BaseException as raised:
            error = raised
        del job  # and the copy of the state with it
        outcomes.put(error)
