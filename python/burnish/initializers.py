"""How parameters start: names such as "glorot_uniform", or objects where a number is to be given.

The fan of a kernel of shape (..., in, out) is in (or out) times the product of the leading axes, as in Keras.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from ._errors import nearest, number

__all__ = [
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Normal",
    "Ones",
    "Orthogonal",
    "TruncatedNormal",
    "Uniform",
    "Zeros",
]


class Initializer:
    """How a parameter starts; its numbers depend only on the model's seed and the parameter."""

    name: ClassVar[str] = ""

    def __init__(self, **numbers: float) -> None:
        self._numbers = {key: number(key, value) for key, value in numbers.items()}

    def config(self) -> str:
        """Return the description that the engine reads."""
        return json.dumps({"name": self.name, **self._numbers})

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key}={value}" for key, value in self._numbers.items())
        return f"{type(self).__name__}({arguments})"


class Zeros(Initializer):
    """All zeros."""

    name = "zeros"


class Ones(Initializer):
    """All ones."""

    name = "ones"


class Constant(Initializer):
    """All `value`."""

    name = "constant"

    def __init__(self, value: float) -> None:
        super().__init__(value=value)


class Uniform(Initializer):
    """Uniform in [low, high)."""

    name = "uniform"

    def __init__(self, low: float = -0.05, high: float = 0.05) -> None:
        if number("low", low) > number("high", high):
            raise ValueError(f"`low` must not be above `high`, got {low} and {high}")
        super().__init__(low=low, high=high)


class Normal(Initializer):
    """Normal."""

    name = "normal"

    def __init__(self, mean: float = 0.0, stddev: float = 0.05) -> None:
        super().__init__(mean=mean, stddev=number("stddev", stddev, 0))


class TruncatedNormal(Initializer):
    """Normal, drawn again where further than two standard deviations from the mean."""

    name = "truncated_normal"

    def __init__(self, mean: float = 0.0, stddev: float = 0.05) -> None:
        super().__init__(mean=mean, stddev=number("stddev", stddev, 0))


class _WithoutNumbers(Initializer):
    def __init__(self) -> None:
        super().__init__()


class GlorotUniform(_WithoutNumbers):
    """Uniform in ±sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 16)."""

    name = "glorot_uniform"


class GlorotNormal(_WithoutNumbers):
    """Truncated normal of variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010, eq. 12)."""

    name = "glorot_normal"


class HeUniform(_WithoutNumbers):
    """Uniform in ±sqrt(6 / fan_in) (He et al. 2015)."""

    name = "he_uniform"


class HeNormal(_WithoutNumbers):
    """Truncated normal of variance 2 / fan_in (He et al. 2015, eq. 10)."""

    name = "he_normal"


class LecunUniform(_WithoutNumbers):
    """Uniform in ±sqrt(3 / fan_in) (LeCun et al. 1998)."""

    name = "lecun_uniform"


class LecunNormal(_WithoutNumbers):
    """Truncated normal of variance 1 / fan_in (LeCun et al. 1998)."""

    name = "lecun_normal"


class Orthogonal(Initializer):
    """A random orthogonal matrix times `gain`, over the last axis against all others (Saxe et al. 2013)."""

    name = "orthogonal"

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__(gain=gain)


_BY_NAME: dict[str, type[Initializer]] = {
    cls.name: cls
    for cls in globals().copy().values()
    if isinstance(cls, type) and issubclass(cls, Initializer) and cls.name and cls is not Constant
}


def resolve(initializer: Any) -> Initializer:
    """Return the initializer that is meant by a name or an object."""
    if isinstance(initializer, Initializer):
        return initializer
    if isinstance(initializer, type) and initializer in _BY_NAME.values():
        return initializer()  # type: ignore[no-any-return]
    if not isinstance(initializer, str):
        raise TypeError(f"an initializer must be a name or an Initializer, got {initializer!r}")
    if initializer not in _BY_NAME:
        raise ValueError(f"unknown initializer {initializer!r}; {nearest(initializer, _BY_NAME)}")
    return _BY_NAME[initializer]()
