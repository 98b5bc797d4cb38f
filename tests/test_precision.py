"""Mixed precision against NumPy's own 16-bit numbers, and the loss scale step by step."""

from contextlib import nullcontext

import numpy as np
import pytest

import burnish as bn
from burnish import _burnish, layers, ops

MIXED = ["mixed_float16", "mixed_bfloat16"]


@pytest.fixture(params=MIXED)
def mixed(request, device):
    """A device and a mixed precision that it has."""
    try:
        _burnish.check_precision(device, request.param)
    except ValueError as error:
        pytest.skip(str(error))
    return {"device": device, "precision": request.param}


def half(array, precision):
    """Round float32 numbers to 16 bits and back."""
    single = np.asarray(array, np.float32)
    if precision == "mixed_float16":
        return single.astype(np.float16).astype(np.float32)
    bits = single.view(np.uint32)
    even = (bits >> 16) & 1
    return ((bits + 0x7FFF + even) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def ulp(precision):
    return 2.0**-10 if precision == "mixed_float16" else 2.0**-7


def test_one_linear_layer_is_rounded_where_numpy_rounds(rng, mixed):
    precision = mixed["precision"]
    x, y = rng.normal(size=(24, 9)).astype(np.float32), rng.normal(size=(24, 5)).astype(np.float32)
    model = bn.Sequential([layers.Dense(5, bias_initializer="normal")])
    model.compile("mse", loss_scale=64.0, **mixed)
    model.build((None, 9))
    p = model.parameters()
    kernel, bias, rounded = (half(a, precision) for a in (p["dense.kernel"], p["dense.bias"], x))
    prediction = half(rounded @ kernel + bias, precision)
    np.testing.assert_allclose(model.predict(x), prediction, rtol=ulp(precision))
    slope = half(64.0 * 2 * (prediction - y) / (24 * 5), precision)
    expected = {"dense.kernel": half(rounded.T @ slope, precision), "dense.bias": half(slope.sum(0), precision)}
    found = bn.gradients(model, x, y)
    for path, array in expected.items():
        assert found[path].dtype == np.float32
        np.testing.assert_allclose(found[path], array / 64, rtol=4 * ulp(precision), atol=1e-4)
    if mixed["device"] == "cpu":
        # Sums of float32 in another order may fall on the other side of a tie, rarely.
        assert np.mean(model.predict(x) != prediction) < 0.02
        assert np.mean(found["dense.kernel"] != expected["dense.kernel"] / 64) < 0.1
    exact = x @ p["dense.kernel"] + p["dense.bias"]
    assert np.abs(model.predict(x) - exact).max() > 0.1 * ulp(precision)


@pytest.mark.parametrize("precision", MIXED)
def test_sums_exponentials_and_losses_are_of_32_bits(precision):
    values = np.full((2, 4096), 1.0009766, np.float32)

    def rounded(x):
        return ops.matmul(x, np.ones((1, 1), np.float32))

    functions = {
        "sum": (lambda x: ops.sum(rounded(x), (1, 2)), 4096 * half(1.0009766, precision)),
        "square": (
            lambda x: ops.mean(ops.square(rounded(x) * 300.0), (1, 2)),
            half(300 * half(1.0009766, precision), precision) ** 2,
        ),
        "exp": (
            lambda x: ops.mean(ops.exp(rounded(x) * 20.0), (1, 2)),
            np.exp(half(20 * half(1.0009766, precision), precision)),
        ),
    }
    for function, expected in functions.values():
        model = bn.Sequential([bn.Input((4096, 1)), layers.Lambda(function)])
        model.compile(lambda target, prediction: prediction, precision=precision)
        found = model.predict(values[:, :, None])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_master_weights_take_what_16_bits_would_lose(mixed):
    x = np.ones((1000, 1), np.float32)
    model = bn.Sequential([layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(lambda target, prediction: prediction, "sgd", 1e-5, **mixed)
    model.fit(x, np.zeros((1000, 1)), batch_size=1, verbose=0)
    assert model.parameters()["dense.kernel"].dtype == np.float32
    np.testing.assert_allclose(model.parameters()["dense.kernel"], 0.99, rtol=5e-5)


class Encoder(layers.Layer):
    """A transformer block: attention of two heads and a network of two layers, normalised before each."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.LayerNorm(), layers.LayerNorm()
        self.query, self.key, self.value = layers.Dense(16), layers.Dense(16), layers.Dense(16)
        self.out, self.wide, self.narrow = layers.Dense(16), layers.Dense(32, "gelu"), layers.Dense(16)

    def call(self, x):
        x = x + self.out(self.attention(self.first(x)))
        return x + self.narrow(self.wide(self.second(x)))

    def attention(self, x):
        def heads(y):
            return ops.transpose(ops.reshape(y, (-1, y.shape[1], 2, 8)), (0, 2, 1, 3))

        query, key, value = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
        weights = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) * 8**-0.5)
        return ops.reshape(ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3)), (-1, x.shape[1], 16))


class LSTM(layers.Layer):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), unrolled; its last output."""

    def call(self, x):
        units = 24
        kernel = self.parameter("kernel", (x.shape[-1], 4 * units))
        recurrent = self.parameter("recurrent", (units, 4 * units))
        bias = self.parameter("bias", (4 * units,), "zeros", role="bias")
        given = ops.linear(x, kernel, bias)
        state = cell = ops.zeros_like(given[:, 0, :units])
        for step in range(x.shape[1]):
            gates = given[:, step] + ops.matmul(state, recurrent)
            into, forget, new, out = (gates[:, part * units : (part + 1) * units] for part in range(4))
            cell = ops.sigmoid(forget + 1.0) * cell + ops.sigmoid(into) * ops.tanh(new)
            state = ops.sigmoid(out) * ops.tanh(cell)
        return state


def noisy(labels, rng):
    """Labels a quarter of which are others': what a network cannot learn keeps its loss away from 0."""
    return np.where(rng.random(len(labels)) < 0.25, rng.permutation(labels), labels)


def transformer(rng):
    ids = rng.integers(0, 11, size=(768, 10))
    model = bn.Sequential([layers.Embedding(11, 16), Encoder(), layers.GlobalAvgPool(), layers.Dense(3)])
    return model, ids, noisy((ids == 3).sum(1).clip(0, 2), rng)


def convolutional(rng):
    y = rng.integers(0, 3, size=768)
    x = rng.normal(size=(768, 10, 10, 1)) + 0.5 * np.sin(np.arange(10) * (1 + y)[:, None])[:, None, :, None]
    stages = [layers.Conv2D(8, 3, activation="relu"), layers.BatchNorm(), layers.MaxPool2D()]
    model = bn.Sequential([*stages, layers.Conv2D(12, 3), layers.ReLU(), layers.Flatten(), layers.Dense(3)])
    return model, x, noisy(y, rng)


def recurrent(rng):
    x = rng.normal(size=(768, 12, 3))
    return bn.Sequential([LSTM(), layers.Dense(2)]), x, noisy((x[:, :, 0].sum(1) > 0).astype(np.int64), rng)


@pytest.mark.parametrize("network", [transformer, convolutional, recurrent])
def test_networks_train_to_the_loss_of_float32(network, mixed):
    if mixed["device"] == "wgpu":
        pytest.skip("software Vulkan takes minutes for as many small kernels")
    losses = []
    for options in ({**mixed, "precision": "float32"}, mixed):
        model, x, y = network(np.random.default_rng(5))
        model.compile("cross_entropy", "adamw", 2e-3, seed=3, **options)
        history = model.fit(x, y, epochs=6, batch_size=32, verbose=0)
        losses.append(history.history["loss"])
        assert history.skipped_updates <= 2
    assert losses[0][-1] < 0.9 * losses[0][0]
    np.testing.assert_allclose(losses[1][-1], losses[0][-1], rtol=0.01)
    assert losses[1] != losses[0]


def scaled_run(overflows, scale, *, accumulate=1, batches=12, callbacks=(), precision="mixed_float16"):
    """A fit of one sample a batch, those of `overflows` beyond float16; also the weights after each batch."""
    x = np.ones((batches, 2), np.float32)
    x[list(overflows)] = 1e30
    model = bn.Sequential([layers.Dense(1)])
    model.compile(
        "mse",
        bn.optimizers.SGD(lambda update: 0.01 / (1 + update), momentum=0.9),
        precision=precision,
        loss_scale=scale,
        accumulate_gradients=accumulate,
    )
    model.build((None, 2))
    history = model.fit(x, np.zeros((batches, 1)), batch_size=1, shuffle=False, verbose=0, callbacks=callbacks)
    return model, history


class Weights(bn.callbacks.Callback):
    """Keeps the kernel after each batch; being asked for batches, it cuts chunks to one."""

    def __init__(self):
        super().__init__()
        self.kernels = []

    def on_train_batch_end(self, batch, logs=None):
        self.kernels.append(self.model.parameters()["dense.kernel"])


@pytest.mark.parametrize("hooked", [False, True], ids=["in one chunk", "batch by batch"])
def test_the_scale_moves_and_skipped_updates_move_nothing(hooked):
    overflows = {3, 4, 9}
    weights = Weights()
    scale = bn.LossScale(initial=64, growth=2, backoff=0.25, interval=3, minimum=8)
    model, history = scaled_run(overflows, scale, callbacks=[weights] if hooked else [])
    factors, rates, factor, good, update = [], [], 64.0, 0, 0
    for step in range(12):
        factors.append(factor)
        rates.append(0.01 / (1 + update))
        if step in overflows:
            factor, good = max(factor * 0.25, 8.0), 0
        else:
            update, good = update + 1, good + 1
            if good == 3:
                factor, good = factor * 2, 0
    assert history.steps["loss_scale"].tolist() == factors == [64, 64, 64, 128, 32, 8, 8, 8, 16, 16, 8, 8]
    assert history.steps["learning_rate"].tolist() == rates
    assert np.flatnonzero(~history.steps["finite"]).tolist() == sorted(overflows)
    assert history.skipped_updates == 3
    assert model.learning_rate == 0.01 / 10
    if hooked:
        for step in range(1, 12):
            assert np.array_equal(weights.kernels[step], weights.kernels[step - 1]) == (step in overflows)


def test_a_run_with_skipped_updates_is_one_without_their_batches():
    model, _ = scaled_run({3, 4, 9}, bn.LossScale(64.0))
    shorter, _ = scaled_run(set(), 64.0, batches=9)
    for path, array in shorter.parameters().items():
        np.testing.assert_array_equal(model.parameters()[path], array)


@pytest.mark.parametrize("hooked", [False, True], ids=["in one chunk", "batch by batch"])
def test_a_group_is_skipped_whole_and_keeps_its_scale(hooked):
    scale = bn.LossScale(initial=64, interval=2)
    model, history = scaled_run({4}, scale, accumulate=3, batches=14, callbacks=[Weights()] if hooked else [])
    assert history.steps["loss_scale"].tolist() == [64.0] * 6 + [32.0] * 6 + [64.0] * 2
    assert np.flatnonzero(~history.steps["finite"]).tolist() == [5]
    rates = [0.01] * 3 + [0.005] * 6 + [0.01 / 3] * 3 + [0.0025] * 2
    assert history.steps["learning_rate"].tolist() == rates
    shorter, _ = scaled_run(set(), 64.0, accumulate=3, batches=11)
    for path, array in shorter.parameters().items():
        np.testing.assert_allclose(model.parameters()[path], array, rtol=1e-3)


def test_a_gradient_that_is_not_finite_without_a_scale_moves_nothing_either():
    with pytest.warns(RuntimeWarning, match="not finite in epoch 1, batch 2"):
        model, history = scaled_run({2}, None, batches=4, precision="float32")
    assert history.steps["learning_rate"].tolist() == [0.01, 0.005, 0.01 / 3, 0.01 / 3]
    assert model.learning_rate == 0.0025
    assert "loss_scale" not in history.steps


@pytest.mark.parametrize("lowest", [False, True])
def test_a_smaller_last_group_warns_only_at_the_lowest_scale(lowest):
    scale = bn.LossScale(initial=64, minimum=64 if lowest else 1)
    with pytest.warns(RuntimeWarning, match="batch 4: that update") if lowest else nullcontext():
        _, history = scaled_run({4}, scale, accumulate=3, batches=5)
    assert np.flatnonzero(~history.steps["finite"]).tolist() == [4]


def test_a_scale_that_is_too_large_finds_its_place_in_silence(digits):
    x, y = digits
    model = bn.Sequential([layers.Dense(3)])
    model.compile("cross_entropy", precision="mixed_float16", loss_scale=bn.LossScale(2.0**40))
    history = model.fit(x, y, epochs=10, verbose=0)
    assert 15 < history.skipped_updates < 28
    assert history.steps["finite"][-1]
    assert history.history["loss"][-1] < history.history["loss"][0]


def test_a_scale_at_its_minimum_warns():
    with pytest.warns(RuntimeWarning, match="batch 3: that update was skipped"):
        _, history = scaled_run({0, 1, 3}, bn.LossScale(4.0))
    assert history.steps["loss_scale"].tolist()[:5] == [4.0, 2.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("precision", "scaled"), [("mixed_float16", True), ("mixed_bfloat16", False), ("float32", False)]
)
def test_only_float16_is_scaled_by_itself(precision, scaled, digits):
    model = bn.Sequential([layers.Dense(3)])
    for loss_scale, expected in (("dynamic", 65536.0 if scaled else None), (None, None), (1.0, None), (8.0, 8.0)):
        model.compile("cross_entropy", precision=precision, loss_scale=loss_scale)
        steps = model.fit(*digits, verbose=0).steps
        assert (steps["loss_scale"][0] if "loss_scale" in steps else None) == expected


def test_norm_and_clipping_see_the_gradient_without_its_scale(digits):
    norms = []
    for options in (
        {"precision": "float32"},
        {"precision": "mixed_float16"},
        {"precision": "float32", "loss_scale": 512.0},
    ):
        model = bn.Sequential([layers.Dense(8, "tanh"), layers.Dense(3)])
        model.compile("cross_entropy", "sgd", clip_norm=0.05, clip_value=0.02, **options)
        norms.append(model.fit(*digits, epochs=3, shuffle=False, verbose=0).steps["gradient_norm"])
    np.testing.assert_allclose(norms[1], norms[0], rtol=0.01)
    np.testing.assert_allclose(norms[2], norms[0], rtol=1e-6)


def test_the_scale_is_saved_and_goes_on(digits, tmp_path):
    def fitted(epochs):
        model = bn.Sequential([layers.Dense(8, "tanh"), layers.Dense(3)])
        model.compile("cross_entropy", precision="mixed_float16", loss_scale=bn.LossScale(64, interval=5))
        return model, model.fit(*digits, epochs=epochs, verbose=0)

    model, history = fitted(2)
    model.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    _, whole = fitted(4)
    rest = loaded.fit(*digits, epochs=4, initial_epoch=2, verbose=0)
    scales = np.concatenate([history.steps["loss_scale"], rest.steps["loss_scale"]])
    np.testing.assert_array_equal(scales, whole.steps["loss_scale"])
    np.testing.assert_array_equal(rest.steps["loss"], whole.steps["loss"][6:])
    assert sorted(set(scales)) == [64.0, 128.0, 256.0]


def test_predictions_and_evaluation_are_of_the_same_precision(rng):
    x, y = rng.normal(size=(40, 6)), rng.normal(size=(40, 2))
    model = bn.Sequential([layers.Dense(16, "relu"), layers.Dense(2)])
    model.compile("mse", precision="mixed_bfloat16")
    p = (model.predict(x), model.evaluate(x, y)["loss"])
    np.testing.assert_allclose(p[1], np.mean((p[0].astype(np.float64) - y) ** 2), rtol=1e-6)
    assert (half(p[0], "mixed_bfloat16") == p[0]).all()
    weights = model.parameters()
    model.compile("mse")
    assert np.abs(model.predict(x) - p[0]).max() > 1e-4
    assert all(np.array_equal(weights[path], array) for path, array in model.parameters().items())


def test_finite_differences_of_a_mixed_model_are_of_32_bits(rng):
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 2))
    model = bn.Sequential([layers.Dense(2, "tanh")])
    model.compile("mse", precision="mixed_float16")
    numeric = bn.gradients(model, x, y, method="numerical")
    for path, array in bn.gradients(model, x, y).items():
        np.testing.assert_allclose(array, numeric[path], atol=3e-3)
    assert bn.check_gradients(model, x, y).passed


def test_wrong_arguments_are_told_at_once():
    model = bn.Sequential([layers.Dense(2)])
    refused = [
        ({"precision": "mixed_float16", "device": "ndarray"}, 'mixed_float16 is not available on device "ndarray"'),
        ({"precision": "float16"}, "`precision`: unknown name 'float16'; did you mean 'mixed_float16'"),
        ({"precision": "mixed_bfloat16", "grad_method": "numerical"}, "`grad_method` 'numerical' does not go with"),
        ({"loss_scale": "static"}, "`loss_scale`: unknown name 'static'"),
        ({"loss_scale": 0.0}, "`loss_scale` must be a finite number greater than 0"),
    ]
    for options, message in refused:
        with pytest.raises(ValueError, match=message):
            model.compile("mse", **options)
    with pytest.raises(TypeError, match="`loss_scale` must be a number"):
        model.compile("mse", loss_scale=[1])
    for options in (
        {"initial": 0},
        {"growth": 0.5},
        {"backoff": 2},
        {"interval": 0},
        {"minimum": 0},
        {"minimum": 2**17},
    ):
        with pytest.raises(ValueError, match=f"`{next(iter(options))}` must be"):
            bn.LossScale(**options)


@pytest.mark.parametrize("precision", MIXED)
def test_sums_of_many_gradients_are_rounded_once(precision):
    generator = np.random.default_rng(3)
    x = half(generator.normal(size=(1024, 32, 1)), precision)
    y = half(generator.normal(size=(1024, 16)), precision)
    # Nearly all of it cancels, and what is left would drown in roundings of the terms.
    x, y = np.concatenate([x, -x]), np.concatenate([y, half(y * (1 + 2.0**-5), precision)])

    class Product(layers.Layer):
        def call(self, x):
            return ops.reshape(ops.matmul(self.parameter("kernel", (16, 32), "ones"), x), (-1, 16))

    model = bn.Sequential([Product()])
    # The gradient of each product is exactly y.
    model.compile(lambda target, prediction: ops.sum(target * prediction, 1), precision=precision)
    found = bn.gradients(model, x, y)["product.kernel"]
    expected = np.einsum("bo,bi->oi", y.astype(np.float64), x[:, :, 0].astype(np.float64)) / len(x)
    scale = np.sqrt(np.mean(expected**2))
    assert np.sqrt(np.mean((found - expected) ** 2)) < 2 * ulp(precision) * scale
