"""The table of a model: parameters, floating-point operations and activations against closed forms."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_model import WAYS

import burnish as bn
from burnish import _burnish, _cost, _summary, layers, ops
from burnish.model import core_of


def lines(model):
    return {line.path: line for line in _summary.lines(core_of(model).ready().built)}


def of(layer, shape):
    """The line of a layer that takes samples of this shape."""
    (line,) = lines(bn.Sequential([bn.Input(shape), layer])).values()
    return line


def test_every_operation_has_a_formula():
    assert {name for name, *_ in _burnish.operations()} <= set(_cost.FLOPS)


# A layer, the shape of a sample, parameters, operations and elements that it makes for one sample.
CLOSED_FORMS = {
    "Dense": (layers.Dense(5), (4,), 25, 2 * 4 * 5 + 5, 5),
    "Dense of a sequence": (layers.Dense(5, use_bias=False), (7, 4), 20, 7 * 2 * 4 * 5, 35),
    "Dense, relu in the same pass": (layers.Dense(5, "relu"), (4,), 25, 2 * 4 * 5 + 5 + 5, 5),
    "Dense, silu after it": (layers.Dense(5, "silu"), (4,), 25, 2 * 4 * 5 + 5 + 5, 10),
    "Conv2D": (layers.Conv2D(6, (3, 2)), (8, 9, 4), 6 * 25, 6 * 8 * 6 * (2 * 3 * 2 * 4 + 1), 6 * 8 * 6),
    "Conv2D, groups": (
        layers.Conv2D(6, 3, 2, "same", groups=2, use_bias=False),
        (8, 8, 4),
        108,
        4 * 4 * 6 * 2 * 9 * 2,
        96,
    ),
    "MaxPool2D": (layers.MaxPool2D((2, 3)), (8, 9, 4), 0, 4 * 3 * 4 * 6, 48),
    "AvgPool2D": (layers.AvgPool2D(3, 1), (8, 9, 4), 0, 6 * 7 * 4 * 9, 168),
    "LayerNorm": (layers.LayerNorm(), (7, 4), 8, 7 * 28, 28),
    "Softmax": (layers.Softmax(), (4,), 0, 5 * 4, 4),
    "ReLU": (layers.ReLU(), (7, 4), 0, 28, 28),
    "Flatten": (layers.Flatten(), (7, 4), 0, 0, 0),
    "Dropout": (layers.Dropout(0.5), (4,), 0, 0, 4 + 4),
    "Embedding": (layers.Embedding(10, 3), (5,), 30, 0, 15),
    "RNN": (layers.RNN(5), (7, 3), 45, 7 * (2 * (3 + 5) * 5 + 2 * 5 + 5), 5 + 7 * 2 * 5),
    "GRU": (layers.GRU(5), (7, 3), 150, 7 * (2 * (3 + 5) * 15 + 2 * 15 + 8 * 5), 5 + 7 * 5 * 5),
    "LSTM": (
        layers.LSTM(5, return_sequences=True),
        (7, 3),
        180,
        7 * (2 * (3 + 5) * 20 + 2 * 20 + 9 * 5),
        35 + 7 * 7 * 5,
    ),
    "matmul": (layers.Lambda(lambda x: x @ ops.transpose(x, (0, 2, 1))), (7, 4), 0, 2 * 7 * 7 * 4, 49),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_closed_forms(name):
    layer, shape, parameters, flops, elements = CLOSED_FORMS[name]
    line = of(layer, shape)
    assert (line.parameters, line.trained, line.flops) == (parameters, parameters, flops)
    assert line.activations == 4 * elements


def test_attention():
    """Four projections, products of queries with keys and of weights with values, a scale and a softmax."""
    places, features, heads, width = 7, 6, 2, 3
    projections = 4 * places * (2 * features * heads * width + features)
    products = 2 * 2 * heads * places * places * width
    around = 5 * heads * places * places
    x = bn.Input((places, features))
    total = sum(line.flops for line in lines(bn.Model(x, layers.MultiHeadAttention(heads, width)(x))).values())
    assert projections + products + around <= total <= projections + products + around + 3 * heads * places * places


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 4))
def test_a_chain_is_the_sum_of_its_layers(width, units, depth):
    model = bn.Sequential([bn.Input((width,)), *(layers.Dense(units) for _ in range(depth))])
    widths = [width, *[units] * depth]
    flops = [2 * a * b + b for a, b in itertools.pairwise(widths)]
    assert [line.flops for line in lines(model).values()] == flops


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 5))
def test_rows_that_are_folded_into_the_batch_are_counted(places, features, units):
    """A reshape to (places · batch, features) has an open axis that is a multiple of the batch."""

    def folded(x):
        rows = ops.reshape(x, (-1, features)) @ np.ones((features, units))
        return ops.reshape(rows, (-1, places, units))

    line = of(layers.Lambda(folded), (places, features))
    assert line.flops == 2 * places * features * units
    assert line.activations == 4 * places * units


def test_rows_that_are_joined_along_the_batch_are_counted():
    def joined(x):
        both = ops.concatenate([x, 2.0 * x], 0)
        return ops.mean(ops.reshape(ops.exp(both), (-1, 2, 3)), 1)

    assert of(layers.Lambda(joined), (3,)).flops == 3 + 6 + 6


def test_precision_and_kind_decide_the_bytes():
    def model():
        return bn.Sequential([bn.Input((4,)), layers.Dense(5), layers.Lambda(lambda x: ops.where(x > 0, x, 1.0))])

    expected = {"float32": 4, "float64": 8, "mixed_float16": 4}
    for precision, width in expected.items():
        made = model()
        made.compile("mse", precision=precision)
        assert [line.activations for line in lines(made).values()] == [5 * width, 5 * width + 5]


def test_shared_layers_are_counted_for_each_use():
    shared, x = layers.Dense(4, name="shared"), bn.Input((4,))
    line = lines(bn.Model(x, shared(shared(x))))["shared"]
    assert (line.type, line.shape) == ("Dense (2 uses)", "(batch, 4)")
    assert (line.parameters, line.flops, line.activations) == (20, 2 * 36, 2 * 16)


def test_a_layer_of_several_shapes():
    shared, x = layers.Dense(4, name="shared"), bn.Input((3, 4))
    assert lines(bn.Model(x, [shared(x), shared(ops.mean(x, 1))]))["shared"].shape == "several"


def test_frozen_parameters_are_not_trained():
    model = bn.Sequential([bn.Input((4,)), layers.Dense(5), layers.Dense(3)])
    model.freeze("dense.kernel")
    assert [(line.parameters, line.trained) for line in lines(model).values()] == [(25, 5), (18, 18)]


@pytest.mark.parametrize("make", WAYS)
def test_every_way_shows_alike(make, capsys):
    expected, model = WAYS[0]().build((None, 4)), make().build((None, 4))
    expected.summary()
    first = capsys.readouterr().out
    model.summary()
    assert capsys.readouterr().out == first


def nested():
    x = bn.Input((4,))
    inner = bn.Model(x, layers.Dense(4, "tanh", name="in")(x) * 2.0 + x, name="inner")
    return bn.Sequential([bn.Input((4,)), inner, layers.Dense(3, name="head")])


def test_models_inside_models():
    found = lines(nested())
    assert list(found) == ["inner.in", "inner", "head"]
    assert [line.flops for line in found.values()] == [2 * 16 + 4 + 4, 4 + 4, 2 * 12 + 3]


def test_a_loaded_model_shows_what_was_saved(tmp_path, capsys):
    model = nested()
    model.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    model.summary()
    expected = capsys.readouterr().out
    loaded.summary()
    assert capsys.readouterr().out == expected
    around = bn.Sequential([bn.Input((4,)), loaded, layers.Dense(2, name="last")])
    assert list(lines(around)) == [f"loaded_model.{path}" for path in lines(model)] + ["last"]
    assert [line.flops for line in lines(around).values()][:-1] == [line.flops for line in lines(model).values()]


def test_blocks_in_a_list():
    class Blocks(bn.Model):
        def __init__(self):
            super().__init__()
            self.blocks = [layers.Dense(4), layers.Dense(4)]

        def call(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    assert list(lines(Blocks().build((None, 4)))) == ["blocks.0", "blocks.1"]


def test_the_table(capsys):
    model = bn.Sequential([bn.Input((28, 28, 1)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(10)])
    model.freeze("conv2d")
    assert model.summary() is None
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["layer", "type", "output", "shape", "parameters", "trained", "FLOPs", "activations"]
    assert out[2].split() == ["conv2d", "Conv2D", "(batch,", "26,", "26,", "4)", "40", "0", "51,376", "10.6", "KiB"]
    assert out[6].split() == ["total", "27,090", "27,050", "105,466", "10.6", "KiB"]
    assert out[8] == "parameters: 27,090 (27,050 trained, 40 frozen); buffers: 0"
    assert len({len(line) for line in out[:8]}) == 1


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1,023 B"), (1536, "1.5 KiB"), (3 * 2**20, "3.0 MiB"), (2**40, "1,024.0 GiB")],
)
def test_sizes(count, shown):
    assert _summary.size(count) == shown
