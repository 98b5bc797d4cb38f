"""Functions of two numbers, comparisons, truth values, choices, and changes of kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .graph import TYPES

if TYPE_CHECKING:
    from .graph import Apply, Emit, Graph

__all__ = ["OPERATIONS"]

_SAME = {
    "add": "Add",
    "subtract": "Sub",
    "multiply": "Mul",
    "divide": "Div",
    "power": "Pow",
    "maximum": "Max",
    "minimum": "Min",
    "equal": "Equal",
    "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
    "less": "Less",
    "less_equal": "LessOrEqual",
    "logical_and": "And",
    "logical_or": "Or",
    "logical_not": "Not",
    "where": "Where",
}


def _same(type_: str) -> Emit:
    def emit(graph: Graph, node: Apply) -> str:
        names, marked = graph.aligned(node.inputs)
        return marked(graph.emit(type_, *names))

    return emit


def _not_equal(graph: Graph, node: Apply) -> str:
    names, marked = graph.aligned(node.inputs)
    return marked(graph.emit("Not", graph.emit("Equal", *names)))


def _cast(graph: Graph, node: Apply) -> str:
    (x,), marked = graph.aligned(node.inputs)
    return marked(x if node.inputs[0].kind == node.kind else graph.emit("Cast", x, to=TYPES[node.kind]))


OPERATIONS: dict[str, Emit] = {
    **{name: _same(type_) for name, type_ in _SAME.items()},
    "not_equal": _not_equal,
    "cast": _cast,
}
