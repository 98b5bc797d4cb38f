"""Products, convolutions, attention, pooling, normalisation, dropout and the fused losses of classes."""

from __future__ import annotations

import math
from typing import TypeAlias

from .._value import Operand, Value, apply, binary, cast, shape_of
from .indexing import as_index

__all__ = [
    "attention",
    "avg_pool2d",
    "batch_norm",
    "conv2d",
    "cross_entropy",
    "ctc",
    "dropout",
    "layer_norm",
    "linear",
    "matmul",
    "max_pool2d",
    "moments",
    "random_normal_like",
    "random_uniform_like",
]

Pair: TypeAlias = tuple[int, int]
Padding: TypeAlias = tuple[Pair, Pair]


def matmul(a: Operand, b: Operand) -> Value:
    """Return the matrix product of the last two axes; leading axes broadcast: `(…, n, k), (…, k, m) -> (…, n, m)`."""
    return binary("matmul", a, b, floating=True)


def linear(x: Operand, kernel: Operand, bias: Operand | None = None, activation: str = "none") -> Value:
    """Return activation(x · kernel + bias) in one operation: `(…, in), (in, out), (out,) -> (…, out)`.

    `activation` is "none", "relu", "tanh" or "sigmoid".
    """
    inputs = [cast(x, "float"), kernel, *([] if bias is None else [bias])]
    return apply("linear", *inputs, activation=activation)


def conv2d(
    x: Operand,
    kernel: Operand,
    bias: Operand | None = None,
    *,
    strides: Pair = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    dilation: Pair = (1, 1),
    groups: int = 1,
    activation: str = "none",
) -> Value:
    """Return the cross-correlation of images with a kernel, channels last.

    `x (batch, h, w, in), kernel (kh, kw, in / groups, out), bias (out,) -> (batch, h', w', out)`; `padding` is
    ((top, bottom), (left, right)) zeros.
    """
    inputs = [cast(x, "float"), kernel, *([] if bias is None else [bias])]
    options = {"strides": list(strides), "padding": [list(pair) for pair in padding], "dilation": list(dilation)}
    return apply("conv2d", *inputs, **options, groups=groups, activation=activation)


def max_pool2d(x: Operand, size: Pair, strides: Pair | None = None, padding: Padding = ((0, 0), (0, 0))) -> Value:
    """Return the largest element of each window of images, channels last; padding never wins."""
    return _pool("max_pool2d", x, size, strides, padding)


def avg_pool2d(x: Operand, size: Pair, strides: Pair | None = None, padding: Padding = ((0, 0), (0, 0))) -> Value:
    """Return the mean of each window of images, channels last; padding does not count."""
    return _pool("avg_pool2d", x, size, strides, padding)


def layer_norm(x: Operand, scale: Operand, offset: Operand, eps: float = 1e-5) -> Value:
    """Return (x - mean) / sqrt(variance + eps) · scale + offset, statistics over the last axis (Ba et al. 2016)."""
    return apply("layer_norm", cast(x, "float"), scale, offset, eps=eps)


def moments(x: Operand) -> Value:
    """Return mean, variance and unbiased variance of each feature over all rows: `(…, features) -> (3, features)`.

    With n rows, the variances are Σ (x - mean)² divided by n and by max(n - 1, 1).
    """
    return apply("moments", cast(x, "float"))


def batch_norm(
    x: Operand,
    mean: Operand,
    variance: Operand,
    scale: Operand,
    offset: Operand,
    *,
    eps: float = 1e-5,
    of_batch: bool = False,
) -> Value:
    """Return (x - mean) / sqrt(variance + eps) · scale + offset, the last axis being features (Ioffe and Szegedy 2015).

    `(…, features)` and four times `(features,) -> (…, features)`. Say `of_batch` where mean and variance are the first
    two `moments` of x itself: slopes of x then count how they move with it, in one operation.
    """
    return apply("batch_norm", cast(x, "float"), mean, variance, scale, offset, eps=eps, of_batch=of_batch)


def dropout(x: Operand, rate: float) -> Value:
    """Return x with a random fraction set to 0 and the rest divided by 1 - rate (Srivastava et al. 2014)."""
    return apply("dropout", cast(x, "float"), rate=rate)


def random_normal_like(x: Operand) -> Value:
    """Return standard normal numbers in the shape of x, others in every step."""
    return apply("random_normal_like", cast(x, "float"))


def random_uniform_like(x: Operand) -> Value:
    """Return uniform numbers in [0, 1) in the shape of x, others in every step."""
    return apply("random_uniform_like", cast(x, "float"))


def cross_entropy(logits: Operand, labels: Operand, label_smoothing: float = 0.0) -> Value:
    """Return log Σ exp(logits) - logits[label] over the last axis: `(…, classes), (…) -> (…)`.

    With `label_smoothing` s the target is 1 - s at the label plus s / classes everywhere.
    """
    classes = shape_of(logits)[-1]
    return apply("cross_entropy", cast(logits, "float"), as_index(labels, classes), label_smoothing=label_smoothing)


def ctc(
    logits: Operand, labels: Operand, lengths: Operand | None = None, *, blank: int = 0, zero_infinity: bool = False
) -> Value:
    """Return -log P of labels over all their alignments with the steps: `(b, steps, classes), (b, places) -> (b,)`.

    Labels that are negative or `blank` are padding; `lengths (b,)` are the steps of each. See `bn.losses.ctc`.
    """
    inputs = [cast(values, "int") for values in (labels, lengths) if values is not None]
    return apply("ctc", cast(logits, "float"), *inputs, blank=blank, zero_infinity=zero_infinity)


def attention(
    query: Operand,
    key: Operand,
    value: Operand,
    heads: int = 1,
    mask: Operand | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Value:
    """Return softmax(scale · Q · Kᵀ) · V of several heads side by side, in one operation (Vaswani et al. 2017).

    `query (b, t, heads · w), key (b, s, heads · w), value (b, s, heads · d) -> (b, t, heads · d)`. A query may look
    where `mask`, four axes that broadcast to `(b, heads, t, s)`, is true (and not beyond itself if `causal`); one that
    may look nowhere gets the mean of all values. `scale` is 1 / sqrt(w) by default; `dropout` is the part of the
    weights that is set to 0, others in every step.
    """
    width = (shape_of(query)[-1] or 0) // max(heads, 1)
    inputs = [cast(query, "float"), cast(key, "float"), cast(value, "float")]
    inputs += [] if mask is None else [cast(mask, "bool")]
    factor = 1 / math.sqrt(max(width, 1)) if scale is None else scale
    return apply("attention", *inputs, heads=heads, scale=factor, causal=causal, dropout=dropout)


def _pool(operation: str, x: Operand, size: Pair, strides: Pair | None, padding: Padding) -> Value:
    options = {
        "size": list(size),
        "strides": list(size if strides is None else strides),
        "padding": [list(pair) for pair in padding],
    }
    return apply(operation, cast(x, "float"), **options)
