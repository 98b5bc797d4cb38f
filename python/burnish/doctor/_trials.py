"""What is tried on a copy of the model when a fit has ended: larger batches, and statistics that catch up."""

from __future__ import annotations

import math
import sys
import time
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from .._copy import copied_session
from .._feed.sources import ArraySource, Pacer, Piece
from .._runtime import train_whole
from .._structure import is_sequence
from ._statistics import Settled

if TYPE_CHECKING:
    from .._burnish import Session
    from .._feed.arrays import Data
    from .._fit import Run
    from ._machine import Pace

__all__ = ["pace", "settled"]

_MOST_BYTES = 1 << 28  # of what a step computes: a diagnosis must not run out of memory
_GROWTH = 8  # a batch is compared with one this many times as large
_MEASURED = 1e-3  # seconds of small steps in a measurement, so that a call and a tick of the clock are little of it
_BATCHES = 200  # after so many, a momentum of 0.99 keeps 13 % of what it had
_ROWS = 4096  # of the validation data


def pace(run: Run) -> Pace | None:
    """Time a batch of this fit and a larger one, on a copy; None where that says nothing."""
    source = run.source
    if not isinstance(source, ArraySource) or source.steps is None or source.steps < 8 * _GROWTH:
        return None
    if not _fits(run, _GROWTH * source.batch_size):
        return None
    session = copied_session(run.runtime)
    small, large = source.batch_size, _GROWTH * source.batch_size

    def seconds(rows: int, steps: int) -> float:
        began = _clocks()
        order = np.resize(np.arange(rows, dtype=np.int64), rows * steps)
        train_whole(session, Piece(source.data.inputs, order, source.data.weight, rows, steps), np.zeros(steps))
        wall, processors = np.subtract(_clocks(), began)
        # What waits for a processor that other programs use takes long and computes little; a GPU computes elsewhere.
        counts = session.device in ("cpu", "ndarray") and 0 < processors < wall
        return float(processors if counts else wall) / steps

    seconds(large, 1)  # makes what the first use of a batch size makes
    steps = 1
    while steps < 128 and steps * seconds(small, steps) < _MEASURED:  # a fit pays for a call once in many steps
        steps *= 2
    taken, until = list[tuple[float, float]](), time.perf_counter() + 200 * _MEASURED
    while len(taken) < 3 or (len(taken) < 15 and time.perf_counter() < until):
        taken.append((seconds(small, steps), seconds(large, steps)))
    shorter, longer = np.min(taken, axis=0).tolist()  # what disturbs a measurement only adds to it
    return small, shorter, large, longer


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def settled(run: Run) -> Settled | None:
    """Measure it on a copy; None where validation is not worse by a fifth, or where that says nothing."""
    part = _validation_of(run)
    if part is None or sys.exc_info()[0] is not None:  # what ended early, by Ctrl-C above all, is not to end late
        return None
    losses = run.history.history["loss"]
    own, updates = float(losses[-1]), len(run.history.steps["loss"])
    still = run.runtime.copy(run.runtime.session.device, run.runtime.session.precision)
    before = _loss(still, part, run.validation_batch_size)
    if not before - own > 0.2 * max(abs(before), abs(own)):
        return None
    batches = min(_BATCHES, 2 * updates)  # a look must not take longer than the fit
    _run_on(still, run, batches)
    return Settled(own, before, _loss(still, part, run.validation_batch_size), batches, updates)


def _validation_of(run: Run) -> Data | None:
    """Return rows that were validated on, if the model has running statistics and was judged as it stands."""
    runtime, history = run.runtime, run.history.history
    worse = history.get("val_loss") and history["val_loss"][-1] > history["loss"][-1]
    if not worse or run.validation is None or not isinstance(run.source, ArraySource):
        return None
    if not runtime.built.program.buffers() or runtime.session.averages() or not _fits(run, run.source.batch_size):
        return None
    parts = run.validation()
    return parts[0].slice(0, _ROWS) if is_sequence(parts) else None


def _run_on(still: Session, run: Run, batches: int) -> None:
    """Show a session whose weights stay some batches of the epochs to come."""
    epoch = run.position.epoch
    while batches > 0:
        with closing(run.source.pieces(epoch, Pacer(single=True))) as pieces:
            for piece in islice(pieces, batches):
                train_whole(still, piece, np.zeros(1), epoch=epoch)
                batches -= 1
        epoch += 1


def _loss(session: Session, part: Data, batch_size: int) -> float:
    return session.evaluate(part.inputs, batch_size=batch_size, sample_weight=part.weight)["loss"]


def _fits(run: Run, rows: int) -> bool:
    """Say whether the values of a step of so many rows are small beside the memory of any device."""
    shapes = [shape for _, _, shape in run.runtime.built.program.nodes()]
    of_a_row = sum(8 * math.prod(length or 1 for length in shape) for shape in shapes)
    return rows * of_a_row <= _MOST_BYTES
