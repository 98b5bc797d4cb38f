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


def sigmoid_focal(target, z, gamma, alpha):
    """As the paper writes it, element by element."""
    p = 1 / (1 + np.exp(-z))
    right = np.where(target == 1, p, 1 - p)
    factor = np.where(target == 1, alpha, 1 - alpha) if alpha is not None else 1.0
    return (-factor * (1 - right) ** gamma * np.log(right)).mean(-1)


def softmax_focal(labels, gamma, alpha):
    right = np.exp(-entropy(np.eye(4)[labels]))
    return -alpha * (1 - right) ** gamma * np.log(right)


def poisson(t, z):
    return np.exp(z) - t * z


def stirling(t):
    return np.where(t > 1, t * np.log(np.maximum(t, 1)) - t + 0.5 * np.log(2 * np.pi * np.maximum(t, 1)), 0)


def gaussian(t, mean, log_variance):
    deviation = np.exp(log_variance / 2)
    return (np.log(deviation * np.sqrt(2 * np.pi)) + ((t - mean) / deviation) ** 2 / 2).mean(-1)


def pinball(t, p, q):
    return np.where(t >= p, q * (t - p), (1 - q) * (p - t)).mean(-1)


COUNTS = np.array([[0, 1, 2, 7], [3, 0, 0, 1], [1, 1, 1, 1], [9, 4, 2, 0], [5, 0, 1, 2], [2, 2, 3, 3], [0, 0, 0, 6.0]])
SPARSE = np.where(SOFT > 0.1, SOFT, 0) / np.where(SOFT > 0.1, SOFT, 0).sum(-1, keepdims=True)
RELATIVE = np.where(SPARSE > 0, SPARSE * np.log(np.where(SPARSE > 0, SPARSE, 1)), 0).sum(-1)

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
    (losses.kl_divergence, SPARSE, RELATIVE + entropy(SPARSE)),
    (losses.hinge, BINARY, np.maximum(1 - (2 * BINARY - 1) * LOGITS, 0).mean(-1)),
    (losses.hinge, 2 * BINARY - 1, np.maximum(1 - (2 * BINARY - 1) * LOGITS, 0).mean(-1)),
    (losses.Hinge(0.5, squared=True), BINARY, (np.maximum(0.5 - (2 * BINARY - 1) * LOGITS, 0) ** 2).mean(-1)),
    (losses.focal, BINARY, sigmoid_focal(BINARY, LOGITS, 2.0, 0.25)),
    (losses.Focal(0.5, None), BINARY, sigmoid_focal(BINARY, LOGITS, 0.5, None)),
    (losses.Focal(0.0, 0.5), BINARY, binary_entropy(BINARY, LOGITS) / 2),
    (losses.Focal(1.5, 0.8), LABELS, softmax_focal(LABELS, 1.5, 0.8)),
    (losses.log_cosh, TRUTH, np.log(np.cosh(LOGITS - TRUTH)).mean(-1)),
    (losses.quantile, TRUTH, np.abs(LOGITS - TRUTH).mean(-1) / 2),
    (losses.Quantile(0.9), TRUTH, pinball(TRUTH, LOGITS, 0.9)),
    (losses.Quantile((0.1, 0.5, 0.8, 0.9)), TRUTH[:, 0], pinball(TRUTH[:, :1], LOGITS, np.array([0.1, 0.5, 0.8, 0.9]))),
    (losses.poisson_nll, COUNTS, poisson(COUNTS, LOGITS).mean(-1)),
    (losses.PoissonNLL(full=True), COUNTS, (poisson(COUNTS, LOGITS) + stirling(COUNTS)).mean(-1)),
    (losses.GaussianNLL(full=True), TRUTH[:, :2], gaussian(TRUTH[:, :2], LOGITS[:, :2], LOGITS[:, 2:])),
    (
        losses.cosine,
        TRUTH,
        1 - (TRUTH * LOGITS).sum(-1) / np.linalg.norm(TRUTH, axis=-1) / np.linalg.norm(LOGITS, axis=-1),
    ),
    (losses.CrossEntropy(ignore_class=1), LABELS, np.where(LABELS == 1, 0, entropy(np.eye(4)[LABELS]))),
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


