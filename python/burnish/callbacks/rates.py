"""What changes the learning rate at epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from .base import Callback, Logs

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LearningRateScheduler"]


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

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Note the learning rate."""
        if logs is not None:
            logs["learning_rate"] = self.model.learning_rate


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
