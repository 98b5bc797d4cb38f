"""The doctor on every run of the gallery, and the engine's search for the first number that is not finite."""

import ast
import re
import warnings
from pathlib import Path

import gallery
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import burnish as bn
from burnish.doctor import Finding, Remedy, Report

GUIDE = Path(__file__).parents[1] / "docs" / "doctor.md"


@pytest.mark.parametrize("entry", gallery.BROKEN, ids=lambda entry: entry.name)
def test_an_ailment_is_found(entry):
    report = entry.run()
    assert not report.healthy
    finding = report[entry.ailment]
    assert finding.severity != "note"
    assert finding.figures
    assert re.search(r"\d|every|no update|hold whole", finding.text)
    for found in report:
        assert found.remedies
        for remedy in found.remedies:
            ast.parse(remedy.code)


@pytest.mark.parametrize("entry", gallery.HEALTHY, ids=lambda entry: entry.name)
def test_a_healthy_run_is_left_alone(entry):
    assert entry.run().findings == []


def test_the_gallery_is_large_enough_and_the_guide_names_every_ailment():
    assert len(gallery.BROKEN) >= 15
    assert len(gallery.HEALTHY) >= 10
    guide = GUIDE.read_text(encoding="utf-8")
    for ailment in {entry.ailment for entry in gallery.BROKEN}:
        assert f"`{ailment}`" in guide, ailment


def diagnosed(layer, loss, x, y, **options):
    """Train one epoch in order; return the doctor's finding."""
    model = bn.Sequential([bn.layers.Dense(1, kernel_initializer="ones", name="first"), layer])
    model.compile(loss=loss, optimizer="sgd", learning_rate=0.0, **options)
    doctor = bn.Doctor(verbose=0, check_data=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0, check_data=False, callbacks=doctor)
    return doctor.report["not_finite"]


def ones(rows=24):
    return np.ones((rows, 1)), np.ones((rows, 1))


class Logarithm(bn.layers.Layer):
    def call(self, x):
        return bn.ops.log(x)


class Twice(bn.layers.Layer):
    def call(self, x):
        return x * 2.0


def root(target, prediction):
    return bn.ops.sqrt(bn.ops.abs(prediction - 2.0 * target))


@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_first_operation_is_named_whatever_the_chunks_and_groups(accumulate, chunked):
    x, y = ones()
    x[14] = -3.0
    extra = [] if chunked else [bn.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)]
    model = bn.Sequential([bn.layers.Dense(1, kernel_initializer="ones"), Logarithm()])
    model.compile(loss="mse", optimizer="sgd", learning_rate=0.0, accumulate_gradients=accumulate)
    doctor = bn.Doctor(verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[doctor, *extra])
    found = doctor.report["not_finite"].figures
    place = [found[name] for name in ("origin", "name", "layer", "row", "epoch", "step", "bad", "elements")]
    assert place == ["activation", "log", "logarithm", 14, 0, 3, 1, 4]


def test_data_loss_and_gradient_are_told_apart():
    x, y = ones()
    x[6] = np.nan
    found = diagnosed(Twice(), "mse", x, y)
    assert [found.figures[name] for name in ("origin", "name", "row", "step")] == ["input", "x", 6, 1]
    assert found.step == 1
    x, y = ones()
    y[9] = np.inf
    assert diagnosed(Twice(), "mse", x, y).figures["name"] == "y"
    x, y = ones()
    x[8] = 2.0
    found = diagnosed(Twice(), lambda target, prediction: bn.ops.log(3.0 - prediction), x, y)
    assert [found.figures[name] for name in ("origin", "name", "row")] == ["loss", "log", 8]
    assert "maximum" in found.remedies[0].code
    x, y = ones()
    x[3] = 0.0
    y[3] = 0.0
    x[4:], y[4:] = 2.0, 3.0
    x[:3], y[:3] = 2.0, 3.0
    found = diagnosed(Twice(), root, x, y)
    assert [found.figures[name] for name in ("origin", "name", "row", "step")] == ["gradient", "sqrt", 3, 0]


def test_an_infinite_mask_is_not_blamed():
    x, y = ones()
    x[5] = np.nan

    class Masked(bn.layers.Layer):
        def call(self, value):
            pair = bn.ops.concatenate([value, value * 0.0 - np.inf], axis=-1)
            return bn.ops.sum(bn.ops.softmax(pair) * value, -1, keepdims=True)

    assert diagnosed(Masked(), "mse", x, y).figures["origin"] == "input"


def test_watching_changes_no_bit():
    x, y = gallery.regression()
    x[100] = 1e30

    def trained(callbacks):
        model = bn.Sequential([bn.layers.Dense(8, activation="relu"), bn.layers.Dropout(0.2), bn.layers.Dense(1)])
        model.compile(loss="mse", learning_rate=0.01)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            history = model.fit(x, y, epochs=3, verbose=0, callbacks=callbacks, validation_split=0.25)
        arrays = [*model.parameters().values(), *history.steps.values()]
        return [array.tobytes() for array in arrays], history.history

    assert trained([]) == trained([bn.Doctor(verbose=0)])