def test_places_without_a_label_are_left_out():
    logits, labels = RNG.normal(size=(5, 6, 3)), RNG.integers(0, 3, size=(5, 6))
    places = -np.take_along_axis(log_softmax(logits), labels[..., None], -1)[..., 0]
    for ignored in (0, 2, -1, -100):
        there = labels != ignored if ignored >= 0 else np.arange(6) < np.array([6, 3, 1, 5, 4])[:, None]
        given = np.where(there, labels, ignored)
        value = losses.CrossEntropy(ignore_class=ignored)(given, bn.Tensor(logits)).numpy()
        np.testing.assert_allclose(value, (places * there).sum(1) / np.maximum(there.sum(1), 1))
        model = bn.Sequential([bn.layers.Lambda(lambda x: x)])
        model.compile(losses.CrossEntropy(ignore_class=ignored), precision="float64")
        found = model.evaluate(logits, given, batch_size=2, sample_weight=there.sum(1).astype(float))
        np.testing.assert_allclose(found["loss"], (places * there).sum() / there.sum())
    with pytest.raises(ValueError, match=r"`y` must lie in \[-100, 2\]"):
        model.evaluate(logits, np.where(there, labels + 1, -100))


@pytest.mark.parametrize("swap", [False, True])
def test_triplet(swap):
    anchor, positive, negative = RNG.normal(size=(3, 7, 4))

    def distance(a, b):
        return np.sqrt(((a - b + 1e-6) ** 2).sum(-1))

    far = np.minimum(distance(anchor, negative), distance(positive, negative)) if swap else distance(anchor, negative)
    expected = np.maximum(distance(anchor, positive) - far + 0.7, 0)
    stacked = bn.ops.stack([bn.Tensor(anchor), bn.Tensor(positive), bn.Tensor(negative)], 1)
    np.testing.assert_allclose(losses.Triplet(0.7, swap=swap)(np.zeros(7), stacked).numpy(), expected)
    assert (expected > 0).any()


def test_triplet_of_equal_vectors_has_a_finite_slope():
    z = bn.Tensor(np.ones((1, 3, 4)), requires_grad=True)
    losses.triplet(np.zeros(1), z).sum().backward()
    assert np.isfinite(z.grad.numpy()).all()


@pytest.mark.parametrize("name", ["focal", "hinge", "kl_divergence", "log_cosh"])
def test_extreme_predictions_give_finite_losses_and_slopes(name):
    z = bn.Tensor(np.array([[1000.0, -1000.0], [-1000.0, 1000.0]]), requires_grad=True)
    value = losses.resolve(name)(np.array([[1.0, 0.0], [1.0, 0.0]]), z)
    value.sum().backward()
    assert np.isfinite(value.numpy()).all()
    assert np.isfinite(z.grad.numpy()).all()


def test_a_sure_and_right_prediction_has_a_finite_focal_slope():
    z = bn.Tensor(np.array([[800.0, 0.0]]), requires_grad=True)
    value = losses.Focal(0.5)(np.array([0]), z)
    value.sum().backward()
    np.testing.assert_allclose(value.numpy(), 0, atol=1e-12)
    assert np.isfinite(z.grad.numpy()).all()


def test_the_variance_counts_as_at_least_eps():
    value = losses.GaussianNLL(eps=0.01)(np.array([1.0]), bn.Tensor([[1.0, -50.0]])).numpy()
    np.testing.assert_allclose(value, [np.log(0.01) / 2])


def test_a_vector_of_zeros_has_no_direction():
    z = bn.Tensor(np.zeros((1, 3)), requires_grad=True)
    value = losses.cosine(np.ones((1, 3)), z)
    value.sum().backward()
    np.testing.assert_allclose(value.numpy(), [1.0])
    assert np.isfinite(z.grad.numpy()).all()


@pytest.mark.parametrize(
    ("loss", "target", "words"),
    [
        ("kl_divergence", TRUTH, r"`y` must lie in \[0, 1\]"),
        ("hinge", 3 * TRUTH, r"`y` must lie in \[-1, 1\]"),
        ("focal", 2 * BINARY, r"`y` must lie in \[0, 1\]"),
        ("poisson_nll", -COUNTS, "`y` must be at least 0 for this loss, got values from -9.0"),
        ("gaussian_nll", TRUTH, "`y` must have half as many columns"),
        ("triplet", TRUTH, r"the prediction must have shape \(batch, 3, features\)"),
        (losses.Quantile((0.1, 0.9)), TRUTH[:, 0], r"the prediction must have shape \(batch, 2\)"),
        (losses.CrossEntropy(ignore_class=1), SOFT, "`ignore_class` needs a target of labels"),
        ("cosine", LABELS, r"`y` must have shape \(batch, 4\)"),
    ],
)
def test_targets_are_checked(loss, target, words):
    model = bn.Sequential([bn.layers.Lambda(lambda x: x)])
    model.compile(loss)
    with pytest.raises(ValueError, match=words):
        model.evaluate(LOGITS, target)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: losses.Focal(-1.0), "`gamma`"),
        (lambda: losses.Quantile(1.0), "`quantile`"),
        (lambda: losses.Quantile(()), "`quantile` must hold"),
        (lambda: losses.Hinge(0.0), "`margin`"),
        (lambda: losses.Triplet(-1.0), "`margin`"),
        (lambda: losses.GaussianNLL(eps=0.0), "`eps`"),
    ],
)
def test_arguments_are_checked(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (losses.binary_cross_entropy, BINARY),
        (losses.focal, BINARY),
        (losses.focal, LABELS),
        (losses.hinge, BINARY),
        (losses.kl_divergence, SOFT),
        (losses.cosine, SOFT),
        (losses.PoissonNLL(full=True), 3 * BINARY),
        (losses.CrossEntropy(0.1), SOFT),
        (losses.CrossEntropy(ignore_class=3), LABELS),
        (losses.Quantile((0.1, 0.2, 0.5, 0.9)), TRUTH[:, 0]),
        (losses.log_cosh, TRUTH),
        (losses.huber, TRUTH),
    ],
)
def test_predictions_on_another_device(loss, target):
    z = LOGITS.astype("f4")
    value = loss(target, bn.Tensor(z, device="ndarray"))
    assert (value.dtype, value.device) == ("float32", "ndarray")
    np.testing.assert_allclose(value.numpy(), loss(target, z.astype("f8")).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["u1", "i4", "i8"])
