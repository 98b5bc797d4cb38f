"""Writing a saved program into another one: a loaded model can be compiled anew, or be part of a larger model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ._document import constant_of, needed
from ._symbol import Symbol, Trace
from .ops.indexing import as_index

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["replay_program"]


def replay_program(
    trace: Trace,
    document: Mapping[str, Any],
    inputs: Mapping[str, Symbol],
    outputs: list[str],
    classes: Mapping[str, int | None],
    *,
    training: bool,
) -> list[Symbol]:
    """Write what the outputs need (and, in training, the buffers' updates) and return the outputs' values."""
    targets = [document["outputs"][name] for name in outputs]
    updates: dict[str, int] = document["assignments"] if training else {}
    values: dict[int, Symbol] = {}
    scope = trace.path
    for index in needed(document["values"], [*targets, *updates.values()]):
        values[index] = _written(trace, scope, document["values"][index], values, inputs, classes)
    trace.program.scope(scope)
    for path, index in updates.items():
        trace.assign(path, values[index])
    return [values[index] for index in targets]


def _written(  # noqa: PLR0917
    trace: Trace,
    scope: str,
    item: dict[str, Any],
    values: Mapping[int, Symbol],
    inputs: Mapping[str, Symbol],
    classes: Mapping[str, int | None],
) -> Symbol:
    ((kind, fields),) = item.items()
    if kind == "input":
        return _input(inputs[fields["name"]], fields, classes)
    if kind == "parameter":
        return trace.parameter(fields["path"], fields["shape"], json.dumps(fields["initializer"]), fields["role"])
    if kind == "buffer":
        return trace.buffer(fields["path"], fields["shape"], json.dumps(fields["initializer"]))
    if kind == "constant":
        return Symbol(trace, trace.program.constant(constant_of(fields)))
    trace.program.scope(".".join(filter(None, (scope, fields["scope"]))))
    operands = [values[operand].index for operand in fields["inputs"]]
    return Symbol(trace, trace.program.apply(fields["operation"], operands, json.dumps(fields["attributes"])))


def _input(given: Symbol, fields: dict[str, Any], classes: Mapping[str, int | None]) -> Symbol:
    if fields["kind"] != "int":
        return given * 1.0 if given.kind != "float" else given  # type: ignore[return-value]
    return as_index(given, classes.get(fields["name"]))  # type: ignore[return-value]
