"""Metrics against scikit-learn and NumPy: exact for every batch size and weight, in fit, in files and called alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

import burnish as bn
from burnish import losses, metrics

RNG = np.random.default_rng(9)
N, CLASSES = 41, 4
LOGITS = np.round(2 * RNG.normal(size=(N, CLASSES)), 1)  # rounded, so that scores are equal at times
LABELS = RNG.choice([0, 1, 3], N)  # class 2 never occurs, but is answered
BINARY = (LOGITS + 2 * RNG.normal(size=(N, CLASSES)) > 0).astype(float)
NUMBERS = LOGITS + RNG.normal(size=(N, CLASSES))
ANSWERS = LOGITS.argmax(1)
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
SAID = np.log(0.3 / 0.7) < LOGITS
SEQUENCES, PLACES = RNG.normal(size=(N, 3, CLASSES)), RNG.integers(0, CLASSES, (N, 3))


def each(score, average, **options):
    """A score of scikit-learn's of the classes."""
    options = {"labels": range(CLASSES), "zero_division": 0, **options}

    def expected(weight):
        labels = None if average != "none" else options["labels"]
        if average == "macro":  # over those that occur
            labels = np.unique(np.concatenate([LABELS, ANSWERS]))
        name = None if average == "none" else average
        return score(LABELS, ANSWERS, average=name, sample_weight=weight, labels=labels, zero_division=0)

    return expected


def of_labels(score, average):
    return lambda weight: score(BINARY, SAID, average=average, sample_weight=weight, zero_division=0)


def one_label(score, *arguments):
    return lambda weight: score(BINARY[:, 0], *arguments, sample_weight=weight)


def rest(score):
    """The mean over the classes that occur, each against the rest."""
    return lambda weight: np.mean([score(n == LABELS, PROBABILITIES[:, n], sample_weight=weight) for n in (0, 1, 3)])


def perplexity(weight):
    entropy = -np.log(PROBABILITIES[np.arange(N), LABELS])
    return np.exp(np.average(entropy, weights=weight))


def perplexity_of_places(weight):
    shifted = SEQUENCES - np.log(np.exp(SEQUENCES).sum(-1, keepdims=True))
    entropy = -np.take_along_axis(shifted, PLACES[..., None], -1)[..., 0]
    weights = np.where(PLACES == 1, 0.0, 1.0) * (np.ones(N) if weight is None else weight)[:, None]
    return np.exp((entropy * weights).sum() / weights.sum())


