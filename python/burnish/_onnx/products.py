"""Products of matrices, the affine map of dense layers, and attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .elementwise import activated
from .random import dropped

if TYPE_CHECKING:
    from .graph import Apply, Emit, Graph

__all__ = ["OPERATIONS"]


def _matmul(graph: Graph, node: Apply) -> str:
    return graph.emit("MatMul", *map(graph.last, node.inputs))


def _linear(graph: Graph, node: Apply) -> str:
    x, kernel, *bias = map(graph.last, node.inputs)
    if len(node.shape) == 2:
        y = graph.emit("Gemm", x, kernel, *bias)
    else:
        y = graph.emit("MatMul", x, kernel)
        y = graph.emit("Add", y, *bias) if bias else y
    return activated(graph, y, node.attributes.get("activation", "none"))


def _attention(graph: Graph, node: Apply) -> str:
    """Write softmax(scale · Q · Kᵀ) · V head by head; what is masked scores less than all else."""
    heads = graph.ints(0, 0, node.attributes["heads"], -1)
    query, key, value = (graph.emit("Reshape", graph.last(operand), heads) for operand in node.inputs[:3])
    query, value = (graph.emit("Transpose", x, perm=[0, 2, 1, 3]) for x in (query, value))
    scores = graph.emit("MatMul", query, graph.emit("Transpose", key, perm=[0, 2, 3, 1]))
    scores = graph.emit("Mul", scores, graph.constant(node.attributes["scale"]))
    masks = [graph.last(operand) for operand in node.inputs[3:]]
    if node.attributes.get("causal", False):
        masks.append(graph.constant(np.tri(node.inputs[0].shape[1] or 0, node.inputs[1].shape[1], dtype=bool), "bool"))
    if masks:
        mask = graph.emit("And", *masks) if len(masks) == 2 else masks[0]
        scores = graph.emit("Where", mask, scores, graph.constant(-1e30))
    weights = graph.emit("Softmax", scores, axis=-1)
    if node.attributes.get("dropout", 0.0):
        weights = dropped(graph, weights, node.attributes["dropout"])
    joined = graph.emit("MatMul", weights, value)
    return graph.emit("Reshape", graph.emit("Transpose", joined, perm=[0, 2, 1, 3]), graph.ints(0, 0, -1))


OPERATIONS: dict[str, Emit] = {"attention": _attention, "matmul": _matmul, "linear": _linear}
