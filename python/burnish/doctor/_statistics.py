"""The ailment of running statistics: validation is judged by numbers that have not caught up with the weights."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._feed.sources import ArraySource, Pacer
from .._structure import is_sequence
from ._report import Finding, Remedy

if TYPE_CHECKING:
    from .._burnish import Session
    from .._feed.arrays import Data
    from .._fit import Run

__all__ = ["Settled", "settled", "statistics_behind"]

_BATCHES = 200  # after so many, a momentum of 0.99 keeps 13 % of what it had
_ROWS = 4096  # of the validation data


class Settled(NamedTuple):
    """The training loss, and that of validation: as it is, and after more batches that moved no weight."""

    own: float
    before: float
    after: float
    batches: int
    updates: int  # micro-batches of the fit

    @property
    def gap(self) -> float:
        """By what the loss of validation is above that of training."""
        return self.before - self.own


def statistics_behind(found: Settled | None) -> Finding | None:
    """Half of what validation is worse by, or more, is gone when the statistics have seen more batches."""
    if found is None or not found.before - found.after > 0.5 * found.gap:
        return None
    text = (
        f"the validation loss is {found.before:.4g}, that of training {found.own:.4g}; with the same weights it is "
        f"{found.after:.4g} once the running statistics have seen {found.batches} more batches: {found.updates} were "
        "too few for their momentum"
    )
    momentum = max(0.0, min(0.9, 1.0 - 10.0 / found.updates))
    remedies = (
        Remedy("Let the statistics forget sooner", f"bn.layers.BatchNorm(momentum={momentum:.2g})"),
        Remedy("Make more updates: smaller batches, or more epochs", "model.fit(..., epochs=4 * epochs)"),
        Remedy("Normalise without statistics of the past", "bn.layers.LayerNorm()"),
    )
    numbers: dict[str, float | str] = {"loss": found.own, "val_loss": found.before, "val_loss_settled": found.after}
    return Finding("statistics_behind", "warning", text, numbers | {"batches": found.batches}, remedies)


def settled(run: Run) -> Settled | None:
    """Measure it on a copy; None where validation is not worse by a fifth, or where that says nothing."""
    part = _validation_of(run)
    if part is None:
        return None
    losses = run.history.history["loss"]
    own, updates = float(losses[-1]), len(run.history.steps["loss"])
    still = run.runtime.copy(run.runtime.session.device, run.runtime.session.precision)
    before = _loss(still, part)
    if not before - own > 0.2 * max(abs(before), abs(own)):
        return None
    batches = min(_BATCHES, 2 * updates)  # a look must not take longer than the fit
    _run_on(still, run, batches)
    return Settled(own, before, _loss(still, part), batches, updates)


def _validation_of(run: Run) -> Data | None:
    """Return rows that were validated on, if the model has running statistics and was judged as it stands."""
    runtime, history = run.runtime, run.history.history
    worse = history.get("val_loss") and history["val_loss"][-1] > history["loss"][-1]
    if not worse or run.validation is None or not isinstance(run.source, ArraySource):
        return None
    if not runtime.built.program.buffers() or runtime.session.averages():
        return None
    parts = run.validation()
    return parts[0].slice(0, _ROWS) if is_sequence(parts) else None


def _run_on(still: Session, run: Run, batches: int) -> None:
    """Show a session whose weights stay some batches of the epochs to come."""
    epoch = run.position.epoch
    while batches > 0:
        with closing(run.source.pieces(epoch, Pacer(single=True))) as pieces:
            for piece in islice(pieces, batches):
                still.train(
                    piece.inputs,
                    piece.order,
                    batch_size=piece.batch_size,
                    learning_rates=np.zeros(1),
                    sample_weight=piece.weight,
                    epoch=epoch,
                )
                batches -= 1
        epoch += 1


def _loss(session: Session, part: Data) -> float:
    return session.evaluate(part.inputs, batch_size=256, sample_weight=part.weight)["loss"]
