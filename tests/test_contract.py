"""One suite for every layer, loss, optimizer and activation: being in the list is being tested."""

import inspect

import numpy as np
import pytest

import burnish as bn
from burnish import activations, layers, losses, metrics, optimizers
from burnish.model import core_of

RNG = np.random.default_rng(4)
VECTOR, IMAGE, SEQUENCE = RNG.normal(size=(6, 4)), RNG.normal(size=(6, 6, 5, 4)), RNG.normal(size=(6, 3, 4))
TOKENS = RNG.integers(0, 7, size=(6, 3))


def doubled(layer):
    """A layer of several values, given a value and its double."""
    return lambda x: layer(x, 2.0 * x)


# How to make each layer, and what to give it.
LAYERS = {
    "Activation": (lambda: layers.Activation("mish"), VECTOR),
    "Add": (layers.Add, VECTOR),
    "Average": (layers.Average, VECTOR),
    "AvgPool1D": (layers.AvgPool1D, SEQUENCE),
    "AvgPool2D": (layers.AvgPool2D, IMAGE),
    "BatchNorm": (layers.BatchNorm, IMAGE),
    "Bidirectional": (lambda: layers.Bidirectional(layers.RNN(3, recurrent_dropout=0.3)), SEQUENCE),
    "CELU": (lambda: layers.CELU(0.7), VECTOR),
    "Concatenate": (layers.Concatenate, SEQUENCE),
    "Conv1D": (lambda: layers.Conv1D(3, 2, padding="causal", activation="tanh"), SEQUENCE),
    "Conv2D": (lambda: layers.Conv2D(3, 3, padding="same", activation="tanh"), IMAGE),
    "ConvTranspose2D": (lambda: layers.ConvTranspose2D(2, 3, 2, "same", activation="tanh"), IMAGE),
    "Cropping1D": (layers.Cropping1D, SEQUENCE),
    "Cropping2D": (lambda: layers.Cropping2D(((1, 0), (0, 2))), IMAGE),
    "Dense": (lambda: layers.Dense(3, "sigmoid"), SEQUENCE),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2), IMAGE),
    "Dropout": (lambda: layers.Dropout(0.4), VECTOR),
    "ELU": (layers.ELU, VECTOR),
    "Embedding": (lambda: layers.Embedding(7, 3), TOKENS),
    "Flatten": (layers.Flatten, IMAGE),
    "GELU": (layers.GELU, VECTOR),
    "GLU": (layers.GLU, VECTOR),
    "GRU": (lambda: layers.GRU(3, dropout=0.3, recurrent_dropout=0.3, return_sequences=True), SEQUENCE),
    "GaussianNoise": (lambda: layers.GaussianNoise(0.1), VECTOR),
    "GlobalAvgPool": (layers.GlobalAvgPool, IMAGE),
    "GlobalMaxPool": (layers.GlobalMaxPool, SEQUENCE),
    "GroupNorm": (lambda: layers.GroupNorm(2), IMAGE),
    "HardShrink": (layers.HardShrink, VECTOR),
    "HardSiLU": (layers.HardSiLU, VECTOR),
    "HardSigmoid": (layers.HardSigmoid, VECTOR),
    "HardTanh": (layers.HardTanh, VECTOR),
    "LSTM": (lambda: layers.LSTM(3, dropout=0.3, recurrent_dropout=0.3), SEQUENCE),
    "Lambda": (lambda: layers.Lambda(bn.ops.sin), VECTOR),
    "LayerNorm": (layers.LayerNorm, SEQUENCE),
    "LeakyReLU": (layers.LeakyReLU, VECTOR),
    "LogSigmoid": (layers.LogSigmoid, VECTOR),
    "LogSoftmax": (layers.LogSoftmax, VECTOR),
    "MaxPool1D": (lambda: layers.MaxPool1D(2, 1), SEQUENCE),
    "MaxPool2D": (layers.MaxPool2D, IMAGE),
    "Maximum": (layers.Maximum, VECTOR),
    "Minimum": (layers.Minimum, VECTOR),
    "Mish": (layers.Mish, VECTOR),
    "MultiHeadAttention": (lambda: layers.MultiHeadAttention(2, 3, dropout=0.2, use_causal_mask=True), SEQUENCE),
    "Multiply": (layers.Multiply, VECTOR),
    "PReLU": (lambda: layers.PReLU("normal"), SEQUENCE),
    "Normalization": (lambda: layers.Normalization(mean=0.3, variance=[0.5, 1, 2, 4]), VECTOR),
    "Permute": (lambda: layers.Permute((2, 1)), SEQUENCE),
    "PositionalEncoding": (lambda: layers.PositionalEncoding(learned=True), SEQUENCE),
    "RMSNorm": (layers.RMSNorm, SEQUENCE),
    "RNN": (lambda: layers.RNN(3, go_backwards=True, return_sequences=True), SEQUENCE),
    "ReLU": (layers.ReLU, VECTOR),
    "ReLU6": (layers.ReLU6, VECTOR),
    "RepeatVector": (lambda: layers.RepeatVector(3), VECTOR),
    "Reshape": (lambda: layers.Reshape((2, -1)), VECTOR),
    "Residual": (lambda: layers.Residual(layers.Dense(4, "tanh")), VECTOR),
    "SELU": (layers.SELU, VECTOR),
    "SeparableConv2D": (lambda: layers.SeparableConv2D(3, 3, activation="tanh"), IMAGE),
    "SiLU": (layers.SiLU, VECTOR),
    "Sigmoid": (layers.Sigmoid, VECTOR),
    "SoftShrink": (lambda: layers.SoftShrink(0.1), VECTOR),
    "Softmax": (layers.Softmax, VECTOR),
    "Softplus": (layers.Softplus, VECTOR),
    "Softsign": (layers.Softsign, VECTOR),
    "SpatialDropout": (lambda: layers.SpatialDropout(0.4), IMAGE),
    "Squareplus": (layers.Squareplus, VECTOR),
    "Subtract": (layers.Subtract, VECTOR),
    "Tanh": (layers.Tanh, VECTOR),
    "TanhShrink": (layers.TanhShrink, VECTOR),
    "Threshold": (lambda: layers.Threshold(0.1, -1.0), VECTOR),
    "TransformerDecoderLayer": (lambda: layers.TransformerDecoderLayer(5, 2, 0.1, "gelu"), SEQUENCE),
    "TransformerEncoderLayer": (lambda: layers.TransformerEncoderLayer(5, 2, 0.1, "tanh"), SEQUENCE),
    "UpSampling1D": (layers.UpSampling1D, SEQUENCE),
    "UpSampling2D": (lambda: layers.UpSampling2D((2, 3), "bilinear"), IMAGE),
    "ZeroPadding1D": (layers.ZeroPadding1D, SEQUENCE),
    "ZeroPadding2D": (layers.ZeroPadding2D, IMAGE),
}
SEVERAL = {"Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract", "TransformerDecoderLayer"}
LABELS, NUMBERS, PROBABILITIES = RNG.integers(0, 3, size=6), RNG.normal(size=(6, 3)), RNG.dirichlet(np.ones(3), size=6)
BINARY = np.float64(NUMBERS > 0)
APART = np.array([[[0.0, 1.0], [0.0, 1.0], [9.0, 9.0]]] * 6)
WORDS = np.array([[1, 2], [2, 1], [1, -1], [2, 2], [-1, -1], [1, 1]])
WAYS = np.array([[1, 0, 2, 0], [0, 2, 1, 0], [1, 1, 1, 0], [2, 0, 2, 2], [0, 0, 0, 0], [1, 0, 0, 1]])
# A target of each loss, and a prediction than which none is better.
LOSSES = {
    "binary_cross_entropy": (BINARY, 50 * (2 * BINARY - 1)),
    "cosine": (NUMBERS, 3 * NUMBERS),
    "cross_entropy": (LABELS, 50 * (2 * np.eye(3)[LABELS] - 1)),
    "ctc": (WORDS, 50 * (2 * np.eye(3)[WAYS] - 1)),
    "focal": (BINARY, 50 * (2 * BINARY - 1)),
    "gaussian_nll": (NUMBERS[:, :2], np.concatenate([NUMBERS[:, :2], np.full((6, 2), np.log(1e-6))], 1)),
    "hinge": (BINARY, 50 * (2 * BINARY - 1)),
    "huber": (2 * NUMBERS, 2 * NUMBERS),
    "kl_divergence": (PROBABILITIES, np.log(PROBABILITIES)),
    "log_cosh": (NUMBERS, NUMBERS),
    "mae": (NUMBERS, NUMBERS),
    "mse": (NUMBERS, NUMBERS),
    "poisson_nll": (np.float64(LABELS + 1), np.log(LABELS + 1)),
    "quantile": (NUMBERS, NUMBERS),
    "triplet": (LABELS, APART),
}
TARGETS = {name: target for name, (target, _) in LOSSES.items()}


