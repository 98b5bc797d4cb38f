"""Schedules that begin with a warm-up, and the rule of thumb for its length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import choice, integer, number
from .base import LAST, Schedule, at_most

if TYPE_CHECKING:
    from ..optimizers import Optimizer
    from .base import Indices, Rates

__all__ = ["InverseSqrt", "Noam", "WarmupStableDecay", "warmup_steps"]


class Noam(Schedule):
    """d_model^-0.5 · min(s^-0.5, s · warmup^-1.5) with s = t + 1: up to s = warmup, then down as 1 / sqrt(s).

    Vaswani et al. (2017, eq. 3). The highest value is 1 / sqrt(d_model · warmup), at s = warmup; `factor * Noam(…)`
    scales it.

    Parameters
    ----------
    d_model : int, at least 1
        The width of the model.
    warmup : int, at least 1
        How long it rises (the paper: 4000).
    unit : {"step", "epoch"}, optional
        What t and `warmup` count.

    Examples
    --------
    >>> import burnish as bn
    >>> bn.schedules.Noam(d_model=4, warmup=4)([0, 1, 3, 15])
    array([0.0625, 0.125 , 0.25  , 0.125 ])
    """

    d_model: int
    warmup: int

    def __init__(self, d_model: int, warmup: int, *, unit: str | None = None) -> None:
        super().__init__(unit, d_model=integer("d_model", d_model, 1, LAST), warmup=integer("warmup", warmup, 1, LAST))

    def _curve(self, index: Indices) -> Rates:
        s = index + 1.0
        return self.d_model**-0.5 * np.minimum(s**-0.5, s * float(self.warmup) ** -1.5)

    def _natural_length(self) -> int:
        return 10 * self.warmup


class InverseSqrt(Schedule):
    """learning_rate · min(s / warmup, sqrt(warmup / s)) with s = t + 1: up to learning_rate, then down as 1 / sqrt(s).

    It is `Noam` with the highest value said outright. fairseq's `inverse_sqrt` starts its warm-up at 0; here the first
    update trains.

    Parameters
    ----------
    learning_rate : float, at least 0
        The highest value, at s = warmup.
    warmup : int, at least 1
        How long it rises.
    unit : {"step", "epoch"}, optional
        What t and `warmup` count.

    Examples
    --------
    >>> import burnish as bn
    >>> bn.schedules.InverseSqrt(1.0, warmup=4)([0, 1, 3, 15, 63])
    array([0.25, 0.5 , 1.  , 0.5 , 0.25])
    """

    learning_rate: float
    warmup: int

    def __init__(self, learning_rate: float, warmup: int, *, unit: str | None = None) -> None:
        super().__init__(
            unit,
            learning_rate=number("learning_rate", learning_rate, 0),
            warmup=integer("warmup", warmup, 1, LAST),
        )

    def _curve(self, index: Indices) -> Rates:
        s = index + 1.0
        return self.learning_rate * np.minimum(s / self.warmup, np.sqrt(self.warmup / s))

    def _natural_length(self) -> int:
        return 10 * self.warmup


class WarmupStableDecay(Schedule):
    """Up to learning_rate in `warmup` steps, `stable` steps there, down to min in `decay` steps, then min.

    learning_rate · (t + 1) / warmup for t < warmup; learning_rate for t < warmup + stable; then, with d = (t - warmup -
    stable) / decay up to 1, min + (learning_rate - min) · f(d). f is 1 - d ("linear"), (1 + cos(π · d)) / 2 ("cosine")
    or 1 - sqrt(d) ("sqrt", the best in Hägele et al. 2024). WSD, Hu et al. (2024). A run that is prolonged changes only
    `stable`: it goes on from any checkpoint before the decay.

    Parameters
    ----------
    learning_rate : float, at least 0
        The value between warm-up and decay.
    warmup, stable : int, at least 0
        How long it rises and stays.
    decay : int, at least 1
        How long it falls (10 to 20 % of the training in both papers).
    min : float from 0 to learning_rate, default 0
        The last value.
    anneal : {"linear", "cosine", "sqrt"}
        How it falls.
    unit : {"step", "epoch"}, optional
        What t and the lengths count.

    Examples
    --------
    >>> import burnish as bn
    >>> bn.schedules.WarmupStableDecay(1.0, warmup=2, stable=2, decay=4).values(10)
    array([0.5 , 1.  , 1.  , 1.  , 1.  , 0.75, 0.5 , 0.25, 0.  , 0.  ])
    """

    learning_rate: float
    warmup: int
    stable: int
    decay: int
    min: float
    anneal: str

    def __init__(
        self,
        learning_rate: float,
        warmup: int,
        stable: int,
        decay: int,
        min: float = 0.0,  # noqa: A002  the usual name
        *,
        anneal: str = "linear",
        unit: str | None = None,
    ) -> None:
        learning_rate = number("learning_rate", learning_rate, 0)
        super().__init__(
            unit,
            learning_rate=learning_rate,
            warmup=integer("warmup", warmup, 0, LAST),
            stable=integer("stable", stable, 0, LAST),
            decay=integer("decay", decay, 1, LAST),
            min=at_most("min", min, "learning_rate", learning_rate),
            anneal=choice("anneal", anneal, ("linear", "cosine", "sqrt")),
        )

    def _curve(self, index: Indices) -> Rates:
        rising = self.learning_rate * np.minimum((index + 1) / max(self.warmup, 1), 1.0)
        done = np.clip((index - self.warmup - self.stable) / self.decay, 0.0, 1.0)
        falling = self.min + (self.learning_rate - self.min) * self._left(done)
        return np.where(index < self.warmup, rising, falling)

    def _left(self, done: Rates) -> Rates:
        if self.anneal == "cosine":
            return (1.0 + np.cos(np.pi * done)) / 2.0
        return 1.0 - (done if self.anneal == "linear" else np.sqrt(done))

    def _natural_length(self) -> int:
        return self.warmup + self.stable + self.decay + 1


def warmup_steps(beta2: float | str | Optimizer = 0.999) -> int:
    """Return the rule of thumb for the length of a warm-up: 1 / (1 - beta2) updates, rounded.

    So long is the memory of Adam's second moment, which says little before. Ma and Yarats (2021) measured that a
    warm-up in a straight line over twice as many does as well as RAdam's rectification.

    Parameters
    ----------
    beta2 : float in [0, 1), or an optimizer or its name, default 0.999
        The decay of the second moment, or an optimizer that has `betas`.

    Raises
    ------
    ValueError
        If the optimizer has no `betas`.

    Examples
    --------
    >>> import burnish as bn
    >>> bn.schedules.warmup_steps()
    1000
    >>> bn.schedules.warmup_steps(bn.optimizers.Adam(betas=(0.9, 0.98)))
    50
    """
    return max(round(1.0 / (1.0 - number("beta2", _beta2(beta2), 0, 1, below=True))), 1)


def _beta2(given: Any) -> Any:
    from ..optimizers import Optimizer, resolve

    if not isinstance(given, (str, type, Optimizer)):
        return given
    optimizer = resolve(given)
    if "betas" not in optimizer.hyperparameters:
        raise ValueError(f"`beta2` must be a number or an optimizer that has betas, got {optimizer!r}")
    return optimizer.hyperparameters["betas"][1]
