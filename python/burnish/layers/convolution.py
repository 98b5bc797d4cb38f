"""Convolutions, channels last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import activations, initializers, ops, regularizers
from .._errors import boolean, choice, integer
from ._window import check_images, paddings, pair
from .base import OneInput

if TYPE_CHECKING:
    from .._value import Value

__all__ = ["Conv2D"]


class Conv2D(OneInput):
    """Cross-correlation of images with learnt kernels: `(batch, h, w, in) -> (batch, h', w', filters)`.

    Parameters
    ----------
    filters : int
        The number of output channels.
    kernel_size, strides, dilation_rate : int or pair of int
        Height and width of the kernel, its steps, and the distance of its taps.
    padding : {"valid", "same"}
        "valid": the kernel stays inside; "same": zeros are added so that h' = ceil(h / stride).
    groups : int
        Into how many parts input and output channels are split, each seeing only its own.
    activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer
        As for `Dense`; the kernel has the shape (kh, kw, in / groups, filters).
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: str = "valid",
        *,
        dilation_rate: int | tuple[int, int] = 1,
        groups: int = 1,
        activation: activations.Activation = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.filters = integer("filters", filters, 1)
        self.kernel_size = pair("kernel_size", kernel_size)
        self.strides = pair("strides", strides)
        self.padding = choice("padding", padding, ("same", "valid"))
        self.dilation_rate = pair("dilation_rate", dilation_rate)
        self.groups = integer("groups", groups, 1)
        if self.filters % self.groups:
            raise ValueError(f"`filters` must be a multiple of `groups` ({groups}), got {filters}")
        self.activation = activation
        self.use_bias = boolean("use_bias", use_bias)
        self.kernel_initializer = initializers.resolve(kernel_initializer)
        self.bias_initializer = initializers.resolve(bias_initializer)
        self.kernel_regularizer = regularizers.resolve("kernel_regularizer", kernel_regularizer)
        self.bias_regularizer = regularizers.resolve("bias_regularizer", bias_regularizer)
        self._activate = activations.resolve(activation)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        check_images(self.default_name, x.shape)
        channels = x.shape[-1]
        if channels % self.groups:
            raise ValueError(
                f"{self.default_name}: expected channels divisible by groups={self.groups}, got {channels}"
            )
        shape = (*self.kernel_size, channels // self.groups, self.filters)
        kernel = self.parameter("kernel", shape, self.kernel_initializer, regularizer=self.kernel_regularizer)
        bias = self._bias() if self.use_bias else None
        fused = activations.fused(self.activation)
        y = ops.conv2d(
            x,
            kernel,
            bias,
            strides=self.strides,
            padding=paddings(self.padding, x.shape[1:3], self.kernel_size, self.strides, self.dilation_rate),
            dilation=self.dilation_rate,
            groups=self.groups,
            activation=fused or "none",
        )
        return y if fused else self._activate(y)

    def _bias(self) -> Value:
        return self.parameter("bias", (self.filters,), self.bias_initializer, "bias", self.bias_regularizer)
