"""Exported models against onnxruntime: every layer, every operation, whole models."""

import numpy as np
import pytest
import test_torch_weights
from test_contract import LAYERS, network

import burnish as bn
from burnish import _burnish, layers, ops
from burnish._onnx.table import OPERATIONS, REFUSED
from burnish.model import core_of

KNOWN = {name for name, *_ in _burnish.operations()}
IMAGES = np.random.default_rng(5).normal(size=(3, 5, 6, 4)).astype(np.float32)


class Exported:
    """A model's file and what onnxruntime makes of it."""

    def __init__(self, model, tmp_path):
        onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
        path = tmp_path / "model.onnx"
        model.export(path)
        self.document = onnx.load(path)
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.types = [node.op_type for node in self.document.graph.node]

    def predict(self, **inputs):
        return self.session.run(None, inputs)

    def shape(self, name):
        (value,) = [each for each in [*self.session.get_inputs(), *self.session.get_outputs()] if each.name == name]
        return value.shape


def close(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name, tmp_path):
    model, x, _ = network(name)
    model.build((None, *x.shape[1:]))
    exported = Exported(model, tmp_path)
    for rows in (x, x[:1]):
        feed = rows.astype(np.int64 if name == "Embedding" else np.float32)
        close(exported.predict(x=feed)[0], model.predict(rows))


def ids(x):
    """Integers 0 to 3 in the shape of x."""
    return ops.cast(ops.abs(x) * 2.0, "int") * 0 + ops.cast(ops.minimum(ops.abs(x), 1.0) * 3.0, "int")


def table(x):
    return np.linspace(-1, 1, 12).reshape(4, 3)


def positive(function):
    return lambda x: function(ops.abs(x) + 0.1)


def pairs(function):
    """A function of two numbers with every way to broadcast."""
    return [
        lambda x: function(x, ops.sin(x)),
        lambda x: function(x, 0.5),
        lambda x: function(x, np.array([0.1, -0.2, 0.3, 3.0])),
        lambda x: function(ops.mean(x, (1, 2), keepdims=True), x),
        lambda x: function(ops.mean(x, (1, 2)), x[:, 0, 0]),
        lambda x: function(x, x[:, :1, :, 1:2]),
        lambda x: function(x, np.ones((6, 1))),
    ]


def reductions(function):
    return [
        lambda x: function(x, (1, 2)),
        lambda x: function(x, (2, 1), keepdims=True),
        lambda x: function(x, 1),
        lambda x: function(x, -1, keepdims=True),
        lambda x: function(x, ()),
        lambda x: x - function(x),
    ]


def recurrent(name, gates):
    """Every form of a recurrent operation, of the steps in the first row of the images."""
    numbers = np.random.default_rng(gates)
    kernels = numbers.normal(size=(4, 3 * gates)), numbers.normal(size=(3, 3 * gates))
    bias = numbers.normal(size=(2, 3 * gates) if name == "gru" else 3 * gates)

    def case(biased=True, started=False, masked=False, scaled=False, **options):
        def value(x):
            steps = x[:, 0]
            if started:
                options["initial_state"] = [steps[:, 0, :3], steps[:, 1, :3]][: 1 + (name == "lstm")]
            if masked:
                options["mask"] = steps[:, :, 0] > 0
            if scaled:
                options["recurrent_factors"] = steps[:, 0, 1:]
            return getattr(ops, name)(steps, *kernels, bias if biased else None, **options)

        return value

    every = [
        {"returns": each, "go_backwards": back} for each in ("last", "sequence", "states") for back in (False, True)
    ]
    forms = [{}, {"biased": False}, {"started": True}, {"masked": True}, {"masked": True, "started": True}]
    hard = {"activation": "hard_sigmoid"} if name == "rnn" else {"recurrent_activation": "hard_sigmoid"}
    others = [{"scaled": True}, {"activation": "relu"}, {"activation": "none"}, hard]
    return [case(**form, **options) for form in forms for options in every] + [case(**each) for each in others]


