"""Shapes given by hand instead of learnt from arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._build import Signature
from ._errors import integer
from ._structure import Structure, flatten, is_dict, is_sequence, skeleton

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._value import Shape

__all__ = ["sample_shape", "signature_from_shapes"]


def sample_shape(argument: str, shape: Any) -> tuple[int, ...]:
    """Return the checked shape of one sample."""
    lengths = shape if is_sequence(shape) else (shape,)
    return tuple(integer(argument, length, 1) for length in lengths)


def signature_from_shapes(arrange: Callable[[Any], Any], shape: Any) -> Signature:
    """Return the signature of inputs of these shapes, the batch first."""
    structure: Structure[Any] = arrange(_leaves(shape))
    shapes = {name: _with_batch(leaf) for name, leaf in flatten("x", structure).items()}
    return Signature(skeleton("x", structure), shapes)


class _Leaf:
    def __init__(self, shape: Any) -> None:
        self.shape = shape


def _leaves(shape: Any) -> Any:
    if is_dict(shape):
        return {str(key): _Leaf(leaf) for key, leaf in shape.items()}
    if is_sequence(shape) and shape and all(is_sequence(leaf) for leaf in shape):
        return tuple(_Leaf(leaf) for leaf in shape)
    return _Leaf(shape)


def _with_batch(leaf: _Leaf) -> Shape:
    shape = leaf.shape
    if not is_sequence(shape) or not shape or shape[0] is not None:
        raise ValueError(f"`input_shape` must be a shape with the batch first, such as (None, 784), got {shape!r}")
    return (None, *sample_shape("input_shape", tuple(shape[1:])))
