"""Averages of the weights."""

import numpy as np
import pytest

import burnish as bn


def network(**options):
    model = bn.Sequential([bn.Input((3,)), bn.layers.Dense(4, activation="tanh"), bn.layers.Dense(2)])
    model.compile("mse", "adam", 0.05, precision="float64", **options)
    return model


@pytest.fixture
def data(rng):
    return rng.normal(size=(12, 3)), rng.normal(size=(12, 2))


def test_the_average_starts_as_a_copy_and_then_blends(data, device):
    x, y = data
    precision = "float64" if device in {"cpu", "ndarray"} else "float32"
    model = network()
    model.compile("mse", "adam", 0.05, precision=precision, device=device, ema=0.7)
    expected = None
    for _ in range(4):
        model.train_on_batch(x, y)
        now = model.parameters()
        expected = now if expected is None else {path: 0.7 * expected[path] + 0.3 * now[path] for path in now}
        for path, average in model.parameters(average=True).items():
            np.testing.assert_allclose(
                average, expected[path], rtol=1e-12 if precision == "float64" else 1e-5, atol=1e-7
            )


def test_the_average_predicts_and_the_weights_train_on(data):
    x, y = data
    plain, averaged = network(), network(ema=0.9)
    plain.fit(x, y, epochs=3, batch_size=4, verbose=0)
    history = averaged.fit(x, y, epochs=3, batch_size=4, validation_data=(x, y), verbose=0)
    for path, array in plain.parameters().items():
        np.testing.assert_array_equal(averaged.parameters()[path], array)
    plain.set_parameters(averaged.parameters(average=True))
    np.testing.assert_array_equal(averaged.predict(x), plain.predict(x))
    assert averaged.evaluate(x, y) == plain.evaluate(x, y)
    assert history.history["val_loss"][-1] == plain.evaluate(x, y)["loss"]


def test_a_saved_model_keeps_its_average(data, tmp_path):
    x, y = data
    model = network(ema=0.9)
    model.fit(x, y, epochs=2, batch_size=4, verbose=0)
    model.save(tmp_path / "model.safetensors")
    again = bn.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(model.predict(x), again.predict(x))
    for one in (model, again):
        one.fit(x, y, batch_size=4, verbose=0)
    np.testing.assert_array_equal(model.predict(x), again.predict(x))


def test_a_skipped_update_leaves_the_average(data):
    x, y = data
    model = network(ema=0.5)
    model.train_on_batch(x, y)
    before = model.parameters(average=True)
    with np.errstate(all="ignore"):
        model.train_on_batch(x * 1e200, y * 1e200)
    for path, average in model.parameters(average=True).items():
        np.testing.assert_array_equal(average, before[path])


def test_without_an_average_there_is_none():
    model = network()
    with pytest.raises(ValueError, match="no average"):
        model.parameters(average=True)
    with pytest.raises(ValueError, match="`ema`"):
        network(ema=1.0)
    model = network(ema=0.5)
    for path, array in model.parameters(average=True).items():
        np.testing.assert_array_equal(array, model.parameters()[path])
