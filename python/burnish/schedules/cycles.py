"""Schedules that rise and fall: restarts, one cycle, many cycles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._errors import boolean, choice, integer, number
from .base import LAST, Schedule, at_most

if TYPE_CHECKING:
    import numpy.typing as npt

    from .base import Indices, Rates

__all__ = ["CosineRestarts", "Cyclic", "OneCycle"]


class CosineRestarts(Schedule):
    """min + (learning_rate - min) · (1 + cos(π · t_i / T_i)) / 2 for the index t_i in cycle i, T_i = first · mult^i.

    SGDR (Loshchilov and Hutter 2017, eq. 5); PyTorch's `CosineAnnealingWarmRestarts`.

    Parameters
    ----------
    learning_rate : float, at least 0
        The first value of each cycle.
    first : int, at least 1
        The length of the first cycle.
    mult : int, at least 1, default 1
        How many times longer each cycle is than the one before (PyTorch's default; 2 is the paper's best).
    min : float from 0 to learning_rate, default 0
        What each cycle falls towards.
    unit : {"step", "epoch"}, optional
        What t and `first` count.

    Examples
    --------
    >>> import burnish as bn
    >>> bn.schedules.CosineRestarts(1.0, first=2, mult=2).values(7).round(3)
    array([1.   , 0.5  , 1.   , 0.854, 0.5  , 0.146, 1.   ])
    """

    learning_rate: float
    first: int
    mult: int
    min: float

    def __init__(
        self,
        learning_rate: float,
        first: int,
        mult: int = 1,
        min: float = 0.0,  # noqa: A002  the usual name
        *,
        unit: str | None = None,
    ) -> None:
        learning_rate = number("learning_rate", learning_rate, 0)
        super().__init__(
            unit,
            learning_rate=learning_rate,
            first=integer("first", first, 1, LAST),
            mult=integer("mult", mult, 1, LAST),
            min=at_most("min", min, "learning_rate", learning_rate),
        )

    def _curve(self, index: Indices) -> Rates:
        done = self._done(index)
        return self.min + (self.learning_rate - self.min) * (1.0 + np.cos(np.pi * done)) / 2.0

    def _done(self, index: Indices) -> Rates:
        """Return the part of its cycle that is behind each index; boundaries are whole numbers, without logarithms."""
        if self.mult == 1:
            return (index % self.first) / self.first
        starts, lengths = [0], [self.first]
        while starts[-1] + lengths[-1] <= LAST:
            starts.append(starts[-1] + lengths[-1])
            lengths.append(lengths[-1] * self.mult)
        cycle = np.searchsorted(starts, index, side="right") - 1
        return (index - np.array(starts)[cycle]) / np.array(lengths, dtype=np.float64)[cycle]

    def _natural_length(self) -> int:
        return self.first * (1 + self.mult + self.mult**2) + 1


class OneCycle(Schedule):
    """From max / div up to max and down to max / div / final_div, by cosines or straight lines; then it holds.

    The rise ends at index pct_start · steps - 1, the fall at steps - 1, the last update; these need not be whole
    numbers. With `three_phase` the fall to max / div mirrors the rise and the rest goes on to the end. Smith and Topin
    (2019). It is PyTorch's `OneCycleLR` without its cycle of the momentum; past the end that one bounces, then raises.
    Optax rises until pct_start · steps and falls until steps.

    Parameters
    ----------
    max : float, at least 0
        The highest value.
    steps : int, at least 1
        How many updates (or epochs) the training has.
    pct_start : float in (0, 1), default 0.3
        The part of them that rises, as a fraction; with `three_phase` at most 0.5.
    div : float, greater than 0, default 25
        max over the first value.
    final_div : float, greater than 0, default 1e4
        The first value over the last.
    anneal : {"cosine", "linear"}
        How to go up and down.
    three_phase : bool, default False
        As in the paper.
    unit : {"step", "epoch"}, optional
        What t and `steps` count.

    Examples
    --------
    >>> import burnish as bn
    >>> bn.schedules.OneCycle(1.0, steps=10).values(10).round(3)
    array([0.04 , 0.52 , 1.   , 0.95 , 0.812, 0.611, 0.389, 0.188, 0.05 ,
           0.   ])
    """

    max: float
    steps: int
    pct_start: float
    div: float
    final_div: float
    anneal: str
    three_phase: bool

    def __init__(
        self,
        max: float,  # noqa: A002  the usual name
        steps: int,
        pct_start: float = 0.3,
        div: float = 25.0,
        final_div: float = 1e4,
        *,
        anneal: str = "cosine",
        three_phase: bool = False,
        unit: str | None = None,
    ) -> None:
        pct_start = number("pct_start", pct_start, 0, 1, above=True, below=True)
        if boolean("three_phase", three_phase) and pct_start > 0.5:
            raise ValueError(f"`pct_start` must be at most 0.5 with `three_phase`, got {pct_start}")
        super().__init__(
            unit,
            max=number("max", max, 0),
            steps=integer("steps", steps, 1, LAST),
            pct_start=pct_start,
            div=number("div", div, 0, above=True),
            final_div=number("final_div", final_div, 0, above=True),
            anneal=choice("anneal", anneal, ("cosine", "linear")),
            three_phase=bool(three_phase),
        )

    def _curve(self, index: Indices) -> Rates:
        ends, levels = self._phases()
        index = np.minimum(index, self.steps - 1)
        phase = np.searchsorted(ends[:-1], index, side="left")  # the end of a phase still belongs to it
        begins = np.concatenate([[0.0], ends[:-1]])[phase]
        widths = ends[phase] - begins
        done = np.divide(index - begins, widths, out=np.ones(len(index)), where=widths > 0)
        start, end = levels[phase], levels[phase + 1]
        if self.anneal == "linear":
            return (end - start) * done + start
        return end + (start - end) / 2.0 * (1.0 + np.cos(np.pi * done))

    def _phases(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the index at which each phase ends, and the values before, between and after them."""
        rise, last, first = self.pct_start * self.steps - 1, self.steps - 1, self.max / self.div
        if self.three_phase:
            ends, levels = [rise, 2 * rise, last], [first, self.max, first, first / self.final_div]
        else:
            ends, levels = [rise, last], [first, self.max, first / self.final_div]
        return np.array(ends, dtype=np.float64), np.array(levels)

    def _natural_length(self) -> int:
        return self.steps


