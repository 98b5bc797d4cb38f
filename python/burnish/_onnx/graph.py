"""An ONNX graph that grows value by value, and what the program's values are in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .._feed.arrays import Array
    from .._value import Shape

__all__ = ["TYPES", "Apply", "Emit", "First", "Graph", "Operand"]

# Numbers of the types in ONNX's TensorProto. The program's ints are int64 there: what runtimes index by.
TYPES = {"float": 1, "int": 7, "bool": 9}
_DTYPES = {"float": np.float32, "int": np.int64, "bool": np.bool_}
_TO_FIRST, _TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


class Operand:
    """A value of the program: known numbers, or the name of a tensor, for images under one or both orders of axes."""

    def __init__(
        self, shape: Shape, kind: str, *, array: Array | None = None, label: str = "", last: str = "", first: str = ""
    ) -> None:
        self.shape = shape
        self.kind = kind
        self.array = array
        self.label = label  # what the numbers are called if a node asks for them
        self.last = last  # in the program's order
        self.first = first  # of images as (batch, channels, height, width)

    @property
    def only_first(self) -> bool:
        """Whether asking for the program's order would cost a transposition."""
        return bool(self.first) and not self.last


class Apply(NamedTuple):
    """An operation of the program with its operands."""

    operation: str
    inputs: list[Operand]
    attributes: Mapping[str, Any]
    shape: Shape
    kind: str


class First(str):
    """The name of a tensor whose channels stand first."""

    __slots__ = ()


Emit: TypeAlias = "Callable[[Graph, Apply], str]"


class Node(NamedTuple):
    """A node of the graph."""

    type: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]

    def bodies(self) -> list[Graph]:
        """Return the graphs inside the node."""
        return [value for value in self.attributes.values() if isinstance(value, Graph)]


class Graph:
    """Nodes and initializers, each under a name of its own; those written meanwhile are named after `scope`."""

    def __init__(self, taken: Sequence[str]) -> None:
        self.nodes: list[Node] = []
        self.initializers: dict[str, Array] = {}
        self._labels: dict[str, str] = {}
        self.inputs: list[tuple[str, str]] = []  # names and kinds, of the body of a loop
        self.outputs: list[str] = []
        self.scope = ""
        self._reserved = frozenset(taken)
        self._numbers = dict.fromkeys(taken, 0)
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def inner(self) -> Graph:
        """Return a graph for the body of a loop: it sees the names of this one and takes none of them."""
        body = Graph(())
        body.scope, body._numbers = self.scope, self._numbers
        return body

    def input(self, kind: str) -> str:
        """Declare an input of the body of a loop."""
        name = self._named(f"{self.scope}/step")
        self.inputs.append((name, kind))
        return name

    def emit(self, type_: str, *inputs: str, **attributes: Any) -> str:
        """Write a node and return the name of its only output."""
        return self.emit_several(type_, *inputs, outputs=[True], **attributes)[0]

    def emit_several(self, type_: str, *inputs: str, outputs: Sequence[bool], **attributes: Any) -> list[str]:
        """Write a node and return the names of its outputs, empty for those that are not wanted."""
        name = self._named(f"{self.scope}/{type_}" if self.scope else type_)
        several = len(outputs) > 1
        names = [self._named(f"{name}:{n}") if several and there else name * there for n, there in enumerate(outputs)]
        self.nodes.append(Node(type_, name, list(inputs), names, attributes))
        return names

    def constant(self, values: Any, kind: str = "float") -> str:
        """Return the name of fixed numbers, kept once however often they are asked for."""
        array = np.asarray(values, _DTYPES[kind])
        key = kind, array.shape, array.tobytes()
        if key not in self._constants:
            self._constants[key] = self._stored("constant", array)
        return self._constants[key]

    def ints(self, *values: int) -> str:
        """Return the name of a fixed row of integers."""
        return self.constant(values, "int")

    def last(self, operand: Operand) -> str:
        """Return the name of a value in the program's order of axes."""
        if not operand.last:
            operand.last = self._moved(operand, None)
        return operand.last

    def first(self, operand: Operand) -> str:
        """Return the name of images with the channels first."""
        if not operand.first:
            operand.first = self._moved(operand, _TO_FIRST)
        return operand.first

    def arranged(self, operand: Operand, axes: Sequence[int]) -> str:
        """Return the name of a value with its axes in another order; known numbers are stored so."""
        return self._moved(operand, axes)

    def weights(self, operand: Operand, array: Array) -> str:
        """Return the name of known numbers in another form, named after the operand."""
        return self._stored(operand.label, self._typed(operand, array))

    def aligned(self, operands: Sequence[Operand]) -> tuple[list[str], Callable[[str], str]]:
        """Return the names of values to be combined element by element, and what marks the order of the result.

        Images whose channels stand first stay so, if what they meet is images, numbers or one number a channel.
        """
        if any(operand.only_first for operand in operands) and all(len(each.shape) in {0, 1, 4} for each in operands):
            return [self._beside_first(operand) for operand in operands], First
        return [self.last(operand) for operand in operands], str

    def rename(self, names: Mapping[str, str]) -> None:
        """Give tensors other names, also where a loop's body uses them."""
        for node in self.nodes:
            for body in node.bodies():
                body.rename(names)
            node.inputs[:] = [names.get(name, name) for name in node.inputs]
            node.outputs[:] = [names.get(name, name) for name in node.outputs]

    def prune(self, wanted: set[str]) -> None:
        """Leave out what these tensors do not depend on."""
        needed, kept = set(wanted), list[Node]()
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
                needed.update(name for body in node.bodies() for inner in body.nodes for name in inner.inputs)
                kept.append(node)
        self.nodes = kept[::-1]
        self.initializers = {name: array for name, array in self.initializers.items() if name in needed}
        self._number_anew()

    def _number_anew(self) -> None:
        """Let numbers have the names that those that were left out have had."""
        names: dict[str, str] = {}
        inside = [body for node in self.nodes for body in node.bodies()]
        taken = {*self._reserved, *self.initializers, *(name for body in inside for name in body.initializers)}
        taken.update(name for node in self.nodes for name in node.outputs)
        for name in self.initializers:
            label = self._labels[name]
            if label not in taken:
                names[name] = label
                taken.add(label)
        self.rename(names)
        self.initializers = {names.get(name, name): array for name, array in self.initializers.items()}

    def _beside_first(self, operand: Operand) -> str:
        if len(operand.shape) == 4:
            return self.first(operand)
        if not operand.shape:
            return self.last(operand)
        if operand.array is not None:
            return self._stored(operand.label, self._typed(operand, operand.array.reshape(-1, 1, 1)))
        return self.emit("Reshape", self.last(operand), self.ints(-1, 1, 1))

    def _moved(self, operand: Operand, axes: Sequence[int] | None) -> str:
        if operand.array is not None:
            array = operand.array if axes is None else operand.array.transpose(axes)
            return self._stored(operand.label, self._typed(operand, array))
        if axes is None:
            return self.emit("Transpose", operand.first, perm=list(_TO_LAST))
        return self.emit("Transpose", self.last(operand), perm=list(axes))

    def _typed(self, operand: Operand, array: Array) -> Array:
        return np.ascontiguousarray(array, _DTYPES[operand.kind]).reshape(array.shape)

    def _stored(self, label: str, array: Array) -> str:
        name = self._named(label)
        self.initializers[name], self._labels[name] = array, label
        return name

    def _named(self, wanted: str) -> str:
        name = wanted
        while name in self._numbers:
            self._numbers[wanted] += 1
            name = f"{wanted}_{self._numbers[wanted]}"
        self._numbers[name] = 0
        return name
