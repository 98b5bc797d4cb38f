"""What watches a number of the logs, and what ends a fit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from .._errors import boolean, choice, integer, number
from .base import Callback, Logs

if TYPE_CHECKING:
    from .._runtime import Runtime

__all__ = ["EarlyStopping", "TerminateOnNaN", "Watcher"]


class Watcher(Callback):
    """What watches one number of the logs for improvement."""

    adds: ClassVar[tuple[str, ...] | None] = ()
    relative = False

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0, best: float | None = None) -> None:
        if not isinstance(monitor, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"`monitor` must be a name of the logs, got {monitor!r}")
        self.monitor = monitor
        self.min_delta = number("min_delta", min_delta, 0)
        self.mode = choice("mode", mode, ("auto", "max", "min"))
        self._start = best
        self._reset()

    def _reset(self) -> None:
        largest = self.mode == "max" or (self.mode == "auto" and "acc" in self.monitor)
        self._sign = 1.0 if largest else -1.0
        self.best = (-self._sign * math.inf) if self._start is None else self._start

    def state(self) -> dict[str, Any]:
        """Return the best value so far."""
        return {"best": self.best}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take it for the best again."""
        self.best = state["best"]

    def _watched(self, logs: Logs | None) -> float:
        logs = logs or {}
        if self.monitor not in logs:
            raise ValueError(
                f"{type(self).__name__}: `monitor` {self.monitor!r} is not in the logs; there are {', '.join(logs)}"
            )
        return float(logs[self.monitor])

    def _improves(self, value: float) -> bool:
        """Say whether a value is strictly better than the best by more than min_delta; NaN never is."""
        if math.isinf(self.best) or math.isinf(value):
            return self._sign * value > self._sign * self.best
        delta = self.min_delta * abs(self.best) if self.relative else self.min_delta
        return self._sign * (value - self.best) > delta


class EarlyStopping(Watcher):
    """End the fit when a number has not improved for `patience` epochs in a row.

    Parameters
    ----------
    monitor : str, default "val_loss"
        The number in the logs.
    min_delta : float, default 0
        How much better than the best it must be.
    patience : int, default 0
        How many epochs without improvement are borne; NaN counts as none.
    verbose : int, default 0
        1: say when the fit is stopped.
    mode : {"auto", "min", "max"}
        Which way is better; "auto" is "max" for accuracies and "min" otherwise.
    baseline : float, optional
        The value to be better than at first.
    restore_best_weights : bool, default False
        Whether the model ends with its best weights, however the fit ends, if there was a best epoch.
    start_from_epoch : int, default 0
        Epochs before this one are ignored.
    relative : bool, default False
        Whether `min_delta` is a part of the best value's size.
    """

    rank = 1

    def __init__(  # noqa: PLR0917  Keras's order
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,  # noqa: FBT001, FBT002
        start_from_epoch: int = 0,
        *,
        relative: bool = False,
    ) -> None:
        super().__init__(monitor, mode, min_delta, None if baseline is None else number("baseline", baseline))
        self.relative = boolean("relative", relative)
        self.patience = integer("patience", patience, 0)
        self.verbose = verbose
        self.restore_best_weights = boolean("restore_best_weights", restore_best_weights)
        self.start_from_epoch = integer("start_from_epoch", start_from_epoch, 0)
        self.stopped_epoch: int | None = None
        self.best_epoch: int | None = None
        self.wait = 0
        self._weights: dict[str, Any] | None = None

    def _runtime(self) -> Runtime:
        from ..model import core_of

        return core_of(self.model).ready()

    def needed(self) -> list[tuple[str, str]]:
        """Return what is monitored."""
        return [("monitor", self.monitor)]

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Forget an earlier fit."""
        self._reset()
        self.wait, self.best_epoch, self.stopped_epoch, self._weights = 0, None, None, None

    def state(self) -> dict[str, Any]:
        """Return the best value, its epoch and weights, and how long it is ago."""
        counts = {"wait": self.wait, "best_epoch": self.best_epoch, "stopped_epoch": self.stopped_epoch}
        return {**super().state(), **counts, "weights": self._weights}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state(state)
        self.wait, self.best_epoch, self.stopped_epoch = state["wait"], state["best_epoch"], state["stopped_epoch"]
        self._weights = state["weights"] if self.restore_best_weights else None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Compare, and stop when patience is at its end."""
        value = self._watched(logs)
        if epoch < self.start_from_epoch:
            return
        if self._improves(value):
            self.best, self.best_epoch, self.wait = value, epoch, 0
            if self.restore_best_weights:
                self._weights = self._runtime().weights()
            return
        self.wait += 1
        if self.wait >= max(self.patience, 1):
            self.stopped_epoch, self.model.stop_training = epoch, True

    def on_train_end(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Bring the best weights back."""
        if self.stopped_epoch is not None and self.verbose:
            print(f"early stopping after epoch {self.stopped_epoch + 1}: {self.monitor} was best with {self.best:.6g}")
        if self._weights is not None:
            self._runtime().set_weights(self._weights)
            self._weights = None


class TerminateOnNaN(Callback):
    """End the fit at the first batch after which the loss is not finite."""

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Look at the loss."""
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            print(f"batch {batch}: the loss is not finite, training stops")
            self.model.stop_training = True
