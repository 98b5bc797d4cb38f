"""What all losses share: their form, and the checks of their arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .. import ops
from .._symbol import Symbol
from .._value import Operand, Shape, Value, kind_of, shape_of
from ..tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Loss",
    "LossFunction",
    "as_floats",
    "check_single",
    "hint",
    "in_range",
    "is_described",
    "masked_mean",
    "name_of",
    "per_sample",
    "same_shape",
    "show",
]

LossFunction: TypeAlias = "Callable[[Any, Any], Value]"


class Loss:
    """A loss with arguments; derive from it or pass any function instead."""

    _function: Callable[..., Value]

    def __init__(self, **arguments: Any) -> None:
        self._arguments = arguments

    def __call__(self, target: Operand, prediction: Operand) -> Value:
        """Return the value per sample."""
        return type(self)._function(target, prediction, **self._arguments)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value}' for key, value in self._arguments.items())})"


def per_sample(value: Value) -> Value:
    """Average over all axes but the batch."""
    return ops.mean(value, range(1, value.ndim)) if value.ndim > 1 else value


def masked_mean(value: Value, mask: Value) -> Value:
    """Average over all axes but the batch where the mask holds; 0 where it holds nowhere."""
    counted = ops.where(mask, value, 0.0)  # not a product: what does not count may be infinite
    if value.ndim < 2:
        return counted
    axes = range(1, value.ndim)
    return ops.sum(counted, axes) / ops.maximum(ops.sum(ops.cast(mask, "float"), axes), 1.0)


def as_floats(*arrays: Operand) -> tuple[Operand, ...]:
    """Return arrays, if all hold integers, as float64, which holds those exactly: differences may not fit 32 bits."""
    if any(is_described(array) or kind_of(array) == "float" for array in arrays):
        return arrays
    return tuple(np.asarray(array, np.float64) for array in arrays)


def is_described(x: Operand) -> bool:
    """Say whether a value is yet to be computed, not one that holds numbers."""
    return isinstance(x, Value) and not isinstance(x, Tensor)


def in_range(target: Operand, low: float | None, high: float | None) -> Operand:
    """Return the target; a model's data is then checked to lie between two numbers (None: no bound)."""
    if isinstance(target, Symbol):
        target.mark_range(low, high)
    return target


def same_shape(target: Operand, prediction: Operand) -> None:
    """Raise unless both have the same shape, so that nothing broadcasts in silence."""
    check_single(target)
    shape = shape_of(prediction)
    if shape_of(target) != shape:
        got = show(shape_of(target))
        raise ValueError(
            f"{name_of(target)} must have shape {show(shape)} like the prediction, got {got}{hint(target, shape)}"
        )


def check_single(target: Operand) -> None:
    """Raise for a target of several arrays."""
    if isinstance(target, dict) or (isinstance(target, tuple) and any(isinstance(leaf, Value) for leaf in target)):
        names = ", ".join(map(str, target)) if isinstance(target, dict) else f"{len(target)}"
        raise TypeError(f"`y` must be a single array for this loss, got a {type(target).__name__} ({names})")


def show(shape: Shape) -> str:
    """Return a shape with the batch's length in words."""
    lengths = ["batch" if length is None else str(length) for length in shape]
    return f"({', '.join(lengths)}{',' if len(lengths) == 1 else ''})"


def name_of(target: Operand) -> str:
    """Return what a target is called in messages."""
    return f"`{getattr(target, 'name', None) or 'target'}`"


def hint(target: Operand, wanted: Shape) -> str:
    """Say how to give the target the wanted shape, where an axis of length 1 is all that is wrong."""
    got, name = shape_of(target), name_of(target).strip("`")
    if got == (*wanted, 1):
        return f"; use {name}.reshape({name}.shape[:-1])"
    return f"; use {name}[..., None]" if (*got, 1) == wanted else ""
