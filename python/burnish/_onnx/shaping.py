"""Views, joins and parts; an axis of the batch is never written as a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .graph import First
from .reduction import position

if TYPE_CHECKING:
    from .graph import Apply, Emit, Graph

__all__ = ["OPERATIONS"]

_TO_FIRST = (0, 2, 3, 1)  # where each axis of images goes when the channels come first
_END = 2**63 - 1


def _reshape(graph: Graph, node: Apply) -> str:
    return graph.emit("Reshape", graph.last(node.inputs[0]), graph.ints(*node.attributes["shape"]))


def _transpose(graph: Graph, node: Apply) -> str:
    (x,) = node.inputs
    rank = len(x.shape)
    axes = node.attributes.get("axes")
    order = list(reversed(range(rank))) if axes is None else [position(axis, rank) for axis in axes]
    return graph.emit("Transpose", graph.last(x), perm=order)


def _broadcast_to(graph: Graph, node: Apply) -> str:
    # Expand keeps an axis against 1, where the program writes -1.
    shape = [1 if length == -1 else length for length in node.attributes["shape"]]
    return graph.emit("Expand", graph.last(node.inputs[0]), graph.ints(*shape))


def _concatenate(graph: Graph, node: Apply) -> str:
    axis = position(node.attributes.get("axis", 0), len(node.shape))
    if any(each.only_first for each in node.inputs):
        return First(graph.emit("Concat", *map(graph.first, node.inputs), axis=_TO_FIRST[axis]))
    return graph.emit("Concat", *map(graph.last, node.inputs), axis=axis)


def _slice(graph: Graph, node: Apply) -> str:
    starts, stops, steps = (node.attributes[name] for name in ("starts", "stops", "steps"))
    parts = zip(starts, stops, steps, strict=True)
    cut = [
        (axis, start, _stop(stop, step), step)
        for axis, (start, stop, step) in enumerate(parts)
        if (start, stop, step) != (0, None, 1)
    ]
    return _sliced(graph, graph.last(node.inputs[0]), cut)


def _stop(stop: int | None, step: int) -> int:
    if stop is not None:
        return stop
    return _END if step > 0 else -_END


def _sliced(graph: Graph, x: str, cut: list[tuple[int, int, int, int]]) -> str:
    if not cut:
        return x
    axes, starts, stops, steps = (graph.ints(*column) for column in zip(*cut, strict=True))
    return graph.emit("Slice", x, starts, stops, axes, steps)


def _flip(graph: Graph, node: Apply) -> str:
    (x,), axes = node.inputs, node.attributes.get("axes")
    rank = len(x.shape)
    reversed_ = range(rank) if axes is None else sorted(position(axis, rank) for axis in axes)
    return _sliced(graph, graph.last(x), [(axis, -1, -_END, -1) for axis in reversed_])


def _pad(graph: Graph, node: Apply) -> str:
    (x,), widths = node.inputs, node.attributes["widths"]
    value = graph.constant(node.attributes.get("value", 0.0), node.kind)
    if x.only_first:
        return First(_padded(graph, x.first, [widths[axis] for axis in (0, 3, 1, 2)], value))
    return _padded(graph, graph.last(x), widths, value)


def _padded(graph: Graph, x: str, widths: list[list[int]], value: str) -> str:
    if not any(map(any, widths)):
        return x
    before, after = zip(*widths, strict=True)
    return graph.emit("Pad", x, graph.ints(*before, *after), value)


OPERATIONS: dict[str, Emit] = {
    "reshape": _reshape,
    "transpose": _transpose,
    "broadcast_to": _broadcast_to,
    "concatenate": _concatenate,
    "slice": _slice,
    "flip": _flip,
    "pad": _pad,
}
