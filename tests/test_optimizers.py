"""Update rules against trajectories of PyTorch; clipping, decay, accumulation, learning rates."""

import json
from pathlib import Path

import numpy as np
import pytest

import burnish as bn
from burnish import _burnish, optimizers

GOLDEN = json.loads((Path(__file__).parent / "golden" / "optimizers.json").read_text())


class Slopes(bn.layers.Layer):
    """p · x, so that the gradient of its sum is the row of x."""

    def __init__(self, start, role="kernel"):
        super().__init__()
        self.start, self.role = start, role

    def call(self, x):
        p = self.parameter("p", (x.shape[-1],), "zeros", role=self.role)
        return x * p


def total(target, prediction):
    return bn.ops.sum(prediction, -1)


def trajectory(
    gradients, start, optimizer, learning_rate=0.1, role="kernel", device="cpu", precision="float64", **options
):
    gradients = np.asarray(gradients)
    model = bn.Sequential([Slopes(start, role)])
    model.compile(total, optimizer, learning_rate, precision=precision, device=device, **options)
    model.build((None, gradients.shape[1])).set_parameters({"slopes.p": start})
    points = []
    for row in gradients:
        model.train_on_batch(row[None], np.zeros(1))
        points.append(model.parameters()["slopes.p"])
    return np.array(points)


@pytest.mark.parametrize("name", GOLDEN["settings"])
def test_golden_trajectory(name):
    setting = GOLDEN["settings"][name]
    optimizer = getattr(optimizers, setting["class"])(**setting["arguments"])
    points = trajectory(GOLDEN["gradients"], GOLDEN["parameter"], optimizer)
    np.testing.assert_allclose(points, setting["trajectory"], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["sgd_nesterov", "adam_eps1e-07", "adamw", "rmsprop_centered"])
def test_golden_trajectory_in_float32_on_every_device(name, device):
    setting = GOLDEN["settings"][name]
    optimizer = getattr(optimizers, setting["class"])(**setting["arguments"])
    points = trajectory(GOLDEN["gradients"], GOLDEN["parameter"], optimizer, device=device, precision="float32")
    # The third element stands on gradients of 1e-8, of which a centred variance in 32 bits is mostly rounding.
    keep = [0, 1, 3]
    np.testing.assert_allclose(points[:, keep], np.array(setting["trajectory"])[:, keep], rtol=2e-5, atol=1e-6)


def test_defaults_are_the_engines():
    engine = _burnish.optimizers()
    assert set(optimizers.BY_NAME) == set(engine)
    for name, defaults in engine.items():
        mine = optimizers.BY_NAME[name]()
        numbers = {"learning_rate": mine.learning_rate, **mine.hyperparameters}
        assert {key: list(value) if isinstance(value, tuple) else value for key, value in numbers.items()} == defaults


def test_decay_leaves_biases_and_scales():
    rows = np.ones((3, 2))
    for role in ("bias", "scale"):
        plain = trajectory(rows, [1.0, 2.0], "sgd", role=role)
        decayed = trajectory(rows, [1.0, 2.0], "sgd", role=role, weight_decay=0.5)
        np.testing.assert_array_equal(plain, decayed)
    for role in ("kernel", "embedding"):
        points = trajectory(rows[:1], [1.0, 2.0], "sgd", role=role, weight_decay=0.5)
        np.testing.assert_allclose(points, [[1 - 0.1 * 1.5, 2 - 0.1 * 2.0]])


@pytest.mark.parametrize(
    ("row", "options", "moved"),
    [
        ([3.0, 4.0], {"clip_norm": 5.0}, [3.0, 4.0]),
        ([3.0, 4.0], {"clip_norm": 1.0}, [0.6, 0.8]),
        ([3.0, -4.0], {"clip_value": 3.5}, [3.0, -3.5]),
        ([3.0, 8.0], {"clip_value": 4.0, "clip_norm": 2.5}, [1.5, 2.0]),
        ([3.0, 4.0], {}, [3.0, 4.0]),
    ],
)
def test_clipping(row, options, moved):
    points = trajectory([row], [0.0, 0.0], "sgd", learning_rate=1.0, **options)
    np.testing.assert_allclose(points, [-np.array(moved)], rtol=1e-15)


