"""Activations: the functions that layers take by name."""

from __future__ import annotations

from .._value import Operand, Value, apply, binary, cast

__all__ = [
    "elu",
    "gelu",
    "hard_sigmoid",
    "leaky_relu",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softsign",
    "tanh",
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


def tanh(x: Operand) -> Value:
    """Return the hyperbolic tangent of x."""
    return apply("tanh", cast(x, "float"))


def softplus(x: Operand) -> Value:
    """Return log(1 + e^x) without overflow."""
    return apply("softplus", cast(x, "float"))


def softsign(x: Operand) -> Value:
    """Return x / (1 + |x|)."""
    return binary("divide", x, binary("add", apply("abs", cast(x, "float")), 1.0), floating=True)
