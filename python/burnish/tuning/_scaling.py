"""Learning rates for other batch sizes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, overload

from .._errors import choice, integer
from ..schedules.compose import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..schedules import Schedule

__all__ = ["scale_learning_rate"]


@overload
def scale_learning_rate(learning_rate: float, from_batch: int, to_batch: int, rule: str = "linear") -> float: ...
@overload
def scale_learning_rate(
    learning_rate: Schedule | Callable[[int], float], from_batch: int, to_batch: int, rule: str = "linear"
) -> Schedule: ...
def scale_learning_rate(
    learning_rate: float | Schedule | Callable[[int], float], from_batch: int, to_batch: int, rule: str = "linear"
) -> float | Schedule:
    """Return the learning rate for another batch size.

    "linear": learning_rate · to_batch / from_batch, for SGD (Goyal et al. 2017, with a warm-up, up to batches of about
    8,000). "sqrt": learning_rate · sqrt(to_batch / from_batch), for Adam and its kin (Krizhevsky 2014, section 5;
    Malladi et al. 2022).

    Parameters
    ----------
    learning_rate : float, Schedule or function of int
        What suits `from_batch`. A schedule's values are scaled, not its lengths, which count updates.
    from_batch, to_batch : int, at least 1
        Samples of an update: of a batch times `accumulate_gradients`.
    rule : {"linear", "sqrt"}
        Which rule.

    Returns
    -------
    float or Schedule
        A number for a number, else a schedule.

    Examples
    --------
    >>> import burnish as bn
    >>> bn.tuning.scale_learning_rate(0.1, from_batch=256, to_batch=1024)
    0.4
    >>> bn.tuning.scale_learning_rate(bn.schedules.Constant(0.1), 256, 1024, rule="sqrt")
    2.0 * Constant(learning_rate=0.1)
    """
    ratio = integer("to_batch", to_batch, 1) / integer("from_batch", from_batch, 1)
    return scaled(learning_rate, math.sqrt(ratio) if choice("rule", rule, ("linear", "sqrt")) == "sqrt" else ratio)
