"""Losses of classes and probabilities; predictions are logits."""

from __future__ import annotations

from typing import Any

from .. import ops
from .._errors import boolean, integer, number
from .._value import Operand, Value, shape_of
from .base import Loss, check_single, hint, in_range, masked_mean, name_of, per_sample, same_shape, show

__all__ = [
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Focal",
    "Hinge",
    "KLDivergence",
    "binary_cross_entropy",
    "cross_entropy",
    "focal",
    "hinge",
    "kl_divergence",
]


def cross_entropy(
    target: Operand, prediction: Operand, label_smoothing: float = 0.0, ignore_class: int | None = None
) -> Value:
    """Return -Σ t · log softmax(prediction), over classes.

    `target (batch, …)` integers in [0, classes) or `(batch, …, classes)` probabilities, one-hot or soft;
    `prediction (batch, …, classes)` logits `-> (batch,)`. With `label_smoothing` s in [0, 1), t becomes
    (1 - s) · t + s / classes (Szegedy et al. 2016).

    Places labelled `ignore_class` (such as 0 or -1 for padding) are left out of a sample's mean. Each sample then
    counts alike; with its number of other places as `sample_weight`, each place does.
    """
    if _labels(target, prediction, "cross_entropy"):
        return _of_labels(target, prediction, label_smoothing, ignore_class)
    if ignore_class is not None:
        raise ValueError(f"`ignore_class` needs a target of labels, got shape {show(shape_of(target))}")
    smooth = _smoothed(target, label_smoothing, shape_of(prediction)[-1] or 1)
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


def focal(target: Operand, prediction: Operand, gamma: float = 2.0, alpha: float | None = 0.25) -> Value:
    """Return -a · (1 - p)^gamma · log p, p the probability of what is right (Lin et al. 2017).

    Of the same shape `(batch, …)`, targets in [0, 1] and logits: each element is its own label, p = sigmoid(z) with
    a = alpha where t = 1, and p = sigmoid(-z) with a = 1 - alpha where t = 0, as torchvision's `sigmoid_focal_loss`;
    soft targets mix the two. Of `target (batch, …)` integers and `prediction (batch, …, classes)` logits: p is that of
    softmax, and a = alpha, as Keras's `CategoricalFocalCrossentropy`. `-> (batch,)`; `alpha=None` leaves a out; gamma
    0 is the cross entropy.
    """
    check_single(target)
    shape = shape_of(prediction)
    if shape_of(target) == shape[:-1] and len(shape) > 1:
        loss = ops.cross_entropy(prediction, target)
        # The floor, far below what 1 - p can be, keeps the slope finite at p = 1.
        wrong = ops.maximum(ops.negative(ops.expm1(ops.negative(loss))), 1e-12)
        return per_sample(ops.power(wrong, gamma) * loss * (1.0 if alpha is None else alpha))
    same_shape(target, prediction)
    t = in_range(target, 0.0, 1.0)
    positive, negative = ops.softplus(ops.negative(prediction)), ops.softplus(prediction)
    factors = (1.0, 1.0) if alpha is None else (alpha, 1.0 - alpha)
    right = factors[0] * ops.exp(-gamma * negative) * positive
    wrong = factors[1] * ops.exp(-gamma * positive) * negative
    return per_sample(ops.add(ops.multiply(t, right), ops.multiply(ops.subtract(1.0, t), wrong)))


def hinge(
    target: Operand,
    prediction: Operand,
    margin: float = 1.0,
    squared: bool = False,  # noqa: FBT001, FBT002
) -> Value:
    """Return max(margin - s · prediction, 0), s = 1 where the target is above 0 and -1 elsewhere.

    Labels may so be 0 and 1 or -1 and 1; both have the same shape `(batch, …) -> (batch,)`, averaged over all axes but
    the batch. `squared` squares it (Rosasco et al. 2004; Keras's `Hinge` and `SquaredHinge`).
    """
    same_shape(target, prediction)
    sign = ops.where(ops.greater(in_range(target, -1.0, 1.0), 0.0), 1.0, -1.0)
    loss = ops.relu(ops.subtract(margin, ops.multiply(sign, prediction)))
    return per_sample(ops.square(loss) if squared else loss)