UNARY = (
    "abs", "ceil", "cos", "elu", "erf", "exp", "floor", "relu", "round", "sigmoid", "sign", "silu", "sin", "softplus",
    "square", "stop_gradient", "tanh",
)  # fmt: skip
BINARY = (
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "equal", "not_equal", "greater", "greater_equal",
    "less", "less_equal",
)  # fmt: skip
# Each operation in at least one form; `x` are images, channels last.
CASES = {
    "attention": [
        lambda x: ops.attention(x[:, :4, 0], x[:, :, 1], x[:, :, 2], 2),
        lambda x: ops.attention(x[:, :4, 0], x[:, :, 1], x[:, :, 2], causal=True, scale=2.0),
        lambda x: ops.attention(x[:, 0], x[:, 1], x[:, 2], 2, (x[:, 0, :, 0] > 0)[:, None, None], causal=True),
        lambda x: ops.attention(x[:, 0], x[:, 1], x[:, 2], 2, np.tri(6, dtype=bool)[None, None]),
        lambda x: ops.attention(x[:, 0], x[:, 1], x[:, 2], mask=np.tri(6, dtype=bool)[None, None], scale=-1e6),
    ],
    **{name: [getattr(ops, name)] for name in UNARY},
    **{name: [positive(getattr(ops, name))] for name in ("log", "reciprocal", "rsqrt", "sqrt")},
    **{name: pairs(getattr(ops, name)) for name in BINARY},
    **{name: reductions(getattr(ops, name)) for name in ("sum", "mean", "max", "min")},
    "argmax": [lambda x: ops.argmax(x, 1), ops.argmax],
    "argmin": [lambda x: ops.argmin(x, -2)],
    "avg_pool2d": [lambda x: ops.avg_pool2d(x, (3, 2), (2, 1), ((1, 2), (0, 1)))],
    "broadcast_to": [lambda x: ops.broadcast_to(x[:, :1], (None, 3, 6, 4))],
    "cast": [
        lambda x: ops.cast(ops.cast(3 * x, "int"), "float"),
        lambda x: ops.cast(x > 0, "int"),
        lambda x: ops.cast(ops.floor(x), "bool"),
        lambda x: ops.cast(ops.cast(x > 0, "float"), "bool"),
    ],
    "concatenate": [lambda x: ops.concatenate([x, 2 * x], -1), lambda x: ops.concatenate([x, x[:, :2], x], 1)],
    "conv2d": [
        lambda x: ops.conv2d(x, np.sin(np.arange(96.0)).reshape(3, 2, 2, 8), groups=2, strides=(2, 1)),
        lambda x: ops.conv2d(
            ops.conv2d(x, np.sin(np.arange(96.0)).reshape(3, 2, 4, 4), padding=((1, 0), (0, 2)), activation="relu"),
            np.cos(np.arange(48.0)).reshape(2, 2, 4, 3),
            np.arange(3.0),
            dilation=(1, 2),
            activation="tanh",
        ),
        lambda x: ops.conv2d(x, ops.broadcast_to(ops.reshape(np.arange(8.0), (1, 2, 4, 1)), (1, 2, 4, 2))),
    ],
    "cross_entropy": [
        lambda x: ops.cross_entropy(x, ids(x)[..., 0]),
        lambda x: ops.cross_entropy(x, ids(x)[..., 0], label_smoothing=0.2),
    ],
    "expm1": [ops.expm1, lambda x: 1e6 * ops.expm1(1e-6 * x)],
    "flip": [lambda x: ops.flip(x, (0, -1)), lambda x: ops.flip(x, 1)],
    "gelu": [ops.gelu, lambda x: ops.gelu(x, approximate=True)],
    "batch_norm": [
        lambda x: ops.batch_norm(x, np.arange(4.0), np.arange(1.0, 5), np.ones(4), np.arange(4.0)),
        lambda x: ops.batch_norm(x[:, 0, 0], np.ones(4), np.arange(4.0), -np.ones(4), np.arange(4.0), eps=0.1),
    ],
    "layer_norm": [lambda x: ops.layer_norm(x, np.arange(4.0), np.ones(4), 1e-3)],
    "leaky_relu": [lambda x: ops.leaky_relu(x, 0.2)],
    "linear": [
        lambda x: ops.linear(x, np.sin(np.arange(12.0)).reshape(4, 3), np.ones(3), "sigmoid"),
        lambda x: ops.linear(x[:, 0, 0], np.sin(np.arange(12.0)).reshape(4, 3)),
    ],
    "log1p": [lambda x: ops.log1p(ops.abs(x)), lambda x: 1e6 * ops.log1p(1e-6 * x)],
    "log_softmax": [ops.log_softmax, lambda x: ops.log_softmax(x, 1)],
    "logical_and": [lambda x: ops.logical_and(x > 0, x < 1)],
    "logical_not": [lambda x: ops.logical_not(x > 0)],
    "logical_or": [lambda x: ops.logical_or(x < 0, x > 1)],
    "logsumexp": [lambda x: ops.logsumexp(100 * x), lambda x: ops.logsumexp(x, 1, keepdims=True)],
    "matmul": [lambda x: ops.matmul(x, ops.transpose(x, (0, 1, 3, 2)))],
    "max_pool2d": [lambda x: ops.max_pool2d(x, (2, 3), (1, 2), ((1, 0), (2, 1)))],
    "moments": [lambda x: x * ops.sum(ops.moments(x), 0), lambda x: x[:, 0, 0] * ops.moments(x[:, 0, 0])[2]],
    "neg": [ops.negative],
    "one_hot": [lambda x: ops.one_hot(ids(x)[:, 0, 0], 4)],
    "pad": [lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 3), (2, 0)), -1.5), lambda x: ops.pad(x, ((0, 0),) * 4)],
    "power": [lambda x: ops.power(ops.abs(x) + 0.1, 1.7), lambda x: ops.power(x, 2.0)],
    "reshape": [lambda x: ops.reshape(x, (None, 8, 15)), lambda x: ops.reshape(x, (-1, 12))],
    "slice": [
        lambda x: x[:, 1:-1, ::2, -1],
        lambda x: ops.slice(x, (0, 0, -1, -2), (None, -1, None, 0), (1, 1, -2, -1)),
        lambda x: ops.slice(x, (0, 0, 0, 0), (None, None, None, None), (1, 1, 1, 1)),
    ],
    "softmax": [ops.softmax, lambda x: ops.softmax(x, 2)],
    "take": [
        lambda x: ops.take(table(x), ids(x)[..., 0]),
        lambda x: ops.take(x, np.array([[3, 0], [1, 1]]), -1),
    ],
    "take_along_axis": [lambda x: ops.take_along_axis(x, ids(x), 1)],
    "transpose": [lambda x: ops.transpose(x, (0, 3, 1, 2))],
    "where": [lambda x: ops.where(x > 0, x, 0.0), lambda x: ops.where(x > 0, ids(x), 5)],
    **{name: recurrent(name, gates) for name, gates in (("rnn", 1), ("gru", 3), ("lstm", 4))},
}
DRAWN = {"dropout", "random_normal_like", "random_uniform_like"}


