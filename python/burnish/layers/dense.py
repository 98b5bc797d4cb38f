"""Fully connected layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import activations, initializers, ops, regularizers
from .._errors import boolean, integer
from ..losses import show
from .base import OneInput

if TYPE_CHECKING:
    from .._value import Value

__all__ = ["Dense"]


class Dense(OneInput):
    """activation(x · kernel + bias) over the last axis: `(batch, …, in) -> (batch, …, units)`.

    Parameters
    ----------
    units : int
        The number of outputs.
    activation : str or function, optional
        Applied to the result; see `bn.layers.Activation`.
    use_bias : bool, default True
        Whether a bias is added.
    kernel_initializer, bias_initializer : str or Initializer
        How the parameters `kernel (in, units)` and `bias (units,)` start.
    kernel_regularizer, bias_regularizer : str or function, optional
        Penalties on their size, added to the loss; see `bn.regularizers`.
    """

    def __init__(
        self,
        units: int,
        activation: activations.Activation = None,
        use_bias: bool = True,  # noqa: FBT001, FBT002  Keras's order
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        *,
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.units = integer("units", units, 1)
        self.activation = activation
        self.use_bias = boolean("use_bias", use_bias)
        self.kernel_initializer = initializers.resolve(kernel_initializer)
        self.bias_initializer = initializers.resolve(bias_initializer)
        self.kernel_regularizer = regularizers.resolve("kernel_regularizer", kernel_regularizer)
        self.bias_regularizer = regularizers.resolve("bias_regularizer", bias_regularizer)
        self._activate = activations.resolve(activation)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        if x.ndim < 2:
            raise ValueError(f"{self.default_name}: expected an input of shape (batch, features), got {show(x.shape)}")
        shape, penalty = (x.shape[-1], self.units), self.kernel_regularizer
        kernel = self.parameter("kernel", shape, self.kernel_initializer, regularizer=penalty)
        bias = self._bias() if self.use_bias else None
        fused = activations.fused(self.activation)
        y = ops.linear(x, kernel, bias, fused or "none")
        return y if fused else self._activate(y)

    def _bias(self) -> Value:
        return self.parameter("bias", (self.units,), self.bias_initializer, "bias", self.bias_regularizer)