# Metric, loss, target, prediction, the result for weights.
CASES = {
    **{
        f"{name}, {average}": (metric(average), "cross_entropy", LABELS, LOGITS, each(score, average))
        for name, metric, score in (
            ("precision", metrics.Precision, sk.precision_score),
            ("recall", metrics.Recall, sk.recall_score),
            ("f1", metrics.F1, sk.f1_score),
        )
        for average in ("micro", "macro", "weighted")
    },
    "f1, each": (metrics.F1(None), "cross_entropy", LABELS, LOGITS, each(sk.f1_score, "none")),
    "f1, one-hot": ("f1", "cross_entropy", np.eye(CLASSES)[LABELS], LOGITS, each(sk.f1_score, "macro")),
    "f1, labels": (metrics.F1("macro", 0.3), "binary_cross_entropy", BINARY, LOGITS, of_labels(sk.f1_score, "macro")),
    "recall, labels": (
        metrics.Recall("weighted", 0.3), losses.BinaryCrossEntropy, BINARY, LOGITS,
        of_labels(sk.recall_score, "weighted"),
    ),
    "precision, labels": (
        metrics.Precision("micro", 0.3, independent=True), "mse", BINARY, LOGITS,
        of_labels(sk.precision_score, "micro"),
    ),
    "f1, one label": (
        "f1", "binary_cross_entropy", BINARY[:, :1], LOGITS[:, :1], one_label(sk.f1_score, LOGITS[:, 0] > 0),
    ),
    "precision, vector": (
        "precision", "binary_cross_entropy", BINARY[:, 0], LOGITS[:, 0],
        one_label(sk.precision_score, LOGITS[:, 0] > 0),
    ),
    "recall, threshold": (
        metrics.Recall(threshold=0.3), "focal", BINARY[:, :1], LOGITS[:, :1], one_label(sk.recall_score, SAID[:, 0]),
    ),
    "f1, two classes": (
        metrics.F1("binary"), "cross_entropy", BINARY[:, 0].astype(int), LOGITS[:, :2],
        one_label(sk.f1_score, LOGITS[:, 1] > LOGITS[:, 0]),
    ),
    "auc": ("auc", "binary_cross_entropy", BINARY[:, 0], LOGITS[:, 0], one_label(sk.roc_auc_score, LOGITS[:, 0])),
    "auc, PR": (
        metrics.AUC("PR"), "binary_cross_entropy", BINARY[:, :1], LOGITS[:, :1],
        one_label(sk.average_precision_score, LOGITS[:, 0]),
    ),
    "auc, classes": ("auc", "cross_entropy", LABELS, LOGITS, rest(sk.roc_auc_score)),
    "auc, PR, classes": (metrics.AUC("PR"), "cross_entropy", LABELS, LOGITS, rest(sk.average_precision_score)),
    "auc, labels": (
        metrics.AUC(average="weighted"), "binary_cross_entropy", BINARY, LOGITS,
        lambda weight: sk.roc_auc_score(BINARY, LOGITS, average="weighted", sample_weight=weight),
    ),
    "confusion_matrix": (
        "confusion_matrix", "cross_entropy", LABELS, LOGITS,
        lambda weight: sk.confusion_matrix(LABELS, ANSWERS, labels=range(CLASSES), sample_weight=weight),
    ),
    **{
        f"confusion_matrix, {normalize}": (
            metrics.ConfusionMatrix(normalize, 0.3), "binary_cross_entropy", BINARY[:, 0], LOGITS[:, 0],
            lambda weight, n=normalize: sk.confusion_matrix(
                BINARY[:, 0], SAID[:, 0], sample_weight=weight, normalize=n
            ),
        )
        for normalize in ("true", "pred", "all")
    },
    "top_k_accuracy": (
        metrics.TopKAccuracy(2), "cross_entropy", LABELS, NUMBERS,
        lambda weight: sk.top_k_accuracy_score(LABELS, NUMBERS, k=2, labels=range(CLASSES), sample_weight=weight),
    ),
    "rmse": (
        "rmse", "mse", NUMBERS, LOGITS,
        lambda weight: np.sqrt(sk.mean_squared_error(NUMBERS, LOGITS, sample_weight=weight)),
    ),
    "r2": (
        "r2", "mse", NUMBERS[:, 0], LOGITS[:, 0],
        lambda weight: sk.r2_score(NUMBERS[:, 0], LOGITS[:, 0], sample_weight=weight),
    ),
    "r2, columns": ("r2", "mse", NUMBERS, LOGITS, lambda weight: sk.r2_score(NUMBERS, LOGITS, sample_weight=weight)),
    "perplexity": ("perplexity", "cross_entropy", LABELS, LOGITS, perplexity),
    "perplexity, places": (metrics.Perplexity(1), "cross_entropy", PLACES, SEQUENCES, perplexity_of_places),
    "f1, places": (
        "f1", "cross_entropy", PLACES, SEQUENCES,
        lambda weight: sk.f1_score(
            PLACES.ravel(), SEQUENCES.argmax(-1).ravel(), average="macro",
            sample_weight=None if weight is None else np.repeat(weight, 3),
        ),
    ),
}  # fmt: skip
COUNTED = [name for name, case in CASES.items() if bn.metrics.resolve(case[0], losses.resolve(case[1]))[1].scalar]


def model_of(name, **options):
    metric, loss, target, prediction, expected = CASES[name]
    model = bn.Sequential([bn.layers.Lambda(lambda x: x)])
    model.compile(loss, metrics=[metric], precision="float64", **options)
    return model, prediction, target, expected


