"""Reading a program from its JSON form: which values need which, constants, and axes of unknown length."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._value import Shape

__all__ = ["batches_in", "constant_of", "needed"]

_DTYPES = {"float": np.float64, "int": np.int32, "bool": np.bool_}


def needed(items: Sequence[dict[str, Any]], wanted: Sequence[int]) -> list[int]:
    """Return the places of the values that are needed for the wanted ones, these included, in order."""
    found: set[int] = set()
    pending = list(wanted)
    while pending:
        index = pending.pop()
        if index not in found:
            found.add(index)
            pending.extend(items[index].get("apply", {}).get("inputs", ()))
    return sorted(found)


def constant_of(fields: dict[str, Any]) -> Any:
    """Return the numbers of a constant."""
    import base64

    numbers = np.frombuffer(base64.b64decode(fields["values"]), dtype="<f8")
    return numbers.reshape(fields["shape"]).astype(_DTYPES[fields["kind"]])


def batches_in(shape: Shape, fields: dict[str, Any], operands: Sequence[tuple[Shape, int]]) -> int:
    """Return how often the batch goes into the open axis of what an operation gives, 1 if it has none.

    `fields` describe the operation, `operands` are the shapes of its inputs, and how often for each of them.
    """
    if None not in shape:
        return 1
    if fields["operation"] == "reshape":
        ((given, batches),) = operands
        return batches * _known(given) // _known(shape)
    several = [batches for given, batches in operands if None in given]
    joins = fields["operation"] == "concatenate" and shape[fields["attributes"].get("axis", 0)] is None
    return sum(several) if joins else max(several)


def _known(shape: Shape) -> int:
    return math.prod(length for length in shape if length is not None)
