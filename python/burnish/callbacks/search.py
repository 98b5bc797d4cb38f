"""Callbacks for searches over hyperparameters."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from .._errors import integer
from .base import Callback

if TYPE_CHECKING:
    from .base import Logs

__all__ = ["OptunaPruning"]


class OptunaPruning(Callback):
    """Report a number to an Optuna trial after each epoch, and end the fit with `optuna.TrialPruned` when it says so.

    Parameters
    ----------
    trial : optuna.Trial
        What Optuna gave to the objective.
    monitor : str, default "val_loss"
        The number in the logs; its direction is the study's.
    interval : int, default 1
        After how many epochs each it is reported.
    """

    adds: ClassVar[tuple[str, ...] | None] = ()

    def __init__(self, trial: Any, monitor: str = "val_loss", interval: int = 1) -> None:
        for method in ("report", "should_prune"):
            if not callable(getattr(trial, method, None)):
                raise TypeError(f"`trial` must be an Optuna trial, with a method {method}, got {trial!r}")
        self.trial = trial
        self.monitor = monitor
        self.interval = integer("interval", interval, 1)

    def needed(self) -> list[tuple[str, str]]:
        """Return what is monitored."""
        return [("monitor", self.monitor)]

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Report, and raise if the trial is to be pruned."""
        if (epoch + 1) % self.interval:
            return
        value = (logs or {})[self.monitor]
        self.trial.report(value, epoch)
        if self.trial.should_prune():
            raise import_module("optuna").TrialPruned(f"pruned after epoch {epoch + 1}: {self.monitor} is {value:.6g}")
