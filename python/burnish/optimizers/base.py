"""What all optimizers share: a name, numbers, and a learning rate that may be a function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast

import numpy as np

from .._errors import hinted, number
from .._structure import is_dict, is_sequence
from ..schedules import Schedule, from_config
from ..schedules.base import checked_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from .._runtime import Position

__all__ = [
    "LearningRate",
    "Optimizer",
    "checked_learning_rate",
    "learning_rate_at",
    "learning_rates",
    "pair",
    "plain_learning_rate",
    "restored_learning_rate",
]

LearningRate: TypeAlias = "float | Callable[[int], float]"


class Optimizer:
    """A rule's name, its numbers and a learning rate: a float or a function of the index of the update."""

    name: ClassVar[str] = ""
    full_batch: ClassVar[bool] = False  # whether an update needs the whole set as one batch

    def __init_subclass__(cls) -> None:
        if "__init__" in vars(cls):
            cls.__init__ = hinted(cls.__init__)

    def __init__(self, learning_rate: LearningRate, **hyperparameters: Any) -> None:
        self.learning_rate = checked_learning_rate(learning_rate)
        self.hyperparameters = hyperparameters

    def __repr__(self) -> str:
        numbers = "".join(f", {key}={value}" for key, value in self.hyperparameters.items())
        return f"{type(self).__name__}(learning_rate={self.learning_rate}{numbers})"


def plain_learning_rate(learning_rate: LearningRate) -> float | dict[str, Any] | None:
    """Return a learning rate as JSON can hold it; None for a function, or a schedule that holds one."""
    try:
        return learning_rate.config() if isinstance(learning_rate, Schedule) else float(cast("Any", learning_rate))
    except TypeError:
        return None


def restored_learning_rate(plain: Any) -> LearningRate:
    """Undo `plain_learning_rate`, checking what came."""
    return from_config(plain) if is_dict(plain) else checked_learning_rate(plain)


def checked_learning_rate(learning_rate: Any) -> LearningRate:
    """Return a learning rate that is a function or a number of at least 0."""
    if callable(learning_rate):
        return cast("LearningRate", learning_rate)
    return number("learning_rate", learning_rate, 0)


def learning_rate_at(learning_rate: LearningRate, position: Position) -> float:
    """Return the learning rate of the next update."""
    return float(learning_rates(learning_rate, position, [position.update])[0])


def learning_rates(learning_rate: LearningRate, position: Position, updates: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return the learning rates of some updates of this epoch; a plain function is called once for each, in order."""
    if isinstance(learning_rate, Schedule):
        epoch, per_epoch = position.epochs_of_updates(), position.updates_per_epoch
        return learning_rate.during_fit(updates, epoch=epoch, updates_per_epoch=per_epoch)
    if not callable(learning_rate):
        return np.full(len(updates), learning_rate)
    rates = {update: checked_rate(learning_rate(update), update) for update in dict.fromkeys(updates)}
    return np.array([rates[update] for update in updates])


def pair(argument: str, values: Any, low: float = 0.0, high: float = 1.0, *, below: bool = True) -> tuple[float, float]:
    """Return two numbers in [low, high), or [low, high] if not `below`."""
    both = values if is_sequence(values) else ()
    if len(both) != 2:
        raise TypeError(f"`{argument}` must be a pair of numbers, got {values!r}")
    first, second = (number(f"{argument}[{index}]", both[index], low, high, below=below) for index in range(2))
    return first, second