def head(name):
    """A layer as wide as the loss takes predictions."""
    shape = LOSSES[name][1].shape[1:]
    return bn.Sequential([layers.Dense(max(int(np.prod(shape)), 1)), layers.Reshape(shape)])


def applied(name):
    """The input, the layer's value of what another layer makes of it, and what to predict from."""
    make, x = LAYERS[name]
    node = bn.Input(x.shape[1:])
    before = node if name == "Embedding" else layers.Dense(4, name="before")(node)
    layer = make()
    return node, doubled(layer)(before) if name in SEVERAL else layer(before), x


def network(name, **options):
    """The layer between two others, so that gradients go through it to parameters before it."""
    node, value, x = applied(name)
    model = bn.Model(node, layers.Dense(2, name="after")(layers.Flatten()(value)))
    model.compile("mse", **{"optimizer": "adam", "learning_rate": 0.01, **options})
    return model, x, RNG.normal(size=(6, 2))


def test_every_name_is_in_the_suite():
    assert set(LAYERS) == set(layers.__all__) - {"Layer"}
    assert set(TARGETS) == set(losses.BY_NAME)


def test_every_activation_is_a_name_and_a_layer_or_function():
    for name in [None, *activations.known()]:
        model = bn.Sequential([layers.Dense(4, activation=name)])
        model.compile("mse")
        assert model.predict(VECTOR).shape in {(6, 4), (6, 2)}  # glu halves


