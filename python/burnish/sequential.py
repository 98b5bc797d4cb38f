"""Layers one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._build import Signature
from ._node import Node
from ._runtime import weak
from .layers.base import Layer, unique_names
from .model import Model, core_of

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Sequential"]


class Sequential(Model):
    """Layers one after another, each taking the value of the one before.

    Parameters
    ----------
    layers : iterable of Layer
        May begin with `bn.Input(shape)`; otherwise the input's shape is learnt from the first data.
    name : str, optional
        The model's name when it is a layer of another one.

    Examples
    --------
    >>> import burnish as bn
    >>> model = bn.Sequential([bn.Input((4,)), bn.layers.Dense(8, activation="relu"), bn.layers.Dense(2)])
    >>> {path: array.shape for path, array in model.parameters().items()}
    {'dense.bias': (8,), 'dense.kernel': (4, 8), 'dense_1.bias': (2,), 'dense_1.kernel': (8, 2)}
    """

    def __init__(self, layers: Iterable[Layer | Node] = (), *, name: str | None = None) -> None:
        super().__init__(name)
        core_of(self).known_inputs = weak(self._known_inputs)
        self._input: Node | None = None
        self._layers: list[Layer] = []
        if isinstance(layers, Layer):
            raise TypeError(f"`layers` must be a list of layers, got {layers!r}")
        for layer in layers:
            self._append(layer)
        unique_names(self._layers)

    @property
    def layers(self) -> list[Layer]:
        """The layers in order."""
        return list(self._layers)

    def add(self, layer: Layer | Node) -> None:
        """Append a layer; not possible once the model is built."""
        unique_names([*self._layers, *([layer] if isinstance(layer, Layer) else [])])
        self._append(layer)

    def _append(self, layer: Layer | Node) -> None:
        if core_of(self).runtime is not None:
            raise ValueError("a layer cannot be added to a model that is built; make a new Sequential of its layers")
        if isinstance(layer, Node):
            if layer.call is not None or self._layers or self._input is not None:
                raise ValueError("only `Input` itself can be given to a Sequential, and only as the first")
            self._input = layer
            return
        if not isinstance(layer, Layer):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"`layers` must hold layers, got {layer!r}")
        self._layers.append(layer)

    def children(self) -> dict[str, Layer]:
        """Return the layers by name."""
        return unique_names(self._layers)

    def call(self, x: Any) -> Any:
        """Compute the model's value."""
        for layer in self._layers:
            x = layer(x)
        return x

    def _known_inputs(self) -> Signature | None:
        return None if self._input is None else Signature("x", {"x": self._input.shape})
