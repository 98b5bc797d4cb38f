"""Update rules against trajectories of PyTorch, Optax and NumPy; clipping, decay, accumulation, learning rates."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import burnish as bn
from burnish import _burnish, optimizers

GOLDEN = json.loads((Path(__file__).parent / "golden" / "optimizers.json").read_text())


class Slopes(bn.layers.Layer):
    """p · x, so that the gradient of its sum is the row of x."""

    def __init__(self, role="kernel"):
        super().__init__()
        self.role = role

    def call(self, x):
        p = self.parameter("p", x.shape[1:], "zeros", role=self.role)
        return x * p


class HiddenSlopes(Slopes):
    """The same with a kernel behind it, which makes p a hidden one."""

    def call(self, x):
        return super().call(x) * self.parameter("behind", (1,), "ones")


def total(target, prediction):
    return bn.ops.sum(prediction, tuple(range(1, prediction.ndim)))


def trajectory(
    gradients,
    start,
    optimizer,
    learning_rate=0.1,
    layer=None,
    device="cpu",
    precision="float64",
    **options,
):
    gradients = np.asarray(gradients)
    model = bn.Sequential([layer or Slopes()])
    model.compile(total, optimizer, learning_rate, precision=precision, device=device, **options)
    paths = model.build((None, *gradients.shape[1:])).parameters()
    path = next(path for path in paths if path.endswith(".p"))
    if len(paths) > 1:
        model.freeze("*.behind")
    model.set_parameters({path: start})
    points = []
    for row in gradients:
        model.train_on_batch(row[None], np.zeros(1))
        points.append(model.parameters()[path])
    return np.array(points)


def lars(start, gradients, learning_rate=0.1, momentum=0.9, trust_coefficient=1e-3, weight_decay=0.0):
    """You et al. 2017, Algorithm 1, with the learning rate outside of the momentum."""
    p, buffer, points = np.array(start), 0.0, []
    for g in np.array(gradients):
        norm, divisor = np.linalg.norm(p), np.linalg.norm(g) + weight_decay * np.linalg.norm(p)
        local = trust_coefficient * norm / divisor if norm > 0 and divisor > 0 else 1.0
        buffer = momentum * buffer + local * (g + weight_decay * p)
        p = p - learning_rate * buffer
        points.append(p)
    return points


def lamb(start, gradients, learning_rate=0.1, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0):
    """You et al. 2020, Algorithm 2."""
    p, m, v, points = np.array(start), 0.0, 0.0, []
    for t, g in enumerate(np.array(gradients), 1):
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        r = m / (1 - betas[0] ** t) / (np.sqrt(v / (1 - betas[1] ** t)) + eps) + weight_decay * p
        norm, of_r = np.linalg.norm(p), np.linalg.norm(r)
        p = p - learning_rate * (norm / of_r if norm > 0 and of_r > 0 else 1.0) * r
        points.append(p)
    return points


def muon(start, gradients, learning_rate=0.1, momentum=0.95, weight_decay=0.0, nesterov=True, newton_schulz_steps=5):
    """Jordan et al. 2024, on the transpose: its matrices are (outputs, inputs)."""
    p, buffer, points = np.array(start).T, 0.0, []
    for g in np.array(gradients):
        buffer = momentum * buffer + g.T
        x = g.T + momentum * buffer if nesterov else buffer
        x = x / np.linalg.norm(x)
        for _ in range(newton_schulz_steps):
            a = x @ x.T
            x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
        p = p * (1 - learning_rate * weight_decay) - learning_rate * max(1, p.shape[0] / p.shape[1]) ** 0.5 * x
        points.append(p.T)
    return points


class Case(NamedTuple):
    """An optimizer, what it goes through and where that leads."""

    name: str
    cls: str
    arguments: dict
    start: list
    gradients: list
    trajectory: list
    learning_rate: float = 0.1
    precisions: tuple = ("float64", "float32")
    layer: type = Slopes

    def points(self, device, precision):
        optimizer = getattr(optimizers, self.cls)(**self.arguments)
        options = {"layer": self.layer(), "device": device, "precision": precision}
        return trajectory(self.gradients, self.start, optimizer, self.learning_rate, **options)


def _golden(name, start, gradients, setting):
    given = (setting["class"], setting["arguments"], GOLDEN[start], GOLDEN[gradients], setting["trajectory"])
    return Case(name, *given, setting["learning_rate"], tuple(setting["precisions"]))


def _computed(function, cls, start, gradients, layer=Slopes, **arguments):
    given = "".join(f", {key}={value}" for key, value in arguments.items())
    name = f"{cls.lower()} {'x'.join(map(str, np.shape(start)))}{given}"
    start, gradients = np.array(start), np.array(gradients)
    return Case(name, cls, arguments, start, gradients, function(start, gradients, **arguments), layer=layer)


def _cases():
    """Everything that is compared with PyTorch, Optax or NumPy."""
    yield from (_golden(name, "parameter", "gradients", each) for name, each in GOLDEN["settings"].items())
    for name, each in GOLDEN["matrix_settings"].items():
        yield _golden(f"{name} 3x4", "matrix", "matrix_gradients", each)
    vector, matrix = (GOLDEN["parameter"], GOLDEN["gradients"]), (GOLDEN["matrix"], GOLDEN["matrix_gradients"])
    for start, gradients in (vector, matrix):
        yield _computed(lars, "LARS", start, gradients)
        yield _computed(lars, "LARS", start, gradients, weight_decay=0.1, momentum=0.5, trust_coefficient=0.1)
    yield _computed(lamb, "LAMB", *matrix, weight_decay=0.1)
    for start, gradients in (matrix, [np.swapaxes(array, -1, -2) for array in matrix]):
        yield _computed(muon, "Muon", start, gradients, HiddenSlopes)
        yield _computed(muon, "Muon", start, gradients, HiddenSlopes, weight_decay=0.1, nesterov=False, momentum=0.5)


CASES = list(_cases())


def in_precision(precision):
    return pytest.mark.parametrize(
        "case", [case for case in CASES if precision in case.precisions], ids=lambda case: case.name
    )


TOLERANCES = {"float64": 1e-12, "float32": 1e-6}  # absolute, of numbers up to 2.5


@pytest.mark.parametrize("device", ["cpu", "ndarray"])
@in_precision("float64")
def test_trajectory(case, device):
    points = case.points(device, "float64")
    np.testing.assert_allclose(points, case.trajectory, rtol=0, atol=TOLERANCES["float64"])


@in_precision("float32")
def test_trajectory_in_float32_on_every_device(case, device):
    points = case.points(device, "float32")
    np.testing.assert_allclose(points, case.trajectory, rtol=0, atol=TOLERANCES["float32"])


def test_every_optimizer_has_a_trajectory():
    assert {case.cls for case in CASES} == set(optimizers.__all__) - {"Optimizer", "LBFGS"}


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
        plain = trajectory(rows, [1.0, 2.0], "sgd", layer=Slopes(role))
        decayed = trajectory(rows, [1.0, 2.0], "sgd", layer=Slopes(role), weight_decay=0.5)
        np.testing.assert_array_equal(plain, decayed)
    for role in ("kernel", "embedding"):
        points = trajectory(rows[:1], [1.0, 2.0], "sgd", layer=Slopes(role), weight_decay=0.5)
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
    model = bn.Sequential([Slopes()])
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
    model = bn.Sequential([Slopes()])
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


class Point(bn.layers.Layer):
    """Two numbers, whatever comes in."""

    def call(self, x):
        return x * 0.0 + self.parameter("p", (2,), bn.initializers.Constant(-1.0))


def bowl(target, p):
    return bn.ops.square(p[:, 0] - 1.0) + 0.01 * bn.ops.square(p[:, 1] - 1.0)


def valley(target, p):
    return bn.ops.square(1.0 - p[:, 0]) + 10.0 * bn.ops.square(p[:, 1] - bn.ops.square(p[:, 0]))


# Learning rates on bowl and valley, falling to 0; 0.02 where nothing is said.
RATES = {
    "adadelta": (10.0, 10.0),
    "adagrad": (0.5, 0.5),
    "adamax": (0.1, 0.1),
    "asgd": (0.5, 0.01),
    "lars": (2.0, 2.0),
    "lbfgs": (1.0, 1.0),
    "muon": (2.0, 2.0),
    "sgd": (0.5, 0.01),
}


@pytest.mark.parametrize("loss", [bowl, valley])
@pytest.mark.parametrize("name", sorted(optimizers.BY_NAME))
def test_converges(name, loss):
    """On a quadratic bowl with condition number 100, and on Rosenbrock's valley."""
    updates, rate = 4000, RATES.get(name, (0.02, 0.02))[loss is valley]
    model = bn.Sequential([Point()])
    model.compile(loss, name, lambda update: rate * (1 - update / updates), weight_decay=0.0, precision="float64")
    rows = 1 if optimizers.BY_NAME[name].full_batch else updates
    model.fit(np.zeros((rows, 2)), np.zeros(rows), batch_size=1, epochs=min(updates // rows, 20), verbose=0)
    np.testing.assert_allclose(model.parameters()["point.p"], [1.0, 1.0], atol=0.02)


def fitted(name, x, y, weight, batch_size, accumulate):
    model = bn.Sequential([bn.layers.Dense(4, "tanh", name="hidden"), bn.layers.Dense(2, name="head")])
    decay = {"weight_decay": 0.1, "decay_roles": "all"}
    model.compile("mse", name, precision="float64", accumulate_gradients=accumulate, seed=1, **decay)
    model.fit(x, y, batch_size=batch_size, epochs=3, shuffle=False, sample_weight=weight, verbose=0)
    return model.parameters()


@pytest.mark.parametrize("name", sorted(name for name, cls in optimizers.BY_NAME.items() if not cls.full_batch))
@settings(max_examples=8)
@given(
    rows=st.integers(1, 17),
    batch_size=st.integers(1, 5),
    accumulate=st.integers(2, 4),
    weights=st.none() | st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=17, max_size=17),
    seed=st.integers(0, 2**32 - 1),
)
def test_micro_batches_make_the_update_of_one_batch(name, rows, batch_size, accumulate, weights, seed):
    """Ragged, weighted, the last group short. In float64: rules by sign turn on the last bit of a gradient."""
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(rows, 3)), generator.normal(size=(rows, 2))
    weight = None if weights is None else np.array([1.0, *weights[1:rows]])
    several = fitted(name, x, y, weight, batch_size, accumulate)
    one = fitted(name, x, y, weight, batch_size * accumulate, 1)
    for path, array in one.items():
        np.testing.assert_allclose(several[path], array, rtol=1e-6, atol=1e-9)


