"""Gradients of a model's loss, and the check of them against central differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _burnish, _training
from ._compile import GRADIENT_METHODS
from ._errors import choice, integer
from .model import core_of

if TYPE_CHECKING:
    from ._build import Built
    from ._feed.arrays import Array, Data
    from ._runtime import Runtime
    from .model import Model

__all__ = ["Deviation", "GradientReport", "check_gradients", "gradients"]

_ABSOLUTE, _RELATIVE = 1e-5, 1e-3
_STEP = 1e-6
# The smaller step beside it, as the engine's one-sided differences have it.
_NEAR = 0.1
# The part of the sides' disagreement that a smaller step keeps: 0.5 at a kink, 0.05 on a curve.
_STAYS = 0.2


class Deviation(NamedTuple):
    """One compared slope: an element of a parameter, or a random direction through all of them."""

    path: str
    index: tuple[int, ...]  # pyright: ignore[reportIncompatibleMethodOverride]
    analytic: float
    numeric: float

    @property
    def error(self) -> float:
        """How far the two are apart, 1 being the most that is allowed."""
        return abs(self.analytic - self.numeric) / (_ABSOLUTE + _RELATIVE * abs(self.numeric))


class GradientReport(NamedTuple):
    """What a check of gradients found.

    A slope passes if |analytic - numeric| ≤ 1e-5 + 1e-3 · |numeric|. `kinks` are those where the slopes on both sides
    differ (as of relu at 0) however small the step, so that there is nothing to compare; they do not fail. `worst` is
    the slope whose error is the largest, kinks left out.
    """

    checked: int
    worst: Deviation | None
    failures: list[Deviation]
    kinks: list[Deviation]

    @property
    def passed(self) -> bool:
        """Whether no slope failed."""
        return not self.failures

    def __repr__(self) -> str:
        state = "passed" if self.passed else f"FAILED at {len(self.failures)}"
        worst = (
            ""
            if self.worst is None
            else (
                f"; worst {self.worst.path}{list(self.worst.index)}: {self.worst.analytic:.6g} by autodiff, "
                f"{self.worst.numeric:.6g} by differences"
            )
        )
        return f"<gradients {state}: {self.checked} slopes, {len(self.kinks)} kinks{worst}>"


def gradients(model: Model, x: Any, y: Any, method: str = "autodiff", *, sample_weight: Any = None) -> dict[str, Array]:
    """Return the gradient of the training loss over all rows at once, by path.

    Parameters
    ----------
    model : Model
        A compiled model.
    x, y, sample_weight : array_like
        As for `Model.fit`.
    method : {"autodiff", "numerical", "numerical_batch"}
        Reverse mode, or central (2N evaluations) or one-sided (N + 1) differences.
    """
    choice("method", method, GRADIENT_METHODS)
    runtime, data = _training.ready(core_of(model), x, y, sample_weight)
    return runtime.session.gradients(data.inputs, method=method, sample_weight=data.weight)


def check_gradients(
    model: Model, x: Any, y: Any, *, sample_weight: Any = None, limit: int = 2000, directions: int = 20, seed: int = 0
) -> GradientReport:
    """Compare autodiff with central differences in float64, step 1e-6 · max(1, |p|), on a copy of the model on the CPU.

    The copy draws the same random numbers in every evaluation, as for dropout; the model stays as it is.

    Parameters
    ----------
    model : Model
        A compiled model.
    x, y, sample_weight : array_like
        A few rows.
    limit : int, default 2000
        With more parameters than this, random directions through all of them are compared instead of single elements.
    directions : int, default 20
        How many.
    seed : int, default 0
        Chooses the directions.
    """
    limit, directions, seed = integer("limit", limit, 0), integer("directions", directions, 1), integer("seed", seed, 0)
    runtime, data = _training.ready(core_of(model), x, y, sample_weight)
    session = _copy(runtime)
    analytic = session.gradients(data.inputs, method="autodiff", sample_weight=data.weight)
    if sum(array.size for array in analytic.values()) > limit:
        slopes = _along_directions(session, data, analytic, directions, seed)
    else:
        slopes = _by_element(session, data, analytic)
    return _report(slopes)


def _copy(runtime: Runtime) -> _burnish.Session:
    """Return a session of the same program and numbers in float64."""
    built: Built = runtime.built
    seed = 0 if built.compiled is None else built.compiled.seed
    return _burnish.Session(built.program, "cpu", "float64", seed, runtime.session.state())


class _Slopes(NamedTuple):
    """Slopes of one parameter, flat: by autodiff, from both sides by the step, and upwards by a tenth of it."""

    path: str
    shape: tuple[int, ...]
    analytic: Array
    above: Array
    below: Array
    near: Array

    def central(self) -> Array:
        """Return the central differences."""
        return (self.above + self.below) / 2

    def bends(self) -> Array:
        """Return where the sides disagree by more than is allowed."""
        return np.abs(self.above - self.below) > _allowed(self.central())

    def kinks(self) -> Array:
        """Return where the slope jumps: a smaller step brings the sides of a curve together, not those of a kink."""
        stays = np.abs(self.near - self.central()) > _STAYS * np.abs(self.above - self.below)
        return self.bends() & stays & np.isfinite(self.analytic)

    def errors(self) -> Array:
        """Return how far autodiff and the differences are apart, 1 being the most that is allowed."""
        central = self.central()
        return np.abs(self.analytic - central) / _allowed(central)

    def deviation(self, place: int) -> Deviation:
        """Return one of the slopes."""
        index = tuple(int(number) for number in np.unravel_index(place, self.shape))
        return Deviation(self.path, index, float(self.analytic[place]), float(self.central()[place]))


def _allowed(numeric: Array) -> Array:
    return _ABSOLUTE + _RELATIVE * np.abs(numeric)


def _by_element(session: _burnish.Session, data: Data, analytic: dict[str, Array]) -> list[_Slopes]:
    def differences(method: str) -> dict[str, Array]:
        return session.gradients(data.inputs, method=method, sample_weight=data.weight)

    above, below = differences("above"), differences("below")
    slopes = [
        _Slopes(path, array.shape, array.ravel(), above[path].ravel(), below[path].ravel(), above[path].ravel())
        for path, array in analytic.items()
    ]
    if not any(one.bends().any() for one in slopes):
        return slopes
    near = differences("numerical_batch")
    return [one._replace(near=near[one.path].ravel()) for one in slopes]


def _along_directions(
    session: _burnish.Session, data: Data, analytic: dict[str, Array], count: int, seed: int
) -> list[_Slopes]:
    """Return the slopes along normally distributed directions; a step moves all parameters together by 1e-6."""
    generator = np.random.default_rng(seed)
    slopes = np.empty((4, count))
    for number in range(count):
        direction = {path: generator.standard_normal(array.shape) for path, array in analytic.items()}
        length = np.sqrt(sum(float(np.sum(array**2)) for array in direction.values()))
        step = _STEP / length
        steps = np.array([0.0, step, -step, _NEAR * step])
        here, above, below, near = session.losses_along(data.inputs, direction, steps, sample_weight=data.weight)
        exact = sum(float(np.sum(analytic[path] * array)) for path, array in direction.items())
        slopes[:, number] = exact, (above - here) / step, (here - below) / step, (near - here) / (_NEAR * step)
    return [_Slopes("direction", (count,), *slopes)]


def _report(slopes: list[_Slopes]) -> GradientReport:
    failures: list[Deviation] = []
    kinks: list[Deviation] = []
    worst: tuple[float, Deviation] | None = None
    for one in slopes:
        errors, bent = one.errors(), one.kinks()
        smooth = np.flatnonzero(~bent)
        kinks += [one.deviation(int(place)) for place in np.flatnonzero(bent)]
        failures += [one.deviation(int(place)) for place in smooth if not errors[place] <= 1]
        if smooth.size:
            # NaN counts as the largest.
            place = int(smooth[np.argmax(errors[smooth])])
            error = float(np.nan_to_num(errors[place], nan=np.inf))
            if worst is None or error > worst[0]:
                worst = error, one.deviation(place)
    return GradientReport(
        sum(one.analytic.size for one in slopes), None if worst is None else worst[1], failures, kinks
    )
