"""The inference program as an ONNX file, which other runtimes read.

Every operation of the program becomes one or a few nodes, by the table that the families of operations make together.
The axis of the batch stays free; numbers are float32, whatever the model computes in.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .._document import batches_in, constant_of, needed
from .._optional import required
from .._structure import flatten
from ..tensor import Tensor
from .graph import TYPES, Apply, First, Graph, Operand
from .table import DRAWN, OPERATIONS, REFUSED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from .._build import Built
    from .._feed.arrays import Array
    from .._runtime import Runtime
    from .._value import Shape

__all__ = ["FORMAT_VERSION", "OPSET", "export"]

# The oldest versions that have every operator used here, so that old runtimes read the files too.
OPSET = 18
FORMAT_VERSION = 8
_LARGEST = 2**31 - 2**20  # protobuf's limit, and room for what is not weights

# What only moves numbers: done to weights when they are written, so that they are still weights in the file.
_MOVES = frozenset({"reshape", "transpose", "slice", "pad", "flip", "cast"})


class _Value(NamedTuple):
    """What a value of the program is."""

    shape: Shape
    kind: str
    rows: int  # its first axis that is free is so many times the batch


def export(runtime: Runtime, path: str | PathLike[str], name: str) -> None:
    """Write the evaluation form to a file; see `Model.export`."""
    onnx = required("onnx", "onnx")
    weights = runtime.session.state() | runtime.session.averages()
    graph, inputs, outputs = _Writer(runtime.built, weights).written()
    size = sum(array.nbytes for array in graph.initializers.values())
    if size > _LARGEST:
        raise ValueError(f"an ONNX file holds at most 2 GB, the model's weights need {size / 1e9:.1f} GB")
    document = _document(onnx, graph, name, inputs, outputs)
    onnx.checker.check_model(document, full_check=True)
    Path(os.fsdecode(path)).write_bytes(document.SerializeToString())


def _document(onnx: Any, graph: Graph, name: str, inputs: Mapping[str, _Value], outputs: Mapping[str, _Value]) -> Any:
    make = onnx.helper
    body = make.make_graph(
        _nodes(onnx, graph),
        name,
        [_declared(onnx, name, value) for name, value in inputs.items()],
        [_declared(onnx, name, value) for name, value in outputs.items()],
        _arrays(onnx, graph),
    )
    return make.make_model(
        body,
        ir_version=FORMAT_VERSION,
        opset_imports=[make.make_opsetid("", OPSET)],
        producer_name="burnish",
        producer_version=_version(),
    )


def _nodes(onnx: Any, graph: Graph) -> list[Any]:
    made: list[Any] = []
    for node in graph.nodes:
        options = {
            name: _body(onnx, node.name, value) if isinstance(value, Graph) else value
            for name, value in node.attributes.items()
        }
        made.append(onnx.helper.make_node(node.type, node.inputs, node.outputs, node.name, **options))
    return made


def _arrays(onnx: Any, graph: Graph) -> list[Any]:
    return [onnx.numpy_helper.from_array(array, name) for name, array in graph.initializers.items()]


def _body(onnx: Any, name: str, graph: Graph) -> Any:
    """Return the graph of a loop's body, whose outputs are floats."""
    value = onnx.helper.make_tensor_value_info
    inputs = [value(each, TYPES[kind], None) for each, kind in graph.inputs]
    outputs = [value(each, TYPES["float"], None) for each in graph.outputs]
    return onnx.helper.make_graph(_nodes(onnx, graph), name, inputs, outputs, _arrays(onnx, graph))


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("burnish")
    except PackageNotFoundError:  # run from its sources
        return ""


def _declared(onnx: Any, name: str, value: _Value) -> Any:
    free = "batch" if value.rows == 1 else f"{value.rows} * batch"
    shape = [free if length is None else length for length in value.shape]
    return onnx.helper.make_tensor_value_info(name, TYPES[value.kind], shape)


