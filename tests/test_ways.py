"""A network built as a chain, a graph and a class is one network: the same bits in training, in files, in the table."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import burnish as bn
from burnish import layers, ops
from burnish.layers.base import unique_names

RNG = np.random.default_rng(11)
X, LEFT, RIGHT = RNG.normal(size=(20, 4)), RNG.normal(size=(20, 4)), RNG.normal(size=(20, 4))
IMAGES, TEXT = RNG.normal(size=(20, 6, 6, 2)), RNG.integers(0, 9, size=(20, 5))
Y = RNG.integers(0, 3, size=20)


class Chain(bn.Model):
    """Layers one after another, under the names that Sequential gives them."""

    def __init__(self, chain):
        super().__init__()
        self.names = list(unique_names(chain))
        for name, layer in zip(self.names, chain, strict=True):
            setattr(self, name, layer)

    def call(self, x):
        for name in self.names:
            x = getattr(self, name)(x)
        return x


def graph(chain, shape):
    node = value = bn.Input(shape)
    for layer in chain:
        value = layer(value)
    return bn.Model(node, value)


class Block(layers.Layer):
    """A layer of one's own with layers inside, in a list, and operations around them."""

    def __init__(self):
        super().__init__()
        self.parts = [layers.Dense(4, "tanh"), layers.Dropout(0.3)]

    def call(self, x):
        for part in self.parts:
            x = x + part(x)
        return x * self.parameter("scale", (x.shape[-1],), "ones", "scale")


CHAINS = {
    "dense": (lambda: [layers.Dense(6, "relu"), layers.BatchNorm(), layers.Dropout(0.4), layers.Dense(3)], X),
    "images": (
        lambda: [layers.Conv2D(3, 3, activation="relu"), layers.BatchNorm(), layers.MaxPool2D(),
                 layers.SpatialDropout(0.2), layers.GlobalAvgPool(), layers.Dense(3)],
        IMAGES,
    ),
    "text": (
        lambda: [layers.Embedding(9, 4), layers.PositionalEncoding(learned=True),
                 layers.TransformerEncoderLayer(8, 2, 0.1), layers.GlobalMaxPool(), layers.Dense(3)],
        TEXT,
    ),
    "own": (lambda: [Block(), Block(), layers.Lambda(lambda x: ops.sin(x) / 2), layers.Dense(3)], X),
    "nested": (
        lambda: [layers.Dense(4), bn.Sequential([layers.Dense(4, "relu"), bn.Sequential([layers.Dropout(0.3)])]),
                 graph([layers.Dense(4), layers.LayerNorm()], (4,)), Chain([layers.Dense(5), layers.Dense(3)])],
        X,
    ),
}  # fmt: skip


class Twins(bn.Model):
    """Two inputs through one encoder, a residual, two outputs."""

    def __init__(self):
        super().__init__()
        self.encoder = bn.Sequential([layers.Dense(4, "tanh"), layers.Dropout(0.2)])
        self.residual = layers.Residual(layers.Dense(8))
        self.kind, self.size = layers.Dense(3), layers.Dense(1)

    def call(self, x):
        joined = ops.concatenate([self.encoder(x["left"]), self.encoder(x["right"])])
        hidden = self.residual(joined) + joined
        return {"kind": self.kind(hidden), "size": self.size(ops.abs(hidden))}


def twins_as_graph():
    left, right = bn.Input((4,)), bn.Input((4,))
    encoder = bn.Sequential([layers.Dense(4, "tanh"), layers.Dropout(0.2)], name="encoder")
    joined = layers.Concatenate()([encoder(left), encoder(right)])
    hidden = layers.Residual(layers.Dense(8))(joined) + joined
    outputs = {"kind": layers.Dense(3, name="kind")(hidden), "size": layers.Dense(1, name="size")(ops.abs(hidden))}
    return bn.Model({"left": left, "right": right}, outputs)


def twins_in_a_class():
    """The graph as a layer of a class of its own."""

    class Around(bn.Model):
        def __init__(self):
            super().__init__()
            self.graph = twins_as_graph()

        def call(self, x):
            return self.graph(x)

    return Around()


def trained(model, x, y, loss, folder):
    """Everything that must be the same: the history, the arrays, predictions, and the way on from a file."""
    model.compile(loss, "adam", 0.01, seed=4)
    history = model.fit(x, y, batch_size=8, epochs=2, verbose=0).history
    model.save(folder / "model")
    loaded = bn.load(folder / "model")
    on = [each.fit(x, y, batch_size=8, epochs=2, verbose=0).history for each in (model, loaded)]
    assert on[0] == on[1]
    same(model.predict(x), loaded.predict(x))
    same(model.parameters(buffers=True), loaded.parameters(buffers=True))
    return [history, on[0], model.parameters(buffers=True), model.predict(x)]


