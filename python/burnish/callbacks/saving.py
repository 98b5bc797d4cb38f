"""What writes files of the model while it trains."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .._errors import boolean, number
from .stopping import Watcher

if TYPE_CHECKING:
    from os import PathLike

    from .base import Logs

__all__ = ["ModelCheckpoint"]


class ModelCheckpoint(Watcher):
    """Save the model after epochs.

    Parameters
    ----------
    filepath : path
        Where to; may hold `{epoch}` (from 1) and names of the logs: "model-{epoch:02d}-{val_loss:.3f}.safetensors".
    monitor : str, default "val_loss"
        The number in the logs that decides what is best.
    verbose : int, default 0
        1: say when a file is written.
    save_best_only : bool, default False
        Whether only improvements are saved.
    save_weights_only : bool, default False
        Whether `save_weights` is used instead of `save`.
    mode : {"auto", "min", "max"}
        Which way is better; see `EarlyStopping`.
    initial_value_threshold : float, optional
        The value to be better than at first.
    """

    rank = 2

    def __init__(  # noqa: PLR0917  Keras's order
        self,
        filepath: str | PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,  # noqa: FBT001, FBT002
        save_weights_only: bool = False,  # noqa: FBT001, FBT002
        mode: str = "auto",
        *,
        initial_value_threshold: float | None = None,
    ) -> None:
        threshold = initial_value_threshold
        super().__init__(
            monitor, mode, best=None if threshold is None else number("initial_value_threshold", threshold)
        )
        self.filepath = os.fsdecode(filepath)
        self.verbose = verbose
        self.save_best_only = boolean("save_best_only", save_best_only)
        self.save_weights_only = boolean("save_weights_only", save_weights_only)

    def needed(self) -> list[tuple[str, str]]:
        """Return the names in the path, and what is monitored if that matters."""
        from string import Formatter

        fields = [name for _, name, _, _ in Formatter().parse(self.filepath) if name is not None]
        watched = [("monitor", self.monitor)] if self.save_best_only else []
        return [*watched, *(("filepath", name) for name in fields if name != "epoch")]

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Save if it is due."""
        if self.save_best_only:
            value = self._watched(logs)
            if not self._improves(value):
                return
            self.best = value
        path = self.filepath.format(epoch=epoch + 1, **(logs or {}))
        (self.model.save_weights if self.save_weights_only else self.model.save)(path)
        if self.verbose:
            print(f"saved {path}")
