"""What writes files of the model while it trains."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from .._errors import boolean, number, path
from .stopping import Watcher

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from .base import Logs

__all__ = ["ModelCheckpoint"]


class ModelCheckpoint(Watcher):
    """Save the model after epochs.

    Parameters
    ----------
    filepath : path
        Where to; may hold `{epoch}` (from 1) and names of the logs: "model-{epoch:02d}-{val_loss:.3f}.safetensors".
        Folders are made.
    monitor : str, default "val_loss"
        The number in the logs that decides what is best.
    verbose : int, default 0
        1: say when a file is written.
    save_best_only : bool, default False
        Whether only improvements are saved.
    save_weights_only : bool, default False
        Whether `save_weights` is used instead of `save`: of weights that are averaged (see `ema` of `compile`) it
        writes the averages, with which the model predicts.
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
        self.filepath = path("filepath", filepath)
        self._filled(defaultdict(_AnyFigure, epoch=1))
        self.verbose = verbose
        self.save_best_only = boolean("save_best_only", save_best_only)
        self.save_weights_only = boolean("save_weights_only", save_weights_only)

    def needed(self) -> list[tuple[str, str]]:
        """Return the names in the path, and what is monitored if that matters."""
        from string import Formatter

        fields = [name for _, name, _, _ in Formatter().parse(self.filepath) if name is not None]
        watched = [("monitor", self.monitor)] if self.save_best_only else []
        return [*watched, *(("filepath", name) for name in fields if name != "epoch")]

    def check_figures(self, names: Sequence[str]) -> None:
        """Fill the path in, and raise unless a file can be written there."""
        file = self._filled(defaultdict(_AnyFigure, dict.fromkeys(names, 1.0), epoch=1))
        folder = os.path.dirname(os.path.abspath(file))  # noqa: PTH100, PTH120
        while not os.path.lexists(folder) and folder != os.path.dirname(folder):  # noqa: PTH120
            folder = os.path.dirname(folder)  # noqa: PTH120
        is_folder = file == self.filepath and (os.path.isdir(file) or not os.path.basename(file))  # noqa: PTH112, PTH119
        if is_folder or not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):  # noqa: PTH112
            raise OSError(f"ModelCheckpoint: `filepath` must be a file that can be written, got {file!r}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Save if it is due."""
        if self.save_best_only:
            value = self._watched(logs)
            if not self._improves(value):
                return
            self.best = value
        file = self._filled({**(logs or {}), "epoch": epoch + 1})
        os.makedirs(os.path.dirname(file) or ".", exist_ok=True)  # noqa: PTH103, PTH120
        (self.model.save_weights if self.save_weights_only else self.model.save)(file)
        if self.verbose:
            print(f"saved {file}")

    def _filled(self, figures: Mapping[str, Any]) -> str:
        try:
            return self.filepath.format_map(figures)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"ModelCheckpoint: `filepath` {self.filepath!r} cannot be filled in: {error}") from error


class _AnyFigure(float):
    """Stands for a figure of which nothing is known yet: it takes every form."""

    def __format__(self, form: str) -> str:
        return ""
