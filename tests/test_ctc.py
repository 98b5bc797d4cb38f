"""The loss of unaligned labels: against PyTorch's numbers, every single alignment, and in a model that learns."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import burnish as bn
from burnish import losses

GOLDEN = np.load(Path(__file__).parent / "golden" / "ctc.npz")
RNG = np.random.default_rng(3)


def spelt(way, blank):
    """Return what a way through the steps spells: repetitions count once, blanks not at all."""
    return [label for label, _ in itertools.groupby(way) if label != blank]


def by_every_way(logits, labels, blank):
    """Return -log of the summed probability of each way that spells the labels."""
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    ways = itertools.product(range(p.shape[1]), repeat=len(p))
    total = sum(np.prod(p[range(len(p)), way]) for way in ways if spelt(way, blank) == labels)
    return -np.log(total) if total else np.inf


@st.composite
def sequences(draw):
    """Logits, lengths, labels of each sample and the blank."""
    classes, steps, batch = draw(st.integers(2, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    blank = draw(st.integers(0, classes - 1))
    labels = st.lists(st.integers(0, classes - 1).filter(lambda label: label != blank), max_size=3)
    logits = 3 * np.random.default_rng(draw(st.integers(0, 2**32))).normal(size=(batch, steps, classes))
    lengths = draw(st.lists(st.integers(0, steps), min_size=batch, max_size=batch))
    return logits, lengths, draw(st.lists(labels, min_size=batch, max_size=batch)), blank


@given(sequences(), st.sampled_from(["negative", "blank"]))
@settings(max_examples=40)
def test_every_alignment_counts(given_, padding):
    logits, lengths, labels, blank = given_
    fill = -7 if padding == "negative" else blank
    padded = np.array([each + [fill] * (3 - len(each)) for each in labels])
    value = losses.ctc((padded, np.array(lengths)), bn.Tensor(logits), blank).numpy()
    expected = [by_every_way(z[:n], each, blank) for z, n, each in zip(logits, lengths, labels, strict=True)]
    np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("blank", [0, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-12)])
def test_pytorch(blank, zero_infinity, dtype, tolerance, device):
    if device not in ("cpu", "ndarray") and dtype == "float64":
        pytest.skip("accelerators compute in float32")
    labels = GOLDEN["labels"]
    labels = np.where(labels < 0, labels, (labels - 1) % 6) if blank else labels
    z = bn.Tensor(GOLDEN["logits"].astype(dtype), requires_grad=True, device=device)
    loss = losses.CTC(blank, zero_infinity=zero_infinity)
    value = loss({"labels": labels, "lengths": GOLDEN["lengths"]}, z)
    value.sum().backward()
    name = f"{blank}.{zero_infinity}"
    np.testing.assert_allclose(value.numpy(), GOLDEN[f"{name}.loss"], rtol=tolerance)
    expected = GOLDEN[f"{name}.gradient"].copy()
    expected[~np.isfinite(expected).all((1, 2)), 6:] = 0  # ours is nothing beyond a sequence's end, there too
    np.testing.assert_allclose(z.grad.numpy(), expected, rtol=tolerance, atol=tolerance)


def test_gradient_checks_in_a_model():
    x, y = RNG.normal(size=(4, 6, 3)), np.array([[1, 2], [2, 2], [3, -1], [-1, -1]])
    model = bn.Sequential([bn.layers.Dense(4, "tanh"), bn.layers.Dense(4)])
    model.compile("ctc")
    report = bn.check_gradients(model, x, y)
    assert report.passed, report
    model.compile(losses.CTC(blank=3))
    report = bn.check_gradients(model, x, (y - 1, np.array([6, 4, 5, 2])), sample_weight=np.arange(1.0, 5.0))
    assert report.passed, report


@pytest.mark.parametrize("structure", [tuple, dict])
def test_lengths_come_with_the_labels(structure):
    z, labels, lengths = RNG.normal(size=(5, 6, 4)), RNG.integers(1, 4, size=(5, 2)), np.array([6, 4, 6, 3, 5])
    y = (labels, lengths) if structure is tuple else {"labels": labels, "lengths": lengths}
    model = bn.Sequential([bn.layers.Lambda(lambda x: x)])
    model.compile("ctc", precision="float64")
    each = [by_every_way(row[:n], list(label), 0) for row, n, label in zip(z, lengths, labels, strict=True)]
    np.testing.assert_allclose(model.evaluate(z, y, batch_size=2)["loss"], np.mean(each), rtol=1e-10)
    beyond = np.where(np.arange(6)[None, :, None] < lengths[:, None, None], z, 1e3)
    assert model.evaluate(beyond, y) == model.evaluate(z, y)


def test_a_model_learns_to_read():
    """Strokes of random length, one class each, whose places nobody tells."""
    rng = np.random.default_rng(0)
    words = rng.integers(1, 4, size=(240, 3))
    x = np.zeros((240, 18, 4))
    for image, word in zip(x, words, strict=True):
        starts = np.arange(3) * 6 + rng.integers(0, 3, size=3)
        for start, label in zip(starts, word, strict=True):
            image[start : start + rng.integers(1, 4), label] = 1.0
    x = (x + 0.1 * rng.normal(size=x.shape)).astype("float32")
    model = bn.Sequential([bn.layers.Conv1D(16, 3, padding="same", activation="relu"), bn.layers.Dense(4)])
    model.compile("ctc", "adam", 0.02)
    history = model.fit(x, words, epochs=15, verbose=0)
    assert history.history["loss"][-1] < 0.1 * history.history["loss"][0]
    read = [spelt(way, 0) for way in model.predict(x).argmax(-1)]
    assert np.mean([found == list(word) for found, word in zip(read, words, strict=True)]) > 0.95


def test_labels_that_do_not_fit_are_told():
    x, y = RNG.normal(size=(2, 2, 3)), np.array([[1, 1], [1, 2]])
    model = bn.Sequential([bn.layers.Dense(3)])
    model.compile("ctc")
    before = model.build((None, 2, 3)).parameters()
    with pytest.warns(RuntimeWarning, match="not finite"):
        assert model.fit(x, y, verbose=0).history["loss"] == [np.inf]
    assert all(np.array_equal(before[path], array) for path, array in model.parameters().items())
    model.compile(losses.CTC(zero_infinity=True))
    assert np.isfinite(model.train_on_batch(x, y)["loss"])


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.array([[1, 4], [1, 2]]), "`y` must be at most 3"),
        (np.array([1, 2]), r"`y` must have shape \(batch, places\)"),
        ((np.array([[1], [2]]), np.array([6, 2])), r"`y.1` must lie in \[0, 5\]"),
        ((np.array([[1], [2]]), np.array([[5], [2]])), r"`y.1` must have shape \(batch,\)"),
        ({"labels": np.array([[1], [2]])}, "`y` must hold labels and lengths"),
        ((np.array([[1], [2]]),) * 3, "`y` must be labels, or labels and lengths"),
    ],
)
def test_bad_targets(y, words):
    model = bn.Sequential([bn.layers.Dense(4)])
    model.compile("ctc")
    with pytest.raises(ValueError, match=words):
        model.evaluate(RNG.normal(size=(2, 5, 3)), y)


def test_bad_arguments():
    with pytest.raises(ValueError, match="`blank`"):
        losses.CTC(-1)
    with pytest.raises(TypeError, match="`zero_infinity`"):
        losses.CTC(zero_infinity=1)
    with pytest.raises(ValueError, match="`blank` must be one of 3 classes, got 3"):
        losses.ctc([[1]], bn.Tensor(np.ones((1, 2, 3))), 3)
    with pytest.raises(ValueError, match=r"\(batch, steps, classes\)"):
        losses.ctc([[1]], bn.Tensor(np.ones((1, 3))))
