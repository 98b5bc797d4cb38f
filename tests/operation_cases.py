"""Every operation with what NumPy makes of the same numbers, and what it is held to."""

import itertools
import math
from typing import NamedTuple

import numpy as np
from recurrence import oracle

import burnish as bn
from burnish import _burnish, ops
from burnish.model import core_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4))
Y = RNG.normal(size=(3, 4))
POSITIVE = RNG.uniform(0.5, 2.0, size=(3, 4))
IMAGES = RNG.normal(size=(3, 6, 5, 4))
TRUE = X > 0


class Case(NamedTuple):
    function: object
    reference: object
    inputs: list  # floats are differentiated
    constants: tuple = ()  # which inputs have no row per sample
    flat: bool = False  # whether slopes are zero by definition


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.logaddexp(x, 0)


def erf(x):
    return np.vectorize(math.erf)(x)


def log_softmax(x, axis=-1):
    shifted = x - x.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def windows(x, size, strides, dilation=(1, 1)):
    span = [(n - 1) * d + 1 for n, d in zip(size, dilation, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(x, span, axis=(1, 2))
    return view[:, :: strides[0], :: strides[1], :, :: dilation[0], :: dilation[1]]  # b h w c kh kw


def conv2d(x, kernel, bias=0.0, strides=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1):
    x = np.pad(x, [(0, 0), *padding, (0, 0)])
    parts = zip(np.split(x, groups, axis=3), np.split(kernel, groups, axis=3), strict=True)
    return (
        np.concatenate(
            [np.einsum("bhwcij,ijcf->bhwf", windows(a, k.shape[:2], strides, dilation), k) for a, k in parts], axis=3
        )
        + bias
    )


def pool(reduce, fill):
    def reference(x, size, strides, padding):
        padded = np.pad(x, [(0, 0), *padding, (0, 0)], constant_values=fill)
        return reduce(windows(padded, size, strides), axis=(4, 5))

    return reference


def layer_norm(x, scale, offset, eps=1e-5):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * scale + offset


def batch_norm(x, mean, variance, scale, offset, eps=1e-5):
    return (x - mean) / np.sqrt(variance + eps) * scale + offset


def moments(x):
    axes = tuple(range(x.ndim - 1))
    return np.stack([x.mean(axes), x.var(axes), x.var(axes, ddof=1)])


def own_batch_norm(x, scale, offset):
    axes = tuple(range(x.ndim - 1))
    return batch_norm(x, x.mean(axes), x.var(axes), scale, offset, 0.1)


def own_batch_norm_of(x, scale, offset):
    observed = ops.moments(x)
    return ops.batch_norm(x, observed[0], observed[1], scale, offset, eps=0.1, of_batch=True)


LABELS = np.array([0, 3, 1])


def cross_entropy(x, labels, smoothing):
    target = np.eye(4)[labels] * (1 - smoothing) + smoothing / 4
    return -(target * log_softmax(x)).sum(-1)


def ctc(x, labels, lengths):
    """By every way through the steps that spells the labels."""
    ways = list(itertools.product(range(x.shape[2]), repeat=x.shape[1]))

    def loss(logarithms, word, length):
        spelt = [[c for c, _ in itertools.groupby(way[:length]) if c] for way in ways]
        kept = {way[:length] for way, found in zip(ways, spelt, strict=True) if found == [c for c in word if c > 0]}
        return -np.log(sum(np.exp(logarithms[range(length), way].sum()) for way in kept))

    return np.array([loss(*sample) for sample in zip(log_softmax(x), labels, lengths, strict=True)])


def recurrent(kind, gates):
    """All steps of a cell of two units."""
    bias = (2, 2 * gates) if kind == "gru" else 2 * gates
    shapes = [(3, 4, 3), (3, 2 * gates), (2, 2 * gates), bias]
    return Case(
        lambda *inputs: getattr(ops, kind)(*inputs, returns="sequence"),
        lambda x, *p: oracle(kind, dict(zip(("kernel", "recurrent_kernel", "bias"), p, strict=True)), x)[0][0],
        [RNG.normal(size=shape) for shape in shapes],
        (1, 2, 3),
    )


def attention(q, k, v, mask, heads, causal, scale):
    """Head by head; what may look nowhere gets the mean."""
    joined = []
    for h, (a, b, c) in enumerate(zip(*(np.split(x, heads, -1) for x in (q, k, v)), strict=True)):
        scores = scale * np.einsum("btd,bsd->bts", a, b)
        seen = np.broadcast_to(mask, (len(q), heads, *scores.shape[1:]))[:, h]
        seen = seen & np.tri(*scores.shape[1:], dtype=bool) if causal else seen
        powers = np.where(seen, np.exp(scores), 0.0) + 1.0 * ~seen.any(-1, keepdims=True)
        joined.append(powers / powers.sum(-1, keepdims=True) @ c)
    return np.concatenate(joined, -1)


QUERIES = RNG.normal(size=(3, 4, 6))
KEYS, VALUES = RNG.normal(size=(3, 5, 6)), RNG.normal(size=(3, 5, 4))
THERE = np.arange(5) < np.array([5, 0, 2])[:, None, None, None]


CASES = {
    "negative": Case(ops.negative, np.negative, [X]),
    "exp": Case(ops.exp, np.exp, [X]),
    "log": Case(ops.log, np.log, [POSITIVE]),
    "log1p": Case(ops.log1p, np.log1p, [POSITIVE]),
    "log2": Case(ops.log2, np.log2, [POSITIVE]),
    "log10": Case(ops.log10, np.log10, [POSITIVE]),
    "expm1": Case(ops.expm1, np.expm1, [2 * X]),
    "sqrt": Case(ops.sqrt, np.sqrt, [POSITIVE]),
    "rsqrt": Case(ops.rsqrt, lambda x: 1 / np.sqrt(x), [POSITIVE]),
    "reciprocal": Case(ops.reciprocal, np.reciprocal, [POSITIVE]),
    "square": Case(ops.square, np.square, [X]),
    "abs": Case(ops.abs, np.abs, [X]),
    "sign": Case(ops.sign, np.sign, [X], flat=True),
    "sin": Case(ops.sin, np.sin, [X]),
    "cos": Case(ops.cos, np.cos, [X]),
    "tan": Case(ops.tan, np.tan, [X]),
    "sinh": Case(ops.sinh, np.sinh, [2 * X]),
    "cosh": Case(ops.cosh, np.cosh, [2 * X]),
    "arcsinh": Case(ops.arcsinh, np.arcsinh, [3 * X]),
    "arccosh": Case(ops.arccosh, np.arccosh, [1 + POSITIVE]),
    "arctanh": Case(ops.arctanh, np.arctanh, [np.tanh(X)]),
    "arctan": Case(ops.arctan, np.arctan, [5 * X]),
    "arctan2": Case(ops.arctan2, np.arctan2, [X, Y]),
    "arcsin": Case(ops.arcsin, np.arcsin, [np.tanh(X)]),
    "arccos": Case(ops.arccos, np.arccos, [np.tanh(X)]),
    "erf": Case(ops.erf, erf, [X]),
    "floor": Case(ops.floor, np.floor, [3 * X], flat=True),
    "ceil": Case(ops.ceil, np.ceil, [3 * X], flat=True),
    "round": Case(ops.round, np.round, [np.concatenate([3 * X, [[0.5, 1.5, -0.5, -2.5]]])], flat=True),
    "trunc": Case(ops.trunc, np.trunc, [3 * X], flat=True),
    "isnan": Case(lambda x: ops.isnan(ops.log(x)), lambda x: x < 0, [X]),
    "isfinite": Case(lambda x: ops.isfinite(ops.log(x)), lambda x: x > 0, [X * (Y > 0)]),
    "clip": Case(lambda x: ops.clip(x, -0.5, 0.7), lambda x: np.clip(x, -0.5, 0.7), [X]),
    "stop_gradient": Case(ops.stop_gradient, np.array, [X], flat=True),
    "ones_like": Case(ops.ones_like, np.ones_like, [X], flat=True),
    "full_like": Case(lambda x: ops.full_like(x, 2.5), lambda x: np.full_like(x, 2.5), [X], flat=True),
    "zeros_like": Case(ops.zeros_like, np.zeros_like, [X], flat=True),
    "relu": Case(ops.relu, lambda x: np.maximum(x, 0), [X]),
    "relu6": Case(ops.relu6, lambda x: np.clip(x, 0, 6), [5 * X]),
    "leaky_relu": Case(lambda x: ops.leaky_relu(x, 0.1), lambda x: np.where(x > 0, x, 0.1 * x), [X]),
    "elu": Case(lambda x: ops.elu(x, 0.5), lambda x: np.where(x > 0, x, 0.5 * np.expm1(x)), [X]),
    "selu": Case(ops.selu, lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)), [X]),
    "gelu": Case(ops.gelu, lambda x: x * (1 + erf(x / math.sqrt(2))) / 2, [X]),
    "gelu, approximate": Case(
        lambda x: ops.gelu(x, approximate=True),
        lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        [X],
    ),
    "celu": Case(lambda x: ops.celu(x, 0.5), lambda x: np.where(x > 0, x, 0.5 * np.expm1(2 * x)), [X]),
    "glu": Case(ops.glu, lambda x: x[:, :2] * sigmoid(x[:, 2:]), [X]),
    "glu, axis": Case(lambda x: ops.glu(x, 1), lambda x: x[:, :2] * sigmoid(x[:, 2:]), [IMAGES[:, :4]]),
    "silu": Case(ops.silu, lambda x: x * sigmoid(x), [X]),
    "hard_silu": Case(ops.hard_silu, lambda x: x * np.clip(x / 6 + 0.5, 0, 1), [4 * X]),
    "hard_tanh": Case(ops.hard_tanh, lambda x: np.clip(x, -1, 1), [2 * X]),
    "hard_shrink": Case(ops.hard_shrink, lambda x: np.where(np.abs(x) > 0.5, x, 0), [X]),
    "soft_shrink": Case(lambda x: ops.soft_shrink(x, 0.3), lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.3, 0), [X]),
    "tanh_shrink": Case(ops.tanh_shrink, lambda x: x - np.tanh(x), [X]),
    "log_sigmoid": Case(ops.log_sigmoid, lambda x: np.log(sigmoid(x)), [X]),
    "squareplus": Case(lambda x: ops.squareplus(x, 2.0), lambda x: (x + np.sqrt(x**2 + 2)) / 2, [X]),
    "threshold": Case(lambda x: ops.threshold(x, 0.2, -3.0), lambda x: np.where(x > 0.2, x, -3.0), [X]),
    "mish": Case(ops.mish, lambda x: x * np.tanh(softplus(x)), [X]),
    "sigmoid": Case(ops.sigmoid, sigmoid, [X]),
    "hard_sigmoid": Case(ops.hard_sigmoid, lambda x: np.clip(x / 6 + 0.5, 0, 1), [4 * X]),
    "tanh": Case(ops.tanh, np.tanh, [X]),
    "softplus": Case(ops.softplus, softplus, [X]),
    "softsign": Case(ops.softsign, lambda x: x / (1 + np.abs(x)), [X]),
    "add": Case(ops.add, np.add, [X, Y[0]], (1,)),
    "subtract": Case(ops.subtract, np.subtract, [X, Y[:, :1]]),
    "multiply": Case(ops.multiply, np.multiply, [X, Y]),
    "divide": Case(ops.divide, np.divide, [X, POSITIVE[0]], (1,)),
    "floor_divide": Case(ops.floor_divide, np.floor_divide, [3 * X, Y], flat=True),
    "floor_divide, integers": Case(lambda x: ops.floor_divide(x, 2), lambda x: x // 2, [LABELS - 2]),
    "mod": Case(ops.mod, np.mod, [3 * X, POSITIVE]),
    "mod, integers": Case(lambda x: ops.mod(x, -2), lambda x: x % -2, [LABELS]),
    "logaddexp": Case(ops.logaddexp, np.logaddexp, [X, 30 * Y]),
    "power": Case(ops.power, np.power, [POSITIVE, Y]),
    "maximum": Case(ops.maximum, np.maximum, [X, Y]),
    "minimum": Case(ops.minimum, np.minimum, [X, Y]),
    "equal": Case(ops.equal, np.equal, [LABELS, np.array([0, 1, 1])]),
    "not_equal": Case(ops.not_equal, np.not_equal, [LABELS, np.array([0, 1, 1])]),
    "greater": Case(ops.greater, np.greater, [X, Y]),
    "greater_equal": Case(ops.greater_equal, np.greater_equal, [X, X]),
    "less": Case(ops.less, np.less, [X, Y]),
    "less_equal": Case(ops.less_equal, np.less_equal, [X, X]),
    "logical_and": Case(ops.logical_and, np.logical_and, [TRUE, Y > 0]),
    "logical_or": Case(ops.logical_or, np.logical_or, [TRUE, Y > 0]),
    "logical_xor": Case(ops.logical_xor, np.logical_xor, [TRUE, Y > 0]),
    "logical_not": Case(ops.logical_not, np.logical_not, [TRUE]),
    "where": Case(ops.where, np.where, [TRUE, X, Y]),
    "cast": Case(lambda x: ops.cast(x, "float"), lambda x: x.astype(float), [LABELS]),
    "matmul": Case(ops.matmul, np.matmul, [X, Y.T], (1,)),
    "matmul, batched": Case(ops.matmul, np.matmul, [RNG.normal(size=(3, 2, 4)), RNG.normal(size=(4, 5))], (1,)),
    "einsum": Case(
        lambda a, b: ops.einsum("bik,bkj->bij", a, b),
        np.matmul,
        [RNG.normal(size=(3, 2, 4)), RNG.normal(size=(3, 4, 5))],
    ),
    "einsum, outer": Case(
        lambda a, b: ops.einsum("bi,bj->bji", a, b), lambda a, b: np.einsum("bi,bj->bji", a, b), [X, Y]
    ),
    "linear": Case(ops.linear, lambda x, k, b: x @ k + b, [X, RNG.normal(size=(4, 2)), RNG.normal(size=2)], (1, 2)),
    "linear, tanh": Case(
        lambda x, k: ops.linear(x, k, activation="tanh"),
        lambda x, k: np.tanh(x @ k),
        [X, RNG.normal(size=(4, 2))],
        (1,),
    ),
    "sum": Case(lambda x: ops.sum(x, -1), lambda x: x.sum(-1), [X]),
    "mean": Case(lambda x: ops.mean(x, (1, 2)), lambda x: x.mean((1, 2)), [IMAGES]),
    "max": Case(lambda x: ops.max(x, 1, keepdims=True), lambda x: x.max(1, keepdims=True), [X]),
    "min": Case(lambda x: ops.min(x, 1), lambda x: x.min(1), [X]),
    "any": Case(lambda x: ops.any(x > 0.8, -1), lambda x: (x > 0.8).any(-1), [X]),
    "all": Case(lambda x: ops.all(x > -1.0, 1), lambda x: (x > -1.0).all(1), [X]),
    "prod": Case(lambda x: ops.prod(x, 1), lambda x: x.prod(1), [IMAGES]),
    "prod, with zeros": Case(
        lambda x: ops.prod(x, keepdims=True), lambda x: x.prod(-1, keepdims=True), [X * (X > -0.5)]
    ),
    "cumprod": Case(lambda x: ops.cumprod(x, -1), lambda x: x.cumprod(-1), [X * (X > -0.5)]),
    "cumsum": Case(lambda x: ops.cumsum(x, 1), lambda x: x.cumsum(1), [IMAGES]),
    "norm": Case(lambda x: ops.norm(x, -1), lambda x: np.linalg.norm(x, axis=-1), [X]),
    "normalize": Case(ops.normalize, lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True), [X]),
    "variance": Case(lambda x: ops.variance(x, -1), lambda x: x.var(-1), [X]),
    "standard_deviation": Case(lambda x: ops.standard_deviation(x, -1), lambda x: x.std(-1), [X]),
    "argmax": Case(ops.argmax, lambda x: x.argmax(-1), [X]),
    "argmin": Case(lambda x: ops.argmin(x, 1), lambda x: x.argmin(1), [X]),
    "logsumexp": Case(ops.logsumexp, lambda x: np.log(np.exp(x).sum(-1)), [X]),
    "softmax": Case(ops.softmax, lambda x: np.exp(log_softmax(x)), [X]),
    "log_softmax": Case(lambda x: ops.log_softmax(x, 1), log_softmax, [X]),
    "reshape": Case(lambda x: ops.reshape(x, (-1, 2, 2)), lambda x: x.reshape(-1, 2, 2), [X]),
    "transpose": Case(lambda x: ops.transpose(x, (0, 3, 1, 2)), lambda x: x.transpose(0, 3, 1, 2), [IMAGES]),
    "broadcast_to": Case(
        lambda x: ops.broadcast_to(ops.expand_dims(x, 1), (-1, 5, 4)),
        lambda x: np.broadcast_to(x[:, None], (3, 5, 4)),
        [X],
    ),
    "expand_dims": Case(lambda x: ops.expand_dims(x, -1), lambda x: x[..., None], [X]),
    "squeeze": Case(lambda x: ops.squeeze(x, 1), lambda x: x[:, 0], [X[:, None]]),
    "concatenate": Case(lambda a, b: ops.concatenate([a, b]), lambda a, b: np.concatenate([a, b], -1), [X, Y]),
    "stack": Case(lambda a, b: ops.stack([a, b], 1), lambda a, b: np.stack([a, b], 1), [X, Y]),
    "slice": Case(lambda x: ops.slice(x, (0, 1), (None, 4), (1, 2)), lambda x: x[:, 1:4:2], [X]),
    "pad": Case(
        lambda x: ops.pad(x, ((0, 0), (1, 2)), 0.5), lambda x: np.pad(x, ((0, 0), (1, 2)), constant_values=0.5), [X]
    ),
    "split": Case(lambda x: ops.split(x, 2)[1], lambda x: np.split(x, 2, -1)[1], [X]),
    "split, places": Case(lambda x: ops.split(x, [1, 3], 1)[1], lambda x: np.split(x, [1, 3], 1)[1], [X]),
    "repeat": Case(lambda x: ops.repeat(x, 3, 1), lambda x: x.repeat(3, 1), [X]),
    "tile": Case(lambda x: ops.tile(x, (1, 3, 1, 2)), lambda x: np.tile(x, (1, 3, 1, 2)), [IMAGES]),
    "roll": Case(lambda x: ops.roll(x, -1, 1), lambda x: np.roll(x, -1, 1), [X]),
    "swapaxes": Case(lambda x: ops.swapaxes(x, 1, -1), lambda x: x.swapaxes(1, -1), [IMAGES]),
    "moveaxis": Case(lambda x: ops.moveaxis(x, -1, 1), lambda x: np.moveaxis(x, -1, 1), [IMAGES]),
    "tril": Case(lambda x: ops.tril(x, -1), lambda x: np.tril(x, -1), [IMAGES]),
    "triu": Case(ops.triu, np.triu, [IMAGES]),
    "flip": Case(lambda x: ops.flip(x, 1), lambda x: x[:, ::-1], [X]),
    "take": Case(lambda i: ops.take(Y, i), lambda i: Y[i], [np.array([[2, 0], [1, 1], [0, 2]])]),
    "take, table": Case(lambda t: ops.take(t, [2, 0, 0, 1], axis=1), lambda t: t[:, [2, 0, 0, 1]], [X]),
    "take_along_axis": Case(
        ops.take_along_axis,
        lambda x, i: np.take_along_axis(x, i, -1),
        [X, np.array([[0, 3], [2, 2], [1, 0]])],
    ),
    "one_hot": Case(lambda i: ops.one_hot(i, 5), lambda i: np.eye(5)[i], [LABELS]),
    "conv2d": Case(
        lambda x, k, b: ops.conv2d(x, k, b, strides=(2, 1), padding=((1, 0), (1, 2)), activation="relu"),
        lambda x, k, b: np.maximum(conv2d(x, k, b, (2, 1), ((1, 0), (1, 2))), 0),
        [IMAGES, RNG.normal(size=(3, 2, 4, 3)), RNG.normal(size=3)],
        (1, 2),
    ),
    "conv2d, grouped": Case(
        lambda x, k: ops.conv2d(x, k, dilation=(2, 1), groups=2),
        lambda x, k: conv2d(x, k, dilation=(2, 1), groups=2),
        [IMAGES, RNG.normal(size=(2, 3, 2, 6))],
        (1,),
    ),
    "conv1d": Case(
        lambda x, k, b: ops.conv1d(x, k, b, stride=2, padding=(2, 1), dilation=2),
        lambda x, k, b: conv2d(x[:, None], k[None], b, (1, 2), ((0, 0), (2, 1)), (1, 2))[:, 0],
        [IMAGES[:, 0], RNG.normal(size=(2, 4, 3)), RNG.normal(size=3)],
        (1, 2),
    ),
    "max_pool1d": Case(
        lambda x: ops.max_pool1d(x, 3, 1, (1, 1)),
        lambda x: pool(np.max, -np.inf)(x[:, None], (1, 3), (1, 1), ((0, 0), (1, 1)))[:, 0],
        [IMAGES[:, 0]],
    ),
    "avg_pool1d": Case(
        lambda x: ops.avg_pool1d(x, 2, padding=(1, 0)),
        lambda x: pool(np.nanmean, np.nan)(x[:, None], (1, 2), (1, 2), ((0, 0), (1, 0)))[:, 0],
        [IMAGES[:, 0]],
    ),
    "max_pool2d": Case(
        lambda x: ops.max_pool2d(x, (2, 3), (2, 1), ((0, 1), (1, 1))),
        lambda x: pool(np.max, -np.inf)(x, (2, 3), (2, 1), ((0, 1), (1, 1))),
        [IMAGES],
    ),
    "avg_pool2d": Case(
        lambda x: ops.avg_pool2d(x, (2, 2), (1, 2), ((1, 0), (0, 1))),
        lambda x: pool(np.nanmean, np.nan)(x, (2, 2), (1, 2), ((1, 0), (0, 1))),
        [IMAGES],
    ),
    "lstm": recurrent("lstm", 4),
    "gru": recurrent("gru", 3),
    "rnn": recurrent("rnn", 1),
    "sequence_mask": Case(
        lambda lengths: ops.sequence_mask(lengths, 4), lambda lengths: np.arange(4) < lengths[:, None], [LABELS]
    ),
    "moments": Case(
        lambda x: x[:, 0, 0] * ops.sum(ops.moments(x) * np.arange(12.0).reshape(3, 4), 0),
        lambda x: x[:, 0, 0] * (moments(x) * np.arange(12.0).reshape(3, 4)).sum(0),
        [IMAGES],
    ),
    "batch_norm": Case(ops.batch_norm, batch_norm, [IMAGES, Y[0], POSITIVE[0], Y[1], Y[2]], (1, 2, 3, 4)),
    "batch_norm, of the batch": Case(own_batch_norm_of, own_batch_norm, [IMAGES, Y[0], Y[1]], (1, 2)),
    "layer_norm": Case(ops.layer_norm, layer_norm, [X, Y[0], Y[1]], (1, 2)),
    "cross_entropy": Case(
        lambda x, labels: ops.cross_entropy(x, labels, 0.1),
        lambda x, labels: cross_entropy(x, labels, 0.1),
        [X, LABELS],
    ),
    "attention": Case(
        lambda q, k, v: ops.attention(q, k, v, 2),
        lambda q, k, v: attention(q, k, v, True, 2, False, 3**-0.5),
        [QUERIES, KEYS, VALUES],
    ),
    "attention, causal": Case(
        lambda q, k, v: ops.attention(q, k, v, scale=2.0, causal=True),
        lambda q, k, v: attention(q, k, v, True, 1, True, 2.0),
        [QUERIES, KEYS, VALUES],
    ),
    "attention, masked": Case(
        lambda there, q, k, v: ops.attention(q, k, v, 2, there, causal=True),
        lambda there, q, k, v: attention(q, k, v, there, 2, True, 3**-0.5),
        [THERE, QUERIES, KEYS, VALUES],
    ),
    "attention, mask of places": Case(
        lambda q, k, v: ops.attention(q, k, v, 2, np.tri(4, 5, 2, dtype=bool)[None, None]),
        lambda q, k, v: attention(q, k, v, np.tri(4, 5, 2, dtype=bool), 2, False, 3**-0.5),
        [QUERIES, KEYS, VALUES],
    ),
    "ctc": Case(ops.ctc, ctc, [RNG.normal(size=(3, 4, 3)), np.array([[1, 2], [1, 1], [2, -1]]), np.array([4, 3, 2])]),
}
RANDOM = {
    "dropout": lambda x: ops.dropout(x, 0.4),
    "random_normal_like": lambda x: x * ops.random_normal_like(x),
    "random_uniform_like": lambda x: x * ops.random_uniform_like(x),
}


