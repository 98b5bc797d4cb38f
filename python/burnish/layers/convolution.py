"""Convolutions, channels last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import activations, initializers, ops, regularizers
from .._errors import boolean, choice, integer
from ._window import check_images, check_sequence, paddings, pair
from .base import OneInput

if TYPE_CHECKING:
    from .._value import Value

__all__ = ["Conv1D", "Conv2D", "DepthwiseConv2D", "SeparableConv2D"]


class Convolution(OneInput):
    """What convolutions share: the kernel's settings, the bias and the activation."""

    def __init__(
        self,
        *,
        activation: activations.Activation,
        use_bias: bool,
        kernel_initializer: Any,
        bias_initializer: Any,
        kernel_regularizer: Any,
        bias_regularizer: Any,
        name: str | None,
    ) -> None:
        super().__init__(name)
        self.activation = activation
        self.use_bias = boolean("use_bias", use_bias)
        self.kernel_initializer = initializers.resolve(kernel_initializer)
        self.bias_initializer = initializers.resolve(bias_initializer)
        self.kernel_regularizer = regularizers.resolve("kernel_regularizer", kernel_regularizer)
        self.bias_regularizer = regularizers.resolve("bias_regularizer", bias_regularizer)
        self._activate = activations.resolve(activation)

    def kernel(self, shape: tuple[int, ...]) -> Value:
        """Declare the kernel."""
        return self.parameter("kernel", shape, self.kernel_initializer, regularizer=self.kernel_regularizer)

    def bias(self, filters: int) -> Value | None:
        """Declare the bias, if there is one."""
        if not self.use_bias:
            return None
        return self.parameter("bias", (filters,), self.bias_initializer, "bias", self.bias_regularizer)

    def convolved(self, x: Any, kernel: Value, bias: Value | None, **options: Any) -> Value:
        """Return activation(x * kernel + bias), in one operation where the activation allows."""
        fused = activations.fused(self.activation)
        y = ops.conv2d(x, kernel, bias, activation=fused or "none", **options)
        return y if fused else self._activate(y)


class Conv2D(Convolution):
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

    Notes
    -----
    On the device "cpu", kernels of 3 by 3 with steps of 1 and multiples of 16 channels are applied to tiles (Winograd's
    F(4x4, 3x3); Lavin and Gray 2016): a quarter of the products, and in float32 about twice the rounding of plain sums,
    some 1e-6 of a typical output.
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
        super().__init__(
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            name=name,
        )
        self.filters, self.groups = checked_filters(filters, groups)
        self.kernel_size = pair("kernel_size", kernel_size)
        self.strides = pair("strides", strides)
        self.padding = choice("padding", padding, ("same", "valid"))
        self.dilation_rate = pair("dilation_rate", dilation_rate)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        check_images(self.default_name, x.shape)
        channels = channels_a_group(self.default_name, x.shape[-1], self.groups)
        return self.convolved(
            x,
            self.kernel((*self.kernel_size, channels, self.filters)),
            self.bias(self.filters),
            strides=self.strides,
            padding=paddings(self.padding, x.shape[1:3], self.kernel_size, self.strides, self.dilation_rate),
            dilation=self.dilation_rate,
            groups=self.groups,
        )


