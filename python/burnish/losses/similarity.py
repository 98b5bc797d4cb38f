"""Losses of directions and distances between vectors."""

from __future__ import annotations

from .. import ops
from .._errors import boolean, number
from .._value import Operand, Value, shape_of
from .base import Loss, as_floats, per_sample, same_shape, show

__all__ = ["Cosine", "Triplet", "cosine", "triplet"]


def cosine(target: Operand, prediction: Operand, eps: float = 1e-8) -> Value:
    """Return 1 - t · p / (max(|t|, eps) · max(|p|, eps)) over the last axis: 0 in the same direction, 2 opposite.

    Both have the same shape `(batch, …, features) -> (batch,)`. (PyTorch's `CosineEmbeddingLoss` for pairs that belong
    together; Keras's `CosineSimilarity` is this minus 1.)
    """
    same_shape(target, prediction)
    target, prediction = as_floats(target, prediction)
    product = ops.sum(ops.multiply(target, prediction), -1)
    return per_sample(1.0 - product * _inverse_norm(target, eps) * _inverse_norm(prediction, eps))


def triplet(
    target: Operand,  # noqa: ARG001  a loss is given one
    prediction: Operand,
    margin: float = 1.0,
    swap: bool = False,  # noqa: FBT001, FBT002  PyTorch's name
    eps: float = 1e-6,
) -> Value:
    """Return max(|a - p + eps| - |a - n + eps| + margin, 0), Euclidean norms over the last axis (Schroff et al. 2015).

    `prediction (batch, 3, features) -> (batch,)` holds anchor a, positive p (of the same kind) and negative n (of
    another), such as `bn.ops.stack([f(a), f(p), f(n)], 1)` of a shared model f; the target is not looked at. `swap`
    takes the negative's distance to the positive where that is smaller (Balntas et al. 2016). PyTorch's
    `TripletMarginLoss`.
    """
    shape = shape_of(prediction)
    if len(shape) != 3 or shape[1] != 3:
        raise ValueError(
            f"the prediction must have shape (batch, 3, features): anchor, positive, negative; got {show(shape)}"
        )
    (prediction,) = as_floats(prediction)
    anchor, positive, negative = (
        ops.squeeze(ops.slice(prediction, (0, i, 0), (None, i + 1, None)), 1) for i in range(3)
    )
    far = _distance(anchor, negative, eps)
    far = ops.minimum(far, _distance(positive, negative, eps)) if swap else far
    return ops.relu(_distance(anchor, positive, eps) - far + margin)


class Cosine(Loss):
    """`cosine` with the least norm that counts."""

    _function = staticmethod(cosine)

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__(eps=number("eps", eps, 0, above=True))


class Triplet(Loss):
    """`triplet` with its margin."""

    _function = staticmethod(triplet)

    def __init__(self, margin: float = 1.0, *, swap: bool = False, eps: float = 1e-6) -> None:
        super().__init__(
            margin=number("margin", margin, 0, above=True), swap=boolean("swap", swap), eps=number("eps", eps, 0)
        )


def _inverse_norm(x: Operand, eps: float) -> Value:
    return ops.rsqrt(ops.maximum(ops.sum(ops.square(x), -1), eps * eps))


def _distance(a: Value, b: Value, eps: float) -> Value:
    return ops.norm(a - b + eps, -1)