def test_every_operation_is_exported_or_refused():
    assert set(OPERATIONS) | set(REFUSED) >= KNOWN
    assert not set(OPERATIONS) & set(REFUSED)
    assert set(CASES) | DRAWN == set(OPERATIONS)


@pytest.mark.parametrize("channels_first", [False, True], ids=["last", "first"])
@pytest.mark.parametrize("name", [name for name in CASES if name in KNOWN])
def test_operation(name, channels_first, tmp_path):
    def call(x):
        images = ops.max_pool2d(x, (1, 1)) if channels_first else x
        return [ops.cast(case(images), "float") for case in CASES[name]]

    model = bn.Sequential([layers.Lambda(call)])
    expected = model.predict(IMAGES)
    assert name in {operation for _, operation, _ in core_of(model).runtime.built.program.nodes()}
    for found, wanted in zip(Exported(model, tmp_path).predict(x=IMAGES), expected, strict=True):
        assert found.shape == wanted.shape
        close(found, wanted)


@pytest.mark.parametrize("channels_first", [False, True], ids=["last", "first"])
def test_integers_and_truth_values(channels_first, tmp_path):
    def call(x):
        x = ops.max_pool2d(x, (1, 1)) if channels_first else x
        numbers, truth = ids(x), x > 0
        outputs = [getattr(ops, name)(numbers, ids(2.0 * x)) for name in BINARY if name != "divide"]
        outputs += [function(numbers, (1, 2)) for function in (ops.sum, ops.max, ops.min)]
        outputs += [ops.argmax(numbers, 1), ops.argmin(numbers), ops.where(truth, numbers, 7), ops.cast(1e5 * x, "int")]
        outputs += [ops.pad(numbers, ((0, 0), (1, 0), (0, 1), (2, 0)), 7), ops.take_along_axis(numbers, numbers, 1)]
        outputs += [ops.take(np.arange(8).reshape(4, 2), numbers), ops.take(truth, np.array([0, 2]), 1)]
        for each in (numbers, truth):
            outputs += [ops.flip(each, 1), each[:, 1:3, ::2], ops.concatenate([each, each], 1), ops.stop_gradient(each)]
            outputs += [ops.transpose(each, (0, 2, 1, 3)), ops.reshape(each, (None, 120)), each]
            outputs += [ops.broadcast_to(each[:, :1], (None, 5, 6, 4))]
        return outputs

    model = bn.Sequential([layers.Lambda(call)])
    expected = model.predict(IMAGES)
    for found, wanted in zip(Exported(model, tmp_path).predict(x=IMAGES), expected, strict=True):
        assert found.dtype.kind == wanted.dtype.kind
        np.testing.assert_array_equal(found, wanted)


