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


@pytest.mark.parametrize("of_callback", [False, True])
def test_saved_weights_predict_as_the_average(of_callback, data, tmp_path):
    x, y = data
    model, again = network() if of_callback else network(ema=0.9), network()
    best = bn.callbacks.ModelCheckpoint(tmp_path / "best", save_best_only=True, save_weights_only=True)
    callbacks = [bn.callbacks.EMA(0.9), best] if of_callback else best
    history = model.fit(x, y, epochs=4, batch_size=4, validation_data=(x, y), callbacks=callbacks, verbose=0)
    again.build((None, 3)).load_weights(tmp_path / "best")
    assert again.evaluate(x, y)["loss"] == min(history.history["val_loss"])
    model.save_weights(tmp_path / "last")
    again.load_weights(tmp_path / "last")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


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


def test_the_callback_averages_one_fit(data):
    x, y = data
    kept, called = network(ema=0.7), network()
    for model, callbacks in ((kept, []), (called, [bn.callbacks.EMA(0.7)])):
        history = model.fit(x, y, batch_size=4, epochs=3, validation_data=(x, y), callbacks=callbacks, verbose=0)
        assert history.history["val_loss"][-1] == model.evaluate(x, y)["loss"]
    for path, average in kept.parameters(average=True).items():
        np.testing.assert_array_equal(called.parameters()[path], average)
    with pytest.raises(ValueError, match="no average"):
        called.parameters(average=True)
    with pytest.raises(ValueError, match="leave out the callback"):
        kept.fit(x, y, callbacks=bn.callbacks.EMA(), verbose=0)


def test_an_average_survives_freezing_in_a_callback(data):
    x, y = data

    class Freeze(bn.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.model.freeze("dense_1")

    model, moments = network(), []
    watch = bn.callbacks.LambdaCallback(on_batch_end=lambda batch, logs: moments.append(model.parameters()))
    model.fit(x, y, batch_size=4, epochs=2, callbacks=[bn.callbacks.EMA(0.5), Freeze(), watch], verbose=0)
    expected = moments[0]
    for point in moments[1:]:
        expected = {path: 0.5 * expected[path] + 0.5 * array for path, array in point.items()}
    np.testing.assert_allclose(model.parameters()["dense.kernel"], expected["dense.kernel"], rtol=1e-12)


def test_the_average_of_what_is_frozen_comes_near_it(data):
    x, y = data
    model = network(ema=0.5)
    model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    model.freeze("dense")
    expected = model.parameters(average=True)
    for _ in range(3):
        model.train_on_batch(x, y)
        expected = {path: 0.5 * expected[path] + 0.5 * array for path, array in model.parameters().items()}
    for path, average in model.parameters(average=True).items():
        np.testing.assert_allclose(average, expected[path], rtol=1e-12)


def test_the_average_of_what_was_frozen_from_the_start_begins_where_it_stood(data):
    x, y = data
    model = network(ema=0.9)
    model.freeze("dense")
    model.train_on_batch(x, y)
    before = model.parameters()["dense.kernel"]
    np.testing.assert_array_equal(model.parameters(average=True)["dense.kernel"], before)
    model.unfreeze("dense")
    model.train_on_batch(x, y)
    expected = 0.9 * before + 0.1 * model.parameters()["dense.kernel"]
    np.testing.assert_allclose(model.parameters(average=True)["dense.kernel"], expected, rtol=1e-12)


def test_weights_that_are_set_predict(data, tmp_path):
    x, y = data
    model, other = network(ema=0.9), network(seed=1)
    model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    other.save_weights(tmp_path / "weights.safetensors")
    model.load_weights(tmp_path / "weights.safetensors")
    np.testing.assert_array_equal(model.predict(x), other.predict(x))
    kernel = np.full((3, 4), 0.25)
    model.set_parameters({"dense.kernel": kernel})
    model.train_on_batch(x, y)
    expected = 0.9 * kernel + 0.1 * model.parameters()["dense.kernel"]
    np.testing.assert_allclose(model.parameters(average=True)["dense.kernel"], expected, rtol=1e-12)
    model.fit(x, y, batch_size=4, epochs=2, callbacks=bn.callbacks.SWA(0), verbose=0)
    for path, average in model.parameters(average=True).items():
        np.testing.assert_array_equal(average, model.parameters()[path])


@pytest.mark.parametrize("every", [1, 2])
def test_swa_is_the_mean_of_the_last_epochs(data, every):
    x, y = data
    model, points = network(), []
    watch = bn.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: points.append(model.parameters()))
    model.fit(x, y, batch_size=4, epochs=6, callbacks=[watch, bn.callbacks.SWA(1, every)], verbose=0)
    for path, array in model.parameters().items():
        np.testing.assert_allclose(array, np.mean([point[path] for point in points[1::every]], axis=0), rtol=1e-12)


def test_swa_estimates_running_statistics_anew(rng):
    x = rng.normal(size=(64, 3))
    model = bn.Sequential([bn.layers.Dense(4, use_bias=False), bn.layers.BatchNorm(momentum=0.0)])
    model.compile("mse", "sgd", 0.5, precision="float64")
    model.fit(x, x @ rng.normal(size=(3, 4)), batch_size=64, epochs=5, callbacks=bn.callbacks.SWA(1), verbose=0)
    arrays = model.parameters(buffers=True)
    np.testing.assert_allclose(arrays["batch_norm.moving_mean"], (x @ arrays["dense.kernel"]).mean(axis=0), atol=1e-12)
    variance = (x @ arrays["dense.kernel"]).var(axis=0, ddof=1)
    np.testing.assert_allclose(arrays["batch_norm.moving_variance"], variance, rtol=1e-9)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("called", [False, True])
def test_the_best_weights_are_those_that_validation_saw(data, order, called):
    """A rate that jumps after three epochs makes the third the best, for the average, which is what is validated."""
    x, y = data
    model = network(**({} if called else {"ema": 0.5}))
    model.learning_rate = lambda update: 0.02 if update < 9 else 3.0
    stopping = bn.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    averages = []
    watch = bn.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: averages.append(model.parameters(average=True))
    )
    callbacks = [watch, *([bn.callbacks.EMA(0.5), stopping][:: 1 - 2 * order] if called else [stopping])]
    history = model.fit(x, y, batch_size=4, epochs=9, validation_data=(x, y), callbacks=callbacks, verbose=0)
    best = int(np.argmin(history.history["val_loss"]))
    assert best == 2
    found = model.parameters(average=not called)
    for path, array in averages[best].items():
        np.testing.assert_array_equal(found[path], array)
    assert model.evaluate(x, y)["loss"] == history.history["val_loss"][best]
