"""The ailment of running statistics: validation is judged by numbers that have not caught up with the weights."""

from __future__ import annotations

from typing import NamedTuple

from ._report import Finding, Remedy

__all__ = ["Settled", "statistics_behind"]


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
