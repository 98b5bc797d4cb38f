"""Activations as layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import activations, ops
from .._errors import number
from .base import OneInput

if TYPE_CHECKING:
    from .._value import Value

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "Activation",
    "LeakyReLU",
    "LogSoftmax",
    "Mish",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "Tanh",
]


class Activation(OneInput):
    """Apply an activation by name ("relu", "gelu", "softmax", …) or any function of a value."""

    def __init__(self, activation: activations.Activation, *, name: str | None = None) -> None:
        super().__init__(name)
        self._activate = activations.resolve(activation)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return self._activate(x)


class _Named(OneInput):
    _activation = ""

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return activations.resolve(self._activation)(x)


class ReLU(_Named):
    """max(x, 0)."""

    _activation = "relu"


class Sigmoid(_Named):
    """1 / (1 + e^-x)."""

    _activation = "sigmoid"


class Tanh(_Named):
    """The hyperbolic tangent."""

    _activation = "tanh"


class Softplus(_Named):
    """log(1 + e^x)."""

    _activation = "softplus"


class Softsign(_Named):
    """x / (1 + |x|)."""

    _activation = "softsign"


class SiLU(_Named):
    """x · sigmoid(x)."""

    _activation = "silu"


class Mish(_Named):
    """x · tanh(softplus(x)) (Misra 2019)."""

    _activation = "mish"


class SELU(_Named):
    """1.0507 · elu(x, 1.6733) (Klambauer et al. 2017)."""

    _activation = "selu"


class GELU(OneInput):
    """x · Φ(x); `approximate=True` computes it by tanh (Hendrycks and Gimpel 2016)."""

    def __init__(self, *, approximate: bool = False, name: str | None = None) -> None:
        super().__init__(name)
        self.approximate = approximate

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return ops.gelu(x, approximate=self.approximate)


class LeakyReLU(OneInput):
    """x where positive, negative_slope · x elsewhere; the slope's default is Keras's."""

    def __init__(self, negative_slope: float = 0.3, *, name: str | None = None) -> None:
        super().__init__(name)
        self.negative_slope = number("negative_slope", negative_slope)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return ops.leaky_relu(x, self.negative_slope)


class ELU(OneInput):
    """x where positive, alpha · (e^x - 1) elsewhere (Clevert et al. 2016)."""

    def __init__(self, alpha: float = 1.0, *, name: str | None = None) -> None:
        super().__init__(name)
        self.alpha = number("alpha", alpha)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return ops.elu(x, self.alpha)


class Softmax(OneInput):
    """exp(x) / Σ exp(x) along an axis. Losses here take logits: leave it out before `cross_entropy`."""

    def __init__(self, axis: int = -1, *, name: str | None = None) -> None:
        super().__init__(name)
        self.axis = axis

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return ops.softmax(x, self.axis)


class LogSoftmax(OneInput):
    """x - log Σ exp(x) along an axis."""

    def __init__(self, axis: int = -1, *, name: str | None = None) -> None:
        super().__init__(name)
        self.axis = axis

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return ops.log_softmax(x, self.axis)
