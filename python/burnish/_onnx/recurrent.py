"""Recurrent layers: ONNX's own operators where these say the same, else a loop over the steps (Scan).

ONNX knows no mask (its lengths fit only what is padded at the end), nor the memory of an LSTM after each step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .elementwise import activated

if TYPE_CHECKING:
    from .._feed.arrays import Array
    from .graph import Apply, Emit, Graph, Operand

__all__ = ["OPERATIONS"]


class _Cell(NamedTuple):
    """What tells one recurrent operation from another."""

    type: str
    blocks: tuple[int, ...]  # the place of each of ONNX's blocks of gates here
    states: int
    functions: tuple[str, ...]  # which activations ONNX's operator is told, in its order


_CELLS = {
    "rnn": _Cell("RNN", (0,), 1, ("activation",)),
    "gru": _Cell("GRU", (0, 1, 2), 1, ("recurrent_activation", "activation")),
    "lstm": _Cell("LSTM", (0, 3, 1, 2), 2, ("recurrent_activation", "activation", "activation")),
}
_DEFAULTS = {"activation": "tanh", "recurrent_activation": "sigmoid"}
_NAMES = {"tanh": "Tanh", "sigmoid": "Sigmoid", "relu": "Relu"}


class _Parts(NamedTuple):
    """The operands by name."""

    x: Operand
    kernel: Operand
    recurrent_kernel: Operand
    bias: Operand | None
    initial: list[Operand]
    mask: Operand | None
    factors: Operand | None

    @property
    def units(self) -> int:
        return self.recurrent_kernel.shape[0] or 0


def _parts(node: Apply, states: int) -> _Parts:
    operands = iter(node.inputs)
    x, kernel, recurrent_kernel = next(operands), next(operands), next(operands)

    def optional(name: str, count: int = 1) -> list[Operand]:
        return [next(operands) for _ in range(count)] if node.attributes.get(name) else []

    bias, initial = optional("bias"), optional("initial_state", states)
    mask, factors = optional("mask"), optional("recurrent_factors")
    first = [found[0] if found else None for found in (bias, mask, factors)]
    return _Parts(x, kernel, recurrent_kernel, first[0], initial, first[1], first[2])


def _function(node: Apply, which: str) -> str:
    return node.attributes.get(which, _DEFAULTS[which])


def _emit(graph: Graph, node: Apply) -> str:
    cell = _CELLS[node.operation]
    parts = _parts(node, cell.states)
    memory = cell.states > 1 and node.attributes.get("returns") == "states"
    weights = [each for each in (parts.kernel, parts.recurrent_kernel, parts.bias) if each is not None]
    known = all(each.array is not None for each in weights)
    named = all(_function(node, which) in _NAMES for which in cell.functions)
    if parts.mask is None and parts.factors is None and known and named and not memory:
        return _operator(graph, node, cell, parts)
    return _loop(graph, node, cell, parts)


def _operator(graph: Graph, node: Apply, cell: _Cell, parts: _Parts) -> str:
    """Write ONNX's operator, which has time before the batch and an axis for directions."""
    given = [graph.emit("Unsqueeze", graph.last(state), graph.ints(0)) for state in parts.initial]
    weights = [graph.weights(parts.kernel, _turned(parts.kernel, cell))]
    weights.append(graph.weights(parts.recurrent_kernel, _turned(parts.recurrent_kernel, cell)))
    bias = "" if parts.bias is None else graph.weights(parts.bias, _biases(parts.bias, cell))
    last = node.attributes.get("returns", "last") == "last"
    options: dict[str, Any] = {"linear_before_reset": 1} if cell.type == "GRU" else {}
    outputs = graph.emit_several(
        cell.type,
        graph.emit("Transpose", graph.last(parts.x), perm=[1, 0, 2]),
        *weights,
        *([bias, "", *given] if bias or given else []),
        outputs=[not last, last],
        hidden_size=parts.units,
        direction="reverse" if node.attributes.get("go_backwards") else "forward",
        activations=[_NAMES[_function(node, which)] for which in cell.functions],
        **options,
    )
    if last:
        return graph.emit("Squeeze", outputs[1], graph.ints(0))
    return graph.emit("Transpose", graph.emit("Squeeze", outputs[0], graph.ints(1)), perm=[1, 0, 2])


def _blocks(array: Array, cell: _Cell) -> Array:
    """Return the blocks of the last axis in ONNX's order."""
    parts = np.split(array, len(cell.blocks), axis=-1)
    return np.concatenate([parts[block] for block in cell.blocks], axis=-1)


def _turned(kernel: Operand, cell: _Cell) -> Array:
    return _blocks(np.asarray(kernel.array), cell).T[None]


def _biases(bias: Operand, cell: _Cell) -> Array:
    """Return that of the input, then that of the state, which only a GRU tells apart."""
    array = _blocks(np.asarray(bias.array), cell)
    rows = array if array.ndim == 2 else np.stack([array, np.zeros_like(array)])
    return rows.reshape(1, -1)


