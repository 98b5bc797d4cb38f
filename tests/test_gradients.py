"""Finite differences and the check of gradients, against NumPy and planted errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import burnish as bn
from burnish import layers

RNG = np.random.default_rng(7)


def mlp(widths, activation="relu", loss="cross_entropy", **options):
    hidden = [layers.Dense(width, activation) for width in widths[1:-1]]
    model = bn.Sequential([*hidden, layers.Dense(widths[-1])])
    model.compile(loss, precision="float64", **options)
    return model.build((None, widths[0]))


def data(widths, rows, loss="cross_entropy"):
    x = RNG.normal(size=(rows, widths[0])) * (RNG.random((rows, widths[0])) > 0.3)
    y = RNG.normal(size=(rows, widths[-1])) if loss == "mse" else RNG.integers(0, widths[-1], rows)
    return x, y


def plain_loss(parameters, x, y, activation, loss, weight):
    """The weighted mean loss by NumPy alone."""
    kernels = [array for path, array in parameters.items() if path.endswith("kernel")]
    biases = [array for path, array in parameters.items() if path.endswith("bias")]
    value = x
    for place, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        value = value @ kernel + bias
        if place + 1 < len(kernels):
            value = np.maximum(value, 0) if activation == "relu" else np.tanh(value)
    if loss == "mse":
        losses = ((value - y) ** 2).mean(axis=1)
    else:
        value -= value.max(axis=1, keepdims=True)
        losses = np.log(np.exp(value).sum(axis=1)) - value[np.arange(len(y)), y]
    return (losses * weight).sum() / weight.sum()


def plain_slopes(parameters, *arguments):
    """Central differences, two losses an element."""
    parameters = {path: array.copy() for path, array in parameters.items()}
    slopes = {}
    for path, array in parameters.items():
        slopes[path] = np.empty_like(array)
        for index in np.ndindex(array.shape):
            value = array[index]
            step = 1e-6 * max(1, abs(value))
            ends = value + step, value - step
            losses = []
            for end in ends:
                array[index] = end
                losses.append(plain_loss(parameters, *arguments))
            array[index] = value
            slopes[path][index] = (losses[0] - losses[1]) / (ends[0] - ends[1])
    return slopes


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("widths", "activation", "loss"),
    [
        ((5, 7, 3), "relu", "cross_entropy"),
        ((5, 40, 33), "relu", "cross_entropy"),
        ((4, 6, 5, 3), "tanh", "mse"),
        ((6, 2), "relu", "mse"),
    ],
)
def test_central_differences_are_those_of_a_plain_loop(widths, activation, loss, weighted):
    model, (x, y) = mlp(widths, activation, loss), data(widths, 9, loss)
    weight = np.maximum(RNG.normal(size=9), 0) + np.eye(9)[0] if weighted else np.ones(9)
    found = bn.gradients(model, x, y, "numerical", sample_weight=weight if weighted else None)
    expected = plain_slopes(model.parameters(), x, y, activation, loss, weight)
    for path, slopes in expected.items():
        np.testing.assert_allclose(found[path], slopes, rtol=1e-7, atol=2e-9, err_msg=path)


@settings(max_examples=25)
@given(
    widths=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    rows=st.integers(1, 40),
    activation=st.sampled_from(["tanh", "sigmoid", "gelu", "softmax"]),
)
def test_methods_agree_on_any_widths(widths, rows, activation):
    model, (x, y) = mlp(widths, activation, "mse"), data(widths, rows, "mse")
    exact = bn.gradients(model, x, y)
    for method, tolerance in (("numerical", 1e-8), ("numerical_batch", 2e-6)):
        found = bn.gradients(model, x, y, method)
        for path, array in exact.items():
            np.testing.assert_allclose(found[path], array, rtol=1e-5, atol=tolerance, err_msg=f"{path} {method}")


class Weird(bn.Model):
    """A product with itself, tied weights, and numbers of single samples beside sums over all of them."""

    def call(self, x):
        kernel = self.parameter("kernel", (4, 4), bn.initializers.Normal(stddev=0.5))
        hidden = bn.ops.tanh(x @ kernel) @ bn.ops.transpose(kernel)
        centred = hidden - bn.ops.mean(hidden, axis=0)
        gate = bn.ops.sigmoid(self.parameter("gate", (4,), "ones"))
        return centred * gate + bn.ops.sum(kernel) * 0.01


MODELS = {
    "batch norm": lambda: bn.Sequential([layers.Dense(6), layers.BatchNorm(), layers.Tanh(), layers.Dense(2)]),
    "dropout": lambda: bn.Sequential([layers.Dense(6, "tanh"), layers.Dropout(0.5), layers.GELU(), layers.Dense(2)]),
    "layer norm": lambda: bn.Sequential([layers.Dense(6), layers.LayerNorm(), layers.Dense(2)]),
    "residual": lambda: bn.Sequential([layers.Residual(layers.Dense(4, "tanh")), layers.Dense(2)]),
    "regularized": lambda: bn.Sequential([layers.Dense(5, "tanh", kernel_regularizer="l2"), layers.Dense(2)]),
    "weird": Weird,
}


@pytest.mark.parametrize("name", MODELS)
def test_what_mixes_samples_or_draws_numbers_is_differentiated_too(name):
    model = MODELS[name]()
    model.compile("mse", precision="float64")
    x = RNG.normal(size=(8, 4))
    y = RNG.normal(size=(8, 4 if name == "weird" else 2))
    weight = np.arange(8.0)
    exact = bn.gradients(model, x, y, sample_weight=weight)
    found = bn.gradients(model, x, y, "numerical", sample_weight=weight)
    for path, array in exact.items():
        np.testing.assert_allclose(found[path], array, rtol=1e-6, atol=1e-8, err_msg=path)


def test_images_and_tables_are_differentiated_too():
    image = bn.Sequential(
        [
            layers.Conv2D(3, 3, strides=(2, 1), padding="same", activation="tanh"),
            layers.AvgPool2D(2),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    words = bn.Sequential([layers.Embedding(9, 3), layers.Flatten(), layers.Dense(2)])
    for model, x in ((image, RNG.normal(size=(5, 6, 6, 2))), (words, RNG.integers(0, 6, (5, 4)))):
        model.compile("mse", precision="float64")
        y = RNG.normal(size=(5, 2))
        exact, found = (bn.gradients(model, x, y, method) for method in ("autodiff", "numerical"))
        for path, array in exact.items():
            np.testing.assert_allclose(found[path], array, rtol=1e-6, atol=1e-8, err_msg=path)
    # Rows of the table that no sample picks cannot matter.
    np.testing.assert_array_equal(found["embedding.embeddings"][6:], 0)


def test_single_precision_is_near():
    widths = (12, 16, 5)
    model, (x, y) = mlp(widths, "tanh"), data(widths, 32)
    exact = bn.gradients(model, x, y)
    parameters = model.parameters()
    model.compile("cross_entropy", precision="float32")
    model.set_parameters(parameters)
    found = bn.gradients(model, x, y, "numerical")
    for path, array in exact.items():
        assert found[path].dtype == np.float32
        np.testing.assert_allclose(found[path], array, atol=1e-4, err_msg=path)


class Planted(layers.Layer):
    """x · p, the gradient of one element of p being forgotten."""

    def call(self, x):
        p = self.parameter("p", (3, 2), bn.initializers.Normal(stddev=1.0))
        known = np.ones((3, 2))
        known[2, 1] = 0
        return x @ (p * known + bn.ops.stop_gradient(p) * (1 - known))


def test_a_wrong_element_is_named_by_path_and_index():
    model = bn.Sequential([Planted(), layers.Dense(2, "tanh")])
    model.compile("mse")
    # Its own numbers: with one draw in thirty, some direction hardly touches the element.
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    report = bn.check_gradients(model, x, y)
    assert not report.passed
    assert [(failure.path, failure.index) for failure in report.failures] == [("planted.p", (2, 1))]
    assert report.worst == report.failures[0]
    assert report.worst.analytic == 0 != report.worst.numeric
    assert not report.kinks
    assert report.checked == 12
    assert "FAILED at 1: 12 slopes" in repr(report).replace("<gradients ", "")
    along = bn.check_gradients(model, x, y, limit=0, directions=6)
    assert len(along.failures) == along.checked == 6


class Bent(layers.Layer):
    """The mean of a function of x · p, p = 0."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(self.parameter("p", (1,), "zeros") * x)