@pytest.mark.parametrize("name", LAYERS)
def test_layer_gradients(name):
    model, x, y = network(name)
    report = bn.check_gradients(model, x, y)
    assert report.passed, report
    assert report.checked - len(report.kinks) > 0


@pytest.mark.parametrize("name", LAYERS)
def test_layer_saves_and_takes_the_same_next_step(name, tmp_path):
    model, x, y = network(name)
    model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    model.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    model.fit(x, y, batch_size=4, verbose=0)
    loaded.fit(x, y, batch_size=4, verbose=0)
    for path, array in model.parameters(buffers=True).items():
        np.testing.assert_array_equal(loaded.parameters(buffers=True)[path], array)


def penalised(name):
    """The arguments of a layer that are penalties."""
    return [
        argument
        for argument in inspect.signature(getattr(layers, name)).parameters
        if argument.endswith("_regularizer")
    ]


PENALISED = {
    "Conv1D": (2, 2),
    "Conv2D": (2, 3),
    "ConvTranspose2D": (2, 3),
    "Dense": (3,),
    "DepthwiseConv2D": (3,),
    "Embedding": (7, 3),
    "MultiHeadAttention": (2, 3),
    "PReLU": ("normal",),
    "PositionalEncoding": (),
    "SeparableConv2D": (2, 3),
    "TransformerDecoderLayer": (5, 2),
    "TransformerEncoderLayer": (5, 2),
}


def test_every_layer_with_penalties_is_in_the_suite():
    assert set(PENALISED) == {name for name in LAYERS if penalised(name)}