def test_every_metric_of_a_set_has_a_case():
    found = {name.partition(",")[0] for name in CASES}
    assert found == {name for name, metric in metrics.BY_NAME.items() if isinstance(metric, metrics.Metric)} | {
        "top_k_accuracy"
    }


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batch_size", [1, 7, N])
@pytest.mark.parametrize("weighted", [False, True])
def test_evaluate_is_exact(name, batch_size, weighted):
    model, x, y, expected = model_of(name)
    weight = np.arange(N) % 5 / 2 if weighted else None
    result = model.evaluate(x, y, batch_size=batch_size, sample_weight=weight)
    assert list(result) == ["loss", name.partition(",")[0]]
    np.testing.assert_allclose(list(result.values())[1], expected(weight), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_a_metric_is_called_with_arrays(name):
    metric, loss, target, prediction, expected = CASES[name]
    _, metric = metrics.resolve(metric, losses.resolve(loss))
    weight = np.arange(N) % 5 / 2
    np.testing.assert_allclose(metric(target, prediction, weight), expected(weight), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(metric(target, prediction), expected(None), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_batches_and_files_give_the_same(name, tmp_path):
    model, x, y, expected = model_of(name)
    parts = [(x[:10], y[:10]), (x[10:11], y[10:11]), (x[11:], y[11:])]
    key = name.partition(",")[0]
    np.testing.assert_allclose(model.evaluate(parts)[key], expected(None), rtol=1e-12, atol=1e-14)
    model.save(tmp_path / "model")
    found = bn.load(tmp_path / "model").evaluate(x, y, batch_size=7)
    np.testing.assert_allclose(found[key], expected(None), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_fit_reports_what_is_a_number(name):
    metric, loss, y, x, expected = CASES[name]
    model = bn.Sequential([bn.layers.Lambda(lambda x: x)])
    model.compile(loss, "sgd", 0.0, metrics=[metric], precision="float64")
    weight = np.arange(N) % 5 / 2
    key = name.partition(",")[0]
    seen = []

    class Seen(bn.callbacks.Callback):
        def on_train_batch_end(self, batch, logs):
            seen.append(logs.get(key))

        def on_test_batch_end(self, batch, logs):
            assert set(logs) <= {"loss", key}

        def on_test_end(self, logs):
            assert all(np.ndim(value) == 0 for value in logs.values())

    data = {"validation_data": (x, y, weight), "sample_weight": weight, "callbacks": [Seen()]}
    history = model.fit(x, y, batch_size=5, epochs=1, shuffle=False, verbose=0, **data)
    logged = [name for name in history.history if name.startswith("val_")]
    assert (f"val_{key}" in logged) == (name in COUNTED)
    if name in COUNTED:
        np.testing.assert_allclose(history.history[f"val_{key}"], [expected(weight)], rtol=1e-12)
    assert not any("#" in column for column in history.steps)
    if key in history.history:
        np.testing.assert_allclose(history.history[key], [expected(weight)], rtol=1e-12)
        np.testing.assert_allclose(seen[-1], history.history[key][0], rtol=1e-12)
        assert len(history.steps[key]) == 9
        first = model.evaluate(x[:5], y[:5], sample_weight=weight[:5])[key]
        np.testing.assert_allclose(history.steps[key][0], first, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(model.train_on_batch(x[:5], y[:5], weight[:5])[key], first, rtol=1e-12, atol=1e-14)


def test_which_metrics_training_batches_have():
    trained = set()
    for name in CASES:
        model, x, y, _ = model_of(name, optimizer="sgd", learning_rate=0.0)
        trained |= {name} if len(model.fit(x, y, verbose=0).history) == 2 else set()
    assert trained == {
        "precision, micro", "recall, micro", "f1, micro", "precision, labels", "f1, one label", "precision, vector",
        "recall, threshold", "f1, two classes", "top_k_accuracy", "rmse", "r2", "perplexity", "perplexity, places",
    }  # fmt: skip


def test_several_metrics_and_outputs():
    node = bn.Input((CLASSES,))
    same = bn.layers.Lambda(lambda x: x)
    model = bn.Model(node, {"kind": same(node), "size": 2.0 * node})
    kinds = ["accuracy", "f1", metrics.F1("micro", name="micro")]
    model.compile({"kind": "cross_entropy", "size": "mse"}, metrics={"kind": kinds, "size": ["rmse", "r2"]})
    result = model.evaluate(LOGITS, {"kind": LABELS, "size": NUMBERS})
    names = ["loss", "kind_loss", "kind_accuracy", "kind_f1", "kind_micro", "size_loss", "size_rmse", "size_r2"]
    assert list(result) == names
    np.testing.assert_allclose(result["kind_micro"], sk.accuracy_score(LABELS, ANSWERS), rtol=1e-6)
    np.testing.assert_allclose(result["size_r2"], sk.r2_score(NUMBERS, 2 * LOGITS), rtol=1e-5)


@pytest.mark.parametrize("mean", [0.0, 1e3, 1e5])
def test_r2_keeps_its_digits_far_from_zero(mean):
    y = (mean + RNG.normal(size=(300, 1))).astype(np.float32)
    x = (y + 0.3 * RNG.normal(size=(300, 1))).astype(np.float32)
    model = bn.Sequential([bn.layers.Lambda(lambda x: x)])
    model.compile("mse", metrics=["r2"])
    expected = sk.r2_score(y.astype(float), x.astype(float))
    np.testing.assert_allclose(model.evaluate(x, y, batch_size=32)["r2"], expected, rtol=1e-5)


@pytest.mark.parametrize(("mean", "spread"), [(1e6, 0.3), (1e8, 100.0), (1.7e9, 500.0), (1e12, 1.0)])
@pytest.mark.parametrize("batch_size", [1, 32, 300])
def test_r2_of_float64_keeps_its_digits_very_far_from_zero(mean, spread, batch_size):
    rng = np.random.default_rng(3)
    y = mean + spread * rng.normal(size=(300, 1))
    x = y + 0.3 * spread * rng.normal(size=(300, 1))
    weight = rng.integers(0, 4, 300).astype(float)
    model = bn.Sequential([bn.layers.Lambda(lambda x: x)])
    model.compile("mse", metrics=["r2"], precision="float64")
    found = [model.evaluate(x, y, batch_size=batch_size, sample_weight=weight)["r2"]]
    found += [metrics.r2(y, x, weight), metrics.r2(y[:, 0], x[:, 0], weight)]
    deviation = y - mean  # exact: what is left has few digits
    around = deviation - np.average(deviation, 0, weight)
    expected = 1 - np.average((y - x) ** 2, 0, weight) / np.average(around**2, 0, weight)
    np.testing.assert_allclose(found, np.repeat(expected, 3), rtol=1e-12)


def test_r2_of_integers_and_of_what_half_precision_cannot_hold():
    y = 1_700_000_000 + np.arange(4)
    assert metrics.r2(y, y - [0, 0, 0, 1]) == 0.8
    model = bn.Sequential([bn.layers.Lambda(lambda x: x)])
    model.compile("mse", metrics=["r2"], precision="mixed_bfloat16")
    target = np.array([[100001.0], [100002.0], [100003.0], [100004.0]])
    assert model.evaluate(np.full((4, 1), 100352.0), target)["r2"] == 1 - np.sum((target - 100352) ** 2) / 5


CONSTANT = {"float32": np.float32(0.1), "float64": 0.1, "large": 1e300, "integer": 7}


@pytest.mark.parametrize("columns", [(), (1,), (2,), (2, 3)])
@pytest.mark.parametrize("value", CONSTANT.values(), ids=CONSTANT)
def test_r2_of_a_target_that_never_changes(value, columns):
    y = np.full((7, *columns), value)
    assert metrics.r2(y, y) == 1
    assert metrics.r2(y, 2 * y) == 0
    y[3] = 0
    weight = (y.reshape(7, -1)[:, 0] != 0).astype(float)
    assert metrics.r2(y, np.full_like(y, value), weight) == 1
    assert metrics.r2(y, np.full_like(y, 2 * value), weight) == 0


def test_r2_of_a_constant_column_counts_as_a_column():
    y = np.stack([np.full(7, 0.1), np.arange(7.0)], 1)
    assert metrics.r2(y, y + np.array([0.1, 0.0])) == 0.5
    assert metrics.r2(y, y) == 1


NAN = np.nan


@pytest.mark.parametrize(
    ("y", "x"),
    [
        ([1.0, NAN, 3.0], [5.0, 6.0, 7.0]),
        ([1.0, 2.0, 3.0], [1.0, NAN, 3.0]),
        ([2.0, 2.0, 2.0], [NAN, NAN, NAN]),
        ([NAN, NAN, NAN], [NAN, NAN, NAN]),
        ([2.0, 2.0, 2.0], [2.0, NAN, 2.0]),
    ],
)
def test_r2_of_nan_is_nan(y, x):
    y, x = np.array(y), np.array(x)
    assert np.isnan(metrics.r2(y, x))
    assert np.isnan(metrics.r2(np.stack([y, y], 1), np.stack([x, x], 1)))
    model = bn.Sequential([bn.layers.Lambda(lambda x: x)])
    model.compile("mse", metrics=["r2"])
    assert np.isnan(model.evaluate(x[:, None], y[:, None], check_data=False)["r2"])


@pytest.mark.parametrize("metric", ["r2", "rmse"])
def test_rows_that_weigh_nothing_do_not_count(metric):
    y, x, weight = np.array([1.0, NAN, 3.0, 4.0]), np.array([2.0, 1.0, NAN, 4.0]), np.array([1.0, 0.0, 0.0, 3.0])
    some = weight > 0
    metric = metrics.BY_NAME[metric]
    assert metric(y, x, weight) == metric(y[some], x[some], weight[some])


@pytest.mark.parametrize("name", CASES)
def test_a_set_without_rows_is_an_error(name):
    metric, loss, target, prediction, _ = CASES[name]
    _, metric = metrics.resolve(metric, losses.resolve(loss))
    with pytest.raises(ValueError, match=r"^`prediction` must have at least one row, got none$"):
        metric(target[:0], prediction[:0])


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        ([1.0, NAN], "`sample_weight` must be finite and not negative, got nan at row 1"),
        ([np.inf, 1.0], "`sample_weight` must be finite and not negative, got inf at row 0"),
        ([1.0, -2.0], "`sample_weight` must be finite and not negative, got -2 at row 1"),
    ],
)
@pytest.mark.parametrize("name", CASES)
def test_weights_must_be_finite_and_not_negative(name, weight, words):
    metric, loss, target, prediction, _ = CASES[name]
    _, metric = metrics.resolve(metric, losses.resolve(loss))
    with pytest.raises(ValueError, match=f"^{words}$"):
        metric(target[:2], prediction[:2], weight)


LABELLED = {
    "auc": metrics.auc,
    "confusion_matrix": metrics.confusion_matrix,
    "f1": metrics.f1,
    "recall, micro": metrics.Recall("micro"),
    "perplexity": metrics.perplexity,
    "accuracy": metrics.accuracy,
    "top_k_accuracy": lambda y, x: metrics.top_k_accuracy(y, x, 2),
}


@pytest.mark.parametrize(("labels", "wrong"), [([0, -1, 1], "-1 at row 1"), ([5, 0, 1], "5 at row 0")])
@pytest.mark.parametrize("given_as", [np.array, bn.Tensor])
@pytest.mark.parametrize("metric", LABELLED.values(), ids=LABELLED)
def test_labels_must_be_among_the_classes(metric, labels, wrong, given_as):
    with pytest.raises(ValueError, match=f"^`target` must hold labels from 0 to 2, got {wrong}$"):
        metric(given_as(labels), np.eye(3))


def test_labels_that_are_ignored_need_not_be_among_the_classes():
    labels, logits = np.array([[0, -1], [1, -1]]), RNG.normal(size=(2, 2, 3))
    expected = metrics.perplexity(labels[:, 0], logits[:, 0])
    np.testing.assert_allclose(metrics.Perplexity(-1)(labels, logits), expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"^`target` must hold labels from 0 to 2, got 3 at row 0$"):
        metrics.Perplexity(-1)(np.array([[3, -1], [1, -1]]), logits)


def test_the_mean_of_nothing_is_nan():
    ignoring = metrics.Perplexity(1)
    assert np.isnan(ignoring(np.array([1, 1]), np.eye(3)[:2]))
    model = bn.Sequential([bn.layers.Lambda(lambda x: x)])
    model.compile(losses.CrossEntropy(ignore_class=1), metrics=[ignoring])
    assert np.isnan(model.evaluate(np.eye(3), np.ones(3, int))["perplexity"])
    none = np.zeros(2)
    for found in (
        metrics.r2(np.array([1.0, 2.0]), np.array([1.0, 2.0]), none),
        metrics.rmse(np.array([1.0, 2.0]), np.array([1.0, 2.0]), none),
        metrics.perplexity(np.array([0, 1]), np.eye(3)[:2], none),
        metrics.TopKAccuracy(2)(np.array([0, 1]), np.eye(3)[:2], none),
    ):
        assert np.isnan(found)


def test_nan_is_never_among_the_best():
    x = np.array([[NAN, NAN, NAN], [1.0, NAN, 0.0], [NAN, 1.0, 0.0], [NAN, NAN, 1.0], [1.0, 1.0, 0.0]])
    for k, expected in ((1, [0, 0, 0, 0, 1]), (2, [0, 1, 1, 0, 1]), (3, [0, 1, 1, 1, 1])):
        found = metrics.top_k_accuracy(np.array([0, 0, 1, 2, 1]), x, k)
        np.testing.assert_array_equal(found, expected)


def test_metrics_of_two_outputs_must_not_come_to_one_name():
    def b_c(target, prediction):
        return prediction - target

    def c(target, prediction):
        return target - prediction

    x = bn.Input((4,))
    model = bn.Model(x, {"a": bn.layers.Dense(1)(x), "a_b": bn.layers.Dense(1)(x)})
    model.compile("mse", metrics={"a": [b_c], "a_b": [c]})
    with pytest.raises(ValueError, match="`metrics`: the name 'a_b_c' is taken twice"):
        model.fit(LOGITS, {"a": LOGITS[:, :1], "a_b": LOGITS[:, :1]}, verbose=0)


def test_differences_of_integers_do_not_wrap():
    y, x = np.array([2**31 - 1, 16777217]), np.array([-(2**31), 16777216])
    error = y.astype(float) - x
    for given_as in (np.array, bn.Tensor):
        np.testing.assert_array_equal(metrics.mae(given_as(y), given_as(x)), np.abs(error))
        np.testing.assert_array_equal(metrics.mse(given_as(y), given_as(x)), error**2)
        assert metrics.rmse(given_as(y), given_as(x)) == np.sqrt(np.mean(error**2))
        floats = bn.Tensor(np.array([1.5, -2.0], np.float32))
        np.testing.assert_array_equal(metrics.mae(given_as([1, 2]), floats), [0.5, 4.0])
        np.testing.assert_array_equal(metrics.mse(floats, given_as([1, 2])), [0.25, 16.0])


def test_what_is_divided_by_nothing():
    none, some = np.zeros(4), np.array([-1.0, 2.0, 1.0, -3.0])
    assert metrics.precision(none, -np.ones(4)) == 0
    assert metrics.recall(none, some) == 0
    assert metrics.f1(none, -np.ones(4)) == 0
    assert np.isnan(metrics.auc(none, some))
    assert np.isnan(metrics.AUC("PR")(none, some))
    assert metrics.perplexity(np.array([0]), np.array([[-1e5, 1e5]])) == np.inf


@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3), st.integers(0, 3)), min_size=1, max_size=12), st.randoms())
def test_auc_is_the_share_of_ordered_pairs(rows, random):
    there, score, weight = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    pairs = [
        (w * v, 1.0 if s > r else 0.5 if s == r else 0.0)
        for t, s, w in rows for u, r, v in rows if t and not u
    ]  # fmt: skip
    total = sum(weight for weight, _ in pairs)
    found = metrics.auc(there, score, weight)
    if total == 0:
        assert np.isnan(found)
        return
    np.testing.assert_allclose(found, sum(weight * won for weight, won in pairs) / total, rtol=1e-12)
    order = list(range(len(rows)))
    random.shuffle(order)
    np.testing.assert_allclose(metrics.auc(there[order], np.exp(score[order]), weight[order]), found, rtol=1e-12)