def test_noise_is_drawn_anew(tmp_path):
    x = bn.Input((2000,))
    outputs = [
        ops.random_normal_like(x), ops.random_uniform_like(x), layers.Dropout(0.25)(x, training=True),
    ]  # fmt: skip
    model = bn.Model(x, outputs)
    normal, uniform, dropped = Exported(model, tmp_path).predict(x=np.ones((5, 2000), np.float32))
    assert abs(normal.mean()) < 0.05
    assert abs(normal.std() - 1) < 0.05
    assert 0 <= uniform.min() < 0.01 < 0.99 < uniform.max() < 1
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((dropped == 0).mean() - 0.25) < 0.03


def trained(model, x, y, loss="mse", **options):
    model.compile(loss, learning_rate=0.01, **options)
    model.fit(x, y, batch_size=16, epochs=2, verbose=0)
    return model


def test_mlp_with_averaged_weights(rng, tmp_path):
    x, y = rng.normal(size=(64, 5)), rng.integers(0, 3, size=64)
    model = bn.Sequential([layers.Dense(16, "relu"), layers.Dropout(0.2), layers.Dense(3)])
    trained(model, x, y, "cross_entropy", ema=0.9)
    exported = Exported(model, tmp_path)
    close(exported.predict(x=x.astype(np.float32))[0], model.predict(x))
    assert exported.types == ["Gemm", "Relu", "Gemm"]
    graph = exported.document.graph
    assert [array.name for array in graph.initializer] == [
        "dense.kernel", "dense.bias", "dense_1.kernel", "dense_1.bias",
    ]  # fmt: skip
    assert [node.name for node in graph.node] == ["dense/Gemm", "dense/Relu", "dense_1/Gemm"]
    assert exported.shape("x") == ["batch", 5]
    assert exported.shape("prediction") == ["batch", 3]
    assert exported.document.producer_name == "burnish"
    assert (exported.document.ir_version, exported.document.opset_import[0].version) == (8, 18)


