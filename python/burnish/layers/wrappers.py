"""Layers around functions and other layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Layer, OneInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._value import Value

__all__ = ["Lambda", "Residual"]


class Lambda(Layer):
    """Any function of values made of `bn.ops`, as a layer. It is kept in a saved model, as what it wrote."""

    def __init__(self, function: Callable[..., Value], *, name: str | None = None) -> None:
        super().__init__(name)
        if not callable(function):
            raise TypeError(f"`function` must be callable, got {function!r}")
        self.function = function

    def call(self, *inputs: Any) -> Value:
        """Compute the layer's value."""
        return self.function(*inputs)


class Residual(OneInput):
    """x + layer(x) (He et al. 2016); the layer, often a `Sequential`, keeps the shape of x."""

    def __init__(self, layer: Layer, *, name: str | None = None) -> None:
        super().__init__(name)
        if not isinstance(layer, Layer):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"`layer` must be a Layer, got {layer!r}")
        self.layer = layer

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        y = self.layer(x)
        if y.shape != x.shape:
            raise ValueError(f"{self.default_name}: the layer must keep the shape {x.shape}, got {y.shape}")
        return x + y