def eager(case, dtype, device="cpu"):
    arrays = [a.astype(dtype) if a.dtype.kind == "f" else a for a in case.inputs]
    return [bn.Tensor(a, requires_grad=a.dtype.kind == "f", device=device) for a in arrays]


def operations_without_a_case():
    used = set()
    for case in CASES.values():
        used |= {operation for _, operation, _ in model_of(case)[1].nodes()}
    return {name for name, *_ in _burnish.operations()} - used


def gradient_error(case):
    """The worst |slope - difference| / max(1, |difference|) in float64; None where there is no slope."""
    tensors = eager(case, "float64")
    value = case.function(*tensors)
    if value.kind != "float" or not any(tensor.requires_grad for tensor in tensors):
        return None
    weights = np.random.default_rng(1).normal(size=value.shape)
    ((value * weights).sum() + sum(0.0 * tensor.sum() for tensor in tensors)).backward()
    worst = 0.0
    for position, tensor in enumerate(tensors):
        if tensor.requires_grad:
            numeric = np.zeros(tensor.shape) if case.flat else differences(case, position, weights)
            worst = max(worst, np.max(np.abs(tensor.grad.numpy() - numeric) / np.maximum(1.0, np.abs(numeric))))
    return worst


def differences(case, position, weights, step=1e-6):
    slopes = np.zeros_like(case.inputs[position])
    for index in np.ndindex(slopes.shape):
        sides = []
        for sign in (1, -1):
            inputs = [a.copy() for a in case.inputs]
            inputs[position][index] += sign * step
            sides.append((case.reference(*inputs) * weights).sum())
        slopes[index] = (sides[0] - sides[1]) / (2 * step)
    return slopes


def modelled(case):
    """Return a model whose output is the operation's value, and what to predict from."""
    rows = [i for i in range(len(case.inputs)) if i not in case.constants]
    values = dict(enumerate(case.inputs)) | {i: bn.Input(case.inputs[i].shape[1:]) for i in rows}
    model = bn.Model([values[i] for i in rows], case.function(*values.values()))
    model.compile("mse", precision="float64")
    return model, tuple(case.inputs[i] for i in rows)


def model_of(case):
    """Return the values of the operation as a model's output, and the model's program."""
    model, x = modelled(case)
    return model.predict(x), core_of(model).ready().built.program
