"""Code of the user's own: saved as operations, run without the code; what cannot be traced is said with a remedy."""

import math
import subprocess
import sys

import numpy as np
import pytest

import burnish as bn
from burnish import layers, ops

RNG = np.random.default_rng(2)
X, Y = RNG.normal(size=(24, 4)), RNG.integers(0, 3, size=24)


class Mixture(layers.Layer):
    """Two experts and a gate, with a count of the steps, noise in training and a penalty on its own values."""

    def __init__(self, units):
        super().__init__()
        self.units = units
        self.gate = layers.Dense(2, spread)

    def call(self, x, *, training):
        kernel = self.parameter("kernel", (2, x.shape[-1], self.units), in_steps, regularizer=roughness)
        self.assign("steps", self.buffer("steps", (1,)) + 1.0)
        gate = self.gate(x + 0.1 * ops.random_normal_like(x) if training else x)
        self.add_loss(0.01 * ops.mean(ops.square(gate), -1))
        return ops.einsum("be,beu->bu", gate, ops.stack([x @ kernel[0], x @ kernel[1]], 1))


def spread(x):
    return ops.softmax(3.0 * x)


def in_steps(shape, rng):
    return rng.choice([-0.5, 0.0, 0.5], size=shape)


def roughness(kernel):
    return 0.1 * ops.mean(ops.square(kernel[:, 1:] - kernel[:, :-1]))


def soft_margin(target, prediction):
    own = ops.take_along_axis(prediction, ops.expand_dims(target, 1), 1)
    return ops.logsumexp(prediction - own + 0.5 * (1.0 - ops.one_hot(target, 3)))


def margin(target, prediction):
    top = ops.max(prediction - 1e9 * ops.one_hot(target, 3), -1)
    return ops.sum(prediction * ops.one_hot(target, 3), -1) - top


class Spread(bn.metrics.Metric):
    """The standard deviation of the highest score: a root of sums."""

    default_name = "spread"

    def columns(self, target, prediction):
        top = ops.max(prediction, -1)
        return {"sum": top, "squares": top * top}

    def finish(self, sums):
        mean = sums["sum"] / sums["weight"]
        return (sums["squares"] / sums["weight"] - mean * mean) ** 0.5


def model():
    made = bn.Sequential([Mixture(8), layers.Activation(lambda x: x * ops.sigmoid(1.7 * x)), layers.Dense(3)])
    made.compile(soft_margin, "adam", 0.01, metrics=[margin, Spread, "accuracy"], seed=3)
    return made


PROCESS = """
import sys
import numpy as np
import burnish as bn

folder = sys.argv[1]
data = np.load(f"{folder}/data.npz")
model = bn.load(f"{folder}/model")
prediction = model.predict(data["x"])
history = model.fit(data["x"], data["y"], batch_size=8, epochs=2, verbose=0).history
scores = model.evaluate(data["x"], data["y"])
assert not {"test_own_code", "pytest", "__mp_main__"} & set(sys.modules)
np.savez(f"{folder}/result.npz", prediction=prediction, **{f"history.{k}": v for k, v in history.items()},
         **{f"score.{k}": v for k, v in scores.items()}, **model.parameters(buffers=True))
"""


def test_own_code_is_saved_as_operations_and_goes_on_in_a_process_without_it(tmp_path):
    made = model()
    made.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    made.save(tmp_path / "model")
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    subprocess.run([sys.executable, "-c", PROCESS, str(tmp_path)], check=True)
    result = dict(np.load(tmp_path / "result.npz"))
    np.testing.assert_array_equal(result.pop("prediction"), made.predict(X))
    history = made.fit(X, Y, batch_size=8, epochs=2, verbose=0).history
    scores = made.evaluate(X, Y)
    assert set(scores) == {"loss", "margin", "spread", "accuracy"}
    expected = {
        **{f"history.{name}": values for name, values in history.items()},
        **{f"score.{name}": value for name, value in scores.items()},
        **made.parameters(buffers=True),
    }
    assert set(result) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(result[name], value, err_msg=name)


