"""A history as curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._errors import unknown
from ._optional import required

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from .history import History

__all__ = ["draw"]

_OF_STEPS = ("learning_rate", "gradient_norm", "update_ratio")
_POINTS = 300  # more hide each other; what lies between two is drawn as a band
_ACROSS = 3


def draw(history: History, names: Sequence[str] | None, axes: Any) -> Any:
    """Draw figures of a history, each on its own axes; see `History.plot`."""
    known = _known(history)
    wanted = known if names is None else list(names)
    for name in wanted:
        if name not in known:
            raise unknown("names", name, known)
    axes = _grid(len(wanted)) if axes is None else np.ravel(axes)
    if wanted and len(axes) != len(wanted):
        raise ValueError(f"`axes` must hold one for each of {', '.join(wanted)}, got {len(axes)}")
    best = history.best_epoch()
    for name, axis in zip(wanted, axes, strict=False):
        _draw_one(axis, name, history, best)
    figure = axes[0].figure
    figure.tight_layout()
    return figure


def _known(history: History) -> list[str]:
    """Return what can be drawn: the epochs' figures, a validation figure with its own, then the steps'."""
    steps = [name for name in _OF_STEPS if name in history.steps]
    return [*(name for name in history.history if name not in steps and not _is_validation(name, history)), *steps]


def _is_validation(name: str, history: History) -> bool:
    return name.startswith("val_") and name.removeprefix("val_") in history.history


def _grid(count: int) -> npt.NDArray[Any]:
    plt: Any = required("matplotlib.pyplot", "plot")
    across = max(min(count, _ACROSS), 1)
    down = max(-(-count // across), 1)
    figure, axes = plt.subplots(down, across, figsize=(4.5 * across, 3.2 * down), squeeze=False)
    for axis in axes.flat[max(count, 1) :]:
        figure.delaxes(axis)
    return axes.ravel()[: max(count, 1)]


def _draw_one(axis: Any, name: str, history: History, best: int | None) -> None:
    of_steps = name in _OF_STEPS and name in history.steps
    (_draw_steps if of_steps else _draw_epochs)(axis, name, history)
    if best is not None:
        axis.axvline(best + 1, color="0.5", linestyle=":", linewidth=1, label=f"best epoch {best + 1}")
    axis.set(xlabel="epoch", ylabel=name)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize="small")


def _draw_epochs(axis: Any, name: str, history: History) -> None:
    numbers = np.array(history.epoch) + 1
    curves = [history.history[one] for one in (name, f"val_{name}") if one in history.history]
    for curve, label in zip(curves, ("training", "validation"), strict=False):
        axis.plot(numbers[: len(curve)], curve, marker="." if len(curve) < 30 else None, label=label)
    if len(curves) == 2:
        shared = min(map(len, curves))
        training, validation = (curve[:shared] for curve in curves)
        axis.fill_between(numbers[:shared], training, validation, alpha=0.15, color="0.4", label="gap")


def _draw_steps(axis: Any, name: str, history: History) -> None:
    """Draw a figure of every update, over epochs; many together as their mean in a band from least to greatest."""
    steps = history.steps
    kept = np.isfinite(steps[name])
    x, y = _places(steps["epoch"])[kept], steps[name][kept]
    if not len(y):
        return
    starts = np.arange(0, len(y), -(-len(y) // _POINTS))
    counts = np.diff(starts, append=len(y))
    ends = x[starts + counts - 1]
    if (counts > 1).any():
        axis.fill_between(ends, np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts), alpha=0.25)
    axis.plot(ends, np.add.reduceat(y, starts) / counts)
    if (y > 0).all() and y.max() > 10 * y.min():
        axis.set_yscale("log")


def _places(epochs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return where on the axis of epochs each step ends: the last one of epoch 0 at 1."""
    starts = np.flatnonzero(np.diff(epochs, prepend=epochs[:1] - 1))
    counts = np.diff(starts, append=len(epochs))
    within = np.arange(len(epochs)) - np.repeat(starts, counts)
    return epochs + (within + 1) / np.repeat(counts, counts)
