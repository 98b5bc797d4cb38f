"""Penalties: their part of the loss and of the gradient."""

import numpy as np
import pytest

import burnish as bn


def network(**options):
    model = bn.Sequential([bn.Input((3,)), bn.layers.Dense(2, name="dense", **options)])
    model.compile("mse", "sgd", 0.1, precision="float64")
    return model


@pytest.mark.parametrize(
    ("penalty", "value", "slope"),
    [
        ("l2", lambda p: 0.01 * np.sum(p**2), lambda p: 0.02 * p),
        ("l1", lambda p: 0.01 * np.sum(np.abs(p)), lambda p: 0.01 * np.sign(p)),
        (
            bn.regularizers.L1L2(0.3, 0.2),
            lambda p: 0.3 * np.abs(p).sum() + 0.2 * np.sum(p**2),
            lambda p: 0.3 * np.sign(p) + 0.4 * p,
        ),
        (bn.regularizers.L1L2(), lambda p: 0.0, np.zeros_like),
        (lambda p: bn.ops.sum(bn.ops.exp(p)), lambda p: np.exp(p).sum(), np.exp),
    ],
)
def test_loss_and_gradient(rng, penalty, value, slope):
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    plain, penalised = network(), network(kernel_regularizer=penalty, bias_regularizer=penalty)
    penalised.set_parameters(plain.parameters())
    weights = plain.parameters()
    expected = plain.evaluate(x, y)["loss"] + sum(value(array) for array in weights.values())
    assert penalised.evaluate(x, y)["loss"] == pytest.approx(expected, rel=1e-12)
    for method in ("autodiff", "numerical"):
        before, after = (bn.gradients(model, x, y, method=method) for model in (plain, penalised))
        for path, array in weights.items():
            np.testing.assert_allclose(after[path] - before[path], slope(array), rtol=1e-5, atol=1e-6)
    history = penalised.fit(x, y, batch_size=7, verbose=0)
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-12)


def test_accumulated_and_weighted_penalties_are_those_of_the_whole_batch(rng):
    x, y, weight = rng.normal(size=(7, 3)), rng.normal(size=(7, 2)), rng.uniform(0.1, 2.0, size=7)
    points = []
    for size, accumulate in ((7, 1), (2, 4)):
        model = network(kernel_regularizer="l2")
        model.compile("mse", "sgd", 0.1, precision="float64", accumulate_gradients=accumulate)
        model.fit(x, y, batch_size=size, sample_weight=weight, shuffle=False, verbose=0)
        points.append(model.parameters()["dense.kernel"])
    np.testing.assert_allclose(points[0], points[1], rtol=1e-12)


def test_a_layer_used_twice_is_penalised_once():
    shared = bn.layers.Dense(3, use_bias=False, kernel_regularizer="l2")
    x = bn.Input((3,))
    model = bn.Model(x, shared(shared(x)))
    model.compile("mse", precision="float64")
    kernel = next(iter(model.parameters().values()))
    loss = model.evaluate(np.zeros((2, 3)), np.zeros((2, 3)))["loss"]
    assert loss == pytest.approx(0.01 * np.sum(kernel**2), rel=1e-12)


class Sparse(bn.layers.Layer):
    def call(self, x):
        self.add_loss(0.5 * bn.ops.abs(x))
        self.add_loss(bn.ops.sum(self.parameter("p", (2,), "ones")))
        return x


def test_add_loss_takes_values_per_sample_and_numbers(rng):
    x, weight = rng.normal(size=(5, 3)), rng.uniform(0.1, 2.0, size=5)
    model = bn.Sequential([bn.Input((3,)), Sparse()])
    model.compile("mse", precision="float64")
    loss = model.evaluate(x, x, sample_weight=weight)["loss"]
    assert loss == pytest.approx(np.average(0.5 * np.abs(x).mean(axis=1), weights=weight) + 2.0, rel=1e-12)


def test_embeddings_and_convolutions_have_penalties():
    for layer, shape in (
        (bn.layers.Embedding(4, 2, embeddings_regularizer="l2"), (None, 3)),
        (bn.layers.Conv2D(2, 3, kernel_regularizer="l2"), (None, 4, 4, 1)),
    ):
        model = bn.Sequential([layer])
        model.compile(lambda target, prediction: 0.0 * bn.ops.mean(prediction, (1, 2)), precision="float64")
        x = np.zeros((1, *shape[1:]))
        kernel = next(array for array in model.build(shape).parameters().values() if array.ndim > 1)
        assert model.evaluate(x, np.zeros(1))["loss"] == pytest.approx(0.01 * np.sum(kernel**2), rel=1e-12)


def test_a_loaded_model_keeps_its_penalties(tmp_path, rng):
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    model = network(kernel_regularizer="l2")
    expected = model.evaluate(x, y)["loss"]
    model.fit(x, y, epochs=0, verbose=0)
    model.save(tmp_path / "model.safetensors")
    again = bn.load(tmp_path / "model.safetensors")
    assert again.evaluate(x, y)["loss"] == expected
    again.compile("mse", "sgd", precision="float64")
    assert again.evaluate(x, y)["loss"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: bn.layers.Dense(2, kernel_regularizer="l3"), ValueError, "`kernel_regularizer`: unknown name 'l3'"),
        (lambda: bn.layers.Dense(2, bias_regularizer=0.1), TypeError, "`bias_regularizer`"),
        (lambda: bn.regularizers.L2(-1.0), ValueError, "`l2`"),
        (
            lambda: network(kernel_regularizer=lambda p: 3.0).build((None, 3)),
            TypeError,
            "penalty must be made of bn.ops",
        ),
        (lambda: network(kernel_regularizer=lambda p: p).build((None, 3)), ValueError, "penalty must have no axis"),
    ],
)
def test_bad_arguments(make, error, words):
    with pytest.raises(error, match=words):
        make()
