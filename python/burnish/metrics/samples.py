"""Metrics that are means of values per sample: functions `(target, prediction) -> value per sample`."""

from __future__ import annotations

from .. import losses, ops
from .._value import Operand, Value, shape_of
from .base import check_labels, classes_of

__all__ = ["accuracy", "binary_accuracy", "mae", "mse", "top_k_accuracy"]


def accuracy(target: Operand, prediction: Operand) -> Value:
    """Return 1 where the prediction is right.

    With `prediction (batch, …, classes)`: the largest one is the answer, and the target is integer labels `(batch, …)`
    or one-hot of the same shape. With one column or none, both of the same shape: see `binary_accuracy`.
    """
    losses.check_single(target)
    shape = shape_of(prediction)
    if len(shape) < 2 or shape[-1] == 1:
        return binary_accuracy(target, prediction)
    answer = ops.argmax(prediction)
    if shape_of(target) == shape:
        return _share(ops.equal(ops.argmax(target), answer))
    if shape_of(target) != shape[:-1]:
        losses.same_shape(target, answer)
    check_labels(target, classes_of(shape))
    return _share(ops.equal(ops.indexing.as_index(target, shape[-1]), answer))


def binary_accuracy(target: Operand, prediction: Operand) -> Value:
    """Return 1 where logit > 0 agrees with target > 1/2; both have the same shape, several columns are averaged."""
    losses.same_shape(target, prediction)
    return _share(ops.equal(ops.greater(target, 0.5), ops.greater(prediction, 0.0)))


def mae(target: Operand, prediction: Operand) -> Value:
    """Return |prediction - target|, averaged over all axes but the batch; both have the same shape."""
    return losses.mae(target, prediction)


def mse(target: Operand, prediction: Operand) -> Value:
    """Return (prediction - target)², averaged over all axes but the batch; both have the same shape."""
    return losses.mse(target, prediction)


def top_k_accuracy(target: Operand, prediction: Operand, k: int = 5) -> Value:
    """Return 1 where fewer than k classes have a larger prediction than the right one.

    `target (batch, …)` integer labels or `(batch, …, classes)` one-hot, `prediction (batch, …, classes) -> (batch,)`.
    A NaN counts as larger than the right one, and a right one that is NaN as smaller than all: it is never right.
    """
    losses.check_single(target)
    shape = shape_of(prediction)
    if len(shape) < 2 or (shape[-1] or 0) < k:
        raise ValueError(f"top_k_accuracy needs at least k={k} classes, got a prediction of shape {losses.show(shape)}")
    if shape_of(target) not in {shape, shape[:-1]}:
        losses.same_shape(target, ops.argmax(prediction))
    if shape_of(target) == shape:
        labels = ops.argmax(target)
    else:
        check_labels(target, classes_of(shape))
        labels = target
    right = ops.take_along_axis(prediction, ops.expand_dims(ops.indexing.as_index(labels, shape[-1]), -1))
    larger = ops.sum(ops.cast(ops.logical_not(ops.less_equal(prediction, right)), "float"), -1)
    return _share(ops.less(larger, float(k)))


def _share(right: Value) -> Value:
    return losses.per_sample(ops.cast(right, "float"))
