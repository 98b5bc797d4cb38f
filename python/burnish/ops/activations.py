"""Activations: the functions that layers take by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._value import Operand, Value, apply, binary, cast, shape_of
from .reduction import one_axis

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "celu",
    "elu",
    "gelu",
    "glu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "log_sigmoid",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softplus",
    "softsign",
    "squareplus",
    "tanh",
    "tanh_shrink",
    "threshold",
]

# Klambauer et al. 2017, appendix 1.
_SELU_ALPHA = 1.6732632423543772
_SELU_SCALE = 1.0507009873554805


def relu(x: Operand) -> Value:
    """Return max(x, 0)."""
    return apply("relu", cast(x, "float"))


def relu6(x: Operand) -> Value:
    """Return x held between 0 and 6."""
    return binary("minimum", relu(x), 6.0)


def leaky_relu(x: Operand, slope: float = 0.01) -> Value:
    """Return x where positive and slope · x elsewhere."""
    return apply("leaky_relu", cast(x, "float"), slope=slope)


def elu(x: Operand, alpha: float = 1.0) -> Value:
    """Return x where positive and alpha · (e^x - 1) elsewhere (Clevert et al. 2016)."""
    return apply("elu", cast(x, "float"), alpha=alpha)


def celu(x: Operand, alpha: float = 1.0) -> Value:
    """Return x where positive and alpha · (e^(x / alpha) - 1) elsewhere (Barron 2017)."""
    return binary("multiply", elu(binary("divide", x, alpha, floating=True)), alpha)


def selu(x: Operand) -> Value:
    """Return 1.0507 · elu(x, 1.6733), which keeps mean 0 and variance 1 (Klambauer et al. 2017)."""
    return binary("multiply", elu(x, _SELU_ALPHA), _SELU_SCALE)


def gelu(x: Operand, *, approximate: bool = False) -> Value:
    """Return x · Φ(x), Φ the normal distribution; approximate: by tanh (Hendrycks and Gimpel 2016)."""
    return apply("gelu", cast(x, "float"), approximate=approximate)


def silu(x: Operand) -> Value:
    """Return x · sigmoid(x), also known as swish."""
    return apply("silu", cast(x, "float"))


def mish(x: Operand) -> Value:
    """Return x · tanh(softplus(x)) (Misra 2019)."""
    return binary("multiply", x, tanh(softplus(x)))


def sigmoid(x: Operand) -> Value:
    """Return 1 / (1 + e^-x)."""
    return apply("sigmoid", cast(x, "float"))


def hard_sigmoid(x: Operand) -> Value:
    """Return x / 6 + 1/2 held between 0 and 1."""
    moved = binary("add", binary("divide", x, 6.0, floating=True), 0.5)
    return binary("minimum", binary("maximum", moved, 0.0), 1.0)


def hard_silu(x: Operand) -> Value:
    """Return x · hard_sigmoid(x), also known as hard swish (Howard et al. 2019)."""
    return binary("multiply", x, hard_sigmoid(x))


def hard_tanh(x: Operand) -> Value:
    """Return x held between -1 and 1."""
    return binary("minimum", binary("maximum", cast(x, "float"), -1.0), 1.0)


def log_sigmoid(x: Operand) -> Value:
    """Return log sigmoid(x) = -log(1 + e^-x) without overflow."""
    return apply("neg", softplus(apply("neg", cast(x, "float"))))


def glu(x: Operand, axis: int = -1) -> Value:
    """Return a · sigmoid(b), a and b the halves of x along an axis (Dauphin et al. 2017): `(…, 2n) -> (…, n)`."""
    shape, place = shape_of(x), one_axis(x, axis)
    length = shape[place]
    if length is None or length % 2:
        raise ValueError(f"glu needs an even length of axis {axis}, got shape {shape}")
    starts, stops = [0] * len(shape), list(shape)
    half, steps = length // 2, [1] * len(shape)
    first = apply("slice", x, starts=starts, stops=_with(stops, place, half), steps=steps)
    second = apply("slice", x, starts=_with(starts, place, half), stops=stops, steps=steps)
    return binary("multiply", first, sigmoid(second))


def tanh(x: Operand) -> Value:
    """Return the hyperbolic tangent of x."""
    return apply("tanh", cast(x, "float"))


def softplus(x: Operand) -> Value:
    """Return log(1 + e^x) without overflow."""
    return apply("softplus", cast(x, "float"))


def softsign(x: Operand) -> Value:
    """Return x / (1 + |x|)."""
    return binary("divide", x, binary("add", apply("abs", cast(x, "float")), 1.0), floating=True)


def tanh_shrink(x: Operand) -> Value:
    """Return x - tanh(x)."""
    return binary("subtract", x, tanh(x))


def hard_shrink(x: Operand, threshold: float = 0.5) -> Value:
    """Return x where |x| > threshold and 0 elsewhere."""
    small = binary("less_equal", apply("abs", cast(x, "float")), threshold)
    return apply("where", small, 0.0, cast(x, "float"))  # so that NaN stays NaN


def soft_shrink(x: Operand, threshold: float = 0.5) -> Value:
    """Return x moved towards 0 by threshold, and 0 where it would pass it."""
    return binary("subtract", relu(binary("subtract", x, threshold)), relu(binary("subtract", -threshold, x)))


def squareplus(x: Operand, b: float = 4.0) -> Value:
    """Return (x + sqrt(x² + b)) / 2, a smooth relu without exponentials (Barron 2021)."""
    root = apply("sqrt", binary("add", apply("square", cast(x, "float")), b))
    return binary("divide", binary("add", x, root), 2.0, floating=True)


def threshold(x: Operand, threshold: float = 1.0, value: float = 0.0) -> Value:
    """Return x where it is above threshold and value elsewhere."""
    return apply("where", binary("less_equal", x, threshold), float(value), cast(x, "float"))  # NaN stays NaN


def _with(entries: Sequence[int | None], place: int, entry: int) -> list[int | None]:
    return [entry if index == place else old for index, old in enumerate(entries)]
