"""Running statistics for weights that were not trained but averaged."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from ._feed.sources import Pacer
from ._runtime import train_whole
from .model import core_of

if TYPE_CHECKING:
    from .model import Model

__all__ = ["refresh_statistics"]


def refresh_statistics(model: Model) -> None:
    """Let running statistics follow the weights of now: one pass over the training data that moves nothing else."""
    core = core_of(model)
    runtime, run = core.ready(), core.run
    if run is None or not runtime.built.program.buffers():
        return
    if getattr(run.source, "once", False):
        warnings.warn(
            "running statistics were left as they are: `x` can be read only once", RuntimeWarning, stacklevel=2
        )
        return
    still = runtime.copy(runtime.session.device, runtime.session.precision)
    for piece in run.source.pieces(core.position.epoch, Pacer(single=False)):
        train_whole(still, piece, np.zeros(piece.batches), epoch=core.position.epoch)
    buffers = {path for path, _ in runtime.built.program.buffers()}
    runtime.session.load_state({path: array for path, array in still.state().items() if path in buffers})
