"""Finders leave no trace and find; folds, seeds and ensembles agree with NumPy."""

import re
import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import burnish as bn
from burnish.tuning._curve import read
from burnish.tuning._validation import _folds


def problem(rows=400, seed=0):
    x = np.random.default_rng(seed).normal(size=(rows, 4))
    return x, np.sin(x[:, :1]) + 0.5 * x[:, 1:2] * x[:, 2:3]


def made(seed=0, **options):
    model = bn.Sequential(
        [bn.layers.Dense(16), bn.layers.BatchNorm(), bn.layers.Dropout(0.2), bn.layers.ReLU(), bn.layers.Dense(1)]
    )
    model.compile(loss="mse", optimizer="adam", learning_rate=1e-2, seed=seed, **options)
    return model


def everything(model):
    """All of a model that a fit could depend on."""
    core = bn.model.core_of(model)
    runtime = core.runtime
    arrays = None if runtime is None else {**runtime.session.state(), **runtime.optimizer_state()}
    bits = None if arrays is None else {path: array.tobytes() for path, array in arrays.items()}
    flags = core.learning_rate, model.stop_training, id(model.history), id(core.compiled)
    return bits, vars(core.position).copy(), flags, id(runtime)


@pytest.mark.parametrize("finder", ["find_learning_rate", "find_batch_size"])
@pytest.mark.parametrize("state", ["new", "built", "trained", "in_a_group"])
def test_finders_leave_no_trace(finder, state):
    x, y = problem()

    def run(with_finder):
        model = made(accumulate_gradients=3)
        if state == "built":
            model.build((None, 4))
        if state in ("trained", "in_a_group"):
            model.fit(x, y, epochs=1, verbose=0)
        if state == "in_a_group":
            model.train_on_batch(x[:8], y[:8])
        before = everything(model)
        if with_finder:
            arguments = {"steps": 30} if finder == "find_learning_rate" else {"limit": 4}
            getattr(bn.tuning, finder)(model, x, y, **arguments)
        assert everything(model) == before
        history = model.fit(x, y, epochs=2, verbose=0)
        return everything(model)[0], {name: column.tobytes() for name, column in history.steps.items()}

    assert run(True) == run(False)


@pytest.mark.filterwarnings("ignore:the gradient was not finite:RuntimeWarning")
@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_rate_found_trains(optimizer, noise):
    x, y = problem(1000)
    y = y + noise * np.random.default_rng(1).normal(size=y.shape)
    outcomes = {}
    model = bn.Sequential([bn.layers.Dense(32, activation="relu"), bn.layers.Dense(1)])
    model.compile(loss="mse", optimizer=optimizer)
    found = bn.tuning.find_learning_rate(model, x, y)
    for rate in [found.learning_rate, *10.0 ** np.arange(-5, -0.49, 0.5)]:
        model = bn.Sequential([bn.layers.Dense(32, activation="relu"), bn.layers.Dense(1)])
        model.compile(loss="mse", optimizer=optimizer, learning_rate=rate)
        outcomes[rate] = model.fit(x, y, epochs=4, verbose=0).history["loss"][-1]
    best = min(outcomes, key=lambda rate: np.nan_to_num(outcomes[rate], nan=np.inf))
    assert 0.1 <= found.learning_rate / best <= 10.0
    assert np.allclose(np.diff(np.log(found.rates)), np.log(1e8) / 299)
    assert len(found.losses) == len(found.rates) < 300


@settings(max_examples=40)
@given(
    valley=st.floats(-4.0, -1.0),
    noise=st.sampled_from([0.0, 0.01, 0.05, 0.1]),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 1000),
)
def test_a_valley_is_read_off_a_noisy_curve_whatever_its_scale(valley, noise, scale, seed):
    places = np.linspace(-7, 1, 300)
    curve = 0.2 + 0.8 / (1.0 + 10.0 ** (2.0 * (places - valley + 1.0))) + 10.0 ** (3.0 * (places - valley - 1.0))
    curve *= 1.0 + noise * np.random.default_rng(seed).normal(size=300)
    end = int(np.argmax(curve > 4.0))
    reading = read(10.0 ** places[:end], scale * curve[:end], 300)
    assert reading.rate is not None
    assert abs(np.log10(reading.rate) - valley) < 1.0


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), noise=st.floats(1e-3, 0.5))
def test_noise_alone_gives_no_rate(seed, noise):
    losses = 1.0 + noise * np.random.default_rng(seed).normal(size=300)
    reading = read(np.geomspace(1e-7, 10, 300), losses, 300)
    assert reading.rate is None
    fall, noise_told = (float(number) for number in re.findall(r"(?:by|of) ([\d.e-]+)", reading.reason))
    assert "no more than 7 times its noise" in reading.reason
    assert fall <= 7.0 * noise_told * 1.1  # both have two digits