@pytest.mark.parametrize(
    ("loss", "shapes"),
    [
        (losses.mse, [(3, 4), (3, 4)]),
        (losses.mae, [(3, 4), (3, 4)]),
        (losses.huber, [(3, 4), (3, 4)]),
        (losses.log_cosh, [(3, 4), (3, 4)]),
        (losses.quantile, [(3, 4), (3, 4)]),
        (losses.Quantile((0.1, 0.9)), [(3, 4), (3, 4, 2)]),
        (losses.poisson_nll, [(3, 4), (3, 4)]),
        (losses.gaussian_nll, [(3, 1), (3, 2)]),
        (losses.cosine, [(3, 4), (3, 4)]),
        (losses.triplet, [(3,), (3, 3, 4)]),
    ],
)
def test_integers_do_not_wrap(loss, shapes, dtype):
    info = np.iinfo(min(dtype, "i4", key=lambda each: np.iinfo(each).max))
    target, prediction = (RNG.integers(info.min, info.max, size=shape, endpoint=True).astype(dtype) for shape in shapes)
    if loss is losses.gaussian_nll:
        prediction[:, 1] = 3
    if loss is losses.poisson_nll:
        prediction %= 10
    found = loss(target, prediction).numpy()
    np.testing.assert_allclose(found, loss(target.astype("f8"), prediction.astype("f8")).numpy(), rtol=1e-12)


def test_an_ignored_place_may_cost_infinity():
    logits = LOGITS.copy()
    logits[:, 0] = -np.inf
    assert np.isfinite(losses.CrossEntropy(ignore_class=0)(LABELS, logits).numpy()).all()
    value = losses.CrossEntropy(ignore_class=0)(LABELS[None], logits[None]).numpy()
    kept = LABELS > 0
    np.testing.assert_allclose(value, entropy(np.eye(4)[LABELS - 1][kept, :3], logits[kept, 1:]).mean())


def test_log_cosh_near_zero_and_far():
    size = np.geomspace(1e-6, 100, 200).astype("f4")
    x = bn.Tensor(size, requires_grad=True)
    value = losses.log_cosh(np.zeros(200), x)
    e = size.astype("f8")
    wanted = np.where(e < 1, np.log1p(2 * np.sinh(e / 2) ** 2), e + np.log1p(np.exp(-2 * e)) - np.log(2))
    np.testing.assert_allclose(value.numpy(), wanted, rtol=1e-6)
    bn.ops.sum(value).backward()
    np.testing.assert_allclose(x.grad.numpy(), np.tanh(e), rtol=1e-6)


def test_focal_of_a_sure_prediction():
    z = np.array([[9.0, 0.0]], "f4")
    wrong = np.exp(-9.0) / (1 + np.exp(-9.0))
    value = losses.focal(np.array([0]), z).numpy()
    np.testing.assert_allclose(value, [-0.25 * wrong**2 * np.log1p(-wrong)], rtol=1e-5)


def test_triplet_of_equal_anchor_and_positive():
    x = bn.Tensor(np.array([[[1.0, 0.0], [1.0, 0.0], [1.5, 0.0]]]), requires_grad=True)
    bn.ops.sum(losses.triplet(np.zeros(1), x, eps=0.0)).backward()
    assert np.isfinite(x.grad.numpy()).all()


def test_quantile_of_a_numpy_number():
    value = losses.quantile(TRUTH, LOGITS, np.float32(0.5)).numpy()
    np.testing.assert_allclose(value, 0.5 * np.abs(TRUTH - LOGITS).mean(-1), rtol=1e-6)
