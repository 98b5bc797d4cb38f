"""What every schedule has: indices and units, values, a drawing, equality and a plain form."""

from __future__ import annotations

import math
import numbers
from typing import TYPE_CHECKING, Any, TypeAlias, cast, overload

import numpy as np

from .._errors import choice, integer, number
from .._optional import required

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Indices: TypeAlias = npt.NDArray[np.int64]
    Rates: TypeAlias = npt.NDArray[np.floating[Any]]

__all__ = ["Schedule", "checked_rate"]

UNITS = ("step", "epoch")
LAST = 2**53
"""Indices are exact as float64 up to here."""
POINTS = 10_000
"""How many points a drawing has at most."""


class Schedule:
    """A learning rate as a pure function of the index 0, 1, … of the update about to be made.

    Call it with an integer for a float, or with an array of integers for an array of float64 of the same shape. Nothing
    is remembered between calls: a run resumes at any index. Schedules cannot be changed, are equal if all their numbers
    are, can be pickled, and saved in a model (except where they hold a function).

    With `unit="epoch"` the index counts epochs: a fit evaluates the schedule at floor(update / updates per epoch), so
    that it keeps one value for an epoch. Without `unit` it is that of the schedule around it, else "step".

    `factor * schedule` is the schedule times a number of at least 0.

    Examples
    --------
    >>> import burnish as bn
    >>> schedule = bn.schedules.CosineAnnealing(0.1, steps=4)
    >>> schedule(2)
    0.05
    >>> schedule([0, 2, 4, 100])
    array([0.1 , 0.05, 0.  , 0.  ])
    >>> 2 * schedule == bn.schedules.CosineAnnealing(0.1, 4) * 2
    True
    """

    unit: str | None

    def __init__(self, unit: str | None = None, **fields: Any) -> None:
        vars(self).update(fields, unit=None if unit is None else choice("unit", unit, UNITS))

    @overload
    def __call__(self, index: int, *, updates_per_epoch: int | None = None) -> float: ...
    @overload
    def __call__(self, index: npt.NDArray[Any] | Sequence[int], *, updates_per_epoch: int | None = None) -> Rates: ...
    def __call__(self, index: Any, *, updates_per_epoch: int | None = None) -> float | Rates:
        """Return the learning rate at an index, or at each index of an array.

        Parameters
        ----------
        index : int or array_like of int, at least 0
            What the schedule's unit counts: updates, or epochs. With `updates_per_epoch` always updates.
        updates_per_epoch : int, optional
            How many updates make an epoch, as a fit knows; needed where steps and epochs are mixed.

        Raises
        ------
        TypeError, ValueError
            If an index is no whole number of at least 0, or the rate there is not finite.
        """
        per_epoch = self._per_epoch(updates_per_epoch)
        if isinstance(index, numbers.Integral):
            return float(self._checked(np.array([integer("index", index, 0, LAST)]), per_epoch)[0])
        indices = _indices(index)
        return self._checked(indices.ravel(), per_epoch).reshape(indices.shape)

    def during_fit(self, updates: Sequence[int], *, epoch: int, updates_per_epoch: int) -> npt.NDArray[np.float64]:
        """Return the rates of some updates of one epoch, whose number decides where its length (0) is not known."""
        units = self._units("step")
        if not updates_per_epoch and units == {"epoch"}:
            return np.full(len(updates), self(epoch))
        if not updates_per_epoch and len(units) > 1:
            raise ValueError(
                "the learning rate's schedule mixes steps and epochs, and how many updates make an epoch is not known: "
                "fit arrays, or batches that have a length, or give a schedule that counts steps alone"
            )
        per_epoch = updates_per_epoch or 1
        return self._checked(np.array(updates, dtype=np.int64), per_epoch).astype(np.float64, copy=False)

    def values(self, n: int, *, updates_per_epoch: int | None = None) -> Rates:
        """Return the curve: the learning rates at 0, 1, …, n - 1, in epochs if that is the unit.

        With `updates_per_epoch` it is the curve over n updates.
        """
        return self(np.arange(integer("n", n, 0, LAST)), updates_per_epoch=updates_per_epoch)

    def plot(self, n: int | None = None, *, axis: Any = None, updates_per_epoch: int | None = None) -> Any:
        """Draw the curve with matplotlib.

        Parameters
        ----------
        n : int, optional
            How long; by default until nothing happens any more, or some periods.
        axis : matplotlib.axes.Axes, optional
            Where to draw; by default a new figure.
        updates_per_epoch : int, optional
            See `__call__`.

        Returns
        -------
        matplotlib.figure.Figure
        """
        per_epoch = self._per_epoch(updates_per_epoch)
        last = (self._length(per_epoch, "step") if n is None else integer("n", n, 1, LAST)) - 1
        indices = np.unique(np.linspace(0, last, min(last + 1, POINTS)).astype(np.int64))
        rates = self(indices, updates_per_epoch=updates_per_epoch)
        if axis is None:
            plt: Any = required("matplotlib.pyplot", "plot")

            _, axis = plt.subplots(figsize=(5, 3.5))
        axis.plot(indices, rates)
        over_epochs = updates_per_epoch is None and self._units("step") == {"epoch"}
        axis.set(xlabel="epoch" if over_epochs else "update", ylabel="learning rate")
        axis.figure.tight_layout()
        return axis.figure

    def config(self) -> dict[str, Any]:
        """Return the schedule as plain numbers, strings and lists; see `from_config`.

        Raises
        ------
        TypeError
            If it holds a function.
        """
        fields = {name: _plain(value) for name, value in self._fields().items()}
        return {"name": self._name(), **fields}

    def __mul__(self, factor: float) -> Schedule:
        from .compose import Scaled

        return Scaled(factor, self)

    __rmul__ = __mul__

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a schedule cannot be changed: make another {self._name()} with another `{name}`")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a schedule cannot be changed: `{name}` stays")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), tuple(vars(self).items())))

    def __repr__(self) -> str:
        return f"{self._name()}({', '.join(f'{name}={value!r}' for name, value in self._fields().items())})"

    def _curve(self, index: Indices) -> Rates:
        """Return the rates at indices in the schedule's own unit."""
        raise NotImplementedError

    def _natural_length(self) -> int:
        """Return how many indices show the curve, in the schedule's own unit."""
        return 100

    def _at(self, updates: Indices, per_epoch: int, outer: str) -> Rates:
        """Return the rates at updates; `outer` is the unit of the schedule around this one."""
        return self._curve(updates // self._updates_each(per_epoch, outer))

    def _length(self, per_epoch: int, outer: str) -> int:
        return self._natural_length() * self._updates_each(per_epoch, outer)

    def _units(self, outer: str) -> set[str]:
        """Return the units that the curve depends on."""
        return {self.unit or outer}

    def _updates_each(self, per_epoch: int, outer: str) -> int:
        return per_epoch if (self.unit or outer) == "epoch" else 1

    def _per_epoch(self, given: int | None) -> int:
        """Return the updates of an epoch; without any, an index counts what the only unit counts."""
        if given is not None:
            return integer("updates_per_epoch", given, 1, LAST)
        if len(self._units("step")) > 1:
            raise ValueError(
                "`updates_per_epoch` must be given for a schedule that mixes steps and epochs; a fit knows it "
                "for arrays and for iterables of batches that have a length"
            )
        return 1

    def _checked(self, updates: Indices, per_epoch: int) -> Rates:
        with np.errstate(over="ignore"):
            rates = self._at(updates, per_epoch, "step")
        finite = np.isfinite(rates)
        if np.count_nonzero(finite) < len(rates):
            bad = int(np.argmin(finite))
            raise _not_a_rate(float(rates[bad]), int(updates[bad]))
        return rates

    def _fields(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "unit" or value is not None}

    @classmethod
    def _name(cls) -> str:
        return cls.__name__


def checked_rate(rate: Any, index: int) -> float:
    """Return what a user's function gave for an index if it is a finite number of at least 0."""
    try:
        value = float(rate)
    except (TypeError, ValueError):
        raise TypeError(f"`learning_rate` must return a number, got {rate!r} for update {index}") from None
    except OverflowError:
        value = math.inf
    if not (math.isfinite(value) and value >= 0):
        raise _not_a_rate(value, index)
    return value


def at_most(argument: str, value: float, name: str, limit: float) -> float:
    """Return `value` if it is a number from 0 to another argument."""
    if number(argument, value, 0) > limit:
        raise ValueError(f"`{argument}` must not be above `{name}`, got {value} and {limit}")
    return float(value)


def _not_a_rate(rate: float, index: int) -> ValueError:
    return ValueError(f"`learning_rate` must return a finite number of at least 0, got {rate} for update {index}")


def _indices(index: Any) -> Indices:
    indices = np.asarray(index)
    if indices.size and indices.dtype.kind not in "iu":
        raise TypeError(f"`index` must hold integers of at least 0, got {indices.dtype}")
    if indices.size and (indices.min() < 0 or indices.max() > LAST):
        wrong = indices.min() if indices.min() < 0 else indices.max()
        raise ValueError(f"`index` must hold integers from 0 to {LAST}, got {wrong}")
    return indices.astype(np.int64)


def _plain(value: Any) -> Any:
    if isinstance(value, Schedule):
        return value.config()
    if isinstance(value, tuple):
        return [_plain(one) for one in cast("tuple[Any, ...]", value)]
    if callable(value):
        raise TypeError(f"a function has no plain form, got {value!r}")
    return value
