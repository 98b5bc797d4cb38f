"""Softmax, layer normalisation, and the cross-entropy of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    "cross_entropy": _cross_entropy,
}