def test_statistics_are_tried_on_a_copy():
    x, y = gallery.regression(rows=800)

    def trained(callbacks, **options):
        model = gallery.normalised(momentum=0.99)
        model.compile(loss="mse", learning_rate=0.01, **options)
        model.fit(x, y, epochs=3, verbose=0, callbacks=callbacks, validation_split=0.5)
        return {path: array.tolist() for path, array in model.parameters(buffers=True).items()}

    doctor = bn.Doctor(verbose=0)
    assert trained([]) == trained([doctor])
    finding = doctor.report["statistics_behind"]
    assert doctor.report.ailments == ["statistics_behind"]  # what they cause is no overfitting
    assert finding.figures["val_loss_settled"] < 0.75 * finding.figures["val_loss"]
    assert "momentum=0.74" in finding.remedies[0].code  # of 39 updates, the last ten or so
    trained([doctor], ema=0.9)  # validation has other weights, which no copy has
    assert "statistics_behind" not in doctor.report


def test_nothing_is_tried_when_a_fit_is_interrupted():
    class Interrupts(bn.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 3:
                raise KeyboardInterrupt

    x, y = gallery.regression(rows=800)
    model = gallery.normalised(momentum=0.99)
    model.compile(loss="mse", learning_rate=0.01)
    doctor = bn.Doctor(verbose=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, epochs=9, verbose=0, callbacks=[Interrupts(), doctor], validation_split=0.5)
    assert len(model.history.epoch) == 3
    assert "statistics_behind" not in doctor.report


@pytest.mark.parametrize("momentum", [0.9, 0.99])
def test_what_was_learnt_by_heart_is_not_the_statistics_fault(momentum):
    x, y = gallery.classes(rows=300, apart=0.5)
    model = gallery.normalised(3, momentum=momentum)
    model.compile(loss="cross_entropy", learning_rate=0.01)
    report = gallery.examined(model, x[:60], y[:60], epochs=20, validation_data=(x[60:], y[60:]))
    assert report.ailments == ["overfitting"]


def test_a_history_alone_is_examined():
    x, y = gallery.regression()
    model = gallery.mlp()
    model.compile(loss="mse", optimizer="sgd", learning_rate=1e-6)
    history = model.fit(x, y, epochs=3, verbose=0)
    assert bn.Doctor().examine(history).ailments == ["updates_too_small"]
    report = bn.Doctor().examine(history, 1000.0 * x, y, validation_data=(1000.0 * x[:50], y[:50]), model=model)
    assert set(report.ailments) == {"leak", "unscaled_data", "updates_too_small"}
    assert bn.Doctor().examine(bn.History()).healthy


NUMBERS = [0.0, 1.0, -1.0, 1e-30, 1e30, np.nan, np.inf, -np.inf, 0.3]


@settings(max_examples=150)
@given(steps=st.integers(1, 60), epochs=st.integers(1, 6), kinds=st.integers(1, len(NUMBERS)), seed=st.integers(0, 999))
def test_no_history_is_too_strange(steps, epochs, kinds, seed):
    generator = np.random.default_rng(seed)
    numbers = generator.permutation(NUMBERS)[:kinds]

    def column():
        return generator.choice(numbers, steps)

    history = bn.History()
    history.epoch = list(range(epochs))
    history.history = {name: list(column()[:epochs]) for name in ("loss", "val_loss", "accuracy", "val_accuracy")}
    names = ("loss", "weight", "gradient_norm", "update_ratio", "learning_rate")
    columns = {name: column() for name in names}
    columns |= {"epoch": np.sort(np.arange(steps) % epochs), "step": np.arange(steps), "finite": column() > 0}
    history.add_steps(columns)
    history.parameters = {"a.kernel": {"gradient_norm": list(column()), "update_ratio": list(column())}}
    history.activations = {"a": {"zeros": list(column()), "dead": list(column())}}
    history.timing = {name: list(column()) for name in ("data", "engine", "validation", "total")}
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert str(bn.Doctor().examine(history))


def test_history_tells_where_the_time_went():
    x, y = gallery.regression()
    model = gallery.mlp()
    model.compile(loss="mse")
    timing = model.fit(x, y, epochs=3, validation_split=0.5, verbose=0).timing
    assert all(len(seconds) == 3 for seconds in timing.values())
    for data, engine, validation, total in zip(*(timing[name] for name in timing), strict=True):
        assert 0 <= data + engine + validation <= total
        assert min(engine, validation) > 0


def test_the_report_speaks_on_paper_and_in_a_notebook(capsys):
    finding = Finding("dead_units", "warning", "half < all", {"dead": 0.5}, (Remedy("Try <this>", "a < b"),), 2, 4)
    note = Finding("overfitting", "note", "a little", {"gap": 0.1}, ())
    report = Report([note, finding])
    assert str(report).splitlines()[1:3] == ["! dead units (epoch 3, step 5): half < all", "    1. Try <this>:"]
    assert "half &lt; all" in report._repr_html_()
    assert report.ailments == ["dead_units", "overfitting"]
    assert not report.healthy
    assert Report([note]).healthy
    assert "nothing wrong" in repr(Report([]))
    with pytest.raises(KeyError, match="dead_units, overfitting"):
        report["leak"]
    x, y = gallery.regression()
    model = gallery.mlp()
    model.compile(loss="mse", optimizer="sgd", learning_rate=1e-7)
    model.fit(x, y, epochs=3, verbose=0, callbacks=bn.Doctor())
    assert "updates too small" in capsys.readouterr().out


def test_the_diagnosis_survives_in_a_checkpoint():
    doctor = bn.Doctor(verbose=0)
    assert doctor.state() == {"diagnosis": None}
    state = {"diagnosis": [0, 3, "loss", "log", "", 1, 4, None]}
    doctor.load_state(state)
    assert doctor.state() == state
