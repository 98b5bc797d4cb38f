"""Every operation against NumPy: value, shape and kind, eagerly and inside a model; slopes against its differences."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
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


def test_every_function_has_a_case():
    covered = {name.partition(",")[0] for name in CASES} | set(RANDOM)
    assert covered == set(ops.__all__)


def operations_without_a_case():
    used = set()
    for case in CASES.values():
        used |= {operation for _, operation, _ in model_of(case)[1].nodes()}
    return {name for name, *_ in _burnish.operations()} - used


def test_the_cases_use_every_operation_of_the_engine():
    assert operations_without_a_case() == set(RANDOM)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-12)])
def test_eager_value(name, dtype, tolerance, device):
    if device not in ("cpu", "ndarray") and dtype == "float64":
        pytest.skip("accelerators compute in float32")
    case = CASES[name]
    value = case.function(*eager(case, dtype, device))
    expected = case.reference(*case.inputs)
    assert value.shape == expected.shape
    assert value.device.startswith(device)
    if expected.dtype.kind == case.inputs[0].dtype.kind == "f":
        assert value.dtype == dtype
    np.testing.assert_allclose(value.numpy(), expected, rtol=tolerance, atol=tolerance)


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


@pytest.mark.parametrize("name", CASES)
def test_gradient(name):
    error = gradient_error(CASES[name])
    assert error is None or error <= (0.0 if CASES[name].flat else 1e-6)


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


@pytest.mark.parametrize("name", CASES)
def test_value_inside_a_model(name):
    case = CASES[name]
    result, _ = model_of(case)
    np.testing.assert_allclose(result, case.reference(*case.inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
def test_reductions_to_a_number(name, device):
    x = bn.Tensor(X.astype(np.float32), requires_grad=True, device=device)
    value = getattr(ops, name)(x)
    assert value.shape == ()
    np.testing.assert_allclose(value.numpy(), getattr(X, name)(), rtol=1e-5)
    value.backward()
    assert x.grad.shape == (3, 4)


def test_dropout_keeps_the_mean_and_scales():
    x = bn.Tensor(np.ones((200, 500), np.float32))
    y = ops.dropout(x, 0.25).numpy()
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.01
    assert not np.array_equal(y, ops.dropout(x, 0.25).numpy())


def test_dropout_gradient_is_its_mask():
    x = bn.Tensor(np.ones((20, 5)), requires_grad=True)
    y = ops.dropout(x, 0.5)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())


def test_random_numbers_have_their_distribution():
    x = bn.Tensor(np.zeros((400, 500), np.float32))
    normal, uniform = ops.random_normal_like(x).numpy(), ops.random_uniform_like(x).numpy()
    assert abs(normal.mean()) < 0.01
    assert abs(normal.std() - 1) < 0.01
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.01


floats = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=1, max_dims=3, max_side=4), elements=st.floats(-5, 5, width=32)
)


@given(floats, st.data())
def test_indexing_is_numpys(array, data):
    key = data.draw(hnp.basic_indices(array.shape, allow_newaxis=True, allow_ellipsis=True))
    keys = key if isinstance(key, tuple) else (key,)
    if any(isinstance(k, slice) and k.step is not None and k.step < 0 for k in keys):
        with pytest.raises(IndexError, match="step"):
            bn.Tensor(array)[key]
        return
    expected = array[key]
    if expected.size:
        np.testing.assert_array_equal(bn.Tensor(array)[key].numpy(), expected)


@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3))
def test_broadcasting_and_its_gradient_are_numpys(shapes):
    a, b = (RNG.normal(size=shape) for shape in shapes.input_shapes)
    x, y = bn.Tensor(a, requires_grad=True), bn.Tensor(b, requires_grad=True)
    product = x * y
    np.testing.assert_array_equal(product.numpy(), a * b)
    product.sum().backward()
    np.testing.assert_allclose(
        x.grad.numpy(), np.broadcast_to(b, (a * b).shape).sum() if a.ndim == 0 else reduced(b, a)
    )
    np.testing.assert_allclose(
        y.grad.numpy(), np.broadcast_to(a, (a * b).shape).sum() if b.ndim == 0 else reduced(a, b)
    )


def reduced(other, to):
    """Sum what was broadcast, back to the shape of `to`."""
    full = np.broadcast_to(other, np.broadcast_shapes(other.shape, to.shape))
    full = full.sum(axis=tuple(range(full.ndim - to.ndim)))
    axes = tuple(i for i, n in enumerate(to.shape) if n == 1 and full.shape[i] != 1)
    return full.sum(axis=axes, keepdims=True)


@pytest.mark.parametrize("value", [800.0, -800.0])
@pytest.mark.parametrize("function", [ops.softplus, ops.sigmoid, ops.softmax, ops.log_softmax, ops.silu, ops.logsumexp])
def test_large_numbers_do_not_overflow(function, value):
    x = bn.Tensor([[value, 0.0]], requires_grad=True)
    y = function(x)
    y.sum().backward()
    assert np.isfinite(y.numpy()).all()
    assert np.isfinite(x.grad.numpy()).all()


def test_kinds_follow_numpy():
    i, f = bn.Tensor([1, 2]), bn.Tensor([1.5, 2.5])
    assert (i + 1).kind == "int"
    assert (i + f).kind == "float"
    assert (i / 2).kind == "float"
    assert (i > 1).kind == "bool"
    assert (~(i > 1)).numpy().tolist() == [True, False]
    assert (-i).numpy().tolist() == [-1, -2]
    assert ((i > 1) | (i < 2)).numpy().all()


def test_arrays_and_numbers_stand_on_either_side():
    x, array = bn.Tensor([1.0, 2.0]), np.array([3.0, 4.0])
    for left, right, expected in [
        (array, x, [4.0, 6.0]),
        (x, array, [4.0, 6.0]),
        (1, x, [2.0, 3.0]),
        (x, 1.0, [2.0, 3.0]),
    ]:
        assert isinstance(left + right, bn.Tensor)
        assert (left + right).numpy().tolist() == expected
    assert (2**x).numpy().tolist() == [2.0, 4.0]


def test_operators_and_methods_are_numpys():
    a, b = X.copy(), POSITIVE
    x, y = bn.Tensor(a), bn.Tensor(b)
    for made, expected in [
        (1.0 - x, 1.0 - a), (1.0 / y, 1.0 / b), (y**x, b**a), (2.0**x, 2.0**a), (x**2.0, a**2), (abs(x), abs(a)),
        (-x, -a), (x.sum(), a.sum()),
        (x @ b.T, a @ b.T), (a @ y.T, a @ b.T), (x <= a, a <= a), (x < y, a < b), (x >= y, a >= b), (x == a, a == a),
        (x != y, a != b), ((x > 0) & (y > 1), (a > 0) & (b > 1)), (x.T, a.T), (x.transpose(1, 0), a.T),
        (x.mean(1), a.mean(1)), (x.max(0, keepdims=True), a.max(0, keepdims=True)), (x.min(), a.min()),
        (x.reshape(4, -1), a.reshape(4, -1)), (x.reshape((2, 6)), a.reshape(2, 6)), (x[[2, 0]], a[[2, 0]]),
        (x[np.array(1)], a[1]), (abs(bn.Tensor([-2, 3])), [2, 3]), (x[..., None, 1], a[..., None, 1]),
    ]:  # fmt: skip
        np.testing.assert_allclose(made.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: ops.sum(x, 2), ValueError, "`axis` must be from -2 to 1"),
        (lambda x: ops.squeeze(x, 0), ValueError, "length 1"),
        (lambda x: ops.take(x, [0.5]), TypeError, "indices must be integers"),
        (lambda x: x + np.array(["a"]), TypeError, "array of numbers"),
        (lambda x: ops.concatenate([]), ValueError, "at least one"),
        (lambda x: x @ x, ValueError, "matmul"),
        (lambda x: x.reshape(5), ValueError, "reshape"),
        (lambda x: x[5], IndexError, "out of range"),
        (lambda x: x[0, 0, 0], IndexError, "3 indices for 2 axes"),
        (lambda x: x[1.5], TypeError, "an index must be"),
        (lambda x: ops.stack([x], 5), ValueError, "`axis` must be from"),
        (lambda x: int(x.T), ValueError, "size 1"),
        (lambda x: x[..., 0, ...], IndexError, "one `...`"),
        (lambda x: ops.cast(x, "complex"), ValueError, "unknown name 'complex'"),
        (bool, ValueError, "ambiguous"),
        (lambda x: ops.einsum("ab", x), ValueError, "must have the form"),
        (lambda x: ops.einsum("ab,bc->ac", x), ValueError, "must have the form"),
        (lambda x: ops.einsum("aab->b", x), ValueError, "a letter twice"),
        (lambda x: ops.einsum("ab->ac", x), ValueError, "no operand has the axis 'c'"),
        (lambda x: ops.einsum("abc->a", x), ValueError, "names 3 axes"),
        (lambda x: ops.einsum("ab,bc->ac", x, x), ValueError, "axis 'b' has lengths 3 and 2"),
        (lambda x: ops.split(x, 2, 1), ValueError, "must divide the length 3"),
        (lambda x: ops.split(x, [2, 1], 1), ValueError, "places from 0 to 3 in order"),
        (lambda x: ops.tile(x, [2]), ValueError, "a number for each of 2 axes"),
        (lambda x: ops.repeat(x, 0, 1), ValueError, "`repeats` must be an integer of at least 1"),
        (lambda x: ops.tril(x[0]), ValueError, "needs two axes"),
        (lambda x: ops.prod(np.zeros((2, 0))), ValueError, "no elements"),
        (lambda x: x.backward(), ValueError, "requires_grad"),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call(bn.Tensor(np.ones((2, 3))))


def test_expm1_is_exact_for_small_numbers():
    x = np.float32([1e-7, -1e-5, 3e-4, 0.5, -0.99, 1.01, 20.0, -20.0])
    np.testing.assert_allclose(ops.expm1(bn.Tensor(x)).numpy(), np.expm1(x.astype(float)), rtol=3e-7)


def test_angles_of_the_whole_plane():
    y, x = np.meshgrid([-2.0, -1e-9, -0.0, 0.0, 1e-9, 3.0], [-1.0, -1e-12, 0.0, 1e-12, 5.0])
    found = ops.arctan2(bn.Tensor(y), bn.Tensor(x)).numpy()
    np.testing.assert_allclose(np.exp(1j * found), np.exp(1j * np.arctan2(y, x)), atol=1e-15)
    assert (abs(found) <= np.pi).all()
    ends = bn.Tensor(np.array([-1.0, 0.0, 1.0]))
    np.testing.assert_allclose(ops.arcsin(ends).numpy(), np.arcsin([-1, 0, 1]), atol=1e-15)
    np.testing.assert_allclose(ops.arccos(ends).numpy(), np.arccos([-1, 0, 1]), atol=1e-15)
    far = bn.Tensor(np.array([-np.inf, -1e300, 0.0, 1e300, np.inf]), requires_grad=True)
    np.testing.assert_allclose(ops.arctan(far).numpy(), [-np.pi / 2, -np.pi / 2, 0.0, np.pi / 2, np.pi / 2])
    ops.arctan(far).sum().backward()
    np.testing.assert_array_equal(far.grad.numpy(), [0.0, 0.0, 1.0, 0.0, 0.0])
    np.testing.assert_allclose(ops.arctan2([3.0, -1.0], [0.0, -2.0]).numpy(), np.arctan2([3.0, -1.0], [0.0, -2.0]))


def test_slopes_on_the_axes():
    zero = bn.Tensor(np.zeros(1), requires_grad=True)
    for name, slope in (("arcsinh", 1), ("arcsin", 1), ("arccos", -1), ("arctan", 1), ("arctanh", 1), ("sinh", 1)):
        zero.zero_grad()
        getattr(ops, name)(zero).sum().backward()
        np.testing.assert_allclose(zero.grad.numpy(), [slope], err_msg=name)
    y, x = np.array([2.0, -3.0, 0.0, -0.5]), np.array([0.0, 0.0, 4.0, -0.5])
    up, right = bn.Tensor(y, requires_grad=True), bn.Tensor(x, requires_grad=True)
    ops.arctan2(up, right).sum().backward()
    np.testing.assert_allclose(up.grad.numpy(), x / (x**2 + y**2), atol=1e-15)
    np.testing.assert_allclose(right.grad.numpy(), -y / (x**2 + y**2), atol=1e-15)


@given(st.floats(-1, 1))
def test_small_numbers_keep_their_digits(x):
    for name, reference in (("sinh", np.sinh), ("arcsinh", np.arcsinh), ("arctan", np.arctan), ("expm1", np.expm1)):
        np.testing.assert_allclose(getattr(ops, name)(bn.Tensor([x])).numpy(), reference([x]), rtol=4e-15, atol=1e-300)


def test_the_slope_of_the_norm_at_zero_is_zero():
    x = bn.Tensor(np.zeros((2, 3)), requires_grad=True)
    (ops.norm(x, -1).sum() + ops.normalize(x).sum()).backward()
    assert np.isfinite(x.grad.numpy()).all()
    assert not bn.Tensor(np.zeros(3)).numpy().any()


EQUATIONS = [
    "ab,bc->ac", "ab,cb->ca", "abc,abd->acd", "ab,ab->a", "ab,ab->", "a,b->ba", "abc,dc->bda", "ab,c->abc",
    "ab,bcd->ad",
]  # fmt: skip


@given(st.sampled_from(EQUATIONS), st.fixed_dictionaries({letter: st.integers(1, 3) for letter in "abcd"}))
def test_einsum_is_numpys(equation, by_letter):
    left, right = (
        RNG.normal(size=[by_letter[n] for n in letters]) for letters in equation.partition("->")[0].split(",")
    )
    expected = np.einsum(equation, left, right)
    np.testing.assert_allclose(ops.einsum(equation, left, right).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_einsum_of_one_operand():
    np.testing.assert_allclose(ops.einsum("abcd->dca", IMAGES).numpy(), np.einsum("abcd->dca", IMAGES), rtol=1e-5)


@given(hnp.array_shapes(min_dims=1, max_dims=3, max_side=5), st.integers(-7, 7), st.data())
def test_movements_are_numpys(shape, shift, data):
    array = RNG.normal(size=shape)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    other = data.draw(st.integers(-len(shape), len(shape) - 1))
    for made, expected in [
        (ops.roll(array, shift, axis), np.roll(array, shift, axis)),
        (ops.moveaxis(array, axis, other), np.moveaxis(array, axis, other)),
        (ops.swapaxes(array, axis, other), np.swapaxes(array, axis, other)),
        (ops.repeat(array, abs(shift) + 1, axis), np.repeat(array, abs(shift) + 1, axis)),
        (ops.tile(array, [2] * len(shape)), np.tile(array, [2] * len(shape))),
        (ops.cumsum(array, axis), np.cumsum(array, axis)),
        (ops.cumprod(array, axis), np.cumprod(array, axis)),
        (ops.prod(array, axis), np.prod(array, axis)),
    ]:
        np.testing.assert_allclose(made.numpy(), expected, rtol=1e-5, atol=1e-6)
