"""Noise that a model draws when it predicts. Its numbers are the runtime's: other ones than the engine draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .graph import Apply, Emit, Graph

__all__ = ["OPERATIONS"]


def _like(type_: str) -> Emit:
    def emit(graph: Graph, node: Apply) -> str:
        (x,), marked = graph.aligned(node.inputs)
        return marked(graph.emit(type_, x))

    return emit


def _dropout(graph: Graph, node: Apply) -> str:
    (x,), marked = graph.aligned(node.inputs)
    rate = graph.constant(node.attributes["rate"])
    return marked(graph.emit("Dropout", x, rate, graph.constant(True, "bool")))  # noqa: FBT003


OPERATIONS: dict[str, Emit] = {
    "dropout": _dropout,
    "random_normal_like": _like("RandomNormalLike"),
    "random_uniform_like": _like("RandomUniformLike"),
}
