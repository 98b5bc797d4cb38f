"""Optimizers: which rule, with which numbers. The engine holds the rules; numbers mean what they mean in PyTorch.

A model takes a name ("sgd", "adam", "adamw", "rmsprop"), which stands for the defaults, or one of these objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast

import numpy as np

from ._errors import boolean, nearest, number
from ._structure import is_dict, is_sequence
from .schedules import Schedule, from_config
from .schedules.base import checked_rate

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from ._runtime import Position

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop"]

LearningRate: TypeAlias = "float | Callable[[int], float]"


class Optimizer:
    """A rule's name, its numbers and a learning rate: a float or a function of the index of the update."""

    name: ClassVar[str] = ""

    def __init__(self, learning_rate: LearningRate, **hyperparameters: Any) -> None:
        self.learning_rate = checked_learning_rate(learning_rate)
        self.hyperparameters = hyperparameters

    def __repr__(self) -> str:
        numbers = "".join(f", {key}={value}" for key, value in self.hyperparameters.items())
        return f"{type(self).__name__}(learning_rate={self.learning_rate}{numbers})"


class SGD(Optimizer):
    """Stochastic gradient descent: buf = momentum · buf + (1 - dampening) · g; p -= learning_rate · buf.

    The first update sets buf = g. Nesterov: p -= learning_rate · (g + momentum · buf) (Sutskever et al. 2013).
    `weight_decay` adds weight_decay · p to g.
    """

    name = "sgd"

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        momentum, dampening = number("momentum", momentum, 0), number("dampening", dampening)
        if boolean("nesterov", nesterov) and (momentum <= 0 or dampening != 0):
            raise ValueError(
                f"`nesterov` needs momentum above 0 and dampening 0, got momentum={momentum}, dampening={dampening}"
            )
        super().__init__(
            learning_rate,
            momentum=momentum,
            nesterov=boolean("nesterov", nesterov),
            dampening=dampening,
            weight_decay=number("weight_decay", weight_decay, 0),
        )


class Adam(Optimizer):
    """Adam: p -= learning_rate / (1 - b1^t) · m / (sqrt(v) / sqrt(1 - b2^t) + eps) (Kingma and Ba 2015).

    m and v are running means of g and g² with `betas`. `amsgrad` takes the largest v so far (Reddi et al. 2018).
    `weight_decay` adds weight_decay · p to g.
    """

    name = "adam"

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(
            learning_rate,
            betas=_betas(betas),
            eps=number("eps", eps, 0),
            weight_decay=number("weight_decay", weight_decay, 0),
            amsgrad=boolean("amsgrad", amsgrad),
        )


class AdamW(Adam):
    """Adam with decoupled weight decay: p *= 1 - learning_rate · weight_decay first (Loshchilov and Hutter 2019)."""

    name = "adamw"

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(learning_rate, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)


class RMSprop(Optimizer):
    """RMSprop: v = alpha · v + (1 - alpha) · g²; p -= learning_rate · g / (sqrt(v) + eps) (Tieleman and Hinton 2012).

    `centered` subtracts the squared running mean of g from v; with `momentum`, buf = momentum · buf + the quotient is
    what moves p. `weight_decay` adds weight_decay · p to g.
    """

    name = "rmsprop"

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        centered: bool = False,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            learning_rate,
            alpha=number("alpha", alpha, 0, 1, below=True),
            eps=number("eps", eps, 0),
            centered=boolean("centered", centered),
            momentum=number("momentum", momentum, 0),
            weight_decay=number("weight_decay", weight_decay, 0),
        )


BY_NAME: dict[str, type[Any]] = {cls.name: cls for cls in (SGD, Adam, AdamW, RMSprop)}


def resolve(optimizer: Any) -> Optimizer:
    """Return the optimizer that is meant by a name, a class or an object."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, str):
        if optimizer not in BY_NAME:
            raise ValueError(f"`optimizer`: unknown name {optimizer!r}; {nearest(optimizer, BY_NAME)}")
        return BY_NAME[optimizer]()
    if isinstance(optimizer, type) and optimizer in BY_NAME.values():
        return optimizer()
    raise TypeError(f"`optimizer` must be a name or one of bn.optimizers, got {optimizer!r}")


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


def learning_rates(learning_rate: LearningRate, position: Position, updates: list[int]) -> npt.NDArray[np.float64]:
    """Return the learning rates of some updates of this epoch; a plain function is called once for each, in order."""
    if isinstance(learning_rate, Schedule):
        epoch, per_epoch = position.epochs_of_updates(), position.updates_per_epoch
        return learning_rate.during_fit(updates, epoch=epoch, updates_per_epoch=per_epoch)
    if not callable(learning_rate):
        return np.full(len(updates), learning_rate)
    rates = {update: checked_rate(learning_rate(update), update) for update in dict.fromkeys(updates)}
    return np.array([rates[update] for update in updates])


def _betas(betas: Any) -> tuple[float, float]:
    values = betas if is_sequence(betas) else ()
    if len(values) != 2:
        raise TypeError(f"`betas` must be a pair of numbers in [0, 1), got {betas!r}")
    return number("betas[0]", values[0], 0, 1, below=True), number("betas[1]", values[1], 0, 1, below=True)