def test_own_code_computes_what_it_says():
    made = model().build((None, 4))
    report = bn.check_gradients(made, X, Y)
    assert report.passed, report
    p = made.parameters(buffers=True)
    gate = np.exp(3 * (X @ p["mixture.gate.kernel"] + p["mixture.gate.bias"]))
    gate /= gate.sum(1, keepdims=True)
    experts = np.einsum("bf,efu->beu", X, p["mixture.kernel"])
    hidden = np.einsum("be,beu->bu", gate, experts)
    z = hidden / (1 + np.exp(-1.7 * hidden)) @ p["dense.kernel"] + p["dense.bias"]
    np.testing.assert_allclose(made.predict(X), z, rtol=1e-4, atol=1e-5)
    own, hot = z[np.arange(24), Y], np.eye(3)[Y]
    loss = np.log(np.exp(z - own[:, None] + 0.5 * (1 - hot)).sum(1))
    penalty = 0.1 * np.mean((p["mixture.kernel"][:, 1:] - p["mixture.kernel"][:, :-1]) ** 2)
    scores = made.evaluate(X, Y)
    assert scores["loss"] == pytest.approx((loss + 0.01 * (gate**2).mean(1)).mean() + penalty, rel=1e-5)
    assert scores["margin"] == pytest.approx((own - (z - 1e9 * hot).max(1)).mean(), rel=1e-4)
    assert scores["spread"] == pytest.approx(z.max(1).std(), rel=1e-4)


def test_an_initializer_of_ones_own_depends_on_seed_and_path_alone():
    def kernels(seed, *names):
        made = bn.Sequential([layers.Dense(4, kernel_initializer=in_steps, name=name) for name in names])
        made.compile("mse", seed=seed)
        return made.build((None, 4)).parameters()

    first = kernels(1, "a", "b")
    assert set(np.unique(first["a.kernel"])) <= {-0.5, 0.0, 0.5}
    assert not np.array_equal(first["a.kernel"], first["b.kernel"])
    np.testing.assert_array_equal(kernels(1, "b", "a")["a.kernel"], first["a.kernel"])
    assert not np.array_equal(kernels(2, "a", "b")["a.kernel"], first["a.kernel"])


def test_an_initializer_of_ones_own_starts_what_learns_on_and_nothing_later():
    made = bn.Sequential([layers.Dense(4, kernel_initializer=in_steps)])
    made.compile("mse")
    made.fit(X, X, verbose=0)
    before = made.parameters()["dense.kernel"]
    made.compile("mae", seed=5)
    made.freeze("*bias")
    np.testing.assert_array_equal(made.build((None, 4)).parameters()["dense.kernel"], before)
    outer = bn.Sequential([made, layers.Dense(2)]).build((None, 4))
    np.testing.assert_array_equal(outer.parameters()["sequential.dense.kernel"], before)


def test_an_initializer_may_be_made_of_tensors_or_be_an_object():
    class Ramp:
        def __call__(self, shape, rng):
            return bn.Tensor(np.linspace(0, 1, math.prod(shape)).reshape(shape)) * 2.0

    made = bn.Sequential([bn.Input((4,)), layers.Dense(3, kernel_initializer=Ramp())])
    np.testing.assert_allclose(made.parameters()["dense.kernel"].ravel(), np.linspace(0, 2, 12), rtol=1e-6)


@pytest.mark.parametrize(
    ("initializer", "error", "words"),
    [
        (
            lambda shape, rng: np.zeros(3),
            ValueError,
            r"'dense.kernel' must return numbers of shape \(4, 2\), got float64",
        ),
        (lambda shape, rng: None, ValueError, "got object"),
        (lambda shape, rng: np.full(shape, np.inf), ValueError, "not finite"),
        (in_steps.__class__, TypeError, "a name, an Initializer or a function"),
        (3, TypeError, "a name, an Initializer or a function"),
    ],
)
def test_initializers_that_do_not_fit(initializer, error, words):
    with pytest.raises(error, match=words):
        bn.Sequential([bn.Input((4,)), layers.Dense(2, kernel_initializer=initializer)]).parameters()


def assigned(x):
    x[:, 0] = 0.0
    return x


def counted(x):
    while ops.sum(x) > 1:
        x = x / 2
    return x


def summed(x):
    total = 0
    for row in x:
        total = total + row
    return total


def in_place(x):
    array = np.ones(4)
    array += x
    return array


class Kept(layers.Layer):
    """Keeps a value of the training form and uses it in the other one."""

    def call(self, x, *, training):
        self.value = ops.dropout(x, 0.5) if training else self.value
        return self.value


class Declares(layers.Layer):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def call(self, x):
        return x * self.parameter("w", x.shape if self.shape == "x" else self.shape)


