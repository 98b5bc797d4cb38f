"""L-BFGS against PyTorch's trajectories; what it refuses; what it does where a loss is not finite."""

import json
from pathlib import Path

import numpy as np
import pytest

import burnish as bn
from burnish.optimizers import LBFGS

GOLDEN = json.loads((Path(__file__).parent / "golden" / "optimizers.json").read_text())["lbfgs"]


class Point(bn.layers.Layer):
    """Some numbers, whatever comes in."""

    def __init__(self, start):
        super().__init__()
        self.start = start

    def call(self, x):
        return x * 0.0 + self.parameter("p", (len(self.start),), "zeros")


def valley(target, p):
    return bn.ops.square(1 - p[:, 0]) + 100 * bn.ops.square(p[:, 1] - bn.ops.square(p[:, 0]))


def at(start, loss, optimizer, **options):
    model = bn.Sequential([Point(start)])
    model.compile(loss, optimizer, precision="float64", **options)
    model.build((None, len(start))).set_parameters({"point.p": start})
    return model


def updates(model, count, x, y, path):
    losses, points = [], []
    for _ in range(count):
        losses.append(model.train_on_batch(x, y)["loss"])
        points.append(model.parameters()[path])
    return losses, points


@pytest.mark.parametrize("name", ["rosenbrock", "rosenbrock_forgetful", "rosenbrock_fixed"])
def test_valley(name):
    golden = GOLDEN[name]
    arguments = dict(golden["arguments"])
    model = at(golden["start"], valley, LBFGS(arguments.pop("lr", 1.0), **arguments))
    count = len(golden["losses"])
    losses, points = updates(model, count, np.zeros((1, 2)), np.zeros(1), "point.p")
    # Rounding grows along a path that turns with every evaluation.
    np.testing.assert_allclose(losses, golden["losses"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(points, golden["trajectory"], rtol=1e-6, atol=1e-9)


def logistic_model(optimizer, **options):
    model = bn.Sequential([bn.layers.Dense(1, name="line", kernel_initializer="zeros"), bn.layers.Reshape(())])
    model.compile("binary_cross_entropy", optimizer, **options)
    return model


def follows_the_golden_regression(device, precision, tolerance):
    golden = GOLDEN["logistic"]
    model = logistic_model(LBFGS(**golden["arguments"]), precision=precision, device=device)
    for loss, point in zip(golden["losses"], golden["trajectory"], strict=True):
        found = model.train_on_batch(np.array(golden["x"]), np.array(golden["y"]))["loss"]
        parameters = model.parameters()
        found_point = [*parameters["line.kernel"][:, 0], *parameters["line.bias"]]
        np.testing.assert_allclose([found, *found_point], [loss, *point], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("device", ["cpu", "ndarray"])
def test_logistic_regression(device):
    follows_the_golden_regression(device, "float64", 1e-8)


def test_logistic_regression_in_float32_on_every_device(device):
    follows_the_golden_regression(device, "float32", 1e-3)


def test_resumes_with_the_same_bits(tmp_path):
    golden = GOLDEN["logistic"]
    x, y = np.array(golden["x"]), np.array(golden["y"])
    model = logistic_model(LBFGS(max_iter=2, history_size=3))
    model.fit(x, y, batch_size=40, epochs=3, verbose=0)
    model.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    for each in (model, loaded):
        each.fit(x, y, batch_size=40, epochs=2, verbose=0)
    for path, array in model.parameters().items():
        np.testing.assert_array_equal(loaded.parameters()[path], array)


def test_freezing_begins_anew():
    golden = GOLDEN["logistic"]
    x, y = np.array(golden["x"]), np.array(golden["y"])
    model = logistic_model(LBFGS(max_iter=2))
    model.fit(x, y, batch_size=40, epochs=2, verbose=0)
    before = model.parameters()
    model.freeze("line.kernel")
    model.fit(x, y, batch_size=40, verbose=0)
    after = model.parameters()
    np.testing.assert_array_equal(after["line.kernel"], before["line.kernel"])
    assert after["line.bias"] != before["line.bias"]


def test_weight_decay_is_part_of_the_loss():
    """(p - 1)² + w/2 · p² is least at 2 / (2 + w)."""
    model = at([5.0], lambda target, p: bn.ops.square(p[:, 0] - 1.0), "lbfgs", weight_decay=0.5)
    model.fit(np.zeros((1, 1)), np.zeros(1), epochs=3, verbose=0)
    np.testing.assert_allclose(model.parameters()["point.p"], [2 / 2.5], rtol=1e-8)


def test_records_average_and_dropout():
    x, y = np.random.default_rng(0).normal(size=(2, 30, 5))
    model = bn.Sequential([bn.layers.Dense(8, "tanh"), bn.layers.Dropout(0.5), bn.layers.Dense(5)])
    model.compile("mse", LBFGS(max_iter=3), ema=0.5)
    history = model.fit(x, y, batch_size=30, epochs=5, verbose=0)
    assert np.isfinite(history.steps["gradient_norm"]).all()
    assert (history.steps["update_ratio"] > 0).all()
    assert not np.array_equal(model.parameters(average=True)["dense.kernel"], model.parameters()["dense.kernel"])


@pytest.mark.parametrize("search", ["strong_wolfe", None])
def test_never_moves_to_where_the_loss_is_not_finite(search):
    """p - log p from 10, with a first step far below 0."""
    loss = lambda target, p: p[:, 0] - bn.ops.log(p[:, 0])  # noqa: E731
    model = at([10.0], loss, LBFGS(100.0, line_search_fn=search))
    for _ in range(10):
        assert np.isfinite(model.train_on_batch(np.zeros((1, 1)), np.zeros(1))["loss"])
        assert model.parameters()["point.p"] > 0
    if search:
        np.testing.assert_allclose(model.parameters()["point.p"], [1.0], rtol=1e-4)


def test_a_gradient_that_is_not_finite_moves_nothing():
    model = at([-1.0], lambda target, p: bn.ops.log(p[:, 0]), "lbfgs")
    with pytest.warns(RuntimeWarning, match="not finite"):
        model.fit(np.zeros((1, 1)), np.zeros(1), verbose=0)
    np.testing.assert_array_equal(model.parameters()["point.p"], [-1.0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"accumulate_gradients": 2}, "`accumulate_gradients` must be 1 with lbfgs, got 2"),
        ({"clip_norm": 1.0}, "`clip_norm` must be None"),
        ({"clip_value": 1.0}, "`clip_value` must be None"),
        ({"precision": "mixed_float16"}, "`loss_scale` must be None"),
        ({"param_groups": bn.ParamGroup("*", learning_rate=2.0)}, "must leave the learning rate at 1.0"),
        ({"param_groups": bn.ParamGroup("*", depth_decay=0.5)}, "must leave the learning rate at 1.0"),
    ],
)
def test_what_it_refuses_to_compile(options, words):
    with pytest.raises(ValueError, match=words):
        bn.Sequential([bn.layers.Dense(1)]).compile("mse", "lbfgs", **options)


def test_groups_may_decay_otherwise():
    group = bn.ParamGroup("*.kernel", weight_decay=0.5)
    model = bn.Sequential([bn.layers.Dense(1)])
    model.compile("mse", "lbfgs", param_groups=group)
    model.fit(np.eye(3), np.ones((3, 1)), verbose=0)
    assert np.isfinite(model.parameters()["dense.kernel"]).all()


def test_needs_the_whole_set():
    model = bn.Sequential([bn.layers.Dense(1)])
    model.compile("mse", "lbfgs")
    x, y = np.eye(5), np.ones((5, 1))
    with pytest.raises(ValueError, match="`batch_size` must be at least 5, the number of rows, with lbfgs, got 4"):
        model.fit(x, y, batch_size=4)
    with pytest.raises(ValueError, match="`x` must be arrays, not batches, with lbfgs"):
        model.fit([(x, y)])
    assert model.fit(x, y, batch_size=5, verbose=0).history["loss"]