def test_a_users_metric_of_sums_is_finished_but_not_saved(tmp_path):
    class Balance(metrics.Metric):
        default_name = "balance"

        def columns(self, target, prediction):
            return {"above": bn.ops.greater(prediction, target)}

        def finish(self, sums):
            return sums["above"] / sums["weight"]

    model = bn.Sequential([bn.layers.Lambda(lambda x: x)])
    model.compile("mse", metrics=[Balance, "mae"])
    assert model.evaluate(LOGITS, NUMBERS)["balance"] == pytest.approx((LOGITS > NUMBERS).mean())
    assert Balance()(NUMBERS, LOGITS) == pytest.approx((LOGITS > NUMBERS).mean())
    assert list(model.fit(LOGITS, NUMBERS, verbose=0).history) == ["loss", "balance", "mae"]
    model.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    loaded.save(tmp_path / "again")
    for each in (loaded, bn.load(tmp_path / "again")):
        assert each.evaluate(LOGITS, NUMBERS) == model.evaluate(LOGITS, NUMBERS)
    assert loaded.fit(LOGITS, NUMBERS, verbose=0).history == model.fit(LOGITS, NUMBERS, verbose=0).history


class InNumPy(metrics.Metric):
    default_name = "in_numpy"

    def columns(self, target, prediction):
        return {"above": bn.ops.greater(prediction, target)}

    def finish(self, sums):
        return np.float64(sums["above"]) / sums["weight"]