def kl_divergence(target: Operand, prediction: Operand) -> Value:
    """Return Σ t · (log t - log softmax(prediction)), over classes (Kullback and Leibler 1951).

    Probabilities and logits of the same shape `(batch, …, classes) -> (batch,)`. Logarithms of probabilities are
    logits, so that what PyTorch's `KLDivLoss` takes gives the same (with its reduction over classes being a sum).
    """
    same_shape(target, prediction)
    t = in_range(target, 0.0, 1.0)
    entropy = ops.multiply(t, ops.log(ops.where(ops.greater(t, 0.0), t, 1.0)))  # 0 · log 0 is 0
    return per_sample(ops.sum(ops.subtract(entropy, ops.multiply(t, ops.log_softmax(prediction))), -1))


class CrossEntropy(Loss):
    """`cross_entropy` with label smoothing, or with a class (padding) that does not count."""

    _function = staticmethod(cross_entropy)

    def __init__(self, label_smoothing: float = 0.0, ignore_class: int | None = None) -> None:
        super().__init__(
            label_smoothing=number("label_smoothing", label_smoothing, 0, 1, below=True),
            ignore_class=None if ignore_class is None else integer("ignore_class", ignore_class, -(2**31)),
        )


class BinaryCrossEntropy(Loss):
    """`binary_cross_entropy` with label smoothing."""

    _function = staticmethod(binary_cross_entropy)

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing=number("label_smoothing", label_smoothing, 0, 1, below=True))


class Focal(Loss):
    """`focal` with its exponent `gamma` and its weight `alpha`."""

    _function = staticmethod(focal)

    def __init__(self, gamma: float = 2.0, alpha: float | None = 0.25) -> None:
        super().__init__(gamma=number("gamma", gamma, 0), alpha=None if alpha is None else number("alpha", alpha, 0, 1))


class Hinge(Loss):
    """`hinge` with its margin, squared or not."""

    _function = staticmethod(hinge)

    def __init__(self, margin: float = 1.0, *, squared: bool = False) -> None:
        super().__init__(margin=number("margin", margin, 0, above=True), squared=boolean("squared", squared))


class KLDivergence(Loss):
    """`kl_divergence`."""

    _function = staticmethod(kl_divergence)

    def __init__(self) -> None:
        super().__init__()


def _labels(target: Operand, prediction: Operand, name: str) -> bool:
    """Say whether a target holds labels, not probabilities; raise for what is neither."""
    check_single(target)
    shape = shape_of(prediction)
    if shape and shape[-1] == 1:
        raise ValueError(f"{name} needs at least two classes, got one column; use binary_cross_entropy for one logit")
    if shape_of(target) == shape[:-1] and shape:
        return True
    if shape_of(target) != shape:
        raise ValueError(
            f"{name_of(target)} must have shape {show(shape[:-1])} for labels or {show(shape)} for probabilities, "
            f"got {show(shape_of(target))}{hint(target, shape[:-1])}"
        )
    return False


def _of_labels(target: Operand, prediction: Operand, smoothing: float, ignore_class: int | None) -> Value:
    if ignore_class is None:
        return per_sample(ops.cross_entropy(prediction, target, smoothing))
    last = (shape_of(prediction)[-1] or 1) - 1
    there = ops.not_equal(in_range(target, min(0, ignore_class), max(last, ignore_class)), ignore_class)
    labels = ops.cast(ops.where(there, target, 0), "int")
    return masked_mean(ops.cross_entropy(prediction, labels, smoothing), there)


def _smoothed(target: Operand, smoothing: float, classes: int) -> Any:
    """Return target probabilities, smoothed; a model's target is then checked to be such."""
    t = in_range(target, 0.0, 1.0)
    return ops.add(ops.multiply(1.0 - smoothing, t), smoothing / classes) if smoothing else t