class Conv1D(Convolution):
    """Cross-correlation of sequences with learnt kernels: `(batch, time, in) -> (batch, time', filters)`.

    Parameters
    ----------
    filters : int
        The number of output channels.
    kernel_size, strides, dilation_rate : int
        The kernel's length, its step, and the distance of its taps.
    padding : {"valid", "same", "causal"}
        "valid": the kernel stays inside; "same": zeros on both sides make time' = ceil(time / stride); "causal": zeros
        before, so that no output sees what comes after it.
    groups : int
        Into how many parts input and output channels are split, each seeing only its own.
    activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer
        As for `Dense`; the kernel has the shape (kernel_size, in / groups, filters).
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        padding: str = "valid",
        *,
        dilation_rate: int = 1,
        groups: int = 1,
        activation: activations.Activation = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            name=name,
        )
        self.filters, self.groups = checked_filters(filters, groups)
        self.kernel_size = integer("kernel_size", kernel_size, 1)
        self.strides = integer("strides", strides, 1)
        self.padding = choice("padding", padding, ("causal", "same", "valid"))
        self.dilation_rate = integer("dilation_rate", dilation_rate, 1)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        check_sequence(self.default_name, x.shape)
        length, channels = x.shape[1:]
        shape = self.kernel_size, channels_a_group(self.default_name, channels, self.groups), self.filters
        y = self.convolved(
            ops.reshape(x, (x.shape[0], 1, length, channels)),  # an image one row high
            ops.reshape(self.kernel(shape), (1, *shape)),
            self.bias(self.filters),
            strides=(1, self.strides),
            padding=((0, 0), self._around(length)),
            dilation=(1, self.dilation_rate),
            groups=self.groups,
        )
        return ops.squeeze(y, 1)

    def _around(self, length: int) -> tuple[int, int]:
        if self.padding == "causal":
            return (self.kernel_size - 1) * self.dilation_rate, 0
        row = (1, length), (1, self.kernel_size), (1, self.strides), (1, self.dilation_rate)
        return paddings(self.padding, *row)[1]


class DepthwiseConv2D(Convolution):
    """Cross-correlation of each channel with its own kernels: `(batch, h, w, in) -> (batch, h', w', in · multiplier)`.

    Parameters
    ----------
    kernel_size, strides, padding, dilation_rate
        As for `Conv2D`.
    depth_multiplier : int, default 1
        How many output channels there are for each input channel; they stand together.
    activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer
        As for `Dense`; the kernel has the shape (kh, kw, in, depth_multiplier).
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        *,
        dilation_rate: int | tuple[int, int] = 1,
        activation: activations.Activation = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            name=name,
        )
        self.kernel_size = pair("kernel_size", kernel_size)
        self.strides = pair("strides", strides)
        self.padding = choice("padding", padding, ("same", "valid"))
        self.depth_multiplier = integer("depth_multiplier", depth_multiplier, 1)
        self.dilation_rate = pair("dilation_rate", dilation_rate)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        check_images(self.default_name, x.shape)
        channels = x.shape[-1]
        filters = channels * self.depth_multiplier
        kernel = self.kernel((*self.kernel_size, channels, self.depth_multiplier))
        return self.convolved(
            x,
            ops.reshape(kernel, (*self.kernel_size, 1, filters)),
            self.bias(filters),
            strides=self.strides,
            padding=paddings(self.padding, x.shape[1:3], self.kernel_size, self.strides, self.dilation_rate),
            dilation=self.dilation_rate,
            groups=channels,
        )


class SeparableConv2D(OneInput):
    """A `DepthwiseConv2D` without bias, then a 1 x 1 `Conv2D`: `(batch, h, w, in) -> (batch, h', w', filters)`.

    Parameters
    ----------
    filters : int
        The number of output channels.
    kernel_size, strides, padding, dilation_rate, depth_multiplier
        Of the depthwise part, whose kernel is the parameter `depthwise.kernel`.
    activation, use_bias, bias_initializer, bias_regularizer
        Of the pointwise part, whose kernel is the parameter `pointwise.kernel`.
    depthwise_initializer, pointwise_initializer, depthwise_regularizer, pointwise_regularizer
        As `kernel_initializer` and `kernel_regularizer` of the two parts.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: str = "valid",
        *,
        dilation_rate: int | tuple[int, int] = 1,
        depth_multiplier: int = 1,
        activation: activations.Activation = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.depthwise = DepthwiseConv2D(
            kernel_size,
            strides,
            padding,
            depth_multiplier,
            dilation_rate=dilation_rate,
            use_bias=False,
            kernel_initializer=depthwise_initializer,
            kernel_regularizer=depthwise_regularizer,
        )
        self.pointwise = Conv2D(
            filters,
            1,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=pointwise_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=pointwise_regularizer,
            bias_regularizer=bias_regularizer,
        )

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        return self.pointwise(self.depthwise(x))


def checked_filters(filters: Any, groups: Any) -> tuple[int, int]:
    """Return the number of output channels, and into how many groups they are split evenly."""
    filters, groups = integer("filters", filters, 1), integer("groups", groups, 1)
    if filters % groups:
        raise ValueError(f"`filters` must be a multiple of `groups` ({groups}), got {filters}")
    return filters, groups


def channels_a_group(name: str, channels: int, groups: int) -> int:
    """Return how many input channels a group sees."""
    if channels % groups:
        raise ValueError(f"{name}: expected channels divisible by groups={groups}, got {channels}")
    return channels // groups
