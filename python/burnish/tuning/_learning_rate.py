"""The learning-rate finder: a sweep on a copy of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._copy import copied_session, untouched
from .._errors import integer, number
from .._feed.arrays import is_batches
from .._feed.request import Request, compiled_of, training
from .._feed.sources import Pacer
from .._optional import required
from .._runtime import train_whole
from ..model import core_of
from ._curve import diverged, drawn, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from .. import _burnish
    from .._feed.sources import Piece, Source
    from .._runtime import Core, Runtime
    from ..model import Model

__all__ = ["LearningRateSearch", "find_learning_rate"]


class LearningRateSearch(NamedTuple):
    """What a sweep found.

    Attributes
    ----------
    rates, losses : numpy.ndarray of float64
        Every rate that was tried, and the loss before its update.
    learning_rate : float or None
        The suggestion; None if there is none.
    reason : str
        Why it is that, or why there is none.
    steepest : float or None
        Where the averaged loss falls fastest.
    """

    rates: npt.NDArray[np.float64]
    losses: npt.NDArray[np.float64]
    learning_rate: float | None
    reason: str
    steepest: float | None

    def plot(self, *, axes: Any = None) -> Any:
        """Draw the loss over the rates with matplotlib, and return the figure."""
        if axes is None:
            plt: Any = required("matplotlib.pyplot", "plot")
            _, axes = plt.subplots(figsize=(6, 4))
        drawn(axes, self.rates, self.losses, self.learning_rate)
        return axes.figure

    def __repr__(self) -> str:
        found = "none" if self.learning_rate is None else f"{self.learning_rate:.3g}"
        swept = f"{len(self.rates)} rates from {self.rates[0]:.1e} to {self.rates[-1]:.1e}"
        return f"<learning rate {found}: {self.reason}; tried {swept}>"


def find_learning_rate(
    model: Model,
    x: Any,
    y: Any = None,
    *,
    batch_size: int = 32,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 300,
    sample_weight: Any = None,
) -> LearningRateSearch:
    """Train a copy of the model with a rate that grows from update to update, and suggest one from how the loss falls.

    Update k of n has the rate low · (high / low)^(k / (n - 1)); none is skipped. The sweep ends when the averaged loss
    is four times its best; its first tenth is ignored. The suggestion is the valley: halfway, on a logarithmic scale,
    between where 85 % of the averaged loss's fall is done and its floor (after Smith 2017). The average is debiased,
    its memory a fifteenth of the sweep, and rates are averaged like losses, so that it does not lag. Model, optimizer,
    random streams and position are left exactly as they are, and no callback hears of it.

    Parameters
    ----------
    model : Model
        A compiled model; its own learning rate plays no part.
    x, y, sample_weight : array_like
        As for `Model.fit`; or, as `x`, something that gives batches every time it is iterated over.
    batch_size : int, default 32
        That of the fit to come.
    low, high : float, default 1e-7 and 10
        The first and the last rate.
    steps : int, default 300
        How many updates, each of as many batches as the model accumulates.

    Raises
    ------
    ValueError, TypeError
        If the data does not fit, or `low` is not below `high`.

    Examples
    --------
    >>> import numpy as np
    >>> import burnish as bn
    >>> x = np.random.default_rng(0).normal(size=(512, 4))
    >>> model = bn.Sequential([bn.layers.Dense(16, activation="relu"), bn.layers.Dense(1)])
    >>> model.compile(loss="mse", optimizer="adam")
    >>> found = bn.tuning.find_learning_rate(model, x, x[:, :1] * x[:, 1:2])
    >>> 1e-3 < found.learning_rate < 0.3
    True
    """
    batch_size, steps = integer("batch_size", batch_size, 1), integer("steps", steps, 20)
    low, high = number("low", low, 0, above=True), number("high", high, 0, above=True)
    if not low < high:
        raise ValueError(f"`low` must be below `high`, got {low:g} and {high:g}")
    core = core_of(model)
    with untouched(core):
        runtime, source = _ready(core, x, y, sample_weight, batch_size)
        rates = np.geomspace(low, high, steps)
        losses = np.array(_sweep(core, runtime, source, rates))
    rates = rates[: len(losses)]
    return LearningRateSearch(rates, losses, *read(rates, losses, steps))


def _ready(core: Core, x: Any, y: Any, sample_weight: Any, batch_size: int) -> tuple[Runtime, Source]:
    compiled = compiled_of(core)
    if is_batches(x) and iter(x) is x:
        raise ValueError(
            "`x` must give its batches every time it is iterated over, got an iterator, which gives them once"
        )
    with core.unchanged_on_error():
        feed = training(core, compiled, x, y, sample_weight, Request(batch_size))
    return feed.runtime, feed.source


def _sweep(core: Core, runtime: Runtime, source: Source, rates: npt.NDArray[np.float64]) -> list[float]:
    """Return the loss of each update of the copy."""
    session, losses = copied_session(runtime), list[float]()
    accumulate = 1 if runtime.built.compiled is None else runtime.built.compiled.accumulate
    pieces = _endless(source, core.position.epoch)
    for rate in rates:
        parts = [_trained(session, *next(pieces), rate) for _ in range(accumulate)]
        weights = np.array([weight for _, weight in parts])
        losses.append(float(np.dot([loss for loss, _ in parts], weights) / max(weights.sum(), 1e-300)))
        if diverged(losses, len(rates)):
            break
    return losses


def _endless(source: Source, epoch: int) -> Iterator[tuple[int, int, Piece]]:
    """Give micro-batch after micro-batch, epoch after epoch."""
    while True:
        for step, piece in enumerate(source.pieces(epoch, Pacer(single=True))):
            yield epoch, step, piece
        epoch += 1


def _trained(session: _burnish.Session, epoch: int, step: int, piece: Piece, rate: float) -> tuple[float, float]:
    records = train_whole(session, piece, np.array([rate]), epoch=epoch, first_step=step)
    numbers = dict(zip(records.columns, records.rows[0].tolist(), strict=True))
    return numbers["loss"], numbers["weight"]
