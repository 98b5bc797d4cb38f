"""Schedules: learning rates as pure functions of the index 0, 1, … of the update about to be made.

A schedule goes wherever a learning rate goes. It can be called with an integer or an array of them, drawn with `plot()`
and compared; see `Schedule`. t stands for the index, in the schedule's unit. Numbers are PyTorch's, and each schedule
says where it differs.

>>> import burnish as bn
>>> schedule = bn.schedules.warmup(100, then=bn.schedules.CosineAnnealing(0.01, steps=900))
>>> schedule([0, 49, 99, 550, 999]).round(6)
array([0.0001, 0.005 , 0.01  , 0.005 , 0.    ])
>>> model = bn.Sequential([bn.layers.Dense(1)])
>>> model.compile("mse", "adam", learning_rate=schedule)
>>> model.learning_rate
0.0001
"""

from __future__ import annotations

from typing import Any

from .._errors import unknown
from .._structure import is_dict, is_sequence
from . import compose, cycles, decay, warming
from .base import Schedule
from .compose import *  # noqa: F403
from .cycles import *  # noqa: F403
from .decay import *  # noqa: F403
from .warming import *  # noqa: F403

__all__ = ["Schedule", "from_config"]
__all__ += compose.__all__
__all__ += cycles.__all__
__all__ += decay.__all__
__all__ += warming.__all__


_KINDS: dict[str, Any] = {
    name: one
    for name, one in globals().copy().items()
    if name in {"warmup", "join"} or (isinstance(one, type) and issubclass(one, Schedule) and one is not Schedule)
} | {"Scaled": compose.Scaled}


def from_config(config: dict[str, Any]) -> Schedule:
    """Return the schedule that `Schedule.config` described.

    Raises
    ------
    ValueError, TypeError
        If the name or an argument is not one that there is.

    Examples
    --------
    >>> import burnish as bn
    >>> schedule = bn.schedules.from_config({"name": "Linear", "start": 0, "end": 1, "steps": 4})
    >>> schedule
    Linear(start=0.0, end=1.0, steps=4)
    >>> bn.schedules.from_config(schedule.config()) == schedule
    True
    """
    if not is_dict(config) or not isinstance(config.get("name"), str):
        raise TypeError(f"`config` must be a dict with a name, got {config!r}")
    arguments = {key: _restored(value) for key, value in config.items() if key != "name"}
    if config["name"] not in _KINDS or "function" in arguments:
        raise unknown("config", config["name"], [name for name in _KINDS if name != "Lambda"])
    return _KINDS[config["name"]](**arguments)


def _restored(value: Any) -> Any:
    if is_dict(value):
        return from_config(value)
    return [_restored(one) for one in value] if is_sequence(value) else value
