"""Reading a learning rate off a curve of losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Curve = npt.NDArray[np.float64]

__all__ = ["Reading", "diverged", "drawn", "read", "smoothed"]

_MEMORY = 1.0 / 15.0  # of the sweep: 0.98 for 750 steps; over 300, 0.98 lags behind by most of a decade
_STOP = 4.0
_IGNORED = 0.1
_DONE = 0.85
_NOISES = 7  # noise alone falls by six of them once in 4,000 sweeps, by seven hardly ever


class Reading(NamedTuple):
    """What a curve says: a rate, or None with the reason."""

    rate: float | None
    reason: str
    steepest: float | None = None


def smoothing(steps: int) -> float:
    """Return β of the average for a sweep of so many steps: its memory 1 / (1 - β) is a fifteenth of them."""
    return max(0.5, 1.0 - 1.0 / (_MEMORY * steps))


def smoothed(values: Curve, beta: float) -> Curve:
    """Return the debiased exponential average: Σ βⁱ v / Σ βⁱ over what came before."""
    total, weight, found = 0.0, 0.0, np.empty(len(values))
    for index, value in enumerate(values):
        total = beta * total + (1.0 - beta) * value
        weight = beta * weight + (1.0 - beta)
        found[index] = total / weight
    return found


def diverged(losses: list[float], steps: int) -> bool:
    """Say whether the curve has left its best by four times, or ended in numbers that are not finite."""
    if not losses:
        return False
    if not np.isfinite(losses[-1]):
        return True
    curve = smoothed(np.array(losses), smoothing(steps))
    best = float(curve.min())
    return len(losses) > 10 and curve[-1] > best + (_STOP - 1.0) * max(abs(best), 1e-30)


def read(rates: Curve, losses: Curve, steps: int) -> Reading:
    """Return the valley: halfway between where 85 % of the fall is done and its floor, on a logarithmic scale.

    `steps` are those of the whole sweep. Both coordinates are averaged alike, so that the lag of the average cancels;
    the slope is with respect to the logarithm of the rate; the first tenth is ignored. The fall is counted from the
    middle level before it, not from the highest, which noise makes.
    """
    keep = np.isfinite(losses)
    places, values = np.log(rates[keep]), losses[keep]
    if len(values) < 20:
        return Reading(None, f"the loss was not finite after {len(values)} steps: begin with a smaller rate")
    beta = smoothing(steps)
    x, y = smoothed(places, beta), smoothed(values, beta)
    start = int(_IGNORED * len(y))
    low = start + int(np.argmin(y[start:]))
    noise = _noise(values, beta)
    top = start + int(np.argmax(y[start : low + 1]))
    level = float(np.median(y[start : max(top + 1, start + len(y) // 10)]))
    fall = level - float(y[low])
    if fall <= _NOISES * noise:
        fell = f"the loss fell by {max(fall, 0.0):.2g}, no more than {_NOISES} times its noise of {noise:.2g}"
        return Reading(None, f"{fell}, which may be chance")
    if low - top < 2:
        return Reading(None, "the loss rises from the first rate on: begin with a smaller one")
    begun, done = (_passed(y, top, low, level - part * fall) for part in (1.0 - _DONE, _DONE))
    steepest = begun + int(np.argmin(np.gradient(y, x)[begun : done + 1]))
    rate = float(np.exp(0.5 * (x[done] + x[low])))
    return Reading(rate, _reason(fall, noise), float(np.exp(x[steepest])))


def _passed(curve: Curve, top: int, low: int, level: float) -> int:
    """Return the last place at which the curve has not yet fallen below a level."""
    return top + int(np.flatnonzero(curve[top : low + 1] >= level)[-1])


def _noise(values: Curve, beta: float) -> float:
    """Return the standard error of the average, from how neighbouring losses differ."""
    differences = np.abs(np.diff(values))
    single = float(np.median(differences)) / 0.954  # of normal numbers, the median of |a - b| is 0.954 deviations
    return single * float(np.sqrt((1.0 - beta) / (1.0 + beta)))


def _reason(fall: float, noise: float) -> str:
    return f"the loss falls by {fall:.3g}, {fall / max(noise, 1e-30):.0f} times its noise, and most of it up to here"


def drawn(axis: Any, rates: Curve, losses: Curve, rate: float | None) -> None:
    """Draw the losses over the rates, with the suggestion."""
    keep = np.isfinite(losses)
    axis.plot(rates[keep], losses[keep], color="0.8", label="loss")
    beta = smoothing(len(rates))
    curve = smoothed(losses[keep], beta)
    axis.plot(np.exp(smoothed(np.log(rates[keep]), beta)), curve, label="average")
    if rate is not None:
        axis.axvline(rate, linestyle="--", color="0.4", label=f"suggested {rate:.2g}")
    ceiling = curve[0] + 2.0 * max(curve[0] - curve.min(), 0.05 * abs(curve[0]))
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(None, ceiling))
    axis.legend()