def test_muon_is_for_hidden_matrices():
    """The output layer and biases move as AdamW moves them at `adamw_ratio` times the learning rate."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(8, 3)), generator.normal(size=(8, 2))

    def after(*compiled):
        model = bn.Sequential([bn.layers.Dense(4, name="hidden"), bn.layers.Dense(2, name="head")])
        model.compile("mse", *compiled, precision="float64")
        model.train_on_batch(x, y)
        return model.parameters()

    found = after(optimizers.Muon(weight_decay=0.1, adamw_ratio=0.5), 0.02)
    other = after(optimizers.AdamW(weight_decay=0.1), 0.01)
    for path, array in other.items():
        assert np.allclose(found[path], array, rtol=1e-12, atol=1e-15) == (path != "hidden.kernel"), path


def test_nadam_goes_on_with_the_same_bits(tmp_path):
    """Its product of momenta is a function of t, not state."""
    model = bn.Sequential([Slopes()])
    model.compile(total, "nadam", 0.1)
    rows = np.random.default_rng(0).normal(size=(9, 4))
    model.fit(rows[:5], np.zeros(5), batch_size=1, shuffle=False, verbose=0)
    model.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    for each in (model, loaded):
        each.fit(rows[5:], np.zeros(4), batch_size=1, shuffle=False, verbose=0)
    np.testing.assert_array_equal(model.parameters()["slopes.p"], loaded.parameters()["slopes.p"])


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
        (lambda: optimizers.Rprop(etas=(1.2, 0.5)), ValueError, r"`etas` must lie in \(0, 1\) and above 1"),
        (lambda: optimizers.Rprop(step_sizes=(2.0, 1.0)), ValueError, "`step_sizes`"),
        (lambda: optimizers.Adadelta(eps=0.0), ValueError, "`eps`"),
        (lambda: optimizers.Adafactor(eps=1e-3), TypeError, "`eps` must be a pair"),
        (lambda: optimizers.Adafactor(beta2_decay=0.8), ValueError, "`beta2_decay`"),
        (lambda: optimizers.Adafactor(clipping_threshold=0.5), ValueError, "`clipping_threshold`"),
        (lambda: optimizers.Muon(newton_schulz_steps=0), ValueError, "`newton_schulz_steps`"),
        (lambda: optimizers.LBFGS(line_search_fn="wolfe"), ValueError, "did you mean 'strong_wolfe'"),
        (lambda: optimizers.LBFGS(max_iter=2.5), TypeError, "`max_iter`"),
    ],
)
def test_bad_arguments(make, error, words):
    with pytest.raises(error, match=words):
        make()
