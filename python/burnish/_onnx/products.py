"""Products of matrices, and the affine map of dense layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .elementwise import activated

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


OPERATIONS: dict[str, Emit] = {"matmul": _matmul, "linear": _linear}
