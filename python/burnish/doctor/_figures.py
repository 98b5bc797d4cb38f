"""The figures that findings are read off: a history's columns, and how its loss went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from ..history import History

__all__ = ["Course", "Figures"]


class Course(NamedTuple):
    """How the training loss went, between means over the first and the last steps."""

    first: float
    last: float
    noise: float  # the standard error of the difference of the two
    trend: float  # by how many standard errors the last tenth of the steps lies below the first tenth

    @property
    def fall(self) -> float:
        """By what part of its first value the loss fell."""
        return (self.first - self.last) / max(abs(self.first), 1e-30)

    @property
    def stuck(self) -> bool:
        """Whether the loss did not fall by more than its noise, or by less than 1 %."""
        return not (self.first - self.last > max(3.0 * self.noise, 0.01 * abs(self.first)) or self.trend > 5.0)

    @property
    def slow(self) -> bool:
        """Whether less than a fifth of the loss is gone."""
        return self.stuck or self.fall < 0.2


class Figures:
    """A history's columns as arrays, NaN-free where that is asked for."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._steps = history.steps
        self.loss = self.column("loss")
        self.epochs = len(history.epoch)
        self.course = _course(self.loss)

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return a column of the steps; empty if there is none."""
        return np.asarray(self._steps.get(name, np.zeros(0)))

    def place(self, index: int) -> tuple[int, int]:
        """Return epoch and step of a row of the steps."""
        return int(self._steps["epoch"][index]), int(self._steps["step"][index])

    def curve(self, name: str) -> npt.NDArray[Any]:
        """Return a curve over the epochs; empty if there is none."""
        return np.asarray(self.history.history.get(name, []), dtype=float)

    def updates(self, name: str) -> npt.NDArray[Any]:
        """Return a figure of every update that was made."""
        values = self.column(name).astype(float)
        return values[np.isfinite(values)]

    def kernels(self, figure: str) -> dict[str, float]:
        """Return the first epoch's mean of a figure for every kernel that got one, in the order of the layers."""
        found = {path: series[figure][0] for path, series in self.history.parameters.items() if series.get(figure)}
        wide = {path: value for path, value in found.items() if not path.endswith(("bias", "gamma", "beta", "scale"))}
        return {path: value for path, value in (wide or found).items() if np.isfinite(value)}

    @property
    def rows(self) -> float:
        """The rows (or the weight) of a usual micro-batch."""
        weight = self.column("weight")
        weight = weight[np.isfinite(weight)]
        return float(np.median(weight)) if weight.size else 0.0

    @property
    def steps_an_epoch(self) -> float:
        """The micro-batches of a usual epoch."""
        epochs = self.column("epoch")
        return float(np.median(np.unique(epochs, return_counts=True)[1])) if epochs.size else 0.0


def _course(loss: npt.NDArray[Any]) -> Course:
    loss = loss[np.isfinite(loss)]
    if loss.size < 2:
        return Course(float("nan"), float("nan"), float("nan"), 0.0)
    first, last = loss[: max(1, min(5, loss.size // 10))], loss[-max(1, min(20, loss.size // 5)) :]
    if first.max() > 3.0 * loss[0] > 0:
        first = loss[:1]  # the first updates overshot: where it began is what counts
    # Of the last steps alone: the first ones differ because they learn.
    noise = float(last.std()) * float(np.sqrt(1.0 / len(first) + 1.0 / len(last)))
    return Course(float(first.mean()), float(last.mean()), noise, _trend(loss))


def _trend(loss: npt.NDArray[Any]) -> float:
    count = loss.size // 10
    if count < 5:
        return 0.0
    begin, end = loss[:count], loss[-count:]
    fall = float(begin.mean() - end.mean())
    error = float(np.hypot(begin.std(ddof=1), end.std(ddof=1)) / np.sqrt(count))
    return fall / max(error, 1e-30) if fall > 0.01 * abs(float(begin.mean())) else 0.0
