"""The loop: pieces of an epoch to the engine, records back, callbacks called."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from ._evaluate import evaluate
from ._monitor import EpochMonitor, split_records
from ._sources import Pacer
from .optimizers import learning_rate_at, learning_rates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy.typing as npt

    from ._data import Data
    from ._runtime import Core, Runtime
    from ._sources import Piece, Source
    from .callbacks.collection import CallbackList
    from .history import History
    from .model import Model

__all__ = ["Meter", "Run", "train_piece"]

Records = dict[str, "npt.NDArray[Any]"]


class Meter:
    """Running weighted means, added up in the order of the batches, so that chunks make no difference."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._weight = 0.0

    def add(self, records: Records, names: Iterable[str]) -> None:
        """Add the means of some micro-batches."""
        weight = records["weight"]
        for name in names:
            with np.errstate(invalid="ignore"):
                products = np.where(weight > 0, records[name] * weight, 0.0)
            self._sums[name] = _added(self._sums.get(name, 0.0), products)
        self._weight = _added(self._weight, weight)

    def means(self) -> dict[str, float]:
        """Return the means so far."""
        weight = self._weight or 1.0
        return {name.removeprefix("metric."): total / weight for name, total in self._sums.items()}


def _added(total: float, values: npt.NDArray[Any]) -> float:
    return float(np.cumsum(np.concatenate([[total], values]))[-1])


def train_piece(core: Core, runtime: Runtime, piece: Piece) -> Records:
    """Run some micro-batches and count them; return a column for each number of the records."""
    compiled, position = runtime.built.compiled, core.position
    accumulate = 1 if compiled is None else compiled.accumulate
    updates = position.updates(piece.batches, accumulate)
    rates = learning_rates(core.learning_rate, position, updates)
    records = runtime.session.train(
        piece.inputs,
        piece.order,
        batch_size=piece.batch_size,
        learning_rates=rates,
        sample_weight=piece.weight,
        epoch=position.epoch,
        first_step=position.batch,
    )
    steps = np.arange(position.batch, position.batch + piece.batches)
    closing = (position.pending + 1 + np.arange(piece.batches)) % accumulate == 0
    position.advance(piece.batches, accumulate, int(np.count_nonzero(records["finite"] & closing)))
    return {"step": steps, **records}


def close_group(core: Core, runtime: Runtime) -> Records:
    """Make the update of an open accumulation group, which has its own weight; return its record."""
    position = core.position
    if position.pending == 0:
        return {}
    made = runtime.session.flush(learning_rate_at(core.learning_rate, position)) or {}
    position.close_group(updated="finite" in made and bool(made["finite"][0]))
    return made


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
    ) -> None:
        self.model = model
        self.core = core
        self.source = source
        self.validation = validation
        self.validation_batch_size = validation_batch_size
        self.callbacks = callbacks
        self.history = history
        self.position = core.position
        self.hooked = callbacks.wants("on_train_batch_begin", "on_train_batch_end")
        self.pacer = Pacer(single=self.hooked)
        self._warned = False
        self._monitor = EpochMonitor()
        self._logs: dict[str, float] = {}

    @property
    def runtime(self) -> Runtime:
        """The model's engine side of now: a callback may have frozen layers or compiled anew."""
        return self.core.ready()

    def run(self, first: int, epochs: int) -> None:
        """Train from epoch `first` up to `epochs`; however it ends, the model is usable and the history kept."""
        close_group(self.core, self.runtime)
        if self.position.batch:
            self.position.next_epoch()
        self.core.run = self
        try:
            self.callbacks.begin()
            for epoch in range(first, epochs):
                if self.model.stop_training:
                    break
                self._epoch(epoch)
        except BaseException:
            if self.core.runtime is not None:
                self.position.recover(self.core.runtime.drop_open_group())
            raise
        finally:
            try:
                self.callbacks.end(self._logs)
            finally:
                self.core.run = None

    def _epoch(self, epoch: int) -> None:
        self.callbacks("on_epoch_begin", epoch, {})
        meter, self._monitor = Meter(), EpochMonitor()
        for piece in self.source.pieces(self.position.epoch, self.pacer):
            self._piece(epoch, piece, meter)
            if self.model.stop_training:
                break
        made = close_group(self.core, self.runtime)
        columns, tables = split_records(made)
        self.history.close_group(columns)
        self._monitor.add(tables, self.runtime)
        self.position.next_epoch()
        self.history.add_movements(self._monitor)
        self._logs = {**meter.means(), **self._validate()}
        self.callbacks("on_epoch_end", epoch, self._logs)
        self.history.add_epoch(epoch, self._logs)

    def _piece(self, epoch: int, piece: Piece, meter: Meter) -> None:
        batch = self.position.batch
        if self.hooked:
            self.callbacks("on_train_batch_begin", batch, {})
        started = time.perf_counter()
        runtime = self.runtime
        records, tables = split_records(train_piece(self.core, runtime, piece))
        self._monitor.add(tables, runtime)
        self.pacer.note(piece.batches, time.perf_counter() - started)
        meter.add(records, ["loss", *(f"metric.{name}" for name in runtime.built.metrics)])
        self.history.add_steps(_columns(epoch, records))
        self._warn(epoch, records)
        logs = meter.means()
        if self.hooked:
            self.callbacks("on_train_batch_end", batch, logs)
        self.callbacks.progress(self.position.batch, logs)

    def _validate(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        means = evaluate(self.runtime, self.validation(), self.validation_batch_size, self.callbacks)
        return {f"val_{name}": mean for name, mean in means.items()}

    def _warn(self, epoch: int, records: Records) -> None:
        bad = np.flatnonzero(~records["finite"])
        compiled = self.runtime.built.compiled
        lowest = None if compiled is None else compiled.lowest_loss_scale
        if lowest is not None:
            # Above its minimum, a loss scale finds its place by skipping.
            bad = bad[records["loss_scale"][bad] <= lowest]
        if len(bad) and not self._warned:
            self._warned = True
            step = records["step"][bad[0]]
            warnings.warn(
                f"the gradient was not finite in epoch {epoch + 1}, batch {step}: that update was skipped",
                RuntimeWarning,
                stacklevel=6,
            )


def _columns(epoch: int, records: Records) -> Records:
    columns = {name.removeprefix("metric."): values for name, values in records.items()}
    return {"epoch": np.full(len(records["step"]), epoch), **columns}
