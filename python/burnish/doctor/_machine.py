"""Ailments of the machine's use: waiting for data, and batches too small or too large."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._report import Finding, Remedy

if TYPE_CHECKING:
    from ._figures import Figures

__all__ = ["Pace", "few_updates", "slow_input", "small_batch"]

Pace = tuple[int, float, int, float]
"""Rows and seconds of a step as it was trained, and of a larger one."""


def slow_input(figures: Figures) -> Finding | None:
    """More than 30 % of an epoch goes by waiting for batches, and at least a millisecond each."""
    timing = figures.history.timing
    if not timing.get("data"):
        return None
    first = min(1, len(timing["data"]) - 1)  # the first epoch opens files and fills caches
    data, engine = (float(np.sum(timing[name][first:])) for name in ("data", "engine"))
    steps = figures.steps_an_epoch * len(timing["data"][first:])
    share, wait = data / max(data + engine, 1e-12), data / max(steps, 1.0)
    if share < 0.3 or wait < 1e-3:
        return None
    text = f"{share:.0%} of the time goes by waiting for batches, {1e3 * wait:.1f} ms for each"
    remedies = (
        Remedy("Give arrays (or a memory map), which the engine reads by itself", "x = np.load(path, mmap_mode='r')"),
        Remedy("Prepare batches once, before the fit", "batches = list(batches); model.fit(batches)"),
        Remedy("Make batches larger, fewer to prepare", "batch_size = 4 * batch_size"),
    )
    return Finding("slow_input", "warning", text, {"share": share, "milliseconds": 1e3 * wait}, remedies)


def small_batch(pace: Pace | None) -> Finding | None:
    """A batch eight times as large does five times as many rows a second (six: a warning): the device idles."""
    if pace is None:
        return None
    rows, seconds, more, longer = pace
    gain = (more / longer) / (rows / seconds)
    if gain < 0.625 * more / rows:
        return None
    text = (
        f"{more} rows take {1e3 * longer:.2g} ms, {rows} take {1e3 * seconds:.2g} ms: larger batches would do "
        f"{gain:.1f} times as many rows a second"
    )
    remedies = (
        Remedy("Take larger batches", f"model.fit(..., batch_size={more})"),
        Remedy("Raise the learning rate with them", f"bn.tuning.scale_learning_rate(lr, {rows}, {more})"),
        Remedy("See what fits", "print(bn.tuning.find_batch_size(model, x, y))"),
    )
    numbers: dict[str, float | str] = {"rows": rows, "gain": gain, "milliseconds": 1e3 * seconds}
    severity = "warning" if gain > 0.75 * more / rows else "note"
    return Finding("small_batch", severity, text, numbers, remedies)


def few_updates(figures: Figures) -> Finding | None:
    """At most two updates an epoch of many rows, and the loss still falls: the batch is too large for these epochs."""
    norms = figures.updates("gradient_norm")
    epochs = max(figures.epochs, 1)
    an_epoch = norms.size / epochs
    if epochs < 3 or an_epoch > 2 or figures.rows < 256 or not _unfinished(figures):
        return None
    text = (
        f"{figures.rows:.0f} rows a batch make {an_epoch:.0f} update{'s' * (an_epoch > 1)} an epoch, {norms.size} in "
        f"all, and the loss still falls"
    )
    size = max(32, int(figures.rows) // 16)
    remedies = (
        Remedy("Take smaller batches", f"model.fit(..., batch_size={size})"),
        Remedy("Train for more epochs", f"model.fit(..., epochs={10 * epochs})"),
    )
    return Finding("few_updates", "warning", text, {"updates": norms.size, "rows": figures.rows}, remedies)


def _unfinished(figures: Figures) -> bool:
    """Say whether the last fifth of the steps fell by a hundredth of the whole loss or more."""
    loss = figures.loss[np.isfinite(figures.loss)]
    if loss.size < 3:
        return False
    before = loss[-max(2, loss.size // 5)]
    return bool(before - loss[-1] > 0.01 * abs(figures.course.first)) and figures.course.fall < 0.8