class _Writer:
    """One walk over the program's values, in order."""

    def __init__(self, built: Built, weights: Mapping[str, Array]) -> None:
        document = json.loads(built.program.to_json())
        self._program = built.program
        self._weights = weights
        self._items: list[dict[str, Any]] = document["values"]
        self._targets = {name: document["outputs"][name] for name in flatten("", built.outputs).values()}
        self._inputs = [name for name, *_ in built.program.inputs() if name in flatten("", built.inputs.names).values()]
        self._graph = Graph([*self._inputs, *self._targets])
        self._values: dict[int, _Value] = {}
        self._operands: dict[int, Operand] = {}

    def written(self) -> tuple[Graph, dict[str, _Value], dict[str, _Value]]:
        """Return the graph with its inputs and outputs."""
        inputs: dict[str, _Value] = {}
        wanted = set(needed(self._items, list(self._targets.values())))
        for index, item in enumerate(self._items):
            ((source, fields),) = item.items()
            if source == "input" and fields["name"] in self._inputs:
                inputs[fields["name"]] = self._typed(index, source, fields)
            if index in wanted:
                self._values[index] = self._typed(index, source, fields)
                self._operands[index] = self._operand(index, source, fields)
        self._name_outputs()
        return self._graph, inputs, {name: self._values[index] for name, index in self._targets.items()}

    def _typed(self, index: int, source: str, fields: dict[str, Any]) -> _Value:
        shape = tuple(self._program.shape(index))
        operands = [(self._values[operand].shape, self._values[operand].rows) for operand in fields.get("inputs", ())]
        rows = batches_in(shape, fields, operands) if source == "apply" else 1
        return _Value(shape, self._program.kind(index), rows)

    def _operand(self, index: int, source: str, fields: dict[str, Any]) -> Operand:
        shape, kind, _ = self._values[index]
        if source == "input":
            return Operand(shape, kind, last=fields["name"])
        if source == "constant":
            return Operand(shape, kind, array=constant_of(fields), label="constant")
        if source != "apply":
            return Operand(shape, kind, array=self._weights[fields["path"]], label=fields["path"])
        inputs = [self._operands[operand] for operand in fields["inputs"]]
        node = Apply(fields["operation"], inputs, fields["attributes"], shape, kind)
        self._graph.scope = fields["scope"]
        return _folded(node) or self._applied(node, fields["scope"])

    def _applied(self, node: Apply, scope: str) -> Operand:
        if node.operation not in OPERATIONS:
            where = f" (layer {scope!r})" if scope else ""
            why = REFUSED.get(node.operation, "ONNX has no counterpart of it here")
            raise ValueError(f"the operation {node.operation!r}{where} cannot be exported: {why}")
        name = OPERATIONS[node.operation](self._graph, node)
        if isinstance(name, First):
            return Operand(node.shape, node.kind, first=str(name))
        return Operand(node.shape, node.kind, last=name)

    def _name_outputs(self) -> None:
        """Let the tensors that are asked for have the outputs' names."""
        self._graph.scope = ""
        tensors = {wanted: self._graph.last(self._operands[index]) for wanted, index in self._targets.items()}
        made = {name for node in self._graph.nodes for name in node.outputs}
        names: dict[str, str] = {}
        for wanted, name in tensors.items():
            if name in names or name not in made:
                names[self._graph.emit("Identity", name)] = wanted
            else:
                names[name] = wanted
        self._graph.rename(names)
        self._graph.prune(set(self._targets))


def _folded(node: Apply) -> Operand | None:
    """Compute what depends on constants alone, or only moves a weight."""
    arrays = [operand.array for operand in node.inputs if operand.array is not None]
    constant = all(operand.label == "constant" for operand in node.inputs)
    if len(arrays) < len(node.inputs) or not (constant or node.operation in _MOVES) or node.operation in DRAWN:
        return None
    first = Tensor(arrays[0])
    value = first.emit(node.operation, [first, *arrays[1:]], dict(node.attributes))
    return Operand(node.shape, node.kind, array=value.numpy(), label=node.inputs[0].label)
