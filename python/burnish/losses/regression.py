"""Losses of numbers, counts and distributions."""

from __future__ import annotations

import math
from typing import Any

from .. import ops
from .._errors import boolean, number
from .._structure import is_sequence
from .._value import Operand, Value, shape_of
from .base import Loss, as_floats, check_single, hint, in_range, name_of, per_sample, same_shape, show

__all__ = [
    "GaussianNLL",
    "Huber",
    "LogCosh",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "PoissonNLL",
    "Quantile",
    "gaussian_nll",
    "huber",
    "log_cosh",
    "mae",
    "mse",
    "poisson_nll",
    "quantile",
]


def mse(target: Operand, prediction: Operand) -> Value:
    """Return (prediction - target)², averaged over all axes but the batch; both have the same shape."""
    same_shape(target, prediction)
    target, prediction = as_floats(target, prediction)
    return per_sample(ops.square(ops.subtract(prediction, target)))


def mae(target: Operand, prediction: Operand) -> Value:
    """Return |prediction - target|, averaged over all axes but the batch; both have the same shape."""
    same_shape(target, prediction)
    target, prediction = as_floats(target, prediction)
    return per_sample(ops.abs(ops.subtract(prediction, target)))


def huber(target: Operand, prediction: Operand, delta: float = 1.0) -> Value:
    """Return e² / 2 where |e| ≤ delta and delta · (|e| - delta / 2) elsewhere, e = prediction - target (Huber 1964).

    Averaged over all axes but the batch; both have the same shape.
    """
    same_shape(target, prediction)
    target, prediction = as_floats(target, prediction)
    size = ops.abs(ops.subtract(prediction, target))
    inner = ops.minimum(size, delta)
    return per_sample(inner * (size - 0.5 * inner))


def log_cosh(target: Operand, prediction: Operand) -> Value:
    """Return log cosh(prediction - target), without overflow: about e² / 2 where small and |e| - log 2 where large.

    Averaged over all axes but the batch; both have the same shape.
    """
    same_shape(target, prediction)
    target, prediction = as_floats(target, prediction)
    size = ops.abs(ops.subtract(prediction, target))
    t = ops.expm1(ops.minimum(size, 1.0))  # cosh e = 1 + t² / (2 (1 + t)), of t = e^|e| - 1, cancels nothing near 0
    small = ops.log1p(ops.square(t) / (2.0 * (1.0 + t)))
    return per_sample(ops.where(size < 1.0, small, size + ops.softplus(-2.0 * size) - math.log(2)))


def quantile(target: Operand, prediction: Operand, quantile: float | tuple[float, ...] = 0.5) -> Value:
    """Return max(q · e, (q - 1) · e), e = target - prediction: least at the quantile q (Koenker and Bassett 1978).

    Averaged over all axes but the batch; both have the same shape, or with several quantiles the prediction has one
    more axis, a column for each: `target (batch, …), prediction (batch, …, quantiles) -> (batch,)`.
    """
    if not isinstance(quantile, (tuple, list)):
        same_shape(target, prediction)
        target, prediction = as_floats(target, prediction)
        error = ops.subtract(target, prediction)
        return per_sample(ops.maximum(quantile * error, (quantile - 1.0) * error))
    check_single(target)
    wanted = (*shape_of(target), len(quantile))
    if shape_of(prediction) != wanted:
        raise ValueError(
            f"the prediction must have shape {show(wanted)}, a column for each quantile, "
            f"got {show(shape_of(prediction))}"
        )
    target, prediction = as_floats(target, prediction)
    error = ops.subtract(ops.expand_dims(target, -1), prediction)
    q = [float(one) for one in quantile]
    return per_sample(ops.maximum(ops.multiply(q, error), ops.multiply([one - 1.0 for one in q], error)))


