"""Groups of parameters: learning rate, decay and clipping of their own, against NumPy."""

import numpy as np
import pytest

import burnish as bn


class Slopes(bn.layers.Layer):
    """Σ p · x over two parameters of two elements, so that their gradients are the mean row of x."""

    def call(self, x):
        left = self.parameter("left", (2,), "ones")
        right = self.parameter("right", (2,), "ones", role="bias")
        return x[:, :2] * left + x[:, 2:] * right


def total(target, prediction):
    return bn.ops.sum(prediction, -1)


def moved(row=(3.0, 4.0, 6.0, 8.0), **options):
    """How far left and right went in one SGD update of rate 1."""
    model = bn.Sequential([Slopes()])
    model.compile(total, "sgd", 1.0, precision="float64", **options)
    model.train_on_batch(np.array([row]), np.zeros(1))
    parameters = model.parameters()
    return 1.0 - parameters["slopes.left"], 1.0 - parameters["slopes.right"]


def test_learning_rates_are_multiplied():
    left, right = moved(param_groups=[bn.ParamGroup("slopes.left", learning_rate=0.5)])
    np.testing.assert_allclose(left, [1.5, 2.0])
    np.testing.assert_allclose(right, [6.0, 8.0])


def test_the_last_group_that_matches_decides():
    groups = [bn.ParamGroup("slopes.left", 0.5), bn.ParamGroup("slopes", 0.1, weight_decay=1.0)]
    left, right = moved(param_groups=groups, weight_decay=0.5)
    np.testing.assert_allclose(left, [0.4, 0.5])
    np.testing.assert_allclose(right, [0.6, 0.8])


def test_weight_decay_of_a_group():
    left, right = moved(param_groups=bn.ParamGroup("*.left", weight_decay=2.0), weight_decay=0.5)
    np.testing.assert_allclose(left, [5.0, 6.0])
    np.testing.assert_allclose(right, [6.0, 8.0])
    left, right = moved(param_groups=bn.ParamGroup("*.left", weight_decay=2.0), weight_decay=0.5, decay_roles="all")
    np.testing.assert_allclose(left, [5.0, 6.0])
    np.testing.assert_allclose(right, [6.5, 8.5])


def test_clipping_off():
    left, right = moved(param_groups=[bn.ParamGroup("*.left", clip=False)], clip_norm=5.0)
    np.testing.assert_allclose(left, [3.0, 4.0])
    np.testing.assert_allclose(right, [3.0, 4.0])
    left, right = moved(param_groups=[bn.ParamGroup("*.left", clip=False)], clip_value=2.0)
    np.testing.assert_allclose(left, [3.0, 4.0])
    np.testing.assert_allclose(right, [2.0, 2.0])


def test_the_norm_reported_is_that_of_all():
    model = bn.Sequential([Slopes()])
    model.compile(total, "sgd", 0.1, clip_norm=1.0, param_groups=[bn.ParamGroup("*.left", clip=False)])
    history = model.fit([[3.0, 4.0, 0.0, 12.0]], [0.0], verbose=0)
    np.testing.assert_allclose(history.steps["gradient_norm"], [13.0])
    np.testing.assert_allclose(history.parameters["slopes.right"]["gradient_norm"], [12.0])


def deep():
    layers = [bn.layers.Dense(3, name=name) for name in ("first", "second", "last")]
    return bn.Sequential(layers)


def test_rates_fall_with_depth(rng):
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 3))
    steps = {}
    for factor in (None, 0.5):
        model = deep()
        groups = [] if factor is None else [bn.ParamGroup("*", learning_rate=2.0, depth_decay=factor)]
        model.compile("mse", "sgd", 0.1, precision="float64", param_groups=groups)
        model.build((None, 3))
        before = model.parameters()
        model.train_on_batch(x, y)
        steps[factor] = {path: before[path] - after for path, after in model.parameters().items()}
    for layer, multiplier in (("first", 0.5), ("second", 1.0), ("last", 2.0)):
        for name in ("kernel", "bias"):
            path = f"{layer}.{name}"
            np.testing.assert_allclose(steps[0.5][path], multiplier * steps[None][path], rtol=1e-9, atol=1e-15)


def test_groups_are_saved(tmp_path, rng):
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 3))
    model = deep()
    model.compile("mse", "adamw", 0.1, param_groups=[bn.ParamGroup("last", 0.25, weight_decay=0.3)])
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.safetensors")
    again = bn.load(tmp_path / "model.safetensors")
    for one in (model, again):
        one.fit(x, y, verbose=0)
    for path, array in model.parameters().items():
        np.testing.assert_array_equal(array, again.parameters()[path])


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: bn.ParamGroup(3), TypeError, "`pattern`"),
        (lambda: bn.ParamGroup("*", -1.0), ValueError, "`learning_rate`"),
        (lambda: bn.ParamGroup("*", weight_decay="much"), TypeError, "`weight_decay`"),
        (lambda: bn.ParamGroup("*", clip=1), TypeError, "`clip`"),
        (lambda: bn.ParamGroup("*", depth_decay=0.0), ValueError, "`depth_decay`"),
        (lambda: deep().compile("mse", param_groups=["head"]), TypeError, "`param_groups`"),
        (lambda: deep().compile("mse", param_groups=3), TypeError, "`param_groups`"),
        (lambda: deep().compile("mse", decay_roles="kernels"), ValueError, "`decay_roles`.*kernel"),
    ],
)
def test_bad_arguments(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_a_pattern_that_matches_nothing_is_refused(rng):
    model = deep()
    model.compile("mse", param_groups=[bn.ParamGroup("lastt")])
    with pytest.raises(ValueError, match=r"`param_groups`: 'lastt' matches no parameter.*last"):
        model.fit(rng.normal(size=(8, 3)), rng.normal(size=(8, 3)))
    model.compile("mse")
    model.fit(rng.normal(size=(8, 3)), rng.normal(size=(8, 3)), verbose=0)