def test_no_rate_is_said_with_the_reason():
    x, _ = problem(200)
    model = bn.Sequential([bn.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(loss="mse", optimizer="sgd")
    found = bn.tuning.find_learning_rate(model, x, np.zeros((200, 1)))
    assert found.learning_rate is None
    assert "none" in repr(found)
    assert "noise" in found.reason


def test_rates_are_found_on_batches_and_with_weights():
    x, y = problem()
    batches = [(x[i : i + 32], y[i : i + 32]) for i in range(0, 400, 32)]
    assert bn.tuning.find_learning_rate(made(), batches).learning_rate
    assert bn.tuning.find_learning_rate(made(), x, y, sample_weight=np.ones(400)).learning_rate
    with pytest.raises(ValueError, match="got an iterator"):
        bn.tuning.find_learning_rate(made(), iter(batches))
    with pytest.raises(ValueError, match="`low` must be below `high`"):
        bn.tuning.find_learning_rate(made(), x, y, low=1.0, high=0.1)


def test_batch_sizes_are_run_and_capped_by_the_data():
    x, y = problem(90)
    model = made()
    model.learning_rate = lambda step: 0.1 / (step + 1)
    found = bn.tuning.find_batch_size(model, x, y)
    assert [trial.rows for trial in found.trials] == [1, 2, 4, 8, 16, 32, 64, 90]
    assert found.batch_size == 90
    assert "all rows" in found.reason
    assert all(trial.fits and trial.seconds > 0 for trial in found.trials)
    assert found.accumulate(48) == (16, 3)
    assert found.accumulate(90) == (90, 1)
    assert bn.tuning.find_batch_size(model, x, y, limit=5).batch_size == 5
    assert "rows/s" in str(found)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory can be limited on Linux only")
def test_running_out_of_memory_ends_the_child_alone():
    x, y = problem(60_000)
    model = bn.Sequential([bn.layers.Dense(256, activation="relu"), bn.layers.Dense(256), bn.layers.Dense(1)])
    model.compile(loss="mse")
    found = bn.tuning.find_batch_size(model, x, y, memory=60_000_000)
    sizes = {trial.rows: trial.fits for trial in found.trials}
    assert sizes[found.batch_size]
    assert found.batch_size < 60_000
    assert not all(sizes.values())
    assert all(fits == (rows <= found.batch_size) for rows, fits in sizes.items())
    with pytest.raises(MemoryError, match="not even a batch of 1 row fits"):
        bn.tuning.find_batch_size(model, x, y, memory=1000)


@settings(max_examples=60)
@given(
    rows=st.integers(2, 200),
    folds=st.integers(2, 10),
    seed=st.integers(0, 99),
    classes=st.integers(1, 6),
    data=st.data(),
)
def test_folds_part_the_rows_and_the_classes_evenly(rows, folds, seed, classes, data):
    folds = min(folds, rows)
    labels = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows)))
    for given_labels in (None, labels):
        places = _folds(rows, folds, seed, given_labels)
        counts = np.bincount(places, minlength=folds)
        assert counts.max() - counts.min() <= 1
        if given_labels is not None:
            for label in range(classes):
                share = np.bincount(places[labels == label], minlength=folds)
                assert share.max() - share.min() <= 1


def test_cross_validation_agrees_with_numpy():
    x, y = problem(120)
    found = bn.tuning.cross_validate(made, x, y, folds=4, epochs=2, seed=3)
    assert np.array_equal(np.sort(np.concatenate(found.rows)), np.arange(120))
    for rows, model, loss in zip(found.rows, found.models, found.scores["loss"], strict=True):
        assert np.isclose(np.mean((model.predict(x[rows]) - y[rows]) ** 2), loss, rtol=1e-5)
    losses = found.scores["loss"]
    assert np.isclose(found.mean["loss"], losses.mean())
    assert np.isclose(found.standard_error["loss"], losses.std(ddof=1) / 2.0)
    again = bn.tuning.cross_validate(made, x, y, folds=4, epochs=2, seed=3)
    assert np.array_equal(again.scores["loss"], losses)
    assert len({model.parameters()["dense.kernel"].tobytes() for model in found.models}) == 4
    assert "standard error" in found._repr_html_()
    assert "±" in repr(found)


