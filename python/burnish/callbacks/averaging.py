"""Averages of the weights over a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import boolean, integer, number
from .base import Callback, Logs

if TYPE_CHECKING:
    import numpy.typing as npt

    from .._runtime import Core

__all__ = ["EMA", "SWA"]


class EMA(Callback):
    """Keep an exponential moving average of the weights: avg = decay · avg + (1 - decay) · p after each update.

    Validation uses the average; when the fit ends, however it ends, the weights are set to it. To keep both, give
    `compile` the argument `ema` instead.

    Parameters
    ----------
    decay : float in [0, 1), default 0.999
        What each update keeps; 0.999 averages over the last thousand updates.
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = number("decay", decay, 0, 1, below=True)

    def _core(self) -> Core:
        from ..model import core_of

        return core_of(self.model)

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Begin to average."""
        core = self._core()
        if core.compiled is not None and core.compiled.optimizer["average"] is not None:
            raise ValueError(
                "the model was compiled with `ema`: it keeps an average already, leave out the callback EMA"
            )
        core.average(self.decay)

    def on_train_end(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Set the weights to the average."""
        core = self._core()
        averages = core.ready().session.averages()
        core.average(None)
        self.model.set_parameters(averages)


class SWA(Callback):
    """Stochastic weight averaging: the mean of the weights after the last epochs (Izmailov et al. 2018).

    When the fit ends, the weights are set to the mean, and running statistics (of BatchNorm) are estimated anew for
    them in one pass over the training data, as the paper says. A learning rate that stays high, or cycles, in those
    epochs helps: see `bn.schedules`.

    Parameters
    ----------
    start_epoch : int
        The first epoch (from 0) after which the weights are taken into the mean.
    every : int, default 1
        Take them after every so many epochs.
    refresh : bool, default True
        Whether running statistics are estimated anew.
    """

    def __init__(self, start_epoch: int, every: int = 1, *, refresh: bool = True) -> None:
        self.start_epoch = integer("start_epoch", start_epoch, 0)
        self.every = integer("every", every, 1)
        self.refresh = boolean("refresh", refresh)
        self.count = 0
        self._means: dict[str, npt.NDArray[Any]] = {}

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Begin anew."""
        self.count, self._means = 0, {}

    def state(self) -> dict[str, Any]:
        """Return the means so far, and of how many."""
        return {"count": self.count, "means": {**self._means}}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on with them."""
        self.count, self._means = state["count"], state["means"]

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Take the weights into the mean."""
        if epoch < self.start_epoch or (epoch - self.start_epoch) % self.every:
            return
        self.count += 1
        for path, array in self.model.parameters().items():
            mean = self._means.get(path, np.zeros(array.shape))
            self._means[path] = mean + (array - mean) / self.count

    def on_train_end(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Set the weights to the mean."""
        if not self.count:
            return
        self.model.set_parameters(self._means)
        if self.refresh:
            from .._averaging import refresh_statistics

            refresh_statistics(self.model)
