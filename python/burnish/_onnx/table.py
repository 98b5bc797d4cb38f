"""How each operation of the engine is written in ONNX: the families' tables together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import elementwise, images, indexing, logic, normalization, products, random, recurrent, reduction, shaping

if TYPE_CHECKING:
    from .graph import Emit

__all__ = ["DRAWN", "OPERATIONS", "REFUSED"]

OPERATIONS: dict[str, Emit] = {
    **elementwise.OPERATIONS,
    **logic.OPERATIONS,
    **products.OPERATIONS,
    **reduction.OPERATIONS,
    **normalization.OPERATIONS,
    **shaping.OPERATIONS,
    **indexing.OPERATIONS,
    **images.OPERATIONS,
    **random.OPERATIONS,
    **recurrent.OPERATIONS,
}
DRAWN = frozenset(random.OPERATIONS)
# What ONNX has no counterpart of, and why.
REFUSED: dict[str, str] = {"ctc": "it sums over all alignments, step by step"}
