"""The loop: pieces of an epoch to the engine, records back, callbacks called."""

from __future__ import annotations

import numbers
import time
import warnings
from contextlib import closing, suppress
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _burnish
from ._clock import Clock
from ._evaluate import evaluate
from ._feed.sources import Pacer
from ._monitor import EpochMonitor
from ._resume import rates_of, restore, restore_model
from ._runtime import train
from .metrics import own_names, reported
from .optimizers.base import learning_rate_at, learning_rates

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    import numpy.typing as npt

    from ._burnish import Records, Session
    from ._feed.arrays import Data
    from ._feed.sources import Piece, Source
    from ._runtime import Core, Runtime
    from ._snapshot import Stored
    from .callbacks.collection import CallbackList
    from .history import History
    from .metrics import Reported
    from .model import Model

    Closed = tuple[float, float, bool, npt.NDArray[np.float64]]

__all__ = ["Meter", "Run", "train_piece"]


class Meter:
    """Running weighted means, added up in the order of the batches, so that chunks make no difference."""

    def __init__(self) -> None:
        self._columns: tuple[str, ...] = ()  # of the records that were added last: the sums are of the first of these
        self._sums = np.zeros(0)
        self._before: dict[str, float] = {}  # sums of other names

    def add(self, records: Records) -> None:
        """Add the means of some micro-batches."""
        columns = records.columns
        if columns is not self._columns:
            self._before = self.state()
            self._columns = columns
            self._sums = np.array([self._before.get(name, 0.0) for name in columns[: columns.index("epoch")]])
        self._sums = _burnish.add_weighted(self._sums, records.rows)

    def state(self) -> dict[str, float]:
        """Return the sums by name, for a checkpoint."""
        return {**self._before, **dict(zip(self._columns, self._sums.tolist(), strict=False))}

    def load_state(self, state: dict[str, float]) -> None:
        """Go on from such sums."""
        self._columns, self._sums, self._before = (), np.zeros(0), state

    def means(self, metrics: Sequence[Reported]) -> dict[str, float]:
        """Return the mean loss and the metrics so far."""
        sums = self.state()
        if not sums:
            return {}
        weight = sums["weight"] or 1.0
        means = {name: total / weight for name, total in own_names(sums).items()}
        return {"loss": means["loss"], **reported(metrics, means, weight)}


def train_piece(core: Core, runtime: Runtime, piece: Piece) -> tuple[Records, Session]:
    """Run some micro-batches and count them; return what they left behind.

    After a signal these are fewer; its exception waits in `signalled` of the session, which comes with them.
    """
    compiled, position = runtime.built.compiled, core.position
    accumulate = 1 if compiled is None else compiled.accumulate
    rates = learning_rates(core.learning_rate, position, position.updates(piece.batches, accumulate))
    session = core.fitting(runtime, piece.inputs)
    records = train(session, piece, rates, epoch=position.epoch, first_step=position.batch, diagnose=core.diagnose)
    position.advance(len(records.rows), accumulate, records.updates)
    return records, session


def close_group(core: Core, runtime: Runtime) -> tuple[Closed, float] | None:
    """Make the update of an open accumulation group, which has its own weight; return its record and learning rate."""
    position = core.position
    if position.pending == 0:
        return None
    rate = learning_rate_at(core.learning_rate, position)
    made = runtime.session.flush(rate)
    position.close_group(updated=made is not None and made[2])
    return None if made is None else (made, rate)


