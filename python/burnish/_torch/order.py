"""Where PyTorch holds features in another order: images that become vectors stand channels first there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._document import needed
from .._structure import flatten

if TYPE_CHECKING:
    from .._build import Built
    from .._feed.arrays import Array
    from .._value import Shape

__all__ = ["Orders", "feature_orders"]

# What PyTorch takes and gives channels first, and what it takes and gives features last.
_WINDOWS = frozenset({"conv2d", "max_pool2d", "avg_pool2d"})
_FEATURES = frozenset({"linear", "matmul", "rnn", "gru", "lstm"})


class Orders(NamedTuple):
    """By path: for each feature here, its place in PyTorch, of inputs (rows of kernels) and of outputs (all others)."""

    inputs: dict[str, Array]
    outputs: dict[str, Array]


def feature_orders(built: Built) -> Orders:
    """Follow images through the program to where they become vectors, and vectors to where they become images."""
    return _Walk(built).orders


class _Walk:
    """One walk over the program. A value is images, or has features of which `order` says the places in PyTorch."""

    def __init__(self, built: Built) -> None:
        document = json.loads(built.program.to_json())
        self._program = built.program
        self._items: list[dict[str, Any]] = document["values"]
        self._images: set[int] = set()
        self._order: dict[int, Array] = {}
        self.orders = Orders({}, {})
        targets = [document["outputs"][name] for name in flatten("", built.outputs).values()]
        for index in needed(self._items, targets):
            self._visit(index)

    def _shape(self, index: int) -> Shape:
        return tuple(self._program.shape(index))

    def _inputs(self, index: int) -> list[int]:
        return self._items[index].get("apply", {}).get("inputs", [])

    def _visit(self, index: int) -> None:
        item, shape = self._items[index], self._shape(index)
        if "input" in item and len(shape) == 4:
            self._images.add(index)
        if "apply" not in item:
            return
        operation = item["apply"]["operation"]
        if operation == "reshape":
            self._reshape(index, shape)
        elif operation == "concatenate" and len(shape) == 2:
            self._join(index)
        elif operation in _FEATURES and None in self._shape(self._inputs(index)[0]):
            self._product(index)
        elif operation in _WINDOWS or self._stays_images(index, operation, shape):
            self._images.add(index)
        else:
            self._stays_features(index, shape)

    def _reshape(self, index: int, shape: Shape) -> None:
        (x,) = self._inputs(index)
        given = self._shape(x)
        if x in self._images and len(shape) == 2:
            self._order[index] = _order(given[1:])
        elif x in self._images:
            self._images.add(index)
        elif x in self._order and given == shape:
            self._order[index] = self._order[x]
        elif len(given) == 2 and len(shape) == 4 and x not in self._order:
            self._images.add(index)
            self._demand(x, _order(shape[1:]))

    def _join(self, index: int) -> None:
        """Lay orders side by side where vectors are joined."""
        inputs = self._inputs(index)
        widths = [self._shape(x)[-1] or 0 for x in inputs]
        if any(x in self._order for x in inputs):
            starts = np.cumsum([0, *widths[:-1]])
            parts = [
                self._order.get(x, np.arange(n)) + start for x, n, start in zip(inputs, widths, starts, strict=True)
            ]
            self._order[index] = np.concatenate(parts)

    def _product(self, index: int) -> None:
        x, kernel, *_ = self._inputs(index)
        if x in self._order:
            self._note(self.orders.inputs, kernel, self._order[x])

    def _stays_images(self, index: int, operation: str, shape: Shape) -> bool:
        """Whether a value has places and channels like images that it is made of; transposing them by hand ends it."""
        turned = operation == "transpose" and len(shape) < 5
        return len(shape) > 2 and not turned and any(x in self._images for x in self._inputs(index))

    def _stays_features(self, index: int, shape: Shape) -> None:
        """Hand an order on through what treats every feature alike, and to the parameters beside."""
        inputs = self._inputs(index)
        ordered = [x for x in inputs if x in self._order and self._shape(x) == shape]
        if ordered:
            self._order[index] = self._order[ordered[0]]
            self._give(inputs, self._order[index])

    def _demand(self, index: int, order: Array) -> None:
        """Give an order to what made these features, back to the kernel that did."""
        inputs, operation = self._inputs(index), self._items[index].get("apply", {}).get("operation")
        if operation == "linear":
            self._note(self.orders.outputs, inputs[1], order)
            self._give(inputs[2:], order)
            return
        if operation in _FEATURES:
            return
        self._give(inputs, order)
        for x in inputs:
            if self._shape(x) == self._shape(index):
                self._demand(x, order)

    def _give(self, inputs: list[int], order: Array) -> None:
        """Note the order of parameters with one number a feature, also of those that are combined, as in BatchNorm."""
        for x in inputs:
            if self._shape(x) == order.shape:
                self._note(self.orders.outputs, x, order)
                self._give(self._inputs(x), order)

    def _note(self, orders: dict[str, Array], index: int, order: Array) -> None:
        ((source, fields),) = self._items[index].items()
        if source in {"parameter", "buffer"}:
            orders[fields["path"]] = order


def _order(shape: Shape) -> Array:
    """Return the place, channels first, of each element of a sample that stands channels last."""
    lengths = [length or 1 for length in shape]
    places = np.arange(np.prod(lengths)).reshape(lengths[-1], *lengths[:-1])
    return np.moveaxis(places, 0, -1).ravel()