def poisson_nll(
    target: Operand,
    prediction: Operand,
    log_input: bool = True,  # noqa: FBT001, FBT002  PyTorch's order
    full: bool = False,  # noqa: FBT001, FBT002
    eps: float = 1e-8,
) -> Value:
    """Return e^z - t · z, the negative log likelihood of counts t ≥ 0 under a Poisson distribution of mean e^z.

    Averaged over all axes but the batch; both have the same shape. Without `log_input` the prediction is the mean p
    itself: p - t · log(p + eps). `full` adds Stirling's t · log t - t + log(2πt) / 2 where t > 1. PyTorch's
    `PoissonNLLLoss`.
    """
    same_shape(target, prediction)
    target, prediction = as_floats(target, prediction)
    t = in_range(target, 0.0, None)
    if log_input:
        loss = ops.subtract(ops.exp(prediction), ops.multiply(t, prediction))
    else:
        loss = ops.subtract(prediction, ops.multiply(t, ops.log(ops.add(prediction, eps))))
    if full:
        above = ops.maximum(t, 1.0)
        stirling = above * ops.log(above) - above + 0.5 * ops.log(2 * math.pi * above)
        loss = loss + ops.where(ops.greater(t, 1.0), stirling, 0.0)
    return per_sample(loss)


def gaussian_nll(
    target: Operand,
    prediction: Operand,
    full: bool = False,  # noqa: FBT001, FBT002  PyTorch's name
    eps: float = 1e-6,
) -> Value:
    """Return (s + (t - m)² / e^s) / 2, the negative log likelihood under a normal distribution of mean m, variance e^s.

    The prediction's last axis holds all means, then the logarithms of all variances: `target (batch, …, n), prediction
    (batch, …, 2n) -> (batch,)`, or `(batch,), (batch, 2)` (Kendall and Gal 2017; PyTorch's `GaussianNLLLoss` takes the
    variance itself). The variance counts as at least `eps`. `full` adds log(2π) / 2. Averaged over all axes but the
    batch.
    """
    check_single(target)
    shape = shape_of(prediction)
    half = (shape[-1] or 0) // 2 if shape else 0
    wanted = (*shape[:-1], half)
    t = ops.expand_dims(target, -1) if shape_of(target) == shape[:-1] and half == 1 else target
    if half < 1 or shape[-1] != 2 * half or shape_of(t) != wanted:
        raise ValueError(
            f"{name_of(target)} must have half as many columns as the prediction, which holds means and the logarithms "
            f"of variances; got {show(shape_of(target))} and {show(shape)}{hint(target, wanted)}"
        )
    t, prediction = as_floats(t, prediction)
    whole = [(0, None)] * (len(shape) - 1)
    mean, log_variance = (
        ops.slice(prediction, *zip(*whole, part, strict=True)) for part in ((0, half), (half, 2 * half))
    )
    log_variance = ops.maximum(log_variance, math.log(eps))
    loss = 0.5 * (log_variance + ops.square(ops.subtract(t, mean)) * ops.exp(-log_variance))
    return per_sample(loss + 0.5 * math.log(2 * math.pi) if full else loss)


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


class LogCosh(Loss):
    """`log_cosh`."""

    _function = staticmethod(log_cosh)

    def __init__(self) -> None:
        super().__init__()


class Quantile(Loss):
    """`quantile` of one number in (0, 1) or, with a column of the prediction for each, of several."""

    _function = staticmethod(quantile)

    def __init__(self, quantile: Any = 0.5) -> None:
        several = quantile if is_sequence(quantile) else (quantile,)
        checked = tuple(number("quantile", one, 0, 1, above=True, below=True) for one in several)
        if not checked:
            raise ValueError("`quantile` must hold at least one number, got none")
        super().__init__(quantile=checked if is_sequence(quantile) else checked[0])


class PoissonNLL(Loss):
    """`poisson_nll` with its arguments."""

    _function = staticmethod(poisson_nll)

    def __init__(self, *, log_input: bool = True, full: bool = False, eps: float = 1e-8) -> None:
        super().__init__(
            log_input=boolean("log_input", log_input),
            full=boolean("full", full),
            eps=number("eps", eps, 0, above=True),
        )


class GaussianNLL(Loss):
    """`gaussian_nll` with its arguments."""

    _function = staticmethod(gaussian_nll)

    def __init__(self, *, full: bool = False, eps: float = 1e-6) -> None:
        super().__init__(full=boolean("full", full), eps=number("eps", eps, 0, above=True))
