"""Figures of the updates in the logs."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .._errors import boolean
from .base import Callback, Logs

__all__ = ["Monitor"]


class Monitor(Callback):
    """Put gradient norm and update ratio into the logs of each epoch, so that trackers, tables and plots have them.

    "gradient_norm" is the mean global norm before clipping over the epoch's updates, "update_ratio" the mean norm of
    the update over that of the parameters: healthy around 1e-3. `History.steps` and `History.parameters` hold both in
    any case, for each update and for each parameter.

    Parameters
    ----------
    parameters : bool, default False
        Whether there is one of each for every parameter too: "gradient_norm/<path>" and "update_ratio/<path>".
    """

    adds: ClassVar[tuple[str, ...] | None] = ("gradient_norm", "update_ratio")

    def __init__(self, parameters: bool = False) -> None:  # noqa: FBT001, FBT002
        self.parameters = boolean("parameters", parameters)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Add the means of this epoch."""
        history = self.model.history
        if logs is None or history is None:
            return
        steps = history.steps_of(epoch)
        updates = np.isfinite(steps["gradient_norm"])
        for name in ("gradient_norm", "update_ratio"):
            values = steps[name][updates]
            values = values[np.isfinite(values)]
            logs[name] = float(values.mean()) if len(values) else float("nan")
        if self.parameters:
            logs |= history.movements()