class Functor:
    def __call__(self, target, prediction):
        return (target - prediction) ** 2


@pytest.mark.parametrize(
    ("layer", "options", "error", "words"),
    [
        (Kept(), {}, ValueError, "a value of an earlier trace was used"),
        (Declares("x"), {}, ValueError, r"the shape of 'w' must not hold the batch's length.*\(None, 4\)"),
        (Declares(4), {}, TypeError, "the shape of 'w' must be a tuple of lengths, got 4"),
        (Declares((4, 1.5)), {}, TypeError, "`shape of w` must be an integer"),
        (layers.Dense(4, activation=lambda x: None), {}, TypeError, "dense: `call` .* returned None"),
        (layers.Lambda(lambda x: 3.0), {}, TypeError, "lambda: `call` must return a value made of .* got float"),
        (bn.Sequential([layers.Lambda(lambda x: x.ndim), layers.Dense(4)]), {}, TypeError, "lambda: .* got int"),
        (layers.Dense(4), {"loss": lambda y, p: None}, TypeError, "a value per sample made of bn.ops"),
        (layers.Dense(4), {"loss": lambda y, p: ops.mean(p - y)}, ValueError, r"a value per sample.*got \(\)"),
        (layers.Dense(4), {"loss": lambda y, p: p > y}, TypeError, "`loss` must return floats.*got bool"),
        (layers.Dense(4), {"loss": Functor}, TypeError, "got the class Functor: give an object of it"),
        (layers.Dense(4), {"metrics": [Functor]}, TypeError, "got the class Functor: give an object of it"),
        (layers.Dense(4, kernel_regularizer=lambda k: k), {}, ValueError, "a penalty must have no axis"),
        (layers.Dense(4, kernel_regularizer=lambda k: 0.1), {}, TypeError, "a penalty must be made of bn.ops"),
    ],
)  # fmt: skip
def test_own_code_that_does_not_fit(layer, options, error, words):
    with pytest.raises(error, match=words):
        fitted(layer, **{"loss": "mse", **options})


def fitted(layer, **options):
    made = bn.Sequential([bn.Input((4,)), layer])
    made.compile(**options)
    made.fit(X, X, verbose=0)
    return made


def test_losses_and_metrics_may_be_objects():
    made = fitted(layers.Dense(4), loss=Functor(), metrics=[Functor()])
    scores = made.evaluate(X, X)
    assert scores["loss"] == scores["Functor"] == pytest.approx(((made.predict(X) - X) ** 2).mean(), rel=1e-5)


# What cannot be traced, and the words that say what to do instead.
UNTRACEABLE = {
    "if": (lambda x: x if ops.mean(x) > 0 else -x, "neither true nor false.*bn.ops.where"),
    "while": (counted, "`while`"),
    "and": (lambda x: (x > 0) and (x < 1), "& | ~"),
    "not": (lambda x: not x, "& | ~"),
    "chain": (lambda x: 0 < x < 1, "a < b < c"),
    "max": (lambda x: max(x, 0.0), "bn.ops.maximum"),
    "float": (lambda x: x * float(ops.mean(x)), r"float\(\).*go on with the value itself"),
    "int": (lambda x: x * int(ops.mean(x)), r"int\(\)"),
    "complex": (lambda x: complex(ops.mean(x)), "no numbers"),
    "round": (lambda x: round(x, 2), "bn.ops.round"),
    "format": (lambda x: f"{x:.2f}", "formats"),
    "math": (lambda x: x * math.exp(ops.mean(x)), r"`math`.*bn.ops.exp"),
    "range": (lambda x: [x for _ in range(ops.sum(x))], r"range\(x.shape\[1\]\)"),
    "list": (lambda x: ["a", "b"][ops.argmax(x)], r"bn.ops.take\(table, x\)"),
    "array index": (lambda x: np.arange(4)[ops.argmax(x)], r"take\(array, x\)"),
    "index beside others": (lambda x: x[:, ops.argmax(x)], "bn.ops.take_along_axis"),
    "mask": (lambda x: x[x > 0], r"bn.ops.where\(mask, x, 0\)"),
    "in": (lambda x: x if 3.0 in x else -x, "bn.ops.any"),
    "len": (lambda x: x / len(x), r"bn.ops.mean\(x, 0\).*\(4,\)"),
    "iteration": (summed, r"x\[:, i\]"),
    "iteration of a number": (lambda x: list(ops.sum(x)), "without axes"),
    "assignment": (assigned, r"not changed in place.*bn.ops.where"),
    "in place": (in_place, "np.add computes numbers.*bn.ops.add"),
    "np.exp": (np.exp, "np.exp computes numbers.*bn.ops.exp"),
    "np.maximum": (lambda x: np.maximum(x, 0), "bn.ops.maximum"),
    "np.absolute": (np.absolute, "bn.ops.abs"),
    "np.mean": (np.mean, "bn.ops.mean"),
    "np.sum": (lambda x: np.sum(x, axis=1), "bn.ops.sum"),
    "np.where": (lambda x: np.where(x > 0, x, 0), "bn.ops.where"),
    "np.concatenate": (lambda x: np.concatenate([x, x]), "bn.ops.concatenate"),
    "np.std": (np.std, "bn.ops.standard_deviation"),
    "np.linalg.svd": (np.linalg.svd, "the functions of bn.ops"),
    "np.asarray": (np.asarray, "no numbers"),
    "np.add.reduce": (np.add.reduce, "bn.ops.add"),
    "numpy": (lambda x: x.numpy(), "no numbers"),
    "method": (lambda x: x.exp(), r"no attribute 'exp'; use bn.ops.exp"),
    "PyTorch's method": (lambda x: x.view(-1, 2), "bn.ops.reshape"),
    "item": (lambda x: ops.mean(x).item(), "no numbers"),
    "unknown attribute": (lambda x: x.colour, "no attribute 'colour'$"),
}