def test_images_change_their_order_of_axes_once(rng, tmp_path):
    x, y = rng.normal(size=(48, 10, 9, 3)), rng.integers(0, 4, size=48)
    model = bn.Sequential(
        [
            layers.Conv2D(6, 3, padding="same", use_bias=False),
            layers.BatchNorm(),
            layers.ReLU(),
            layers.MaxPool2D(2),
            layers.Residual(bn.Sequential([layers.Conv2D(6, 3, padding="same"), layers.BatchNorm(), layers.GELU()])),
            layers.ZeroPadding2D(1),
            layers.DepthwiseConv2D(3, strides=2, padding="same", activation="relu"),
            layers.GlobalAvgPool(),
            layers.Dense(4),
        ]
    )
    trained(model, x, y, "cross_entropy")
    exported = Exported(model, tmp_path)
    close(exported.predict(x=x.astype(np.float32))[0], model.predict(x))
    assert exported.types.count("Transpose") == 1
    assert exported.types.count("BatchNormalization") == 2
    assert not {"Sub", "Sqrt"} & set(exported.types)
    kernels = {array.name: tuple(array.dims) for array in exported.document.graph.initializer}
    assert kernels["conv2d.kernel"] == (6, 3, 3, 3)
    assert {f"batch_norm.{name}" for name in ("scale", "offset", "moving_mean", "moving_variance")} <= set(kernels)
    assert kernels["depthwise_conv2d.kernel"] == (6, 1, 3, 3)


def test_batch_norm_of_any_shape_and_kind(rng, tmp_path):
    vector, steps, images = bn.Input((5,)), bn.Input((4, 5)), bn.Input((3, 2, 5))
    kinds = [{"center": False}, {"scale": False}, {"center": False, "scale": False, "epsilon": 0.1}, {}]
    inputs = {"vector": vector, "steps": steps, "images": images, "maps": layers.MaxPool2D(1)(images)}
    outputs = [layers.BatchNorm(**kind)(x) for kind in kinds for x in inputs.values()]
    model = bn.Model({"vector": vector, "steps": steps, "images": images}, outputs)
    data = {name: rng.normal(size=(6, *inputs[name].shape[1:])).astype(np.float32) for name in list(inputs)[:3]}
    state = model.parameters(buffers=True)
    model.set_parameters({path: rng.uniform(0.5, 2, array.shape) for path, array in state.items()})
    exported = Exported(model, tmp_path)
    for found, wanted in zip(exported.predict(**{f"x.{name}": x for name, x in data.items()}), model.predict(data),
                             strict=True):  # fmt: skip
        close(found, wanted)
    assert exported.types.count("BatchNormalization") == 2 * len(kinds)


def test_transformer_of_masked_tokens(rng, tmp_path):
    tokens = bn.Input((7,), name="tokens")
    x = layers.PositionalEncoding()(layers.Embedding(20, 8)(tokens))
    x = layers.TransformerEncoderLayer(16, 2, activation="gelu")(x, padding_mask=tokens != 0)
    model = bn.Model([tokens], layers.Dense(20)(x))
    ids = rng.integers(0, 20, size=(32, 7))
    trained(model, [ids], ids, "cross_entropy")
    (found,) = Exported(model, tmp_path).predict(**{"x.tokens": ids})
    close(found, model.predict([ids]))


