"""The table of a model's layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from ._cost import costs
from ._structure import flatten
from ._text import aligned
from .losses import show

if TYPE_CHECKING:
    from ._build import Built

__all__ = ["Line", "lines", "summary_table"]

_HEAD = ("layer", "type", "output shape", "parameters", "trained", "FLOPs", "activations")
_NAMES = 3  # columns before the numbers


class Line(NamedTuple):
    """A layer in the table; what belongs to layers inside it is counted there."""

    path: str
    type: str
    shape: str
    parameters: int
    trained: int
    flops: int  # of the inference form, for one sample
    activations: int  # bytes that the operations of the training form put out for one sample

    def cells(self) -> tuple[str, ...]:
        """Return what the table shows."""
        numbers = (f"{n:,}" for n in (self.parameters, self.trained, self.flops))
        return (self.path or "(model)", self.type, self.shape, *numbers, size(self.activations))


class _Sums(NamedTuple):
    """Numbers by the path of the layer that they belong to."""

    parameters: dict[str, int]
    trained: dict[str, int]
    flops: dict[str, int]
    activations: dict[str, int]


def summary_table(built: Built) -> str:
    """Return the table as text."""
    body = lines(built)
    totals = Line("total", "", "", *(sum(column) for column in zip(*(line[3:] for line in body), strict=True)))
    buffers = sum(math.prod(shape) for _, shape in built.program.buffers())
    frozen = totals.parameters - totals.trained
    foot = (
        f"parameters: {totals.parameters:,} ({totals.trained:,} trained, {frozen:,} frozen); buffers: {buffers:,}\n"
        "for one sample: FLOPs of a prediction; activations that training makes"
    )
    *rows, last = aligned([_HEAD, *(line.cells() for line in body), totals.cells()], _NAMES)
    rule = "-" * max(map(len, [*rows, last]))
    return "\n".join([rows[0], rule, *rows[1:], rule, last, rule, foot])


def lines(built: Built) -> list[Line]:
    """Return the layers that hold no others, and those that have parameters or operations of their own, in order."""
    sums = _sums(built)
    owners = {path for column in sums for path, number in column.items() if number}
    paths = {row.path for row in built.rows}
    around = {_owner(row.path.rpartition(".")[0], paths) for row in built.rows if row.path}
    return [
        Line(
            row.path,
            row.type if row.uses == 1 else f"{row.type} ({row.uses} uses)",
            "several" if row.shape is None else show(row.shape),
            *(column.get(row.path, 0) for column in sums),
        )
        for row in built.rows
        if row.path in owners or row.path not in around
    ]


def size(count: float) -> str:
    """Return a number of bytes with its unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.{0 if unit == 'B' else 1}f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def _sums(built: Built) -> _Sums:
    sums = _Sums({}, {}, {}, {})
    paths = {row.path for row in built.rows}
    frozen = set(built.frozen())
    for path, shape, _ in built.program.parameters():
        owner = _owner(path.rpartition(".")[0], paths)
        _count(sums.parameters, owner, math.prod(shape))
        _count(sums.trained, owner, 0 if path in frozen else math.prod(shape))
    outputs = list(flatten("", built.outputs).values())
    width = 8 if built.compiled is not None and built.compiled.precision == "float64" else 4
    for cost in costs(built.program, outputs, width):
        _count(sums.flops, _owner(cost.scope, paths), cost.flops)
    for cost in costs(built.program, [f"training.{name}" for name in outputs], width):
        _count(sums.activations, _owner(cost.scope, paths), cost.bytes)
    return sums


def _count(column: dict[str, int], path: str, number: int) -> None:
    column[path] = column.get(path, 0) + number


def _owner(scope: str, paths: set[str]) -> str:
    """Return the layer that a scope belongs to: itself, or the nearest one around it that was called."""
    while scope and scope not in paths:
        scope = scope.rpartition(".")[0]
    return scope