@pytest.mark.parametrize("name", UNTRACEABLE)
def test_what_cannot_be_traced_is_said_with_what_to_write(name):
    function, words = UNTRACEABLE[name]
    with pytest.raises((TypeError, IndexError, AttributeError), match=words):
        bn.Sequential([bn.Input((4,)), layers.Lambda(function)]).parameters()
    with pytest.raises((TypeError, IndexError, AttributeError), match=words):
        function(bn.Input((4,)))


def test_what_python_and_numpy_may_ask_of_a_value():
    def polite(x):
        assert np.shape(x) == x.shape == (None, 4)
        assert np.ndim(x) == x.ndim == 2
        kernel = self_made.parameter("kernel", (3, 4))
        assert len(kernel) == 3
        assert f"{x}" == repr(x)
        assert not hasattr(x, "numbers")
        return sum(x @ ops.reshape(row, (4, 1)) for row in kernel) + np.float32(1) * x + np.ones(4) * x - np.eye(4)[0]

    class SelfMade(layers.Layer):
        def call(self, x):
            return polite(x)

    self_made = SelfMade()
    made = bn.Sequential([bn.Input((4,)), self_made])
    kernel = made.parameters()["self_made.kernel"]
    np.testing.assert_allclose(
        made.predict(X), (X @ kernel.sum(0))[:, None] + 2 * X - np.eye(4)[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("make", [bn.Tensor, lambda array: array])
def test_operators_with_arrays_on_the_left_are_numpys(make):
    left, right = np.array([3.0, -4.0, 5.0]), make(np.array([2.0, 3.0, -1.5]))
    whole, truth = np.array([5, -3, 8]), np.array([True, False, True])
    for made, expected in [
        (left + right, [5.0, -1.0, 3.5]), (left - right, [1.0, -7.0, 6.5]), (left * right, [6.0, -12.0, -7.5]),
        (left / right, left / np.array(right)), (left // right, [1.0, -2.0, -4.0]), (left % right, [1.0, 2.0, -1.0]),
        (abs(left) ** right, abs(left) ** np.array(right)), (left < right, [False, True, False]),
        (left >= right, [True, False, True]), (left == right, [False] * 3), (left != right, [True] * 3),
        (np.float64(2.0) * right, [4.0, 6.0, -3.0]), (7 // right, [3.0, 2.0, -5.0]), (7.0 % right, [1.0, 1.0, -0.5]),
        (whole % make(np.array([3, 2, -3])), [2, 1, -1]), (whole // make(np.array([3, 2, -3])), [1, -2, -3]),
        (truth & make(np.array([True, True, False])), [True, False, False]),
        (truth | make(np.array([False, False, False])), truth),
    ]:  # fmt: skip
        np.testing.assert_allclose(np.asarray(made), expected, rtol=1e-6)
