"""Functions of one number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .graph import Apply, Emit, Graph

__all__ = ["OPERATIONS", "activated"]

_SAME = {
    "neg": "Neg",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "reciprocal": "Reciprocal",
    "abs": "Abs",
    "sign": "Sign",
    "sin": "Sin",
    "cos": "Cos",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
    "erf": "Erf",
    "floor": "Floor",
    "ceil": "Ceil",
    "round": "Round",
    "relu": "Relu",
    "stop_gradient": "Identity",
}


def _expm1(graph: Graph, x: str, _: Any) -> str:
    """Write tanh(x / 2) · (e^x + 1)."""
    half = graph.emit("Mul", x, graph.constant(0.5))
    return graph.emit("Mul", graph.emit("Tanh", half), graph.emit("Add", graph.emit("Exp", x), graph.constant(1.0)))


def _log1p(graph: Graph, x: str, _: Any) -> str:
    """Write log u · x / (u - 1) with u = 1 + x as it was rounded, and x where u is 1 (Goldberg 1991, theorem 4)."""
    one = graph.constant(1.0)
    u = graph.emit("Add", x, one)
    tiny = graph.emit("Equal", u, one)
    whole = graph.emit("IsInf", u)
    apart = graph.emit("Where", tiny, one, graph.emit("Sub", u, one))
    exact = graph.emit("Div", graph.emit("Mul", graph.emit("Log", u), x), apart)
    return graph.emit("Where", graph.emit("Or", tiny, whole), x, exact)


def _rsqrt(graph: Graph, x: str, _: Any) -> str:
    return graph.emit("Reciprocal", graph.emit("Sqrt", x))


def _square(graph: Graph, x: str, _: Any) -> str:
    return graph.emit("Mul", x, x)


def _silu(graph: Graph, x: str, _: Any) -> str:
    return graph.emit("Mul", x, graph.emit("Sigmoid", x))


def _gelu(graph: Graph, x: str, attributes: Any) -> str:
    """Write x · (1 + erf(x / √2)) / 2 or the approximation by tanh; ONNX has it whole only from opset 20."""
    if attributes.get("approximate"):
        cubic = graph.emit("Mul", graph.emit("Mul", graph.emit("Mul", x, x), x), graph.constant(0.044715))
        inner = graph.emit("Mul", graph.emit("Add", x, cubic), graph.constant(math.sqrt(2 / math.pi)))
        curve = graph.emit("Tanh", inner)
    else:
        curve = graph.emit("Erf", graph.emit("Div", x, graph.constant(math.sqrt(2))))
    risen = graph.emit("Mul", x, graph.emit("Add", curve, graph.constant(1.0)))
    return graph.emit("Mul", risen, graph.constant(0.5))


def _leaky_relu(graph: Graph, x: str, attributes: Any) -> str:
    return graph.emit("LeakyRelu", x, alpha=float(attributes["slope"]))


def _elu(graph: Graph, x: str, attributes: Any) -> str:
    return graph.emit("Elu", x, alpha=float(attributes["alpha"]))


def _function(write: Callable[[Graph, str, Any], str]) -> Emit:
    def emit(graph: Graph, node: Apply) -> str:
        (x,), marked = graph.aligned(node.inputs)
        return marked(write(graph, x, node.attributes))

    return emit


def _same(type_: str) -> Emit:
    return _function(lambda graph, x, _: graph.emit(type_, x))


OPERATIONS: dict[str, Emit] = {
    **{name: _same(type_) for name, type_ in _SAME.items()},
    "elu": _function(_elu),
    "expm1": _function(_expm1),
    "gelu": _function(_gelu),
    "leaky_relu": _function(_leaky_relu),
    "log1p": _function(_log1p),
    "rsqrt": _function(_rsqrt),
    "silu": _function(_silu),
    "square": _function(_square),
}

_FUSED: dict[str, tuple[str, dict[str, float]]] = {
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
    "sigmoid": ("Sigmoid", {}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
}


def activated(graph: Graph, y: str, activation: str) -> str:
    """Write the activation that an operation has fused, if any."""
    if activation == "none":
        return y
    type_, options = _FUSED[activation]
    return graph.emit(type_, y, **options)
