"""Weights of PyTorch in networks of ours, against what PyTorch's networks give; golden/torch_weights.py wrote both."""

from pathlib import Path

import numpy as np
import pytest

import burnish as bn
from burnish import _burnish, layers

GOLDEN = Path(__file__).parent / "golden"
FILE = {
    name: GOLDEN / f"torch_{name}.safetensors" for name in ("classifier", "generator", "text", "translator", "tagger")
}


def golden(name):
    with np.load(GOLDEN / "torch_weights.npz") as arrays:
        inputs = {key[-1]: last(arrays[key]) for key in arrays if key.startswith(f"{name}.x")}
        return inputs if len(inputs) > 1 else inputs["0"], last(arrays[f"{name}.y"])


def last(array):
    """Images with the channels last."""
    return np.moveaxis(array, 1, -1) if array.ndim == 4 else array


def classifier(input_shape=(6, 5, 3)):
    image, extra = bn.Input(input_shape), bn.Input((2,))
    h = layers.ReLU()(layers.BatchNorm(name="bn1")(layers.Conv2D(4, (3, 2), padding="valid", name="conv1")(
        layers.ZeroPadding2D((1, 0))(image)
    )))  # fmt: skip
    h = layers.PReLU(name="slope")(layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, name="depthwise")(h))
    h = layers.ConvTranspose2D(2, 3, 2, name="up")(layers.Conv2D(6, 2, groups=2, name="grouped")(h))
    h = layers.PReLU(name="slope2")(layers.BatchNorm(name="norm")(layers.Flatten()(h)))
    return bn.Model({"0": image, "1": extra}, layers.Dense(3, name="head")(layers.Concatenate()([h, extra])))


def generator():
    return bn.Sequential(
        [
            bn.Input((5,)),
            layers.Dense(24),
            layers.BatchNorm(),
            layers.ReLU(),
            layers.Reshape((3, 2, 4)),
            layers.GroupNorm(2),
            layers.ConvTranspose2D(2, (2, 3), 2, use_bias=False),
        ]
    )


def text():
    return bn.Sequential(
        [
            bn.Input((7,)),
            layers.Embedding(11, 4),
            layers.Conv1D(6, 3, padding="same", groups=2, name="conv"),
            layers.BatchNorm(name="bn"),
            layers.MaxPool1D(),
            layers.Flatten(),
            layers.LayerNorm(name="norm"),
            layers.Dense(2, name="fc"),
        ]
    )


class Translator(bn.Model):
    def __init__(self):
        super().__init__()
        self.encoder = [layers.TransformerEncoderLayer(7, 2, activation="gelu") for _ in range(2)]
        self.decoder = layers.TransformerDecoderLayer(7, 3, normalize_first=True)
        self.attend = layers.MultiHeadAttention(2, 3)

    def call(self, inputs):
        source, target, keys, values = (inputs[str(place)] for place in range(4))
        for layer in self.encoder:
            source = layer(source)
        return self.attend(self.decoder(target, source), values, keys)


def tagger():
    def both(layer, name):
        return layers.Bidirectional(layer, name=name)

    return bn.Sequential(
        [
            bn.Input((6, 3)),
            both(layers.LSTM(4, return_sequences=True), "lstm"),
            both(layers.LSTM(4, return_sequences=True), "second"),
            layers.GRU(5, return_sequences=True),
            both(layers.RNN(4, activation="relu", return_sequences=True, use_bias=False), "rnn"),
            layers.GRU(2, name="last"),
        ]
    )


MODELS = {
    "classifier": (classifier, {"bn2": "norm", "fc": "head"}),
    "generator": (
        generator,
        {"fc": "dense", "norm": "batch_norm", "group": "group_norm", "up": "conv_transpose2d"},
    ),
    "text": (text, None),
    "tagger": (tagger, {"lstm.l1": "second"}),
    "translator": (Translator, {"encoder.layers": "encoder"}),
}


