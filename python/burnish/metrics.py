"""Metrics: functions `(target, prediction) -> value per sample`, averaged exactly over the whole set.

A model takes them by name or as any function of this form made of `bn.ops`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

from . import losses, ops
from ._errors import nearest
from ._value import Operand, Value, shape_of
from .losses import mae, mse

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["accuracy", "binary_accuracy", "mae", "mse"]


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
    return _share(ops.equal(ops.indexing.as_index(target, shape[-1]), answer))


def binary_accuracy(target: Operand, prediction: Operand) -> Value:
    """Return 1 where logit > 0 agrees with target > 1/2; both have the same shape, several columns are averaged."""
    losses.same_shape(target, prediction)
    return _share(ops.equal(ops.greater(target, 0.5), ops.greater(prediction, 0.0)))


def _share(right: Value) -> Value:
    return losses.per_sample(ops.cast(right, "float"))


MetricFunction: TypeAlias = "Callable[[Any, Any], Value]"

BY_NAME: dict[str, MetricFunction] = {function.__name__: function for function in (accuracy, binary_accuracy, mae, mse)}


def resolve(metric: Any, loss: losses.LossFunction) -> tuple[str, MetricFunction]:
    """Return name and function of a metric; "accuracy" under a binary loss is the binary one."""
    if isinstance(metric, str):
        if metric not in BY_NAME:
            raise ValueError(f"`metrics`: unknown name {metric!r}; {nearest(metric, BY_NAME)}")
        binary = metric == "accuracy" and _is_binary(loss)
        return metric, binary_accuracy if binary else BY_NAME[metric]
    if not callable(metric):
        raise TypeError(
            f"`metrics` must be names or functions (target, prediction) -> value per sample, got {metric!r}"
        )
    return str(getattr(metric, "__name__", type(metric).__name__)).strip("<>"), cast("MetricFunction", metric)


def _is_binary(loss: losses.LossFunction) -> bool:
    return loss is losses.binary_cross_entropy or isinstance(loss, losses.BinaryCrossEntropy)
