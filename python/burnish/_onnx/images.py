"""Windows that slide over images: channels last in the program, first in ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .elementwise import activated
from .graph import First

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .graph import Apply, Emit, Graph

__all__ = ["OPERATIONS"]

_NONE = ((0, 0), (0, 0))


def _conv2d(graph: Graph, node: Apply) -> str:
    x, kernel, *bias = node.inputs
    y = graph.emit(
        "Conv",
        graph.first(x),
        graph.arranged(kernel, (3, 2, 0, 1)),
        *map(graph.last, bias),
        kernel_shape=list(kernel.shape[:2]),
        strides=list(node.attributes.get("strides", (1, 1))),
        pads=_pads(node.attributes),
        dilations=list(node.attributes.get("dilation", (1, 1))),
        group=node.attributes.get("groups", 1),
    )
    return First(activated(graph, y, node.attributes.get("activation", "none")))


def _max_pool2d(graph: Graph, node: Apply) -> str:
    return First(graph.emit("MaxPool", graph.first(node.inputs[0]), **_windows(node.attributes)))


def _avg_pool2d(graph: Graph, node: Apply) -> str:
    x = graph.first(node.inputs[0])
    return First(graph.emit("AveragePool", x, count_include_pad=0, **_windows(node.attributes)))


def _windows(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kernel_shape": list(attributes["size"]),
        "strides": list(attributes["strides"]),
        "pads": _pads(attributes),
    }


def _pads(attributes: Mapping[str, Any]) -> list[int]:
    """Return what comes before each axis, then what comes after."""
    (top, bottom), (left, right) = attributes.get("padding", _NONE)
    return [top, left, bottom, right]


OPERATIONS: dict[str, Emit] = {"conv2d": _conv2d, "max_pool2d": _max_pool2d, "avg_pool2d": _avg_pool2d}