def built(make, inputs):
    model = make()
    model.compile("mse", precision="float64")
    return model.build(
        {place: (None, *x.shape[1:]) for place, x in inputs.items()}
        if isinstance(inputs, dict)
        else (None, *inputs.shape[1:])
    )


@pytest.mark.parametrize("name", MODELS)
def test_the_network_gives_what_pytorchs_gives(name, tmp_path):
    make, names = MODELS[name]
    x, y = golden(name)
    model = built(make, x)
    difference = model.load_weights(FILE[name], layout="torch", names=names)
    assert difference == ([], [], [])
    np.testing.assert_allclose(model.predict(x), y, rtol=1e-6, atol=1e-6)
    model.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    loaded.set_parameters({path: 0 * array for path, array in loaded.parameters(buffers=True).items()})
    loaded.load_weights(FILE[name], layout="torch", names=names)
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))


def saved(path, **arrays):
    _burnish.write_arrays(str(path), {name.replace("__", "."): array for name, array in arrays.items()}, {})
    return path


def dense(*before, shape):
    model = bn.Sequential([bn.Input(shape), *before, layers.Dense(2, use_bias=False, name="fc")])
    model.compile("mse", precision="float64")
    return model


@pytest.mark.parametrize(
    ("before", "shape", "turned"),
    [
        ([layers.Flatten()], (3, 2, 4), True),
        ([layers.MaxPool2D(1), layers.ReLU(), layers.Dropout(0.5), layers.Flatten(), layers.Activation("tanh")],
         (3, 2, 4), True),
        ([layers.UpSampling2D(1, "bilinear"), layers.UpSampling2D(1), layers.ConvTranspose2D(4, 1), layers.Flatten()],
         (3, 2, 4), True),
        ([layers.AvgPool1D(1), layers.Flatten()], (3, 8), True),
        ([layers.Flatten()], (3, 8), False),  # steps of features, as PyTorch's attention and recurrent layers have them
        ([layers.Permute((3, 1, 2)), layers.Flatten()], (3, 2, 4), False),
        ([layers.Dense(4), layers.Flatten()], (3, 2, 4), False),
        ([layers.GlobalAvgPool()], (1, 1, 24), False),
    ],
)  # fmt: skip
def test_vectors_of_images_are_put_in_order(before, shape, turned, rng, tmp_path):
    weight = rng.normal(size=(2, 24))
    model = dense(*before, shape=shape)
    model.load_weights(saved(tmp_path / "weights", fc__weight=weight), False, layout="torch")
    kernel = np.moveaxis(weight.reshape(2, shape[-1], *shape[:-1]), 1, -1).reshape(2, 24) if turned else weight
    np.testing.assert_array_equal(model.parameters()["fc.kernel"], kernel.T)


def test_names_by_function_and_left_out_modules(rng, tmp_path):
    arrays = {"net__0__weight": rng.normal(size=(2, 3)), "old__weight": rng.normal(size=2)}
    path, model = saved(tmp_path / "weights", **arrays), dense(shape=(3,))
    for names in ({"net.0": "fc", "net": "none", "old": None}, {"net.0.weight": "fc.weight", "old.weight": None}):
        assert model.load_weights(path, layout="torch", names=names) == ([], [], [])
        np.testing.assert_array_equal(model.parameters()["fc.kernel"], arrays["net__0__weight"].T)
    model.set_parameters({"fc.kernel": np.zeros((3, 2))})
    model.load_weights(path, layout="torch", names=lambda name: "fc.weight" if name.startswith("net") else None)
    np.testing.assert_array_equal(model.parameters()["fc.kernel"], arrays["net__0__weight"].T)
    inner = bn.Sequential([bn.Input((3,)), bn.Sequential([layers.Dense(2, use_bias=False)], name="body")])
    inner.load_weights(path, layout="torch", names={"net.0": "body.dense", "old": None})
    np.testing.assert_allclose(inner.parameters()["body.dense.kernel"], arrays["net__0__weight"].T, rtol=1e-6)


