"""Schedules that only fall, or go from one value to another, and then hold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .._errors import integer, number
from .._structure import is_sequence
from .base import LAST, Schedule, at_most

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .base import Indices, Rates

__all__ = ["Constant", "CosineAnnealing", "Exponential", "Linear", "MultiStep", "Polynomial", "StepDecay"]


class Constant(Schedule):
    """Always `learning_rate`.

    Examples
    --------
    >>> import burnish as bn
    >>> bn.schedules.Constant(0.1).values(3)
    array([0.1, 0.1, 0.1])
    """

    learning_rate: float

    def __init__(self, learning_rate: float, *, unit: str | None = None) -> None:
        super().__init__(unit, learning_rate=number("learning_rate", learning_rate, 0))

    def _curve(self, index: Indices) -> Rates:
        return np.full(len(index), self.learning_rate)

    def _units(self, outer: str) -> set[str]:  # noqa: ARG002  it is the same in every unit
        return set() if self.unit is None else {self.unit}


class StepDecay(Schedule):
    """learning_rate · factor^floor(t / every): times `factor` at t = every, 2 · every, ….

    It is PyTorch's `StepLR`. Keras's staircase is the same, its `PiecewiseConstantDecay` switches one update later.

    Parameters
    ----------
    learning_rate : float, at least 0
        The first value.
    every : int, at least 1
        How long each value lasts.
    factor : float, at least 0, default 0.1
        What each switch multiplies by (PyTorch's default).
    unit : {"step", "epoch"}, optional
        What t counts.

    Examples
    --------
    >>> import burnish as bn
    >>> bn.schedules.StepDecay(1.0, every=2, factor=0.5).values(5)
    array([1.  , 1.  , 0.5 , 0.5 , 0.25])
    """

    learning_rate: float
    every: int
    factor: float

    def __init__(self, learning_rate: float, every: int, factor: float = 0.1, *, unit: str | None = None) -> None:
        super().__init__(
            unit,
            learning_rate=number("learning_rate", learning_rate, 0),
            every=integer("every", every, 1, LAST),
            factor=number("factor", factor, 0),
        )

    def _curve(self, index: Indices) -> Rates:
        return self.learning_rate * self.factor ** (index // self.every)

    def _natural_length(self) -> int:
        return 5 * self.every


class MultiStep(Schedule):
    """learning_rate · factor^(how many milestones are at most t): times `factor` at each milestone.

    It is PyTorch's `MultiStepLR`: a milestone named twice counts twice. Used for residual networks by He et al. (2016).

    Parameters
    ----------
    learning_rate : float, at least 0
        The first value.
    milestones : sequence of int, at least 1 each, ascending
        Where to switch.
    factor : float, at least 0, default 0.1
        What each switch multiplies by (PyTorch's default).
    unit : {"step", "epoch"}, optional
        What t counts.

    Examples
    --------
    >>> import burnish as bn
    >>> bn.schedules.MultiStep(1.0, [1, 3], factor=0.5).values(5)
    array([1.  , 0.5 , 0.5 , 0.25, 0.25])
    """

    learning_rate: float
    milestones: tuple[int, ...]
    factor: float

    def __init__(
        self, learning_rate: float, milestones: Sequence[int], factor: float = 0.1, *, unit: str | None = None
    ) -> None:
        super().__init__(
            unit,
            learning_rate=number("learning_rate", learning_rate, 0),
            milestones=ascending("milestones", milestones),
            factor=number("factor", factor, 0),
        )

    def _curve(self, index: Indices) -> Rates:
        return self.learning_rate * self.factor ** np.searchsorted(self.milestones, index, side="right")

    def _natural_length(self) -> int:
        return self.milestones[-1] + max(self.milestones[-1] // len(self.milestones), 1)


class Exponential(Schedule):
    """learning_rate · gamma^t.

    It is PyTorch's `ExponentialLR`. Keras's and Optax's decay by `rate` over `steps` is gamma = rate^(1 / steps).

    Parameters
    ----------
    learning_rate : float, at least 0
        The first value.
    gamma : float, at least 0
        What each step multiplies by.
    unit : {"step", "epoch"}, optional
        What t counts.

    Examples
    --------
    >>> import burnish as bn
    >>> bn.schedules.Exponential(1.0, gamma=0.5).values(4)
    array([1.   , 0.5  , 0.25 , 0.125])
    """

    learning_rate: float
    gamma: float

    def __init__(self, learning_rate: float, gamma: float, *, unit: str | None = None) -> None:
        super().__init__(unit, learning_rate=number("learning_rate", learning_rate, 0), gamma=number("gamma", gamma, 0))

    def _curve(self, index: Indices) -> Rates:
        return self.learning_rate * self.gamma**index

    def _natural_length(self) -> int:
        return math.ceil(math.log(0.01) / math.log(self.gamma)) + 1 if 0 < self.gamma < 1 else 100


class Polynomial(Schedule):
    """(learning_rate - end) · (1 - t / steps)^power + end up to t = steps, then end.

    It is PyTorch's `PolynomialLR` (whose end is 0) and Keras's `PolynomialDecay` without `cycle`. With power 0.9 it is
    the "poly" policy of semantic segmentation (Chen et al. 2017).

    Parameters
    ----------
    learning_rate : float, at least 0
        The first value.
    steps : int, at least 1
        When the end is reached.
    power : float, greater than 0, default 1
        1 is a straight line (the default of all three).
    end : float, at least 0, default 0
        The last value.
    unit : {"step", "epoch"}, optional
        What t and `steps` count.

    Examples
    --------
    >>> import burnish as bn
    >>> bn.schedules.Polynomial(1.0, steps=4, power=2).values(6)
    array([1.    , 0.5625, 0.25  , 0.0625, 0.    , 0.    ])
    """

    learning_rate: float
    steps: int
    power: float
    end: float

    def __init__(
        self, learning_rate: float, steps: int, power: float = 1.0, end: float = 0.0, *, unit: str | None = None
    ) -> None:
        super().__init__(
            unit,
            learning_rate=number("learning_rate", learning_rate, 0),
            steps=integer("steps", steps, 1, LAST),
            power=number("power", power, 0, above=True),
            end=number("end", end, 0),
        )

    def _curve(self, index: Indices) -> Rates:
        left = 1.0 - np.minimum(index, self.steps) / self.steps
        return (self.learning_rate - self.end) * left**self.power + self.end

    def _natural_length(self) -> int:
        return self.steps + 1


class Linear(Schedule):
    """start · (1 - t / steps) + end · t / steps up to t = steps, then end; up or down.

    It is PyTorch's `LinearLR`, whose factors times the learning rate are `start` and `end`, and Optax's
    `linear_schedule`.

    Parameters
    ----------
    start, end : float, at least 0
        The first and the last value.
    steps : int, at least 1
        When the end is reached.
    unit : {"step", "epoch"}, optional
        What t and `steps` count.

    Examples
    --------
    >>> import burnish as bn
    >>> bn.schedules.Linear(0.0, 1.0, steps=4).values(6)
    array([0.  , 0.25, 0.5 , 0.75, 1.  , 1.  ])
    """

    start: float
    end: float
    steps: int

    def __init__(self, start: float, end: float, steps: int, *, unit: str | None = None) -> None:
        super().__init__(
            unit, start=number("start", start, 0), end=number("end", end, 0), steps=integer("steps", steps, 1, LAST)
        )

    def _curve(self, index: Indices) -> Rates:
        done = np.minimum(index, self.steps) / self.steps
        return self.start * (1.0 - done) + self.end * done

    def _natural_length(self) -> int:
        return self.steps + 1


class CosineAnnealing(Schedule):
    """min + (learning_rate - min) · (1 + cos(π · t / steps)) / 2 up to t = steps, then min.

    Loshchilov and Hutter (2017, eq. 5) without restarts. As PyTorch's `CosineAnnealingLR` up to `steps`; there it rises
    again, here, in Keras and in Optax it holds.

    Parameters
    ----------
    learning_rate : float, at least 0
        The first value.
    steps : int, at least 1
        When the end is reached: how many updates (or epochs) the training has.
    min : float from 0 to learning_rate, default 0
        The last value.
    unit : {"step", "epoch"}, optional
        What t and `steps` count.

    Examples
    --------
    >>> import burnish as bn
    >>> bn.schedules.CosineAnnealing(1.0, steps=4).values(6).round(4)
    array([1.    , 0.8536, 0.5   , 0.1464, 0.    , 0.    ])
    """

    learning_rate: float
    steps: int
    min: float

    def __init__(
        self,
        learning_rate: float,
        steps: int,
        min: float = 0.0,  # noqa: A002  the usual name
        *,
        unit: str | None = None,
    ) -> None:
        learning_rate = number("learning_rate", learning_rate, 0)
        super().__init__(
            unit,
            learning_rate=learning_rate,
            steps=integer("steps", steps, 1, LAST),
            min=at_most("min", min, "learning_rate", learning_rate),
        )

    def _curve(self, index: Indices) -> Rates:
        done = np.minimum(index, self.steps) / self.steps
        return self.min + (self.learning_rate - self.min) * (1.0 + np.cos(np.pi * done)) / 2.0

    def _natural_length(self) -> int:
        return self.steps + 1


def ascending(argument: str, values: Sequence[int], *, strictly: bool = False) -> tuple[int, ...]:
    """Return whole numbers of at least 1 that ascend."""
    if not is_sequence(values) or not values:
        raise TypeError(f"`{argument}` must be a list of at least one integer, got {values!r}")
    several = tuple(integer(f"{argument}[{place}]", value, 1, LAST) for place, value in enumerate(values))
    if list(several) != sorted(set(several) if strictly else several):
        raise ValueError(f"`{argument}` must ascend{' strictly' if strictly else ''}, got {list(several)}")
    return several
