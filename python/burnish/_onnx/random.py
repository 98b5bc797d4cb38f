"""Noise that a model draws when it predicts. Its numbers are the runtime's: other ones than the engine draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .graph import Apply, Emit, Graph

__all__ = ["OPERATIONS", "dropped"]


def _like(type_: str) -> Emit:
    def emit(graph: Graph, node: Apply) -> str:
        (x,), marked = graph.aligned(node.inputs)
        return marked(graph.emit(type_, x))

    return emit


def _dropout(graph: Graph, node: Apply) -> str:
    (x,), marked = graph.aligned(node.inputs)
    return marked(dropped(graph, x, node.attributes["rate"]))


def dropped(graph: Graph, x: str, rate: float) -> str:
    """Return the name of a value of which a part is set to 0, and the rest scaled."""
    return graph.emit("Dropout", x, graph.constant(rate), graph.constant(True, "bool"))  # noqa: FBT003


OPERATIONS: dict[str, Emit] = {
    "dropout": _dropout,
    "random_normal_like": _like("RandomNormalLike"),
    "random_uniform_like": _like("RandomUniformLike"),
}
