"""Losses: functions `(target, prediction) -> value per sample`, shape `(batch,)`.

A model takes them by name, as a class with arguments, or as any function of this form made of `bn.ops`; what has more
than one axis is averaged over the others. Predictions of the cross entropies are logits: no softmax or sigmoid before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

from . import ops
from ._errors import nearest, number
from ._symbol import Symbol
from ._value import Operand, Shape, Value, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Huber",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "binary_cross_entropy",
    "cross_entropy",
    "huber",
    "mae",
    "mse",
]


def cross_entropy(target: Operand, prediction: Operand, label_smoothing: float = 0.0) -> Value:
    """Return -Σ t · log softmax(prediction), over classes.

    `target (batch, …)` integers in [0, classes) or `(batch, …, classes)` probabilities, one-hot or soft;
    `prediction (batch, …, classes)` logits `-> (batch,)`. With `label_smoothing` s in [0, 1), t becomes
    (1 - s) · t + s / classes (Szegedy et al. 2016).
    """
    check_single(target)
    shape = shape_of(prediction)
    if shape and shape[-1] == 1:
        raise ValueError(
            "cross_entropy needs at least two classes, got one column; use binary_cross_entropy for one logit"
        )
    if shape_of(target) == shape[:-1] and shape:
        return per_sample(ops.cross_entropy(prediction, target, label_smoothing))
    if shape_of(target) != shape:
        raise ValueError(
            f"{_name(target)} must have shape {show(shape[:-1])} for labels or {show(shape)} for probabilities, "
            f"got {show(shape_of(target))}{_hint(target, shape[:-1])}"
        )
    smooth = _smoothed(target, label_smoothing, shape[-1] or 1)
    return per_sample(ops.negative(ops.sum(ops.multiply(smooth, ops.log_softmax(prediction)), -1)))


def binary_cross_entropy(target: Operand, prediction: Operand, label_smoothing: float = 0.0) -> Value:
    """Return t · softplus(-z) + (1 - t) · softplus(z), the cross entropy of logits z with targets t in [0, 1].

    Target and prediction have the same shape `(batch, …) -> (batch,)`; several columns are independent labels.
    With `label_smoothing` s, t becomes (1 - s) · t + s / 2.
    """
    same_shape(target, prediction)
    smooth = _smoothed(target, label_smoothing, 2)
    positive = ops.multiply(smooth, ops.softplus(ops.negative(prediction)))
    negative = ops.multiply(ops.subtract(1.0, smooth), ops.softplus(prediction))
    return per_sample(ops.add(positive, negative))


def mse(target: Operand, prediction: Operand) -> Value:
    """Return (prediction - target)², averaged over all axes but the batch; both have the same shape."""
    same_shape(target, prediction)
    return per_sample(ops.square(ops.subtract(prediction, target)))


def mae(target: Operand, prediction: Operand) -> Value:
    """Return |prediction - target|, averaged over all axes but the batch; both have the same shape."""
    same_shape(target, prediction)
    return per_sample(ops.abs(ops.subtract(prediction, target)))


def huber(target: Operand, prediction: Operand, delta: float = 1.0) -> Value:
    """Return e² / 2 where |e| ≤ delta and delta · (|e| - delta / 2) elsewhere, e = prediction - target (Huber 1964).

    Averaged over all axes but the batch; both have the same shape.
    """
    same_shape(target, prediction)
    size = ops.abs(ops.subtract(prediction, target))
    inner = ops.minimum(size, delta)
    return per_sample(inner * (size - 0.5 * inner))


class Loss:
    """A loss with arguments; derive from it or pass any function instead."""

    _function: Callable[..., Value]

    def __init__(self, **arguments: float) -> None:
        self._arguments = arguments

    def __call__(self, target: Operand, prediction: Operand) -> Value:
        """Return the value per sample."""
        return type(self)._function(target, prediction, **self._arguments)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value}' for key, value in self._arguments.items())})"


class CrossEntropy(Loss):
    """`cross_entropy` with label smoothing."""

    _function = staticmethod(cross_entropy)

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing=number("label_smoothing", label_smoothing, 0, 1, below=True))


class BinaryCrossEntropy(Loss):
    """`binary_cross_entropy` with label smoothing."""

    _function = staticmethod(binary_cross_entropy)

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing=number("label_smoothing", label_smoothing, 0, 1, below=True))


class MeanSquaredError(Loss):
    """`mse`."""

    _function = staticmethod(mse)

    def __init__(self) -> None:
        super().__init__()


class MeanAbsoluteError(Loss):
    """`mae`."""

    _function = staticmethod(mae)

    def __init__(self) -> None:
        super().__init__()


class Huber(Loss):
    """`huber` with its bend at `delta`."""

    _function = staticmethod(huber)

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__(delta=number("delta", delta, 0, above=True))


LossFunction: TypeAlias = "Callable[[Any, Any], Value]"

BY_NAME: dict[str, LossFunction] = {
    function.__name__: function for function in (binary_cross_entropy, cross_entropy, huber, mae, mse)
}


def resolve(loss: Any) -> LossFunction:
    """Return the function that is meant by a name, a class or a function."""
    if isinstance(loss, str):
        if loss not in BY_NAME:
            raise ValueError(f"`loss`: unknown name {loss!r}; {nearest(loss, BY_NAME)}")
        return BY_NAME[loss]
    given = cast("Any", loss() if isinstance(loss, type) and issubclass(loss, Loss) else loss)
    if not callable(given):
        raise TypeError(f"`loss` must be a name or a function (target, prediction) -> value per sample, got {loss!r}")
    return cast("LossFunction", given)


def per_sample(value: Value) -> Value:
    """Average over all axes but the batch."""
    return ops.mean(value, range(1, value.ndim)) if value.ndim > 1 else value


def same_shape(target: Operand, prediction: Operand) -> None:
    """Raise unless both have the same shape, so that nothing broadcasts in silence."""
    check_single(target)
    shape = shape_of(prediction)
    if shape_of(target) != shape:
        got = show(shape_of(target))
        raise ValueError(
            f"{_name(target)} must have shape {show(shape)} like the prediction, got {got}{_hint(target, shape)}"
        )


def check_single(target: Operand) -> None:
    if isinstance(target, dict) or (isinstance(target, tuple) and any(isinstance(leaf, Value) for leaf in target)):
        names = ", ".join(map(str, target)) if isinstance(target, dict) else f"{len(target)}"
        raise TypeError(f"`y` must be a single array for this loss, got a {type(target).__name__} ({names})")


def show(shape: Shape) -> str:
    """Return a shape with the batch's length in words."""
    lengths = ["batch" if length is None else str(length) for length in shape]
    return f"({', '.join(lengths)}{',' if len(lengths) == 1 else ''})"


def _smoothed(target: Operand, smoothing: float, classes: int) -> Operand:
    """Return target probabilities, smoothed; a model's target is then checked to be such."""
    if isinstance(target, Symbol):
        target.mark_probability()
    return ops.add(ops.multiply(1.0 - smoothing, target), smoothing / classes) if smoothing else target


def _name(target: Operand) -> str:
    return f"`{getattr(target, 'name', None) or 'target'}`"


def _hint(target: Operand, wanted: Shape) -> str:
    got, name = shape_of(target), _name(target).strip("`")
    if got == (*wanted, 1):
        return f"; use {name}.reshape({name}.shape[:-1])"
    return f"; use {name}[..., None]" if (*got, 1) == wanted else ""
