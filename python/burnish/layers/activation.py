"""Activations as layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import activations, initializers, ops, regularizers
from .._errors import integer, number
from .._structure import is_sequence
from ..losses import show
from .base import OneInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._value import Value

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "Activation",
    "HardShrink",
    "HardSiLU",
    "HardSigmoid",
    "HardTanh",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "SoftShrink",
    "Softmax",
    "Softplus",
    "Softsign",
    "Squareplus",
    "Tanh",
    "TanhShrink",
    "Threshold",
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


class ReLU(OneInput):
    """max(x, 0); or x from `threshold` on, negative_slope · (x - threshold) below, and at most `max_value`.

    Parameters
    ----------
    max_value : float, optional
        The greatest value that comes out.
    negative_slope : float, default 0
        The slope below the threshold.
    threshold : float, default 0
        What is smaller counts as negative.
    """

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.max_value = None if max_value is None else number("max_value", max_value, 0)
        self.negative_slope = number("negative_slope", negative_slope, 0)
        self.threshold = number("threshold", threshold)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        if self.threshold:
            below = self.negative_slope * (x - self.threshold) if self.negative_slope else 0.0
            y = ops.where(ops.greater_equal(x, self.threshold), x, below)
        else:
            y = ops.leaky_relu(x, self.negative_slope) if self.negative_slope else ops.relu(x)
        return y if self.max_value is None else ops.minimum(y, self.max_value)


class ReLU6(_Named):
    """x held between 0 and 6."""

    _activation = "relu6"


class HardSigmoid(_Named):
    """x / 6 + 1/2 held between 0 and 1."""

    _activation = "hard_sigmoid"


class HardSiLU(_Named):
    """x · hard_sigmoid(x), also known as hard swish (Howard et al. 2019)."""

    _activation = "hard_silu"


class HardTanh(_Named):
    """x held between -1 and 1."""

    _activation = "hard_tanh"


class LogSigmoid(_Named):
    """log sigmoid(x), without overflow."""

    _activation = "log_sigmoid"


class TanhShrink(_Named):
    """x - tanh(x)."""

    _activation = "tanh_shrink"


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


class CELU(OneInput):
    """x where positive, alpha · (e^(x / alpha) - 1) elsewhere (Barron 2017)."""

    def __init__(self, alpha: float = 1.0, *, name: str | None = None) -> None:
        super().__init__(name)
        self.alpha = number("alpha", alpha, 0, above=True)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return ops.celu(x, self.alpha)


class GLU(OneInput):
    """a · sigmoid(b), a and b the halves of x along an axis: `(…, 2n) -> (…, n)` (Dauphin et al. 2017)."""

    def __init__(self, axis: int = -1, *, name: str | None = None) -> None:
        super().__init__(name)
        self.axis = axis

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return ops.glu(x, self.axis)


class HardShrink(OneInput):
    """x where |x| > threshold, 0 elsewhere; the threshold's default is PyTorch's."""

    def __init__(self, threshold: float = 0.5, *, name: str | None = None) -> None:
        super().__init__(name)
        self.threshold = number("threshold", threshold, 0)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return ops.hard_shrink(x, self.threshold)


class SoftShrink(OneInput):
    """x moved towards 0 by threshold, 0 where it would pass it; the threshold's default is PyTorch's."""

    def __init__(self, threshold: float = 0.5, *, name: str | None = None) -> None:
        super().__init__(name)
        self.threshold = number("threshold", threshold, 0)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return ops.soft_shrink(x, self.threshold)


class Squareplus(OneInput):
    """(x + sqrt(x² + b)) / 2, a smooth relu without exponentials (Barron 2021)."""

    def __init__(self, b: float = 4.0, *, name: str | None = None) -> None:
        super().__init__(name)
        self.b = number("b", b, 0)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return ops.squareplus(x, self.b)


class Threshold(OneInput):
    """x where it is above `threshold`, `value` elsewhere."""

    def __init__(self, threshold: float, value: float, *, name: str | None = None) -> None:
        super().__init__(name)
        self.threshold = number("threshold", threshold)
        self.value = number("value", value)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return ops.threshold(x, self.threshold, self.value)


class PReLU(OneInput):
    """x where positive, alpha · x elsewhere, with a learnt slope alpha (He et al. 2015).

    Parameters
    ----------
    alpha_initializer : str or Initializer, default "zeros"
        How the slopes start; the parameter `alpha` has a sample's shape. (PyTorch starts at 0.25.)
    alpha_regularizer : str or function, optional
        A penalty on their size, added to the loss; see `bn.regularizers`.
    shared_axes : int or sequence of int, optional
        Axes along which one slope is shared, counted from 1: (1, 2) makes one a channel of images.
    """

    def __init__(
        self,
        alpha_initializer: Any = "zeros",
        alpha_regularizer: Any = None,
        *,
        shared_axes: int | Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.alpha_initializer = initializers.resolve(alpha_initializer)
        self.alpha_regularizer = regularizers.resolve("alpha_regularizer", alpha_regularizer)
        axes = () if shared_axes is None else shared_axes if is_sequence(shared_axes) else (shared_axes,)
        self.shared_axes = tuple(integer("shared_axes", axis, 1) for axis in axes)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        if any(axis >= x.ndim for axis in self.shared_axes):
            raise ValueError(f"{self.default_name}: `shared_axes` {self.shared_axes} are not all in {show(x.shape)}")
        shape = [1 if axis in self.shared_axes else length for axis, length in enumerate(x.shape[1:], 1)]
        alpha = self.parameter("alpha", shape, self.alpha_initializer, "scale", self.alpha_regularizer)
        return ops.relu(x) - alpha * ops.relu(-x)


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