def same(found, expected):
    if isinstance(found, dict):
        assert list(found) == list(expected)
        for key, value in found.items():
            same(value, expected[key])
    elif isinstance(found, list):
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    else:
        np.testing.assert_array_equal(found, expected)


def table(model, capsys):
    model.summary()
    return capsys.readouterr().out


@pytest.mark.parametrize("name", CHAINS)
def test_chains(name, tmp_path, capsys):
    make, x = CHAINS[name]
    ways = [bn.Sequential(make()), graph(make(), x.shape[1:]), Chain(make())]
    expected, *others = [trained(model, x, Y, "cross_entropy", tmp_path) for model in ways]
    for other in others:
        same(other, expected)
    tables = [table(model, capsys) for model in ways]
    assert tables[0] == tables[1] == tables[2]
    assert table(bn.load(tmp_path / "model"), capsys) == tables[0]


def test_several_inputs_and_outputs_with_shared_layers_and_residuals(tmp_path, capsys):
    x = {"left": LEFT, "right": RIGHT}
    y, loss = {"kind": Y, "size": X[:, :1]}, {"kind": "cross_entropy", "size": "mse"}
    one, two = Twins(), twins_as_graph()
    same(trained(one, x, y, loss, tmp_path), trained(two, x, y, loss, tmp_path))
    lines = [{line.split("  ")[0]: line.split() for line in table(model, capsys).splitlines()} for model in (one, two)]
    for path in ("encoder.dense", "encoder.dropout", "residual.layer", "kind", "size", "total"):
        assert lines[0][path] == lines[1][path]
    assert "(2 uses)" in " ".join(lines[0]["encoder.dense"])


def test_a_graph_inside_a_class_is_the_graph(tmp_path):
    x = {"left": LEFT, "right": RIGHT}
    y, loss = {"kind": Y, "size": X[:, :1]}, {"kind": "cross_entropy", "size": "mse"}
    around = twins_in_a_class()
    around.build({"left": (None, 4), "right": (None, 4)})
    graph_alone = twins_as_graph()
    inner = {path.removeprefix("graph."): array for path, array in around.parameters().items()}
    graph_alone.set_parameters(inner)
    same(around.predict(x), graph_alone.predict(x))
    trained(around, x, y, loss, tmp_path)


@pytest.mark.parametrize("form", [dict, tuple, list])
def test_several_inputs_come_by_name_or_in_order_also_to_a_loaded_model(form, tmp_path):
    model = twins_as_graph()
    model.compile({"kind": "cross_entropy", "size": "mse"})
    by_name = {"left": LEFT, "right": RIGHT}
    x = by_name if form is dict else form(by_name.values())
    y = {"kind": Y, "size": X[:, :1]}
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    same(loaded.predict(x), model.predict(by_name))
    assert loaded.fit(x, y, verbose=0).history == model.fit(by_name, y, verbose=0).history
    with pytest.raises(ValueError, match="tuple or dict of 2 arrays"):
        loaded.predict(LEFT)


@pytest.mark.parametrize(
    "call", [lambda m, a, b: m([a, b]), lambda m, a, b: m(a, b), lambda m, a, b: m({"right": b, "left": a})]
)
def test_a_model_of_several_inputs_is_a_layer_loaded_or_not(call, tmp_path):
    inner = twins_as_graph()
    inner.save(tmp_path / "model")
    results = []
    for layer in (inner, bn.load(tmp_path / "model")):
        a, b = bn.Input((4,)), bn.Input((4,))
        outer = bn.Model([a, b], call(layer, a, 2.0 * b)["kind"])
        results.append(outer.predict((LEFT, RIGHT)))
    same(*results)
    same(results[0], inner.predict((LEFT, 2 * RIGHT))["kind"])


PARTS = {
    "dense": lambda: layers.Dense(4, "tanh"),
    "dropout": lambda: layers.Dropout(0.3),
    "norm": layers.BatchNorm,
    "residual": lambda: layers.Residual(layers.Dense(4)),
    "own": Block,
    "nested": lambda: bn.Sequential([layers.Dense(4), layers.LayerNorm()]),
    "graph": lambda: graph([layers.Dense(4, "relu")], (4,)),
}


@settings(max_examples=12)
@given(st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=5))
def test_any_chain(names):
    results = []
    for way in (bn.Sequential, lambda chain: graph(chain, (4,)), Chain):
        model = way([PARTS[name]() for name in names])
        model.compile("mse", "adam", 0.01)
        history = model.fit(X, X, batch_size=8, epochs=2, verbose=0).history
        results.append([history, model.parameters(buffers=True), model.predict(X)])
    same(results[1], results[0])
    same(results[2], results[0])