def test_several_inputs_and_outputs(rng, tmp_path):
    image, age, unused = bn.Input((6, 6, 1)), bn.Input((1,)), bn.Input((2,))
    shared = layers.Dense(3)
    h = layers.Concatenate()([layers.Flatten()(layers.Conv2D(2, 3)(image)), age])
    y = shared(layers.Dense(3)(h))
    model = bn.Model(
        {"image": image, "age": age, "unused": unused},
        {"class": y, "again": y, "same": age, "deep": shared(ops.relu(y)), "rows": ops.reshape(image, (-1, 3))},
    )
    data = {"image": rng.normal(size=(4, 6, 6, 1)), "age": rng.normal(size=(4, 1)), "unused": np.zeros((4, 2))}
    expected = model.predict(data)
    exported = Exported(model, tmp_path)
    found = exported.predict(**{f"x.{name}": array.astype(np.float32) for name, array in data.items()})
    for name, array in zip([output.name for output in exported.session.get_outputs()], found, strict=True):
        close(array, expected[name.removeprefix("prediction.")])
    assert exported.shape("x.unused") == ["batch", 2]
    assert exported.shape("prediction.rows") == ["12 * batch", 3]


@pytest.mark.parametrize("name", test_torch_weights.MODELS)
def test_from_pytorch_to_onnxruntime(name, tmp_path):
    make, names = test_torch_weights.MODELS[name]
    x, y = test_torch_weights.golden(name)
    model = test_torch_weights.built(make, x)
    model.load_weights(test_torch_weights.FILE[name], layout="torch", names=names)
    inputs = {f"x.{key}": array for key, array in x.items()} if isinstance(x, dict) else {"x": x}
    kinds = {"f": np.float32, "i": np.int64}
    feed = {key: array.astype(kinds[array.dtype.kind]) for key, array in inputs.items()}
    (found,) = Exported(model, tmp_path).predict(**feed)
    close(found, y)


class Named(bn.Model):
    """Parameters that are called as inputs and outputs are, and a value that is not used."""

    def call(self, x):
        inner = [self.parameter(name, (3,), "normal") for name in ("x", "prediction", "Add", "unused")]
        ops.sin(x + inner[3])
        return x + inner[0] + inner[1] + inner[2], x, x


def test_names_do_not_clash(rng, tmp_path):
    x = rng.normal(size=(4, 3)).astype(np.float32)
    model = Named().build((None, 3))
    exported = Exported(model, tmp_path)
    for found, wanted in zip(exported.predict(x=x), model.predict(x), strict=True):
        close(found, wanted)
    names = [array.name for array in exported.document.graph.initializer]
    assert len(set(names)) == 3
    assert "x_1" in names
    assert "prediction" in names


def test_a_loaded_model_and_other_precisions(rng, tmp_path):
    x = rng.normal(size=(40, 6, 4))
    for precision, tolerance in (("float64", 1e-5), ("mixed_bfloat16", 0.05)):
        model = bn.Sequential([layers.Conv1D(5, 3), layers.LayerNorm(), layers.Flatten(), layers.Dense(2)])
        trained(model, x, x[:, 0, :2], precision=precision)
        model.save(tmp_path / "model")
        loaded = bn.load(tmp_path / "model")
        close(Exported(loaded, tmp_path).predict(x=x.astype(np.float32))[0], model.predict(x), tolerance)


def test_errors_leave_no_file(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    path = tmp_path / "model.onnx"
    with pytest.raises(ValueError, match="shape of the model's input is not known"):
        bn.Sequential([layers.Dense(2)]).export(path)
    model = bn.Sequential([bn.Input((3,)), layers.Dense(2), layers.ReLU()])
    with pytest.raises(ValueError, match="`format`: unknown name 'tf'"):
        model.export(path, format="tf")
    with monkeypatch.context() as patch:
        patch.delitem(OPERATIONS, "relu")
        with pytest.raises(ValueError, match=r"the operation 'relu' \(layer 're_lu'\) cannot be exported"):
            model.export(path)
    with monkeypatch.context() as patch:
        patch.setattr("burnish._onnx._LARGEST", 8)
        with pytest.raises(ValueError, match="at most 2 GB"):
            model.export(path)
    assert not path.exists()
