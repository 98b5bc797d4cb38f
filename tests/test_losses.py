"""Losses and metrics against closed forms in NumPy, as values and inside a model."""

import numpy as np
import pytest

import burnish as bn
from burnish import losses, metrics

RNG = np.random.default_rng(5)
LOGITS = 3 * RNG.normal(size=(7, 4))
LABELS = np.array([0, 3, 1, 1, 2, 0, 3])
SOFT = RNG.dirichlet(np.ones(4), size=7)
TRUTH = RNG.normal(size=(7, 4))
BINARY = (RNG.normal(size=(7, 4)) > 0).astype(float)


def log_softmax(x):
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def entropy(target, logits=LOGITS):
    return -(target * log_softmax(logits)).sum(-1)


def binary_entropy(target, z):
    p = 1 / (1 + np.exp(-z))
    return -(target * np.log(p) + (1 - target) * np.log1p(-p)).mean(-1)


def huber(target, prediction, delta):
    e = np.abs(prediction - target)
    return np.where(e <= delta, e**2 / 2, delta * (e - delta / 2)).mean(-1)


CASES = [
    (losses.cross_entropy, LABELS, entropy(np.eye(4)[LABELS])),
    (losses.cross_entropy, np.eye(4)[LABELS], entropy(np.eye(4)[LABELS])),
    (losses.cross_entropy, SOFT, entropy(SOFT)),
    (losses.CrossEntropy(0.2), LABELS, entropy(0.8 * np.eye(4)[LABELS] + 0.05)),
    (losses.CrossEntropy(0.2), SOFT, entropy(0.8 * SOFT + 0.05)),
    (losses.binary_cross_entropy, BINARY, binary_entropy(BINARY, LOGITS)),
    (losses.BinaryCrossEntropy(0.1), BINARY, binary_entropy(0.9 * BINARY + 0.05, LOGITS)),
    (losses.mse, TRUTH, ((LOGITS - TRUTH) ** 2).mean(-1)),
    (losses.mae, TRUTH, np.abs(LOGITS - TRUTH).mean(-1)),
    (losses.huber, TRUTH, huber(TRUTH, LOGITS, 1.0)),
    (losses.Huber(2.5), TRUTH, huber(TRUTH, LOGITS, 2.5)),
    (metrics.accuracy, LABELS, LOGITS.argmax(1) == LABELS),
    (metrics.accuracy, np.eye(4)[LABELS], LOGITS.argmax(1) == LABELS),
    (metrics.binary_accuracy, BINARY, ((LOGITS > 0) == BINARY).mean(1)),
    (metrics.mae, TRUTH, np.abs(LOGITS - TRUTH).mean(-1)),
    (metrics.mse, TRUTH, ((LOGITS - TRUTH) ** 2).mean(-1)),
]


@pytest.mark.parametrize(("function", "target", "expected"), CASES)
def test_value_per_sample(function, target, expected):
    value = function(target, bn.Tensor(LOGITS))
    assert value.shape == (7,)
    np.testing.assert_allclose(value.numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("function", "target", "expected"), CASES)
@pytest.mark.parametrize("batch_size", [1, 3, 7])
@pytest.mark.parametrize("weighted", [False, True])
def test_evaluate_is_the_weighted_mean(function, target, expected, batch_size, weighted):
    model = bn.Sequential([bn.layers.Lambda(lambda x: x)])
    metric = {"mse": "mae"}.get(getattr(function, "__name__", ""), "mse")
    model.compile(
        function, metrics=[function, *([metric] if target.shape == LOGITS.shape else [])], precision="float64"
    )
    weight = np.arange(7.0) if weighted else None
    result = model.evaluate(LOGITS, target, batch_size=batch_size, sample_weight=weight)
    np.testing.assert_allclose(result["loss"], np.average(expected, weights=weight), rtol=1e-12)
    assert list(result)[1] == getattr(function, "__name__", type(function).__name__)
    assert list(result.values())[1] == result["loss"]


def test_sequences_are_averaged_over_their_places():
    logits, labels = RNG.normal(size=(5, 6, 3)), RNG.integers(0, 3, size=(5, 6))
    value = losses.cross_entropy(labels, bn.Tensor(logits)).numpy()
    expected = -np.take_along_axis(log_softmax(logits), labels[..., None], -1)[..., 0].mean(1)
    np.testing.assert_allclose(value, expected)
    right = metrics.accuracy(labels, bn.Tensor(logits)).numpy()
    np.testing.assert_allclose(right, (logits.argmax(-1) == labels).mean(1))


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_extreme_logits_give_finite_losses_and_gradients(loss):
    z = bn.Tensor(np.array([[1000.0, -1000.0], [-1000.0, 1000.0]]), requires_grad=True)
    value = losses.resolve(loss)(np.array([[1.0, 0.0], [1.0, 0.0]]), z)
    value.sum().backward()
    np.testing.assert_allclose(value.numpy(), [0.0, 2000.0 if loss == "cross_entropy" else 1000.0])
    assert np.isfinite(z.grad.numpy()).all()


def test_binary_gradient_at_zero_is_right():
    z = bn.Tensor(np.zeros((1, 1)), requires_grad=True)
    losses.binary_cross_entropy(np.ones((1, 1)), z).sum().backward()
    np.testing.assert_allclose(z.grad.numpy(), [[-0.5]])


def test_accuracy_of_a_binary_loss_is_binary():
    model = bn.Sequential([bn.layers.Lambda(lambda x: x)])
    model.compile("binary_cross_entropy", metrics=["accuracy"])
    result = model.evaluate(LOGITS, BINARY)
    np.testing.assert_allclose(result["accuracy"], ((LOGITS > 0) == BINARY).mean(), rtol=1e-6)


def test_a_users_loss_and_metric(digits):
    def quartic(target, prediction):
        return bn.ops.square(bn.ops.square(target - prediction))

    def worst(target, prediction):
        return bn.ops.max(bn.ops.abs(target - prediction), -1)

    x, _ = digits
    model = bn.Sequential([bn.layers.Lambda(lambda x: 2.0 * x)])
    model.compile(quartic, metrics=[worst])
    result = model.evaluate(x, np.zeros_like(x))
    assert list(result) == ["loss", "worst"]
    np.testing.assert_allclose(result["loss"], ((2 * x.astype(float)) ** 4).mean(), rtol=1e-5)
    np.testing.assert_allclose(result["worst"], np.abs(2 * x.astype(float)).max(1).mean(), rtol=1e-5)
