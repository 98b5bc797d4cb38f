"""Softmax, layer and batch normalisation, and the cross-entropy of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .elementwise import activated
from .graph import First
from .reduction import position

if TYPE_CHECKING:
    from .graph import Apply, Emit, Graph

__all__ = ["OPERATIONS"]


def _softmax(type_: str) -> Emit:
    def emit(graph: Graph, node: Apply) -> str:
        axis = position(node.attributes.get("axis", -1), len(node.shape))
        return graph.emit(type_, graph.last(node.inputs[0]), axis=axis)

    return emit


def _layer_norm(graph: Graph, node: Apply) -> str:
    epsilon = float(node.attributes.get("eps", 1e-5))
    return graph.emit("LayerNormalization", *map(graph.last, node.inputs), axis=-1, epsilon=epsilon)


def _batch_norm(graph: Graph, node: Apply) -> str:
    """Write one node, which runtimes fold into the convolution before it, where the channels stand second."""
    x, mean, variance, scale, offset = node.inputs
    epsilon = float(node.attributes.get("eps", 1e-5))
    numbers = [graph.last(each) for each in (scale, offset, mean, variance)]
    activation = node.attributes.get("activation", "none")
    if x.only_first or len(x.shape) == 2:
        images = graph.first(x) if x.only_first else graph.last(x)
        y = activated(graph, graph.emit("BatchNormalization", images, *numbers, epsilon=epsilon), activation)
        return First(y) if x.only_first else y
    scale, offset, mean, variance = numbers
    spread = graph.emit("Sqrt", graph.emit("Add", variance, graph.constant(epsilon)))
    scaled = graph.emit("Mul", graph.emit("Sub", graph.last(x), mean), graph.emit("Div", scale, spread))
    return activated(graph, graph.emit("Add", scaled, offset), activation)


def _moments(graph: Graph, node: Apply) -> str:
    x, rank = graph.last(node.inputs[0]), len(node.inputs[0].shape)
    axes = graph.ints(*range(rank - 1))
    mean = graph.emit("ReduceMean", x, axes, keepdims=1)
    centred = graph.emit("Sub", x, mean)
    squares = graph.emit("ReduceSum", graph.emit("Mul", centred, centred), axes, keepdims=1)
    rows = graph.emit("Div", graph.emit("Size", x), graph.ints(node.shape[-1] or 0))
    fewer = graph.emit("Max", graph.emit("Sub", rows, graph.ints(1)), graph.ints(1))
    variances = [graph.emit("Div", squares, graph.emit("CastLike", count, x)) for count in (rows, fewer)]
    matrices = [graph.emit("Reshape", each, graph.ints(1, -1)) for each in (mean, *variances)]
    return graph.emit("Concat", *matrices, axis=0)


def _cross_entropy(graph: Graph, node: Apply) -> str:
    """Write -(1 - s) · log p[label] - s · mean(log p)."""
    logits, labels = map(graph.last, node.inputs)
    last = graph.ints(-1)
    logarithms = graph.emit("LogSoftmax", logits, axis=-1)
    picked = graph.emit("GatherElements", logarithms, graph.emit("Unsqueeze", labels, last), axis=-1)
    loss = graph.emit("Neg", graph.emit("Squeeze", picked, last))
    smoothing = node.attributes.get("label_smoothing", 0.0)
    if not smoothing:
        return loss
    even = graph.emit("Neg", graph.emit("ReduceMean", logarithms, last, keepdims=0))
    parts = [(loss, 1 - smoothing), (even, smoothing)]
    return graph.emit("Add", *(graph.emit("Mul", part, graph.constant(weight)) for part, weight in parts))


OPERATIONS: dict[str, Emit] = {
    "softmax": _softmax("Softmax"),
    "log_softmax": _softmax("LogSoftmax"),
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "moments": _moments,
    "cross_entropy": _cross_entropy,
}
