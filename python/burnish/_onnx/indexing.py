"""Picking values by integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .reduction import position

if TYPE_CHECKING:
    from .graph import Apply, Emit, Graph

__all__ = ["OPERATIONS"]


def _take(graph: Graph, node: Apply) -> str:
    table, ids = node.inputs
    axis = position(node.attributes.get("axis", 0), len(table.shape))
    return graph.emit("Gather", graph.last(table), graph.last(ids), axis=axis)


def _take_along_axis(graph: Graph, node: Apply) -> str:
    x, indices = node.inputs
    axis = position(node.attributes.get("axis", -1), len(x.shape))
    return graph.emit("GatherElements", graph.last(x), graph.last(indices), axis=axis)


def _one_hot(graph: Graph, node: Apply) -> str:
    depth = graph.constant(node.attributes["depth"], "int")
    return graph.emit("OneHot", graph.last(node.inputs[0]), depth, graph.constant([0.0, 1.0]))


OPERATIONS: dict[str, Emit] = {"take": _take, "take_along_axis": _take_along_axis, "one_hot": _one_hot}