class Run:
    """One fit."""

    def __init__(  # noqa: PLR0917
        self,
        model: Model,
        core: Core,
        source: Source,
        validation: Callable[[], Iterable[Data]] | None,
        validation_batch_size: int,
        callbacks: CallbackList,
        history: History,
        settings: dict[str, Any],
    ) -> None:
        self.model = model
        self.core = core
        self.source = source
        self.validation = validation
        self.validation_batch_size = validation_batch_size
        self.callbacks = callbacks
        self.history = history
        self.settings = settings
        self.position = core.position
        self.first_rate = core.learning_rate
        self.hooked = callbacks.wants("on_train_batch_begin", "on_train_batch_end")
        self.pacer = Pacer(single=self.hooked)
        self.epoch = 0  # the one that is running, or the next one
        self.step = 0  # batches done since the run's start, whatever was resumed in between
        self._counted: int | None = None  # batches of this epoch in step, means and history, while batches are trained
        self._warned = False
        self._told: dict[str, Any] = {}  # what `state` last said of the runtime
        self._meter, self._monitor = Meter(), EpochMonitor()
        self._left: tuple[Records, Runtime] | None = None  # by the last piece, and not in sums and history yet
        self._clock = Clock()
        self._logs: dict[str, float] = {}
        self._figures: dict[str, float] = {}  # the numbers among these when the last epoch had ended
        self._session: Session | None = None  # that trained last
        self._holder: Session | None = None  # that keeps the arrays on its device

    @property
    def runtime(self) -> Runtime:
        """The model's engine side of now: a callback may have frozen layers or compiled anew."""
        return self.core.ready()

    def run(self, first: int, epochs: int, stored: Stored | None = None) -> None:
        """Train from epoch `first` up to `epochs`; however it ends, the model is usable and the history kept."""
        self.core.run, self.epoch = self, first
        try:
            self._begin(stored)
            while (self.epoch < epochs and not self.model.stop_training) or self.position.batch:
                self._epoch(self.epoch)
            for checkpoint in self.callbacks.checkpoints:
                checkpoint.save(self)
        except BaseException as error:
            self._save_at_interrupt(error)
            if self.core.runtime is not None:
                self.position.recover(self.core.runtime.drop_open_group())
            self.callbacks.end(self._logs, error)
            raise
        else:
            self.callbacks.end(self._logs)
        finally:
            self.core.run, self.core.left_rate = None, (self.core.learning_rate, self.first_rate)
            self._release()

    def close_group(self, runtime: Runtime) -> None:
        """Make the update of an open accumulation group, and record it with the group's last batch."""
        self._take_in()
        counted, self._counted = self._counted, None  # if Ctrl-C comes here, an update without its record stays unsaved
        made = close_group(self.core, runtime)
        if made is not None:
            (*values, movements), rate = made
            self.history.close_group(*values, learning_rate=rate)
            self._monitor.add("parameters", runtime.trained(), movements)
        self._counted = counted
        steps = {} if made is None or made[0][2] or self._warned else self.history.steps_of(self.epoch)
        if steps:
            self._warn(self.epoch, steps, stacklevel=6)

    def place(self) -> tuple[int, int, int]:
        """Return epoch, batches since the run's start, and batches of this epoch."""
        return self.epoch, self.step, self.position.batch

    def state(self) -> dict[str, Any]:
        """Return how far the run has come and what was recorded, for a checkpoint: it stays as it is.

        A part that has not changed is the object of the last time. Model and callbacks are kept beside it.
        """
        self._take_in()
        history = self.history.state(self.runtime.built.reported)
        now = {
            "epoch": self.epoch,
            "step": self.step,
            "stopped": self.model.stop_training,
            "warned": self._warned,
            "logs": self._figures,
            "learning_rate": rates_of(self),
            "means": self._meter.state(),
            "figures": self._monitor.state(),
            "steps": history["steps"],
        }
        return {"fixed": self._fixed(), "epochs": history["epochs"], "now": now}

    def _fixed(self) -> dict[str, Any]:
        digest, device = self.runtime.digest, self.runtime.session.device
        if (self._told.get("digest"), self._told.get("device")) != (digest, device):
            self._told = {"digest": digest, "settings": self.settings, "device": device}
        return self._told

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from such a state, the model's position being there already."""
        now = state["now"]
        self.epoch, self.step = now["epoch"], now["step"]
        self.model.stop_training, self._warned = now["stopped"], now["warned"]
        self._logs, self._figures = {**now["logs"]}, now["logs"]
        self._meter.load_state(now["means"])
        self._monitor.load_state(now["figures"])
        history = {"epochs": state["epochs"], "steps": now["steps"]}
        self.history.load_state(history, self.runtime.built.reported)

    def _begin(self, stored: Stored | None) -> None:
        if stored is None:
            close_group(self.core, self.runtime)
            if self.position.batch:
                self.position.next_epoch()
            self.callbacks.begin()
            return
        # Hooks see model and callbacks as they were, and then all is put back as it was, whatever they did.
        restore_model(self.core, stored)
        self.callbacks.begin()
        if self.position.batch:
            self.callbacks.load_state(deepcopy(stored.run["callbacks"]))
            self.callbacks("on_epoch_begin", stored.run["now"]["epoch"], {})
        notes = restore(self, stored)
        if self.callbacks.params.get("verbose"):
            print(f"resuming from {stored.path.name}: epoch {self.epoch + 1}, batch {self.position.batch}")
            for note in notes:
                print(f"  {note}")

    def _save_at_interrupt(self, error: BaseException) -> None:
        """Write a last checkpoint when Ctrl-C (or what a signal handler raised) came between two batches."""
        runtime = self.core.runtime
        if isinstance(error, Exception) or runtime is None or self._counted != self.position.batch:
            return
        if runtime.stands_at(self.position):
            try:
                for checkpoint in self.callbacks.checkpoints:
                    checkpoint.save(self)
            except Exception as failed:
                error.add_note(f"and no last checkpoint was written: {type(failed).__name__}: {failed}")

    def _look_ahead(self) -> None:
        """Have the next piece end where a callback wants it to."""
        stop = self.callbacks.next_stop(self.step)
        self.pacer.room = None if stop is None else stop - self.step

    def _pieces(self) -> Generator[Piece]:
        """Return what is left of the epoch."""
        start = self.position.batch
        if start and self.model.stop_training:
            return
        yield from self.source.pieces(self.position.epoch, self.pacer, start)

    def _epoch(self, epoch: int) -> None:
        if self.position.batch == 0:
            self.callbacks("on_epoch_begin", epoch, {})
            if self.model.stop_training:  # before its first batch, as between two epochs
                return
            self._meter, self._monitor = Meter(), EpochMonitor()
        self._counted, self._clock = self.position.batch, Clock()
        self._look_ahead()
        with closing(self._clock.waiting(self._pieces())) as pieces:
            for piece in pieces:
                self._piece(epoch, piece)
                if self.model.stop_training:
                    break
        self.callbacks.end_progress()
        self._counted = None
        self.close_group(self.runtime)
        self.position.next_epoch()
        self.history.add_movements(self._monitor)
        started = time.perf_counter()
        self._logs = {**self._meter.means(self.runtime.built.reported), **self._validate()}
        self._clock.add("validation", started)
        self.history.add_timing(self._clock.seconds())
        self.callbacks("on_epoch_end", epoch, self._logs)
        self._figures = {name: float(value) for name, value in self._logs.items() if isinstance(value, numbers.Real)}
        self.history.add_epoch(epoch, self._logs)
        self.epoch += 1
        for checkpoint in self.callbacks.checkpoints:
            checkpoint.after_epoch(self)

    def _hold(self, piece: Piece) -> None:
        """Have the engine keep the arrays on its device: from the second piece on, when what steps need is taken."""
        session = self._session
        if session is None or session is self._holder or piece.order is None or session.device == "cpu":
            return
        self._release()
        self._holder = session
        with suppress(RuntimeError):  # what does not fit after all is gathered by the host
            session.hold(piece.inputs)

    def _release(self) -> None:
        if self._holder is not None:
            self._holder.release()
        self._holder = None

    def _piece(self, epoch: int, piece: Piece) -> None:
        batch = self.position.batch
        self._hold(piece)
        if self.hooked:
            self.callbacks("on_train_batch_begin", batch, {})
        started = time.perf_counter()
        runtime = self.runtime
        records, session = train_piece(self.core, runtime, piece)
        self._session = session
        self.pacer.note(piece.batches, self._clock.add("engine", started))
        if epoch != self.position.epoch:  # the model was trained before this fit
            records.rows[:, records.columns.index("epoch")] = epoch
        self._left = records, runtime
        self.step += self.position.batch - batch
        self._counted = self.position.batch
        try:
            self._tell(epoch, batch, piece.rows, records, runtime)
        finally:
            self._take_in()
        session.signalled()
        self._look_ahead()

    def _tell(self, epoch: int, batch: int, rows: int, records: Records, runtime: Runtime) -> None:
        """Have the callbacks know of a piece."""
        if records.skipped and not self._warned:
            self._warn(epoch, dict(zip(records.columns, records.rows.T, strict=True)), stacklevel=7)
        if self.hooked:
            self.callbacks("on_train_batch_end", batch, self._running(runtime))
        self.callbacks.progress(self.position.batch, rows, partial(self._shown, records, runtime))
        for checkpoint in self.callbacks.checkpoints:
            checkpoint.after_batches(self)

    def _running(self, runtime: Runtime) -> dict[str, float]:
        self._take_in()
        return self._meter.means(runtime.built.reported)

    def _shown(self, records: Records, runtime: Runtime) -> dict[str, float]:
        rate = float(records.rows[-1, records.columns.index("learning_rate")])
        return {**self._running(runtime), "learning_rate": rate}

    def _take_in(self) -> None:
        """Add what the last piece left to sums and history, once: a checkpoint does so while another thread copies."""
        if self._left is None:
            return
        counted, self._counted = self._counted, None  # if Ctrl-C comes here, half of it must not be saved
        (records, runtime), self._left = self._left, None
        self._monitor.add("parameters", runtime.trained(), records.movements)
        self._monitor.add("activations", runtime.rectified(), records.zeros)
        self._meter.add(records)
        self.history.add_rows(records.columns, records.rows, runtime.built.reported)
        self._counted = counted

    def _validate(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        means = evaluate(self.runtime, self.validation(), self.validation_batch_size, self.callbacks)
        return {f"val_{name}": mean for name, mean in means.items() if np.ndim(mean) == 0}

    def _warn(self, epoch: int, columns: dict[str, npt.NDArray[Any]], stacklevel: int) -> None:
        bad = np.flatnonzero(columns["finite"] == 0)
        compiled = self.runtime.built.compiled
        lowest = None if compiled is None else compiled.lowest_loss_scale
        if lowest is not None:
            # Above its minimum, a loss scale finds its place by skipping.
            bad = bad[columns["loss_scale"][bad] <= lowest]
        if len(bad):
            self._warned = True
            warnings.warn(
                f"the gradient was not finite in epoch {epoch + 1}, batch {columns['step'][bad[0]]:.0f}: "
                "that update was skipped",
                RuntimeWarning,
                stacklevel=stacklevel,
            )