@pytest.mark.parametrize("name", PENALISED)
def test_layer_penalises_kernels_and_biases(name):
    options = {"learned": True} if name == "PositionalEncoding" else {}
    layer = getattr(layers, name)(*PENALISED[name], **dict.fromkeys(penalised(name), "l2"), **options)
    x = LAYERS[name][1]
    model = bn.Sequential([layer])
    model.compile(lambda target, prediction: 0.0 * prediction, precision="float64")
    parameters = model.build((None, *x.shape[1:])).parameters()
    wanted = sum(np.sum(array**2) for path, array in parameters.items() if "norm" not in path)
    assert wanted > 0
    np.testing.assert_allclose(model.evaluate(x, np.zeros(6))["loss"], 0.01 * wanted, rtol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_gives_its_parameters_roles(name):
    model, _, _ = network(name)
    model.predict(LAYERS[name][1])
    for path, _, role in core_of(model).runtime.built.program.parameters():
        last = path.rpartition(".")[2]
        expected = next((kind for kind in ("kernel", "bias", "embedding") if kind in last), "scale")
        assert role == ("bias" if last == "offset" else expected), path


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_layer_keeps_precision_and_rows_are_apart(name, precision):
    model, x, _ = network(name, precision=precision)
    whole = model.predict(x)
    assert whole.dtype == precision
    assert whole.shape == (6, 2)
    single = np.concatenate([model.predict(x[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(single, whole, rtol=1e-4 if precision == "float32" else 1e-12, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_on_every_device(name, device):
    model, x, y = network(name, device=device)
    expected, _, _ = network(name)
    model.build((None, *x.shape[1:]))
    np.testing.assert_allclose(model.predict(x), expected.predict(x), rtol=1e-3, atol=1e-4)
    assert np.isfinite(model.train_on_batch(x, y)["loss"])


@pytest.mark.parametrize("name", TARGETS)
def test_loss_gradients(name):
    model = bn.Sequential([layers.Dense(4, "tanh"), head(name)])
    model.compile(name)
    report = bn.check_gradients(model, VECTOR, TARGETS[name], sample_weight=np.arange(1.0, 7.0))
    assert report.passed, report
    assert not report.kinks


@pytest.mark.parametrize("name", TARGETS)
def test_loss_saves_and_takes_the_same_next_step(name, tmp_path):
    model = head(name)
    model.compile(name, metrics=[name if name in metrics.BY_NAME else losses.BY_NAME[name]])
    model.fit(VECTOR, TARGETS[name], verbose=0)
    model.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    assert loaded.evaluate(VECTOR, TARGETS[name]) == model.evaluate(VECTOR, TARGETS[name])
    assert loaded.train_on_batch(VECTOR, TARGETS[name]) == model.train_on_batch(VECTOR, TARGETS[name])


@pytest.mark.parametrize("name", TARGETS)
def test_loss_is_least_at_its_target(name):
    target, best = LOSSES[name]
    loss = losses.resolve(name)
    least = loss(target, bn.Tensor(best)).numpy()
    assert least.shape == (6,)
    for scale in (0.01, 1.0, 30.0):
        other = loss(target, bn.Tensor(best + scale * RNG.normal(size=best.shape))).numpy()
        assert (other > least - 1e-12).all()


@pytest.mark.parametrize("name", optimizers.BY_NAME)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_optimizer_keeps_precision_and_state(name, precision, tmp_path):
    model = bn.Sequential([layers.Dense(3)])
    model.compile("mse", name, precision=precision)
    batch_size = len(VECTOR) if optimizers.BY_NAME[name].full_batch else 4
    model.fit(VECTOR, TARGETS["mse"], batch_size=batch_size, epochs=3, verbose=0)
    assert all(array.dtype == precision for array in model.parameters().values())
    model.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    for each in (model, loaded):
        each.fit(VECTOR, TARGETS["mse"], batch_size=batch_size, epochs=2, verbose=0)
    for path, array in model.parameters().items():
        np.testing.assert_array_equal(loaded.parameters()[path], array)


@pytest.mark.parametrize("name", optimizers.BY_NAME)
def test_optimizer_lowers_the_loss(name, device):
    model = bn.Sequential([layers.Dense(8, "tanh"), layers.Dense(3)])
    model.compile("mse", name, device=device)
    history = model.fit(VECTOR, TARGETS["mse"], epochs=20, verbose=0).history["loss"]
    assert history[-1] < history[0]


@pytest.mark.parametrize("name", optimizers.BY_NAME)
def test_learning_rate_zero_moves_nothing(name):
    model = bn.Sequential([layers.Dense(3)])
    model.compile("mse", name, 0.0)
    before = model.build((None, 4)).parameters()
    model.fit(VECTOR, TARGETS["mse"], verbose=0)
    assert all(np.array_equal(before[path], array) for path, array in model.parameters().items())
