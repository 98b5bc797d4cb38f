"""How parameters start: names such as "glorot_uniform", objects where a number is to be given, or your own functions.

A function of your own takes the shape and a NumPy generator, and returns an array or `bn.Tensor` of that shape. It is
called once, when the model is built; the generator's numbers depend on the model's seed and the parameter's path alone.

>>> import burnish as bn
>>> def halves(shape, rng):
...     return rng.choice([-0.5, 0.5], size=shape)
>>> model = bn.Sequential([bn.Input((3,)), bn.layers.Dense(2, kernel_initializer=halves)])
>>> abs(model.parameters()["dense.kernel"]).tolist()
[[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]

The fan of a kernel of shape (..., in, out) is in (or out) times the product of the leading axes, as in Keras.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ._errors import nearest, number

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

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
    "UnitForget",
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


class Own(Initializer):
    """A function of the user's, `(shape, rng) -> array`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def config(self) -> str:
        """Return what the engine fills the array with until it is given the function's numbers."""
        return json.dumps({"name": "zeros"})

    def drawn(self, path: str, shape: tuple[int, ...], seed: int) -> npt.NDArray[Any]:
        """Return the numbers that the parameter or buffer of this path starts with."""
        words = np.frombuffer(hashlib.sha256(path.encode()).digest(), "<u4")
        array = np.asarray(self.function(shape, np.random.default_rng([seed, *map(int, words)])))
        if array.dtype.kind not in "biuf" or array.shape != shape:
            got = f"{array.dtype} of shape {array.shape}"
            raise ValueError(f"the initializer of {path!r} must return numbers of shape {shape}, got {got}")
        if not np.isfinite(array).all():
            raise ValueError(f"the initializer of {path!r} returned numbers that are not finite")
        return np.asarray(array, array.dtype if array.dtype.kind == "f" else np.float64)

    def __repr__(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)


class UnitForget(Initializer):
    """Like `rest`, but 1 in the second quarter: an LSTM's bias with open forget gates (Jozefowicz et al. 2015)."""

    name = "unit_forget"

    def __init__(self, rest: Any = "zeros") -> None:
        super().__init__()
        self.rest = resolve(rest)
        if isinstance(self.rest, Own):
            raise TypeError(f"`rest` must be a name or an Initializer, got the function {rest!r}")

    def config(self) -> str:
        """Return the description that the engine reads."""
        return json.dumps({"name": self.name, "rest": json.loads(self.rest.config())})

    def __repr__(self) -> str:
        return f"UnitForget({self.rest!r})"


def with_open_forget_gates(rest: Initializer) -> Initializer:
    """Return how an LSTM's bias starts: like `rest`, be it a function of the user's, but 1 in the second quarter."""
    if not isinstance(rest, Own):
        return UnitForget(rest)

    def function(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[Any]:
        array = np.array(rest.function(shape, rng), ndmin=1)
        array[array.shape[0] // 4 : array.shape[0] // 2] = 1
        return array

    return Own(function)


_BY_NAME: dict[str, type[Initializer]] = {
    cls.name: cls
    for cls in globals().copy().values()
    if isinstance(cls, type) and issubclass(cls, Initializer) and cls.name and cls is not Constant
}


def resolve(initializer: Any) -> Initializer:
    """Return the initializer that is meant by a name, an object or a function."""
    if isinstance(initializer, Initializer):
        return initializer
    if isinstance(initializer, type) and initializer in _BY_NAME.values():
        return initializer()  # type: ignore[no-any-return]
    if callable(initializer) and not isinstance(initializer, type):
        return Own(initializer)
    if not isinstance(initializer, str):
        raise TypeError(f"an initializer must be a name, an Initializer or a function, got {initializer!r}")
    if initializer not in _BY_NAME:
        raise ValueError(f"unknown initializer {initializer!r}; {nearest(initializer, _BY_NAME)}")
    return _BY_NAME[initializer]()
