"""Schedules made of functions and of other schedules: any function, warm-up, one after the other, scaled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from .._errors import integer, number
from .._structure import is_sequence
from .base import LAST, Schedule, checked_rate
from .decay import Constant, ascending

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .base import Indices, Rates

    Parts: TypeAlias = "Schedule | float | Callable[[int], float]"

__all__ = ["Lambda", "join", "warmup"]


class Lambda(Schedule):
    """Any Python function of the index: function(t).

    It is called once for each index that is asked for, in ascending order, with an int. A plain function does as well
    wherever a learning rate is wanted; `Lambda` gives it a unit, `values` and `plot`. It can be pickled if the function
    can; saved with a model it cannot.

    Parameters
    ----------
    function : callable
        From int to a finite number of at least 0.
    unit : {"step", "epoch"}, optional
        What t counts.

    Examples
    --------
    >>> import burnish as bn
    >>> bn.schedules.Lambda(lambda t: 1 / (1 + t)).values(4).round(3)
    array([1.   , 0.5  , 0.333, 0.25 ])
    """

    function: Callable[[int], float]

    def __init__(self, function: Callable[[int], float], *, unit: str | None = None) -> None:
        if not callable(function):
            raise TypeError(f"`function` must be a function (index) -> learning_rate, got {function!r}")
        super().__init__(unit, function=function)

    def _curve(self, index: Indices) -> Rates:
        distinct, places = np.unique(index, return_inverse=True)
        rates = [checked_rate(self.function(t), t) for t in distinct.tolist()]
        return np.array(rates, dtype=np.float64)[places]


class Warmup(Schedule):
    """What `warmup` makes."""

    steps: int
    then: Schedule

    def __init__(self, steps: int, then: Parts, *, unit: str | None = None) -> None:
        super().__init__(unit, steps=integer("steps", steps, 1, LAST), then=as_schedule("then", then))

    def _at(self, updates: Indices, per_epoch: int, outer: str) -> Rates:
        unit, each = self.unit or outer, self._updates_each(per_epoch, outer)
        end = min(self.steps * each, LAST + 1)  # no index is above LAST
        rates = self.then._at(np.maximum(updates - end, 0), per_epoch, unit)
        warming = updates < end
        if np.count_nonzero(warming):
            rates[warming] *= (updates[warming] // each + 1) / self.steps
        return rates

    def _length(self, per_epoch: int, outer: str) -> int:
        return self.steps * self._updates_each(per_epoch, outer) + self.then._length(per_epoch, self.unit or outer)

    def _units(self, outer: str) -> set[str]:
        unit = self.unit or outer
        return {unit} | self.then._units(unit)

    @classmethod
    def _name(cls) -> str:
        return "warmup"


class Join(Schedule):
    """What `join` makes."""

    schedules: tuple[Schedule, ...]
    boundaries: tuple[int, ...]

    def __init__(self, schedules: Sequence[Parts], boundaries: Sequence[int], *, unit: str | None = None) -> None:
        if not is_sequence(schedules) or len(schedules) < 2:
            raise TypeError(f"`schedules` must be a list of at least two schedules, got {schedules!r}")
        boundaries = ascending("boundaries", boundaries, strictly=True)
        if len(boundaries) != len(schedules) - 1:
            raise ValueError(
                f"`boundaries` must hold one index between any two of {len(schedules)} schedules, got {len(boundaries)}"
            )
        several = tuple(as_schedule(f"schedules[{place}]", one) for place, one in enumerate(schedules))
        super().__init__(unit, schedules=several, boundaries=boundaries)

    def _at(self, updates: Indices, per_epoch: int, outer: str) -> Rates:
        unit, starts = self.unit or outer, self._starts(per_epoch, outer)
        which, rates = np.searchsorted(starts, updates, side="right") - 1, np.empty(len(updates))
        for place, schedule in enumerate(self.schedules):
            here = which == place
            if np.count_nonzero(here):
                rates[here] = schedule._at(updates[here] - starts[place], per_epoch, unit)
        return rates

    def _starts(self, per_epoch: int, outer: str) -> list[int]:
        each = self._updates_each(per_epoch, outer)
        return [0, *(min(boundary * each, LAST + 1) for boundary in self.boundaries)]  # no index is above LAST

    def _length(self, per_epoch: int, outer: str) -> int:
        return self._starts(per_epoch, outer)[-1] + self.schedules[-1]._length(per_epoch, self.unit or outer)

    def _units(self, outer: str) -> set[str]:
        unit = self.unit or outer
        return {unit}.union(*(schedule._units(unit) for schedule in self.schedules))

    @classmethod
    def _name(cls) -> str:
        return "join"


class Scaled(Schedule):
    """factor · schedule."""

    factor: float
    schedule: Schedule

    def __init__(self, factor: float, schedule: Schedule) -> None:
        factor, schedule = number("factor", factor, 0), as_schedule("schedule", schedule)
        if isinstance(schedule, Scaled):
            factor, schedule = factor * schedule.factor, schedule.schedule
        super().__init__(factor=factor, schedule=schedule)

    def __repr__(self) -> str:
        return f"{self.factor!r} * {self.schedule!r}"

    def _at(self, updates: Indices, per_epoch: int, outer: str) -> Rates:
        return self.factor * self.schedule._at(updates, per_epoch, outer)

    def _length(self, per_epoch: int, outer: str) -> int:
        return self.schedule._length(per_epoch, outer)

    def _units(self, outer: str) -> set[str]:
        return self.schedule._units(outer)


def warmup(steps: int, then: Parts, *, unit: str | None = None) -> Warmup:
    """Return a schedule that rises in a straight line to the start of another one, then follows it from its index 0.

    then(0) · (t + 1) / steps for t < steps, then(t - steps) from there on. The first update trains, where PyTorch,
    Keras and Optax begin at 0 or at a fraction that is to be given. Goyal et al. (2017).

    Parameters
    ----------
    steps : int, at least 1
        How long to warm up; `warmup_steps` gives the rule of thumb.
    then : Schedule, float or function of int
        What follows. Without a unit of its own it has this one's.
    unit : {"step", "epoch"}, optional
        What `steps` counts; with "epoch" the rate rises by the epoch.

    Examples
    --------
    >>> import burnish as bn
    >>> bn.schedules.warmup(4, then=bn.schedules.CosineAnnealing(1.0, steps=2)).values(8)
    array([0.25, 0.5 , 0.75, 1.  , 1.  , 0.5 , 0.  , 0.  ])
    """
    return Warmup(steps, then, unit=unit)


def join(schedules: Sequence[Parts], boundaries: Sequence[int], *, unit: str | None = None) -> Join:
    """Return schedules one after the other, each from its own index 0: the next one begins at its boundary.

    It is PyTorch's `SequentialLR` and Optax's `join_schedules`.

    Parameters
    ----------
    schedules : list of Schedule, float or function of int
        At least two. Those without a unit of their own have this one's.
    boundaries : list of int, at least 1 each, strictly ascending
        One less than schedules.
    unit : {"step", "epoch"}, optional
        What the boundaries count.

    Examples
    --------
    >>> import burnish as bn
    >>> bn.schedules.join([1.0, bn.schedules.Linear(0.5, 0.0, steps=2)], [3]).values(6)
    array([1.  , 1.  , 1.  , 0.5 , 0.25, 0.  ])
    """
    return Join(schedules, boundaries, unit=unit)


def as_schedule(argument: str, given: Any) -> Schedule:
    """Return the schedule that is meant by a schedule, a number or a function."""
    if isinstance(given, Schedule):
        return given
    return Lambda(cast("Callable[[int], float]", given)) if callable(given) else Constant(number(argument, given, 0))


def factored(learning_rate: Parts) -> tuple[float, Schedule]:
    """Return the number that a learning rate was multiplied by in all, and the schedule without it."""
    schedule = as_schedule("learning_rate", learning_rate)
    return (schedule.factor, schedule.schedule) if isinstance(schedule, Scaled) else (1.0, schedule)


def scaled(learning_rate: Parts, factor: float) -> Schedule | float:
    """Return a learning rate of any kind times a number; a function becomes a schedule."""
    if isinstance(learning_rate, Schedule) or callable(learning_rate):
        return Scaled(factor, as_schedule("learning_rate", learning_rate))
    return number("learning_rate", learning_rate, 0) * number("factor", factor, 0)
