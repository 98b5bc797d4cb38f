"""Losses of whole sequences."""

from __future__ import annotations

from typing import Any, cast

from .. import ops
from .._errors import boolean, integer
from .._structure import is_dict
from .._value import Operand, Value, shape_of
from .base import Loss, in_range, name_of, show

__all__ = ["CTC", "ctc"]


def ctc(target: Operand, prediction: Operand, blank: int = 0, zero_infinity: bool = False) -> Value:  # noqa: FBT001, FBT002
    """Return -ln P(labels), summed over all alignments of the labels with the steps (Graves et al. 2006).

    `target (batch, places)` integers in order, padded by -1 (or `blank`, as Keras does);
    `prediction (batch, steps, classes)` logits `-> (batch,)`. In an alignment a step holds a label, the same as the
    step before (which counts once) or `blank`. Where sequences end before the last step, the target is a tuple
    `(labels, lengths)` or a dict `{"labels": …, "lengths": …}` with the number of steps of each, `(batch,)`: what
    comes after counts nothing, in the gradient either.

    Labels that no alignment fits cost infinity, which `fit` tells as it does of any update that is not finite;
    `zero_infinity` makes it 0. The same as PyTorch's `CTCLoss(reduction="none")` and Keras's `ctc`.
    """
    labels, lengths = _parts(target)
    shape = shape_of(prediction)
    if len(shape) != 3:
        raise ValueError(f"the prediction must have shape (batch, steps, classes), got {show(shape)}")
    batch, steps, classes = shape
    if len(shape_of(labels)) != 2 or shape_of(labels)[0] != batch:
        wanted = f"({'batch' if batch is None else batch}, places)"
        raise ValueError(f"{name_of(labels)} must have shape {wanted}, got {show(shape_of(labels))}")
    if classes is not None and blank >= classes:
        raise ValueError(f"`blank` must be one of {classes} classes, got {blank}")
    labels = in_range(labels, None, None if classes is None else classes - 1)
    if lengths is not None and shape_of(lengths) != (batch,):
        raise ValueError(f"{name_of(lengths)} must have shape {show((batch,))}, got {show(shape_of(lengths))}")
    lengths = None if lengths is None else in_range(lengths, 0, steps)
    return ops.ctc(prediction, labels, lengths, blank=blank, zero_infinity=zero_infinity)


class CTC(Loss):
    """`ctc` with the class that means no label, and whether what cannot be aligned counts nothing."""

    _function = staticmethod(ctc)

    def __init__(self, blank: int = 0, *, zero_infinity: bool = False) -> None:
        super().__init__(blank=integer("blank", blank, 0), zero_infinity=boolean("zero_infinity", zero_infinity))


def _parts(target: Any) -> tuple[Any, Any]:
    """Return labels and lengths, None if there are none."""
    if is_dict(target):
        if set(target) != {"labels", "lengths"}:
            raise ValueError(f"`y` must hold labels and lengths for this loss, got {', '.join(map(str, target))}")
        return target["labels"], target["lengths"]
    if isinstance(target, tuple):
        parts = cast("tuple[Any, ...]", target)
        if len(parts) != 2:
            raise ValueError(f"`y` must be labels, or labels and lengths, for this loss, got {len(parts)} arrays")
        return parts
    return target, None