def test_the_norm_is_that_before_clipping():
    model = bn.Sequential([Slopes([0.0, 0.0])])
    model.compile(total, "sgd", 0.1, clip_norm=1.0)
    history = model.fit([[3.0, 4.0]], [0.0], verbose=0)
    np.testing.assert_allclose(history.steps["gradient_norm"], [5.0])


def test_learning_rate_is_a_function_of_the_update():
    seen = []

    def rate(update):
        seen.append(update)
        return 0.1 / (1 + update)

    points = trajectory(np.ones((4, 1)), [0.0], "sgd", learning_rate=rate)
    np.testing.assert_allclose(points[:, 0], -0.1 * np.cumsum(1 / np.arange(1, 5)))
    assert seen == [0, 1, 2, 3]


def test_the_index_counts_updates_not_batches():
    seen = []
    model = bn.Sequential([Slopes([0.0])])
    model.compile(total, "sgd", lambda update: seen.append(update) or 0.1 * (update + 1), accumulate_gradients=3)
    history = model.fit(np.ones((16, 1)), np.zeros(16), batch_size=2, epochs=2, verbose=0)
    # 8 batches an epoch: updates after 3, 6 and, at the epoch's end, 8.
    assert sorted(set(seen)) == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(model.parameters()["slopes.p"], -0.1 * np.arange(1, 7).sum(), rtol=1e-6)
    closed = ~np.isnan(history.steps["gradient_norm"])
    assert closed.tolist() == [False, False, True, False, False, True, False, True] * 2
    assert model.learning_rate == pytest.approx(0.7)


@pytest.mark.parametrize("rate", [lambda update: float("nan"), lambda update: "much", lambda update: -1.0])
def test_a_bad_learning_rate_function_is_an_error(rate):
    with pytest.raises((ValueError, TypeError), match="`learning_rate` must return"):
        trajectory(np.ones((1, 1)), [0.0], "sgd", learning_rate=rate)


@pytest.mark.parametrize("name", sorted(optimizers.BY_NAME))
def test_converges(name):
    """On a quadratic bowl with condition number 100, and on Rosenbrock's valley."""

    class Point(bn.layers.Layer):
        def call(self, x):
            return x * 0.0 + self.parameter("p", (2,), bn.initializers.Constant(-1.0))

    def bowl(target, p):
        return bn.ops.square(p[:, 0] - 1.0) + 0.01 * bn.ops.square(p[:, 1] - 1.0)

    def valley(target, p):
        return bn.ops.square(1.0 - p[:, 0]) + 10.0 * bn.ops.square(p[:, 1] - bn.ops.square(p[:, 0]))

    for loss, rate, updates in (
        (bowl, 0.5 if name == "sgd" else 0.02, 4000),
        (valley, 0.01 if name == "sgd" else 0.02, 4000),
    ):
        model = bn.Sequential([Point()])
        schedule = lambda update, rate=rate, updates=updates: rate * (1 - update / updates)  # noqa: E731
        model.compile(loss, name, schedule, weight_decay=0.0, precision="float64")
        model.fit(np.zeros((4000, 2)), np.zeros(4000), batch_size=1, verbose=0)
        np.testing.assert_allclose(model.parameters()["point.p"], [1.0, 1.0], atol=0.02)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: optimizers.SGD(nesterov=True), ValueError, "momentum above 0"),
        (lambda: optimizers.Adam(betas=(0.9, 1.0)), ValueError, r"`betas\[1\]`"),
        (lambda: optimizers.Adam(betas=0.9), TypeError, "pair"),
        (lambda: optimizers.AdamW(weight_decay=-1), ValueError, "`weight_decay`"),
        (lambda: optimizers.RMSprop(alpha="much"), TypeError, "`alpha`"),
        (lambda: optimizers.Adam(float("nan")), ValueError, "`learning_rate`"),
        (lambda: optimizers.Adam(True), TypeError, "`learning_rate`"),
        (lambda: optimizers.SGD(nesterov=1), TypeError, "`nesterov`"),
    ],
)
def test_bad_arguments(make, error, words):
    with pytest.raises(error, match=words):
        make()