class OfTheWholeSet(metrics.Metric):
    default_name = "of_the_whole_set"

    def collected(self, target, prediction):
        return {"prediction": prediction}

    def compute(self, arrays, weight, classes):
        return np.median(arrays["prediction"])


@pytest.mark.parametrize("metric", [InNumPy, OfTheWholeSet])
def test_a_metric_that_needs_python_is_not_saved_and_that_is_said(metric, tmp_path):
    model = bn.Sequential([bn.layers.Lambda(lambda x: x)])
    model.compile("mse", metrics=[metric, "mae"])
    assert metric.default_name in model.evaluate(LOGITS, NUMBERS)
    with pytest.warns(UserWarning, match=f"'{metric.default_name}' is computed by Python"):
        model.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    assert list(loaded.evaluate(LOGITS, NUMBERS)) == ["loss", "mae"]
    history = loaded.fit(LOGITS, NUMBERS, verbose=0)
    assert not any(metric.default_name in name for name in [*history.history, *history.steps])


def test_a_metric_can_be_watched():
    model, x, y, _ = model_of("auc", optimizer="sgd", learning_rate=0.0)
    stop = bn.callbacks.EarlyStopping("val_auc", patience=1, mode="max")
    history = model.fit(x, y, epochs=5, validation_data=(x, y), callbacks=[stop], verbose=0)
    assert len(history.epoch) == 2
    with pytest.raises(ValueError, match="'auc'"):
        model.fit(x, y, validation_data=(x, y), callbacks=[bn.callbacks.EarlyStopping("auc")], verbose=0)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: metrics.F1("mean"), ValueError, "`average`: unknown name 'mean'"),
        (lambda: metrics.Precision(threshold=1.0), ValueError, "`threshold`"),
        (lambda: metrics.AUC("roc"), ValueError, "did you mean 'ROC'"),
        (lambda: metrics.TopKAccuracy(0), ValueError, "`k`"),
        (lambda: metrics.top_k_accuracy(LABELS, bn.Tensor(LOGITS)), ValueError, "at least k=5 classes"),
        (lambda: metrics.ConfusionMatrix("rows"), ValueError, "`normalize`"),
        (lambda: metrics.F1("binary")(LABELS, LOGITS), ValueError, "needs one column or two"),
        (lambda: metrics.f1(LABELS, LOGITS, np.ones(3)), ValueError, "`sample_weight` must have shape"),
        (lambda: metrics.Precision(name=3), TypeError, "`name` must be a text, got 3"),
        (lambda: metrics.f1(BINARY, LOGITS[:, :1]), ValueError, "must have shape"),
        (lambda: metrics.Metric()(LABELS, LOGITS), NotImplementedError, "columns or collected"),
    ],
)
def test_bad_arguments(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_a_callback_may_compile_with_other_metrics():
    class Anew(bn.callbacks.Callback):
        def on_train_batch_end(self, batch, logs):
            if batch == 2:
                self.model.compile("mse", "sgd", 0.0, metrics=["r2"])

    model = bn.Sequential([bn.layers.Lambda(lambda x: x)])
    model.compile("mse", "sgd", 0.0, metrics=["rmse"])
    history = model.fit(LOGITS[:9, :1], NUMBERS[:9, :1], batch_size=3, epochs=2, callbacks=[Anew()], verbose=0)
    assert list(history.history) == ["loss", "r2"]