def total(target, prediction):
    return bn.ops.sum(prediction, axis=1)


def bent(function, **options):
    model = bn.Sequential([Bent(function)])
    model.compile(total)
    return bn.check_gradients(model, np.ones((3, 1)), np.zeros((3, 1)), **options)


@pytest.mark.parametrize("options", [{}, {"limit": 0, "directions": 3}])
def test_kinks_are_listed_apart(options):
    # The slope that autodiff gives at the kink of abs is the central difference: a kink all the same.
    for function in (bn.ops.relu, bn.ops.abs):
        report = bent(function, **options)
        assert report.passed
        assert len(report.kinks) == report.checked
        assert report.worst is None


@pytest.mark.parametrize("options", [{}, {"limit": 0, "directions": 3}])
def test_a_sharp_curve_is_no_kink(options):
    report = bent(lambda x: x + 3e4 * x * x, **options)
    assert report.passed
    assert not report.kinks
    wrong = bent(lambda x: bn.ops.stop_gradient(x) + 3e4 * x * x, **options)
    assert len(wrong.failures) == wrong.checked
    assert not wrong.kinks


def test_a_gradient_that_is_no_number_fails():
    report = bent(lambda x: bn.ops.sqrt(x * x) + bn.ops.relu(x) * 0)
    assert not report.passed
    assert np.isnan(report.worst.analytic)


def test_a_check_leaves_the_model_as_it_is():
    model = bn.Sequential([layers.Dense(5), layers.BatchNorm(), layers.Dropout(0.5), layers.Dense(3)])
    model.compile("cross_entropy", "adam", seed=3)
    x, y = data((4, 5, 3), 8)
    model.fit(x, y, verbose=0)
    before = model.parameters()
    for options in ({}, {"limit": 1, "directions": 3}):
        reports = [bn.check_gradients(model, x, y, **options) for _ in range(2)]
        assert reports[0] == reports[1]
        assert reports[0].passed, reports[0]
    after = model.parameters()
    assert all(np.array_equal(before[path], array) for path, array in after.items())
