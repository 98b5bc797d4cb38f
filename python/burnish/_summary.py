"""The table of a model's layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .losses import show

if TYPE_CHECKING:
    from ._build import Built

__all__ = ["summary_table"]


def summary_table(built: Built) -> str:
    """Return the table: path, class, output shape and number of parameters of each layer."""
    sizes = {path: math.prod(shape) for path, shape, _ in built.program.parameters()}
    counts: dict[str, int] = {}
    for path, size in sizes.items():
        layer = path.rpartition(".")[0]
        counts[layer] = counts.get(layer, 0) + size
    rows = [("layer", "type", "output shape", "parameters")]
    for row in built.rows:
        if row.leaf or row.path in counts:
            shape = "several" if row.shape is None else show(row.shape)
            rows.append((row.path or "(model)", row.type, shape, f"{counts.get(row.path, 0):,}"))
    frozen = sum(sizes[path] for path in built.frozen())
    buffers = sum(math.prod(shape) for _, shape in built.program.buffers())
    total = sum(sizes.values())
    foot = f"parameters: {total:,} ({total - frozen:,} trained, {frozen:,} frozen); buffers: {buffers:,}"
    return f"{_aligned(rows)}\n{foot}"


def _aligned(rows: list[tuple[str, str, str, str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if index == 3 else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:], rule])