def test_recurrent_layers_that_do_not_fit_are_listed(rng, tmp_path):
    arrays = {
        f"rnn.{part}_l{level}": rng.normal(size=(4, 4) if part.startswith("w") else 4)
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        for level in (0, 1)
    }
    path = tmp_path / "weights"
    _burnish.write_arrays(str(path), arrays, {})
    model = bn.Sequential([bn.Input((3, 4)), layers.RNN(4, return_sequences=True), layers.GRU(4, use_bias=False)])
    with pytest.raises(ValueError, match=r"'rnn.bias_hh_l0' and 'rnn.bias_hh_l1' the same name"):
        model.load_weights(path, layout="torch")
    with pytest.raises(ValueError, match="do not fit") as raised:
        model.load_weights(path, layout="torch", names={"rnn.l1": "gru"})
    for words in (
        "unexpected 'rnn.bias_ih_l1'",
        "'gru.kernel' must have shape (4, 12), got (4, 4)",
    ):
        assert words in str(raised.value)
    model.load_weights(path, layout="torch", strict=False, names=lambda name: name.replace("_l1", "_l2_reverse"))
    np.testing.assert_array_equal(
        model.parameters()["rnn.bias"], np.float32(arrays["rnn.bias_ih_l0"] + arrays["rnn.bias_hh_l0"])
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_module_of_its_own_in_half_precision(dtype, tmp_path):
    weight = np.array([[1.5, -2.0, 0.0], [0.25, 3.0, -96.0]], np.float32)
    if dtype == "float16":
        path = saved(tmp_path / "weights", weight=weight.astype(np.float16))
    else:
        header = b'{"weight":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}}'
        halves = weight.view("<u4") >> 16
        path = tmp_path / "weights"
        path.write_bytes(len(header).to_bytes(8, "little") + header + halves.astype("<u2").tobytes())
    model = dense(shape=(3,))
    model.load_weights(path, layout="torch", names={"weight": "fc.weight"})
    np.testing.assert_array_equal(model.parameters()["fc.kernel"], weight.T)


def test_what_does_not_fit_is_listed_and_changes_nothing(rng, tmp_path):
    path = saved(
        tmp_path / "weights",
        fc__weight=rng.normal(size=(2, 4)),
        fc2__bias=rng.normal(size=2),
        bn__num_batches_tracked=np.zeros(1, np.int64),
    )
    model = bn.Sequential([bn.Input((3,)), layers.Dense(2, name="fc"), layers.BatchNorm(name="bn")])
    before = model.parameters(buffers=True)
    with pytest.raises(ValueError, match="do not fit") as raised:
        model.load_weights(path, layout="torch")
    for words in (
        "unexpected 'fc2.bias'",
        "'fc.kernel' must have shape (3, 2), got (4, 2)",
        "missing 'fc.bias'",
        "missing 'bn.moving_variance'",
    ):
        assert words in str(raised.value)
    after = model.parameters(buffers=True)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    difference = model.load_weights(path, strict=False, layout="torch", names={"fc2": "fc"})
    assert difference.misshapen == ["fc.kernel"]
    assert "fc.bias" not in difference.missing


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"layout": "keras"}, ValueError, "`layout`: unknown name 'keras'"),
        ({"names": {}}, ValueError, "`names` needs"),
        ({"layout": "torch", "names": [("a", "b")]}, TypeError, "`names` must be a dict"),
        ({"layout": "torch", "names": {"a": 1}}, TypeError, "`names` must give strings or None, got 1"),
        ({"layout": "torch", "names": lambda name: 1}, TypeError, "`names` must give strings or None, got 1"),
        ({"layout": "torch", "names": {"a": "fc", "b": "fc"}}, ValueError, "'a.weight' and 'b.weight' the same name"),
    ],
)
def test_bad_arguments(options, error, words, tmp_path):
    path = saved(tmp_path / "weights", a__weight=np.ones((2, 3)), b__weight=np.ones((2, 3)))
    with pytest.raises(error, match=words):
        dense(shape=(3,)).load_weights(path, **options)