def test_cross_validation_hands_on_weights_structures_and_validation():
    x, y = problem(60)
    weight = np.linspace(0.1, 1.0, 60)
    stop = bn.callbacks.EarlyStopping(patience=1)
    options = {"folds": 3, "epochs": 3, "validate": True, "callbacks": [stop], "sample_weight": weight}
    found = bn.tuning.cross_validate(lambda: made(1), x, y, **options)
    assert all("val_loss" in history.history for history in found.histories)
    rows, model = found.rows[0], found.models[0]
    squares = np.mean((model.predict(x[rows]) - y[rows]) ** 2, axis=1)
    assert np.isclose(found.scores["loss"][0], np.average(squares, weights=weight[rows]), rtol=1e-5)
    with pytest.raises(ValueError, match="`folds`"):
        bn.tuning.cross_validate(made, x, y, folds=61)
    one = made()
    with pytest.raises(TypeError, match="new Model every time"):
        bn.tuning.cross_validate(lambda: one, x, y, folds=2)
    with pytest.raises(ValueError, match="`stratify`"):
        bn.tuning.cross_validate(made, x, y, folds=2, stratify=True)


def test_many_seeds_in_a_line():
    x, y = problem(100)
    found = bn.tuning.repeat(made, x[:80], y[:80], test_data=(x[80:], y[80:]), seeds=3, epochs=1)
    assert len(found) == 3
    assert np.isclose(found.models[1].evaluate(x[80:], y[80:])["loss"], found.scores["loss"][1])
    with pytest.raises(TypeError, match="must take the seed"):
        bn.tuning.repeat(lambda: made(1), x, y, test_data=(x, y))


def classifier(seed):
    model = bn.Sequential([bn.layers.Dense(8, activation="tanh"), bn.layers.Dense(3)])
    model.compile(loss="cross_entropy", metrics=["accuracy"], learning_rate=0.05, seed=seed)
    return model


def test_an_ensemble_averages_evaluates_and_is_saved(digits, tmp_path):
    x, y = digits
    found = bn.tuning.cross_validate(classifier, x, y, folds=3, epochs=3)
    logits = np.array([model.predict(x) for model in found.models])
    together = found.ensemble()
    assert np.allclose(together.predict(x), logits.mean(axis=0), atol=1e-6)
    accuracy = np.mean(logits.mean(axis=0).argmax(axis=1) == y)
    assert np.isclose(together.evaluate(x, y)["accuracy"], accuracy)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = (powers / powers.sum(axis=-1, keepdims=True)).mean(axis=0)
    soft = found.ensemble("softmax")
    assert np.allclose(soft.predict(x), np.log(probabilities), atol=1e-5)
    assert np.isclose(soft.evaluate(x, y)["loss"], -np.log(probabilities[np.arange(96), y]).mean(), rtol=1e-5)
    soft.save(tmp_path / "ensemble.safetensors")
    loaded = bn.load(tmp_path / "ensemble.safetensors")
    assert np.array_equal(loaded.predict(x), soft.predict(x))
    assert loaded.evaluate(x, y) == soft.evaluate(x, y)
    several = bn.Ensemble([loaded, loaded])
    several.compile(loss="cross_entropy")
    assert np.allclose(several.predict(x), soft.predict(x), atol=1e-6)
    with pytest.raises(TypeError, match="`models`"):
        bn.Ensemble([])


class Trial:
    """What `OptunaPruning` uses of an Optuna trial."""

    def __init__(self, stop):
        self.stop = stop
        self.reported = []

    def report(self, value, step):
        self.reported.append((step, value))

    def should_prune(self):
        return len(self.reported) >= self.stop


def test_optuna_hears_of_every_epoch_and_prunes(monkeypatch):
    optuna = types.ModuleType("optuna")
    optuna.TrialPruned = type("TrialPruned", (Exception,), {})
    monkeypatch.setitem(sys.modules, "optuna", optuna)
    x, y = problem(80)
    model, trial = made(), Trial(3)
    with pytest.raises(optuna.TrialPruned, match="after epoch 3: val_loss"):
        model.fit(
            x, y, epochs=9, validation_split=0.5, verbose=0, callbacks=bn.callbacks.OptunaPruning(trial, "val_loss")
        )
    assert [step for step, _ in trial.reported] == [0, 1, 2]
    assert [value for _, value in trial.reported][:2] == model.history.history["val_loss"]
    model.fit(x, y, epochs=1, verbose=0)
    with pytest.raises(ValueError, match="`monitor` 'val_los'"):
        model.fit(x, y, verbose=0, callbacks=bn.callbacks.OptunaPruning(trial, "val_los"))
    with pytest.raises(TypeError, match="`trial` must be an Optuna trial"):
        bn.callbacks.OptunaPruning(3)
