"""Sums, means and extremes over axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .graph import First

if TYPE_CHECKING:
    from .graph import Apply, Emit, Graph, Operand

__all__ = ["OPERATIONS", "position"]

_PLACES = {1, 2}  # the axes of images that are neither samples nor channels


def position(axis: int, rank: int) -> int:
    """Return the axis that a possibly negative number names."""
    return axis + rank if axis < 0 else axis


def _reduce(type_: str) -> Emit:
    def emit(graph: Graph, node: Apply) -> str:
        (x,), keep = node.inputs, bool(node.attributes.get("keepdims", False))
        rank = len(x.shape)
        given = node.attributes.get("axes")
        axes = sorted(range(rank) if given is None else (position(axis, rank) for axis in given))
        if not axes:
            return graph.last(x)
        if x.only_first and set(axes) == _PLACES:
            # Over all places samples and channels remain, in the same order whichever stood last.
            y = graph.emit(type_, x.first, graph.ints(2, 3), keepdims=int(keep))
            return First(y) if keep else y
        return graph.emit(type_, graph.last(x), graph.ints(*axes), keepdims=int(keep))

    return emit


def _place(type_: str) -> Emit:
    def emit(graph: Graph, node: Apply) -> str:
        x, axis = _along(graph, node.inputs[0], node)
        return graph.emit(type_, x, axis=axis, keepdims=0)

    return emit


def _logsumexp(graph: Graph, node: Apply) -> str:
    x, axis = _along(graph, node.inputs[0], node)
    return graph.emit("ReduceLogSumExp", x, graph.ints(axis), keepdims=int(node.attributes.get("keepdims", False)))


def _along(graph: Graph, x: Operand, node: Apply) -> tuple[str, int]:
    return graph.last(x), position(node.attributes.get("axis", -1), len(x.shape))


OPERATIONS: dict[str, Emit] = {
    "sum": _reduce("ReduceSum"),
    "mean": _reduce("ReduceMean"),
    "max": _reduce("ReduceMax"),
    "min": _reduce("ReduceMin"),
    "argmax": _place("ArgMax"),
    "argmin": _place("ArgMin"),
    "logsumexp": _logsumexp,
}