def _loop(graph: Graph, node: Apply, cell: _Cell, parts: _Parts) -> str:
    """Write a loop over the steps, the products with the input outside of it."""
    x = graph.emit("MatMul", graph.last(parts.x), graph.last(parts.kernel))
    own, apart = _loop_biases(graph, cell, parts)
    x = graph.emit("Add", x, own) if own else x
    states = [graph.last(state) for state in parts.initial] or [_zeros(graph, parts)] * cell.states
    steps = [x] if parts.mask is None else [x, graph.last(parts.mask)]
    body = _body(graph, node, cell, parts, apart)
    kept = len(body.outputs) - len(states)
    back = int(bool(node.attributes.get("go_backwards")))
    outputs = graph.emit_several(
        "Scan",
        *states,
        *steps,
        outputs=[True] * len(body.outputs),
        body=body,
        num_scan_inputs=len(steps),
        scan_input_axes=[1] * len(steps),
        scan_input_directions=[back] * len(steps),
        **({"scan_output_axes": [1] * kept, "scan_output_directions": [back] * kept} if kept else {}),
    )
    found = outputs[len(states) :] or outputs[:1]
    return found[0] if len(found) == 1 else graph.emit("Concat", *found, axis=2)


def _body(graph: Graph, node: Apply, cell: _Cell, parts: _Parts, bias: str) -> Graph:
    """Write a step: the states after it, and what is kept of each; `bias` is that of the product with the state."""
    factors = "" if parts.factors is None else graph.last(parts.factors)
    recurrent_kernel = graph.last(parts.recurrent_kernel)
    body = graph.inner()
    before = [body.input("float") for _ in range(cell.states)]
    x = body.input("float")
    mask = "" if parts.mask is None else body.emit("Unsqueeze", body.input("bool"), body.ints(1))
    h = body.emit("Mul", before[0], factors) if factors else before[0]
    product = body.emit("MatMul", h, recurrent_kernel)
    product = body.emit("Add", product, bias) if bias else product
    after = _STEPS[node.operation](body, node, x, product, before)
    if mask:
        after = [body.emit("Where", mask, new, old) for new, old in zip(after, before, strict=True)]
    count = {"last": 0, "sequence": 1, "states": len(after)}[node.attributes.get("returns", "last")]
    body.outputs = [*after, *(body.emit("Identity", state) for state in after[:count])]
    return body


def _loop_biases(graph: Graph, cell: _Cell, parts: _Parts) -> tuple[str, str]:
    """Return the names of what is added to the product with the input, and with the state."""
    if parts.bias is None:
        return "", ""
    bias = graph.last(parts.bias)
    if cell.type != "GRU":
        return bias, ""
    own, apart = (graph.emit("Gather", bias, graph.constant(row, "int"), axis=0) for row in (0, 1))
    return own, apart


def _zeros(graph: Graph, parts: _Parts) -> str:
    batch = graph.emit("Shape", graph.last(parts.x), start=0, end=1)
    shape = graph.emit("Concat", batch, graph.ints(parts.units), axis=0)
    return graph.emit("Expand", graph.constant(0.0), shape)


def _rnn_step(body: Graph, node: Apply, x: str, product: str, _: list[str]) -> list[str]:
    return [activated(body, body.emit("Add", x, product), _function(node, "activation"))]


def _gru_step(body: Graph, node: Apply, x: str, product: str, before: list[str]) -> list[str]:
    """Write z, r = s(a + b), n = f(a + r · b), n + z · (h - n)."""
    a, b = _split(body, x, 3), _split(body, product, 3)
    gates = [body.emit("Add", a[block], b[block]) for block in (0, 1)]
    z, r = (activated(body, gate, _function(node, "recurrent_activation")) for gate in gates)
    n = body.emit("Add", a[2], body.emit("Mul", r, b[2]))
    n = activated(body, n, _function(node, "activation"))
    return [body.emit("Add", n, body.emit("Mul", z, body.emit("Sub", before[0], n)))]


def _lstm_step(body: Graph, node: Apply, x: str, product: str, before: list[str]) -> list[str]:
    """Write c' = f · c + i · g and h' = o · activation(c')."""
    activation, recurrent = _function(node, "activation"), _function(node, "recurrent_activation")
    blocks = _split(body, body.emit("Add", x, product), 4)
    i, f, o = (activated(body, blocks[block], recurrent) for block in (0, 1, 3))
    g = activated(body, blocks[2], activation)
    c = body.emit("Add", body.emit("Mul", f, before[1]), body.emit("Mul", i, g))
    return [body.emit("Mul", o, activated(body, c, activation)), c]


def _split(body: Graph, x: str, parts: int) -> list[str]:
    return body.emit_several("Split", x, outputs=[True] * parts, axis=1, num_outputs=parts)


_STEPS = {"rnn": _rnn_step, "gru": _gru_step, "lstm": _lstm_step}
OPERATIONS: dict[str, Emit] = dict.fromkeys(_CELLS, _emit)
