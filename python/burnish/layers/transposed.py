"""Transposed convolutions, channels last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import activations, ops
from .._errors import choice, integer
from .._structure import is_sequence
from ._window import check_images, pair
from .convolution import Convolution

if TYPE_CHECKING:
    from .._value import Value

__all__ = ["ConvTranspose2D"]


class ConvTranspose2D(Convolution):
    """The transpose of `Conv2D`, which enlarges images: `(batch, h, w, in) -> (batch, h', w', filters)`.

    y[i · stride + a · dilation] += x[i] · kernel[a] along height and width, for every place i and tap a (Dumoulin and
    Visin 2016, chapter 4; Keras's `Conv2DTranspose`). It is computed as a convolution of the small image with a kernel
    for each place within a step, so that the zeros between its pixels are not multiplied.

    Parameters
    ----------
    filters : int
        The number of output channels.
    kernel_size, strides, dilation_rate : int or pair of int
        Height and width of the kernel, the steps of its places in the output, and the distance of its taps.
    padding : {"valid", "same"}
        With k = (kernel_size - 1) · dilation_rate + 1: "valid" gives h' = (h - 1) · stride + max(k, stride), "same"
        crops it to h · stride.
    output_padding : int or pair of int, optional
        How much larger the output is than (h - 1) · stride + k ("valid") or (h - 1) · stride + k mod 2 ("same"); less
        than the stride.
    activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer
        As for `Dense`; the kernel has Keras's shape (kh, kw, filters, in).
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: str = "valid",
        output_padding: int | tuple[int, int] | None = None,
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
        self.filters = integer("filters", filters, 1)
        self.kernel_size = pair("kernel_size", kernel_size)
        self.strides = pair("strides", strides)
        self.padding = choice("padding", padding, ("same", "valid"))
        self.output_padding = _output_padding(output_padding, self.strides)
        self.dilation_rate = pair("dilation_rate", dilation_rate)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        check_images(self.default_name, x.shape)
        kernel = self.kernel((*self.kernel_size, self.filters, x.shape[-1]))
        taps = _phases(_dilated(kernel, self.dilation_rate), self.strides)
        down, across = ((length or 1) - 1 for length in taps.shape[:2])
        y = ops.conv2d(x, taps, padding=((down, down), (across, across)))
        y = _interleaved(y, self.strides, self.filters)
        for axis in (1, 2):
            y = self._cropped(y, axis, x.shape[axis])
        bias = self.bias(self.filters)
        return self._activate(y if bias is None else y + bias)

    def _cropped(self, y: Value, axis: int, length: int) -> Value:
        """Cut the whole result to the output's length, or add zeros where nothing reaches."""
        stride, size = self.strides[axis - 1], (self.kernel_size[axis - 1] - 1) * self.dilation_rate[axis - 1] + 1
        wanted = self._length(axis, length, stride, size)
        start = max((length - 1) * stride + size - wanted, 0) // 2
        missing = start + wanted - (y.shape[axis] or 0)
        if missing > 0:
            y = ops.pad(y, [(0, missing if n == axis else 0) for n in range(4)])
        return y[:, start : start + wanted] if axis == 1 else y[:, :, start : start + wanted]

    def _length(self, axis: int, length: int, stride: int, size: int) -> int:
        if self.output_padding is None:
            return length * stride if self.padding == "same" else (length - 1) * stride + max(size, stride)
        least = size % 2 if self.padding == "same" else size
        return max((length - 1) * stride + least + self.output_padding[axis - 1], 1)


def _output_padding(given: Any, strides: tuple[int, int]) -> tuple[int, int] | None:
    if given is None:
        return None
    values = given if is_sequence(given) else (given, given)
    if len(values) != 2:
        raise ValueError(f"`output_padding` must be an integer or a pair of them, got {given!r}")
    first, second = (integer("output_padding", value, 0) for value in values)
    if first >= strides[0] or second >= strides[1]:
        raise ValueError(f"`output_padding` must be less than `strides` {strides}, got {(first, second)}")
    return first, second


def _dilated(kernel: Value, dilation: tuple[int, int]) -> Value:
    """Put zeros between the taps."""
    if dilation == (1, 1):
        return kernel
    height, width, filters, channels = kernel.shape
    (down, across), (kh, kw) = dilation, (height or 0, width or 0)
    apart = ops.pad(
        ops.reshape(kernel, (kh, 1, kw, 1, filters, channels)),
        [(0, 0), (0, down - 1), (0, 0), (0, across - 1), (0, 0), (0, 0)],
    )
    whole = ops.reshape(apart, (kh * down, kw * across, filters, channels))
    return whole[: (kh - 1) * down + 1, : (kw - 1) * across + 1]


def _phases(kernel: Value, strides: tuple[int, int]) -> Value:
    """Sort the taps by place within a step: `(kh, kw, filters, in) -> (jh, jw, in, sh · sw · filters)`, flipped."""
    height, width, filters, channels = kernel.shape
    (down, across), (kh, kw) = strides, (height or 0, width or 0)
    steps = -(-kh // down), -(-kw // across)
    padded = ops.pad(kernel, [(0, steps[0] * down - kh), (0, steps[1] * across - kw), (0, 0), (0, 0)])
    apart = ops.reshape(padded, (steps[0], down, steps[1], across, filters, channels))
    ordered = ops.transpose(ops.flip(apart, (0, 2)), (0, 2, 5, 1, 3, 4))
    return ops.reshape(ordered, (*steps, channels, down * across * (filters or 0)))


def _interleaved(y: Value, strides: tuple[int, int], filters: int) -> Value:
    """Lay places within a step side by side: `(batch, h, w, sh · sw · filters) -> (batch, h · sh, w · sw, filters)`."""
    if strides == (1, 1):
        return y
    batch, height, width, _ = y.shape
    (down, across), (h, w) = strides, (height or 0, width or 0)
    apart = ops.transpose(ops.reshape(y, (batch, h, w, down, across, filters)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(apart, (batch, h * down, w * across, filters))
