"""The functional form: calls on `bn.Input` are recorded as nodes and replayed when the model is traced."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ._described import Described
from ._structure import is_dict, is_sequence
from ._symbol import Symbol, Trace
from ._value import Shape, Value, apply, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

__all__ = ["Call", "Node", "has_nodes", "record", "replay"]


class Call:
    """One recorded call: a layer or an operation with its arguments, some of which are nodes."""

    __slots__ = ("arguments", "function", "keywords")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self.function = function
        self.arguments = arguments
        self.keywords = keywords

    def nodes(self) -> list[Node]:
        """Return the nodes among the arguments."""
        return [leaf for leaf in _leaves((self.arguments, self.keywords)) if isinstance(leaf, Node)]

    def run(self, value_of: Callable[[Node], Any]) -> Any:
        """Make the call with values in place of nodes."""
        return self.function(*_replaced(self.arguments, value_of), **_replaced(self.keywords, value_of))


class Node(Described):
    """A value of the functional form: `bn.Input`, or what a layer or an operation makes of it."""

    __slots__ = ("_kind", "_shape", "call", "key", "name")
    precedence: ClassVar[int] = 3
    __hash__ = object.__hash__

    def __init__(self, shape: Shape, kind: str, call: Call | None, key: Any = None, name: str | None = None) -> None:
        self._shape = shape
        self._kind = kind
        self.call = call
        self.key = key
        self.name = name

    @property
    def shape(self) -> Shape:
        """The length of each axis; None where it is that of the batch."""
        return self._shape

    @property
    def kind(self) -> str:
        """What the elements are: "float", "int" or "bool"."""
        return self._kind

    def emit(self, operation: str, values: Sequence[Value | npt.NDArray[Any]], attributes: dict[str, Any]) -> Node:
        """Record an operation."""
        if any(isinstance(value, Symbol) for value in values):
            raise ValueError("a value made from `Input` was used inside a layer's `call`; pass it as an argument")
        return record(apply, (operation, *values), attributes)

    def as_kind(self, kind: str) -> Value:
        """Record it even where nothing is to be done yet: an input becomes integer where it is used as an index."""
        return record(cast, (self, kind), {})

    def __repr__(self) -> str:
        return f"<Node shape={self.shape} kind={self.kind}>"


def has_nodes(arguments: Any) -> bool:
    """Say whether a call has to be recorded."""
    return any(isinstance(leaf, Node) for leaf in _leaves(arguments))


def record(function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Record a call and find the shapes of its results by tracing it alone."""
    call = Call(function, arguments, keywords)
    result = _traced_alone(call)
    if is_dict(result):
        return {key: Node(leaf.shape, leaf.kind, call, key) for key, leaf in result.items()}
    if is_sequence(result):
        return tuple(Node(leaf.shape, leaf.kind, call, index) for index, leaf in enumerate(result))
    return Node(result.shape, result.kind, call)


def replay(calls: Sequence[Call], inputs: dict[Node, Any], outputs: Sequence[Node]) -> list[Any]:
    """Make the recorded calls in order and return the values of the outputs."""
    results: dict[Call, Any] = {}

    def value_of(node: Node) -> Any:
        if node.call is None:
            return inputs[node]
        result = results[node.call]
        return result if node.key is None else result[node.key]

    for call in calls:
        results[call] = call.run(value_of)
    return [value_of(node) for node in outputs]


def _traced_alone(call: Call) -> Any:
    from ._burnish import Program
    from .layers.base import Layer, layer_paths

    layer = call.function
    paths = layer_paths(layer, layer.default_name) if isinstance(layer, Layer) else {}
    trace = Trace(Program(), paths, lambda _: False)
    symbols: dict[Node, Symbol] = {}
    for node in call.nodes():
        if node not in symbols:
            symbols[node] = _stand_in(trace, f"input.{len(symbols)}", node)
    with trace:
        return call.run(symbols.__getitem__)


def _stand_in(trace: Trace, name: str, node: Node) -> Symbol:
    """Return a value of the node's shape and kind; an input, unless its axes are not the batch and known lengths."""
    shape = node.shape
    if shape[:1] == (None,) and None not in shape[1:]:
        return trace.input(name, shape, node.kind)
    if None not in shape:
        zeros = np.zeros([n or 0 for n in shape], {"float": np.float64, "int": np.int64, "bool": np.bool_}[node.kind])
        return Symbol(trace, trace.program.constant(zeros))
    rows: Value = trace.input(name, (None,), "float")
    axes = [[-1 if place == axis else 1 for place in range(len(shape))] for axis, n in enumerate(shape) if n is None]
    spread = functools.reduce(operator.add, (rows.reshape(*lengths) for lengths in axes))
    return cast(apply("broadcast_to", spread, shape=[-1 if n is None else n for n in shape]), node.kind)


def _leaves(arguments: Any) -> list[Any]:
    if is_dict(arguments):
        return [leaf for value in arguments.values() for leaf in _leaves(value)]
    if is_sequence(arguments):
        return [leaf for value in arguments for leaf in _leaves(value)]
    return [arguments]


def _replaced(arguments: Any, value_of: Callable[[Node], Any]) -> Any:
    if isinstance(arguments, Node):
        return value_of(arguments)
    if is_dict(arguments):
        return {key: _replaced(value, value_of) for key, value in arguments.items()}
    if is_sequence(arguments):
        values = [_replaced(value, value_of) for value in arguments]
        return tuple(values) if isinstance(arguments, tuple) else values
    return arguments
