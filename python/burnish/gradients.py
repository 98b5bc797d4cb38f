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
    from ._data import Array, Data
    from ._runtime import Runtime
    from .model import Model

__all__ = ["Deviation", "GradientReport", "check_gradients", "gradients"]

_ABSOLUTE, _RELATIVE = 1e-5, 1e-3
_STEP = 1e-6


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
    differ (as of relu at 0), so that there is nothing to compare; they do not fail.
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
    limit, directions = integer("limit", limit, 0), integer("directions", directions, 1)
    runtime, data = _training.ready(core_of(model), x, y, sample_weight)
    session = _copy(runtime)
    analytic = session.gradients(data.inputs, method="autodiff", sample_weight=data.weight)
    if sum(array.size for array in analytic.values()) > limit:
        slopes = _along_directions(session, data, analytic, directions, integer("seed", seed, 0))
    else:
        slopes = _by_element(session, data, analytic)
    return _report(slopes)


def _copy(runtime: Runtime) -> _burnish.Session:
    """Return a session of the same program in float64 whose training steps move nothing."""
    built: Built = runtime.built
    seed = 0 if built.compiled is None else built.compiled.seed
    session = _burnish.Session(built.program, "cpu", "float64", seed)
    session.load_state(runtime.session.state())
    return session


def _by_element(session: _burnish.Session, data: Data, analytic: dict[str, Array]) -> list[tuple[Deviation, float]]:
    """Return each slope with how far the one-sided slope is from the central one."""
    central = session.gradients(data.inputs, method="numerical", sample_weight=data.weight)
    forward = session.gradients(data.inputs, method="numerical_batch", sample_weight=data.weight)
    slopes: list[tuple[Deviation, float]] = []
    for path, array in analytic.items():
        for index in np.ndindex(array.shape):
            numeric = float(central[path][index])
            slopes.append(
                (Deviation(path, index, float(array[index]), numeric), abs(float(forward[path][index]) - numeric))
            )
    return slopes


def _along_directions(
    session: _burnish.Session, data: Data, analytic: dict[str, Array], count: int, seed: int
) -> list[tuple[Deviation, float]]:
    generator = np.random.default_rng(seed)
    start = {path: array for path, array in session.state().items() if path in analytic}
    session.optimizer(_STILL)
    slopes: list[tuple[Deviation, float]] = []
    for number in range(count):
        direction = {path: generator.standard_normal(array.shape) for path, array in analytic.items()}
        size = np.sqrt(sum(float(np.sum(array**2)) for array in direction.values()))
        direction = {path: array / size for path, array in direction.items()}
        slope = sum(float(np.sum(analytic[path] * array)) for path, array in direction.items())
        above, here, below = (_loss_at(session, data, start, direction, step) for step in (_STEP, 0.0, -_STEP))
        numeric = (above - below) / (2 * _STEP)
        one_sided = (above - here) / _STEP
        slopes.append((Deviation("direction", (number,), slope, numeric), abs(one_sided - numeric)))
    return slopes


_STILL = (
    '{"name": "sgd", "hyperparameters": {}, "clip_norm": null, "clip_value": null, "accumulate_gradients": 1, '
    '"gradient_method": "autodiff", "decay_roles": [], "frozen": []}'
)


def _loss_at(
    session: _burnish.Session, data: Data, start: dict[str, Array], direction: dict[str, Array], step: float
) -> float:
    session.load_state({path: array + step * direction[path] for path, array in start.items()})
    records = session.train(
        data.inputs, None, batch_size=data.rows, learning_rates=np.zeros(1), sample_weight=data.weight
    )
    return float(records["loss"][0])


def _report(slopes: list[tuple[Deviation, float]]) -> GradientReport:
    failures: list[Deviation] = []
    kinks: list[Deviation] = []
    smooth: list[Deviation] = []
    for slope, bend in slopes:
        wrong = not slope.error <= 1
        kink = wrong and bend > _ABSOLUTE + _RELATIVE * abs(slope.numeric)
        (kinks if kink else smooth).append(slope)
        if wrong and not kink:
            failures.append(slope)
    worst = max(smooth, key=lambda slope: slope.error, default=None)
    return GradientReport(len(slopes), worst, failures, kinks)
