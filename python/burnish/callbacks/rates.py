"""What changes the learning rate between epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from .._errors import boolean, integer, number
from ..schedules.compose import scaled
from .base import Callback, Logs
from .stopping import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model import Model

__all__ = ["LearningRateScheduler", "ReduceLROnPlateau"]


class LearningRateScheduler(Callback):
    """Set the learning rate at the start of each epoch from `schedule(epoch, learning_rate)` or `schedule(epoch)`.

    For a learning rate that changes with every update, give `compile` a function of the update's index instead.
    """

    adds: ClassVar[tuple[str, ...] | None] = ("learning_rate",)

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        if not callable(schedule):
            raise TypeError(f"`schedule` must be a function (epoch, learning_rate) -> learning_rate, got {schedule!r}")
        self.schedule = schedule
        self._takes_both = _accepts_two(schedule)
        self.verbose = verbose

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Set the learning rate of this epoch."""
        current = [self.model.learning_rate] if self._takes_both else []
        self.model.learning_rate = self.schedule(epoch, *current)
        if self.verbose:
            print(f"epoch {epoch + 1}: learning rate {self.model.learning_rate:.6g}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Note the learning rate of the epoch's last update."""
        if logs is not None:
            logs["learning_rate"] = _rate_of(self.model, epoch)


class ReduceLROnPlateau(Watcher):
    """Multiply the learning rate by `factor` when a number has not improved for `patience` epochs in a row.

    A schedule is multiplied as a whole and goes on from where it is.

    Parameters
    ----------
    monitor : str, default "val_loss"
        The number in the logs.
    factor : float in (0, 1), default 0.1
        What the learning rate is multiplied by.
    patience : int, default 10
        After how many epochs without improvement; NaN counts as none.
    verbose : int, default 0
        1: say when the rate is reduced.
    mode : {"auto", "min", "max"}
        Which way is better; see `EarlyStopping`.
    min_delta : float, default 1e-4
        How much better than the best it must be.
    cooldown : int, default 0
        How many epochs after a reduction are not counted as bad.
    min_lr : float, default 0
        What the rate is not reduced below; of a schedule, at the moment of the reduction.
    relative : bool, default False
        Whether `min_delta` is a part of the best value's size.
    """

    adds: ClassVar[tuple[str, ...] | None] = ("learning_rate",)
    rank = 0

    def __init__(  # noqa: PLR0917  Keras's order
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
        *,
        relative: bool = False,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.factor = number("factor", factor, 0, 1, above=True, below=True)
        self.patience = integer("patience", patience, 0)
        self.verbose = verbose
        self.cooldown = integer("cooldown", cooldown, 0)
        self.min_lr = number("min_lr", min_lr, 0)
        self.relative = boolean("relative", relative)
        self.wait, self.cooling, self._scale = 0, 0, 1.0

    def needed(self) -> list[tuple[str, str]]:
        """Return what is monitored."""
        return [("monitor", self.monitor)]

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Forget an earlier fit."""
        self._reset()
        self.wait, self.cooling, self._scale = 0, 0, 1.0

    def state(self) -> dict[str, Any]:
        """Return the best value, what is counted, and what the rate was multiplied by."""
        return {**super().state(), "wait": self.wait, "cooling": self.cooling, "scale": self._scale}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from there, with the rate that the fit begins with multiplied as often."""
        super().load_state(state)
        self.wait, self.cooling = state["wait"], state["cooling"]
        if state["scale"] != self._scale:
            self._multiply(state["scale"] / self._scale)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Compare with the best; note the rate of the epoch's last update."""
        value = self._watched(logs)
        if logs is not None:
            logs["learning_rate"] = _rate_of(self.model, epoch)
        improved = self._improves(value)
        if improved:
            self.best = value
        if self.cooling:
            self.cooling -= 1
            return
        self.wait = 0 if improved else self.wait + 1
        if not improved and self.wait >= self.patience:
            self.wait, self.cooling = 0, self.cooldown
            self._reduce(epoch)

    def _reduce(self, epoch: int) -> None:
        rate = self.model.learning_rate  # of the next update
        if rate <= self.min_lr:
            return
        self._multiply(max(self.factor, self.min_lr / rate))
        if self.verbose:
            print(f"epoch {epoch + 1}: learning rate reduced to {self.model.learning_rate:.6g}")

    def _multiply(self, factor: float) -> None:
        from ..model import core_of

        self._scale *= factor
        self.model.learning_rate = scaled(core_of(self.model).learning_rate, factor)


def _rate_of(model: Model, epoch: int) -> float:
    """Return the learning rate of an epoch's last update; of an epoch without batches, that of the next one."""
    steps = {} if model.history is None else model.history.steps_of(epoch)
    return float(steps["learning_rate"][-1]) if len(steps.get("learning_rate", ())) else model.learning_rate


def _accepts_two(function: Callable[..., Any]) -> bool:
    """Say whether a function can be called with two arguments; those that do not tell are taken to be."""
    import inspect

    try:
        inspect.signature(function).bind(0, 0.0)
    except TypeError:
        return False
    except ValueError:
        return True
    return True