class Cyclic(Schedule):
    """low + (high - low) · height · scale: up from low in `up` steps, down again in `down`, over and over.

    The height goes along straight lines from 0 to 1 and back. Scale is 1 ("triangular"), 1 / 2^cycle ("triangular2"),
    or gamma^t ("exp_range"). Smith (2017); PyTorch's `CyclicLR` without its cycle of the momentum.

    Parameters
    ----------
    low, high : float, at least 0, low <= high
        Between which values.
    up : int, at least 1
        How long it rises; 2 to 10 epochs in the paper.
    down : int, at least 1, optional
        How long it falls; by default as long.
    mode : {"triangular", "triangular2", "exp_range"}
        How later cycles are scaled.
    gamma : float, at least 0, default 1
        The base of "exp_range".
    unit : {"step", "epoch"}, optional
        What t, `up` and `down` count.

    Examples
    --------
    >>> import burnish as bn
    >>> bn.schedules.Cyclic(0.0, 1.0, up=2, mode="triangular2").values(9)
    array([0.  , 0.5 , 1.  , 0.5 , 0.  , 0.25, 0.5 , 0.25, 0.  ])
    """

    low: float
    high: float
    up: int
    down: int
    mode: str
    gamma: float

    def __init__(  # noqa: PLR0917  the usual order
        self,
        low: float,
        high: float,
        up: int,
        down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        *,
        unit: str | None = None,
    ) -> None:
        high, up = number("high", high, 0), integer("up", up, 1, LAST)
        super().__init__(
            unit,
            low=at_most("low", low, "high", high),
            high=high,
            up=up,
            down=up if down is None else integer("down", down, 1, LAST),
            mode=choice("mode", mode, ("triangular", "triangular2", "exp_range")),
            gamma=number("gamma", gamma, 0),
        )

    def _curve(self, index: Indices) -> Rates:
        place = index % (self.up + self.down)
        height = np.where(place <= self.up, place / self.up, (self.up + self.down - place) / self.down)
        return self.low + (self.high - self.low) * height * self._scale(index)

    def _scale(self, index: Indices) -> Rates | float:
        if self.mode == "triangular":
            return 1.0
        return self.gamma**index if self.mode == "exp_range" else 0.5 ** (index // (self.up + self.down))

    def _natural_length(self) -> int:
        return 3 * (self.up + self.down) + 1
