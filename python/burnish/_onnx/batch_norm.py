"""Batch normalisation, which the program spells out: one node, which runtimes fold into the convolution before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .._document import constant_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .graph import Graph, Operand

__all__ = ["BatchNorm", "batch_norm", "normalized"]


class BatchNorm(NamedTuple):
    """The places of the values in `(x - mean) · (rsqrt(variance + epsilon) · scale) + offset`."""

    x: int
    mean: int
    variance: int
    scale: int | None
    offset: int | None
    epsilon: float


def batch_norm(items: Sequence[dict[str, Any]], index: int) -> BatchNorm | None:
    """Return what a value normalises and by what, if it is a batch normalisation."""
    moved = _operands(items, index, "add")
    offset = moved[1] if moved and _is_weight(items, moved[1]) else None
    scaled = _operands(items, moved[0] if moved and offset is not None else index, "multiply")
    centred = _operands(items, scaled[0], "subtract") if scaled else None
    if not scaled or not centred or not _is_weight(items, centred[1]):
        return None
    factors = _operands(items, scaled[1], "multiply")
    scale = factors[1] if factors and _is_weight(items, factors[1]) else None
    root = _operands(items, factors[0] if factors and scale is not None else scaled[1], "rsqrt")
    spread = _operands(items, root[0], "add") if root else None
    if not spread or not _is_weight(items, spread[0]) or "constant" not in items[spread[1]]:
        return None
    epsilon = constant_of(items[spread[1]]["constant"])
    x, mean = centred
    return BatchNorm(x, mean, spread[0], scale, offset, float(epsilon)) if epsilon.ndim == 0 else None


def _operands(items: Sequence[dict[str, Any]], index: int, operation: str) -> list[int] | None:
    fields = items[index].get("apply", {})
    return fields["inputs"] if fields.get("operation") == operation else None


def _is_weight(items: Sequence[dict[str, Any]], index: int) -> bool:
    ((source, fields),) = items[index].items()
    return source in {"parameter", "buffer"} and len(fields["shape"]) == 1


def normalized(graph: Graph, x: str, norm: BatchNorm, weights: Sequence[Operand | None]) -> str:
    """Write the node; `weights` are scale, offset, mean and variance."""
    width = next(each.shape[0] or 0 for each in weights if each is not None)
    plain = (1.0, 0.0)
    names = [
        graph.constant([plain[place]] * width) if each is None else graph.last(each)
        for place, each in enumerate(weights)
    ]
    return graph.emit("BatchNormalization", x, *names, epsilon=norm.epsilon)
