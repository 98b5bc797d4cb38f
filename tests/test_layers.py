"""Layers against NumPy, in the inference and the training form."""

import math

import numpy as np
import pytest

import burnish as bn
from burnish import layers
from burnish.model import core_of


def built(layer, x, **options):
    model = bn.Sequential([layer])
    model.compile("mse", precision="float64", **options)
    model.build((None, *x.shape[1:]))
    return model


def training_values(model, x):
    """What the layers give in training."""
    return core_of(model).runtime.session.predict({"x": x}, batch_size=len(x), outputs=["training.prediction"])[0]


def windows(x, size, strides, padding="valid", dilation=(1, 1), fill=0.0):
    span = [(n - 1) * d + 1 for n, d in zip(size, dilation, strict=True)]
    if padding == "same":
        widths = [
            max((math.ceil(n / s) - 1) * s + k - n, 0) for n, s, k in zip(x.shape[1:3], strides, span, strict=True)
        ]
        x = np.pad(x, [(0, 0), *[(w // 2, w - w // 2) for w in widths], (0, 0)], constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(x, span, axis=(1, 2))
    return view[:, :: strides[0], :: strides[1], :, :: dilation[0], :: dilation[1]]


def test_dense(rng):
    x = rng.normal(size=(5, 3, 4))
    model = built(layers.Dense(2, activation="tanh", bias_initializer="normal"), x)
    p = model.parameters()
    np.testing.assert_allclose(model.predict(x), np.tanh(x @ p["dense.kernel"] + p["dense.bias"]))
    assert "dense.bias" not in built(layers.Dense(2, use_bias=False), x).parameters()


@pytest.mark.parametrize("activation", ["gelu", "mish", "leaky_relu", "softmax", "relu", bn.ops.sin, layers.ELU(0.5)])
def test_activation_fused_or_not_is_the_same(rng, activation):
    x = rng.normal(size=(5, 4))
    fused = built(layers.Dense(3, activation=activation), x)
    apart = bn.Sequential([layers.Dense(3), layers.Activation(activation)])
    apart.compile("mse", precision="float64")
    apart.build((None, 4)).set_parameters(fused.parameters())
    np.testing.assert_allclose(fused.predict(x), apart.predict(x), rtol=1e-14)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("strides", "dilation", "groups"), [(1, 1, 1), ((2, 1), 1, 2), (1, (1, 2), 1), (3, 2, 1)])
def test_conv2d(rng, padding, strides, dilation, groups):
    x = rng.normal(size=(2, 9, 8, 4))
    layer = layers.Conv2D(6, (3, 2), strides, padding, dilation_rate=dilation, groups=groups)
    model = built(layer, x)
    p = model.parameters()
    view = windows(x, (3, 2), layer.strides, padding, layer.dilation_rate)
    parts = zip(np.split(view, groups, axis=3), np.split(p["conv2d.kernel"], groups, axis=3), strict=True)
    expected = np.concatenate([np.einsum("bhwcij,ijcf->bhwf", v, k) for v, k in parts], axis=3)
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("size", "strides"), [(2, None), ((3, 2), 1), (2, 3)])
def test_pooling(rng, padding, size, strides):
    x = rng.normal(size=(2, 7, 6, 3))
    for make, reduce, fill in ((layers.MaxPool2D, np.max, -np.inf), (layers.AvgPool2D, np.nanmean, np.nan)):
        layer = make(size, strides, padding)
        expected = reduce(windows(x, layer.pool_size, layer.strides, padding, fill=fill), axis=(4, 5))
        np.testing.assert_allclose(built(layer, x).predict(x), expected)


def test_global_pooling(rng):
    x = rng.normal(size=(2, 5, 6, 3))
    np.testing.assert_allclose(built(layers.GlobalAvgPool(), x).predict(x), x.mean((1, 2)))
    np.testing.assert_allclose(built(layers.GlobalMaxPool(), x).predict(x), x.max((1, 2)))


def test_shapes(rng):
    x = rng.normal(size=(3, 4, 6))
    np.testing.assert_array_equal(built(layers.Flatten(), x).predict(x), x.reshape(3, 24))
    np.testing.assert_array_equal(built(layers.Reshape((2, -1)), x).predict(x), x.reshape(3, 2, 12))
    np.testing.assert_array_equal(built(layers.Permute((2, 1)), x).predict(x), x.transpose(0, 2, 1))


def test_embedding_takes_integers_of_any_type():
    x = np.array([[0, 4], [2, 2], [3, 1]])
    model = built(layers.Embedding(5, 3), x)
    expected = model.parameters()["embedding.embeddings"][x]
    for dtype in ("int64", "uint8", "float32", ">i4"):
        np.testing.assert_array_equal(model.predict(x.astype(dtype)), expected)
    assert np.abs(expected).max() <= 0.05


def test_layer_norm(rng):
    x = 3 + 2 * rng.normal(size=(4, 7))
    model = built(layers.LayerNorm(epsilon=1e-3), x)
    model.set_parameters({"layer_norm.scale": rng.normal(size=7), "layer_norm.offset": rng.normal(size=7)})
    p = model.parameters()
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(model.predict(x), expected * p["layer_norm.scale"] + p["layer_norm.offset"])


def test_batch_norm_training_inference_and_statistics(rng):
    x = 3 + 2 * rng.normal(size=(6, 5, 4))
    model = built(layers.BatchNorm(momentum=0.8), x, optimizer="sgd", learning_rate=0.0)
    mean, variance = x.mean((0, 1)), x.var((0, 1))
    np.testing.assert_allclose(training_values(model, x), (x - mean) / np.sqrt(variance + 1e-5))
    np.testing.assert_allclose(model.predict(x), x / np.sqrt(1 + 1e-5))
    model.train_on_batch(x, np.zeros_like(x))
    state = model.parameters(buffers=True)
    moving_mean, moving_variance = 0.2 * mean, 0.8 + 0.2 * x.var((0, 1), ddof=1)
    np.testing.assert_allclose(state["batch_norm.moving_mean"], moving_mean)
    np.testing.assert_allclose(state["batch_norm.moving_variance"], moving_variance)
    np.testing.assert_allclose(model.predict(x), (x - moving_mean) / np.sqrt(moving_variance + 1e-5))


def test_frozen_batch_norm_keeps_its_statistics_and_uses_them(rng):
    x = 3 + 2 * rng.normal(size=(6, 4))
    model = built(layers.BatchNorm(), x, optimizer="sgd", learning_rate=0.1)
    model.train_on_batch(x, np.zeros_like(x))
    model.freeze("batch_norm")
    before = model.parameters(buffers=True)
    np.testing.assert_array_equal(training_values(model, x), model.predict(x))
    model.train_on_batch(x, np.zeros_like(x))
    after = model.parameters(buffers=True)
    assert all(np.array_equal(before[path], after[path]) for path in before)
    model.unfreeze()
    model.train_on_batch(x, np.zeros_like(x))
    assert not np.array_equal(
        before["batch_norm.moving_mean"], model.parameters(buffers=True)["batch_norm.moving_mean"]
    )


def test_shared_batch_norm_moves_its_statistics_at_each_use(rng, tmp_path):
    x = rng.normal(size=(40, 3))
    z = 3 * x + 10
    a, b = bn.Input((3,)), bn.Input((3,))
    norm = layers.BatchNorm(momentum=0.9, name="n")
    model = bn.Model((a, b), norm(a) + norm(b))
    model.compile("mse", "sgd", 0.0, precision="float64")
    model.train_on_batch((x, z), np.zeros((40, 3)))
    found = model.parameters(buffers=True)
    mean = 0.9 * (0.1 * x.mean(0)) + 0.1 * z.mean(0)
    variance = 0.9 * (0.9 + 0.1 * x.var(0, ddof=1)) + 0.1 * z.var(0, ddof=1)
    np.testing.assert_allclose(found["n.moving_mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(found["n.moving_variance"], variance, rtol=1e-12)
    model.save(tmp_path / "model.safetensors")
    again = bn.load(tmp_path / "model.safetensors")
    for one in (model, again):
        one.train_on_batch((x, z), np.zeros((40, 3)))
    found, loaded = (one.parameters(buffers=True)["n.moving_mean"] for one in (model, again))
    np.testing.assert_allclose(found, 0.9 * (0.9 * mean + 0.1 * x.mean(0)) + 0.1 * z.mean(0), rtol=1e-12)
    np.testing.assert_array_equal(found, loaded)


def test_a_buffer_that_two_uses_assign_holds_what_both_made_of_it():
    class Counter(layers.Layer):
        def call(self, x):
            self.assign("count", self.buffer("count", ()) + 1.0)
            return x

    counter = Counter(name="counter")
    model = bn.Sequential([counter, layers.Dense(1), counter])
    model.compile("mse", "sgd", 0.0)
    for _ in range(3):
        model.train_on_batch(np.ones((2, 3)), np.ones((2, 1)))
    assert model.parameters(buffers=True)["counter.count"] == 6.0


def test_concatenate_leaves_the_batch_alone():
    pair = [bn.Input((2,)), bn.Input((2,))]
    for axis in (0, -2):
        with pytest.raises(ValueError, match="`axis` must not be 0, the batch"):
            layers.Concatenate(axis)(pair)


def test_batch_norm_of_one_row_is_finite():
    x = np.ones((1, 3))
    model = built(layers.BatchNorm(), x)
    model.train_on_batch(x, x)
    assert all(np.isfinite(array).all() for array in model.parameters(buffers=True).values())


def test_dropout_and_noise_act_in_training_only():
    x = np.ones((100, 200))
    model = built(layers.Dropout(0.5), x)
    np.testing.assert_array_equal(model.predict(x), x)
    values = training_values(model, x)
    assert set(np.unique(values)) == {0.0, 2.0}
    assert abs((values == 0).mean() - 0.5) < 0.02
    noisy = built(layers.GaussianNoise(0.5), x)
    np.testing.assert_array_equal(noisy.predict(x), x)
    assert abs((training_values(noisy, x) - 1).std() - 0.5) < 0.02


def test_merging(rng):
    a, b = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    nodes = bn.Input((3,)), bn.Input((3,))
    for layer, expected in [
        (layers.Add(), a + b),
        (layers.Multiply(), a * b),
        (layers.Concatenate(), np.concatenate([a, b], 1)),
    ]:
        for output in (layer(list(nodes)), layer(*nodes)):
            model = bn.Model(list(nodes), output)
            np.testing.assert_allclose(model.predict((a, b)), expected, rtol=1e-5, atol=1e-6)


def test_residual_and_lambda(rng):
    x = rng.normal(size=(4, 3))
    model = built(layers.Residual(bn.Sequential([layers.Dense(3), layers.Lambda(bn.ops.square)])), x)
    p = model.parameters()
    assert sorted(p) == ["residual.layer.dense.bias", "residual.layer.dense.kernel"]
    np.testing.assert_allclose(model.predict(x), x + (x @ p["residual.layer.dense.kernel"]) ** 2)


@pytest.mark.parametrize(
    ("name", "shape", "variance"),
    [("glorot_uniform", (300, 200), 2 / 500), ("he_normal", (300, 200), 2 / 300), ("lecun_normal", (300, 200), 1 / 300),
     ("zeros", (30, 20), 0.0), (bn.initializers.Normal(stddev=0.3), (300, 200), 0.09)],
)  # fmt: skip
def test_initializers(name, shape, variance):
    model = bn.Sequential([bn.Input((shape[0],)), layers.Dense(shape[1], kernel_initializer=name)])
    kernel = model.parameters()["dense.kernel"]
    assert kernel.shape == shape
    assert abs(kernel.var() - variance) <= 0.03 * variance


def test_orthogonal():
    model = bn.Sequential([bn.Input((6,)), layers.Dense(4, kernel_initializer=bn.initializers.Orthogonal(2.0))])
    kernel = model.parameters()["dense.kernel"]
    np.testing.assert_allclose(kernel.T @ kernel, 4 * np.eye(4), atol=1e-5)


class Gate(layers.Layer):
    """A user's layer, with a sublayer, a buffer and its own training form."""

    def __init__(self):
        super().__init__()
        self.inner = [layers.Dense(3), {"last": layers.Dense(3)}]

    def call(self, x, training=False):
        seen = self.buffer("seen", (1,), "zeros")
        if training:
            self.assign("seen", seen + 1.0)
        gate = bn.ops.sigmoid(self.parameter("gate", (x.shape[-1],), "ones", role="scale"))
        return self.inner[1]["last"](self.inner[0](x)) * gate


def test_a_users_layer(rng):
    x = rng.normal(size=(8, 3))
    model = built(Gate(), x)
    assert sorted(model.parameters(buffers=True)) == [
        "gate.gate", "gate.inner.0.bias", "gate.inner.0.kernel", "gate.inner.1.last.bias", "gate.inner.1.last.kernel",
        "gate.seen",
    ]  # fmt: skip
    model.fit(x, x, batch_size=3, epochs=2, verbose=0)
    assert model.parameters(buffers=True)["gate.seen"] == 6


@pytest.mark.parametrize(
    ("make", "shape", "words"),
    [
        (lambda: layers.Dense(2), (), r"dense: expected .* \(batch, features\)"),
        (lambda: layers.Conv2D(2, 3), (8,), r"conv2d: expected images"),
        (lambda: layers.Conv2D(2, 9), (8, 8, 1), "conv2d"),
        (lambda: layers.Reshape((5,)), (8,), "reshape: 8 elements"),
        (lambda: layers.Residual(layers.Dense(3)), (8,), "residual: the layer must keep the shape"),
        (layers.GlobalAvgPool, (8,), "global_avg_pool"),
        (lambda: layers.Permute((2, 1)), (8,), "permute: expected 3 axes"),
        (lambda: layers.Dense(2, name="last"), (), "last: expected"),
    ],
)
def test_errors_name_the_layer(make, shape, words):
    with pytest.raises(ValueError, match=words):
        bn.Sequential([make()]).build((None, *shape))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: layers.Dense(0), ValueError, "`units` must be an integer of at least 1, got 0"),
        (lambda: layers.Dense(2.0), TypeError, "`units`"),
        (lambda: layers.Dense(True), TypeError, "`units`"),
        (lambda: layers.Dense(2, activation="rellu"), ValueError, "did you mean 'relu'"),
        (lambda: layers.Dense(2, kernel_initializer="glorot"), ValueError, "did you mean 'glorot_"),
        (lambda: layers.Dense(2, name="a.b"), ValueError, "`name`"),
        (lambda: layers.Dropout(1.0), ValueError, r"`rate` must be a finite number in \[0, 1\), got 1.0"),
        (lambda: layers.Dropout("0.5"), TypeError, "`rate`"),
        (lambda: layers.Conv2D(4, 3, padding="full"), ValueError, "`padding`: unknown name 'full'"),
        (lambda: layers.Conv2D(4, (3, 3, 3)), ValueError, "`kernel_size`"),
        (lambda: layers.Conv2D(3, 3, groups=2), ValueError, "`filters`"),
        (lambda: layers.Permute((0, 1)), ValueError, "`dims`"),
        (lambda: layers.Reshape((-1, -1)), ValueError, "one -1"),
        (lambda: layers.Lambda(3), TypeError, "`function`"),
        (lambda: layers.Add()([bn.Input((2,))]), ValueError, "at least two"),
        (lambda: bn.Input((None, 2)), TypeError, "`shape`"),
        (lambda: bn.Sequential([3]), TypeError, "`layers`"),
        (lambda: bn.Sequential([layers.Dense(1, name="a"), layers.Dense(1, name="a")]), ValueError, "named 'a'"),
    ],
)
def test_bad_arguments(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_a_layer_made_inside_call_is_refused():
    class Wrong(layers.Layer):
        def call(self, x):
            return layers.Dense(2)(x)

    with pytest.raises(ValueError, match="no attribute holds"):
        bn.Sequential([Wrong()]).build((None, 3))


def test_normalization_is_that_of_the_data(rng, tmp_path):
    x = 50 + rng.normal(size=(40, 3, 4)) * [1, 10, 1e-3, 0]
    mean, deviation = x.mean((0, 1)), x.std((0, 1))
    layer = layers.Normalization()
    layer.adapt(x)
    model = built(layer, x)
    expected = (x - mean) / np.maximum(deviation, 1e-7)
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-9, atol=1e-9)
    state = model.parameters(buffers=True)
    np.testing.assert_array_equal(state["normalization.mean"], mean)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(bn.load(tmp_path / "model").predict(x), model.predict(x))
    back = built(layers.Normalization(mean=mean, variance=deviation**2, invert=True), x)
    np.testing.assert_allclose(back.predict(model.predict(x)), x)
    assert not model.parameters()
    with pytest.raises(ValueError, match="adapt must be called before the model is built"):
        layer.adapt(x)


def test_normalization_stays_as_it_is_in_training_and_inside_models(rng):
    x = rng.normal(size=(16, 2)) * 100
    inner = bn.Sequential([layers.Normalization(mean=[1, 2], variance=4.0), layers.Dense(1)])
    inner.compile("mse")
    inner.fit(x, x[:, :1], epochs=2, verbose=0)
    inner.set_parameters({"normalization.mean": np.array([5.0, 6.0])})
    outer = bn.Sequential([inner])
    outer.compile("mse")
    np.testing.assert_array_equal(outer.predict(x), inner.predict(x))
    state = outer.parameters(buffers=True)
    assert state["sequential.normalization.mean"].tolist() == [5, 6]
    assert state["sequential.normalization.variance"].tolist() == [4, 4]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: layers.Normalization(mean=1.0), "given together"),
        (lambda: layers.Normalization(mean=1.0, variance=-1.0), "`variance` must not be negative"),
        (lambda: layers.Normalization(mean=np.nan, variance=1.0), "`mean` must hold finite numbers, got NaN"),
        (lambda: layers.Normalization().adapt([]), "`data` must hold finite numbers, got none"),
        (lambda: bn.Sequential([layers.Normalization()]).build((None, 2)), r"or call adapt\(data\) first"),
        (
            lambda: bn.Sequential([layers.Normalization(mean=[1, 2], variance=[1, 2])]).build((None, 3)),
            r"the statistics are of \(2,\) features, got 3",
        ),
    ],
)
def test_normalization_needs_its_statistics(make, words):
    with pytest.raises(ValueError, match=words):
        make()
