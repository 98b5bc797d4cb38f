"""The history as figures, table and curves."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import burnish as bn
from burnish._columns import Columns

LOSSES = [0.9, 0.7, 0.6, 0.65]
VALIDATION = [0.95, 0.72, 0.75, 0.8]


def network():
    model = bn.Sequential([bn.layers.Dense(8, "tanh"), bn.layers.Dense(3)])
    model.compile("cross_entropy", "adam", 0.01, ["accuracy"])
    return model


def made(epochs=4, first=0):
    """A history whose figures are known."""
    history = bn.History()
    history.epoch = list(range(first, first + epochs))
    history.history = {"loss": LOSSES[:epochs], "accuracy": [0.5] * epochs, "val_loss": VALIDATION[:epochs]}
    for epoch in history.epoch:
        history.add_steps(
            {
                "epoch": np.full(2, epoch),
                "step": np.arange(2),
                "learning_rate": np.array([0.1, 0.05]) / (epoch + 1),
                "gradient_norm": np.array([1.0, np.nan]),
                "update_ratio": np.array([1e-3, 1e-2]),
            }
        )
    return history


@pytest.fixture
def agg():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    yield matplotlib
    matplotlib.pyplot.close("all")


def test_history(digits):
    history = network().fit(*digits, epochs=3, validation_split=0.2, verbose=0)
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    frame = history.to_pandas()
    assert frame.index.tolist() == [0, 1, 2]
    assert frame["val_loss"].tolist() == history.history["val_loss"]
    assert repr(history).startswith("<History of 3 epochs: loss=")
    assert set(history.steps) == {
        "epoch", "step", "learning_rate", "loss", "weight", "gradient_norm", "update_ratio", "finite", "accuracy"
    }  # fmt: skip
    assert history.steps["finite"].all()


def test_what_was_loaded_takes_the_place_of_as_many_epochs():
    history, other = bn.History(), bn.History()
    for one, losses in ((history, [2.0, 1.0]), (other, [2.0, 99.0])):
        one.epoch, one.history = [0, 1], {"loss": losses}
        one.state()
    history.load_state(other.state())
    assert history.state()["epochs"]["history"]["values"].tolist() == [[2.0, 99.0]]


def test_metrics_that_another_model_would_finish_otherwise_are_stored_finished():
    class Scaled:
        def __init__(self, factor):
            self.name, self.columns, self.logged, self.factor = "scaled", {"x": "x"}, True, factor

        def finished(self, means, weight):
            return self.factor * means["x"]

    history, names = bn.History(), ("weight", "loss", "metric.x", "epoch", "step")
    mine = [Scaled(2.0)]
    history.add_rows(names, np.arange(10.0).reshape(2, 5), mine)
    assert history.steps["scaled"].tolist() == [4.0, 14.0]
    for stored, loaded in ((mine, mine), ([Scaled(3.0)], [Scaled(3.0)])):
        again = bn.History()
        again.load_state(history.state(stored), loaded)
        assert again.steps["scaled"].tolist() == [4.0, 14.0]


def test_a_history_is_pickled_whatever_its_metrics_are_made_of(digits):
    class Twice(bn.metrics.Metric):
        def columns(self, target, prediction):
            return {"right": bn.ops.cast(bn.ops.equal(bn.ops.argmax(prediction), target), "float")}

        def finish(self, sums):
            return 2.0 * sums["right"] / sums["weight"]

    model = bn.Sequential([bn.layers.Dense(10)])
    model.compile("cross_entropy", "adam", metrics=["accuracy", Twice("twice")])
    history = model.fit(*digits, epochs=2, verbose=0)
    np.testing.assert_allclose(history.steps["twice"], 2 * history.steps["accuracy"])
    for again in (pickle.loads(pickle.dumps(history)), copy.deepcopy(history)):
        assert again.history == history.history
        assert again.steps.keys() == history.steps.keys()
        assert all(np.array_equal(again.steps[name], column) for name, column in history.steps.items())


def test_the_best_epoch():
    history = made(first=5)
    assert history.best_epoch() == 6
    assert history.best_epoch("loss") == 7
    assert history.best_epoch("loss", mode="max") == 5
    history.history["val_accuracy"] = [np.nan, 0.1, 0.7, 0.7]
    assert history.best_epoch("val_accuracy") == 7
    history.history["loss"] = [np.nan] * 4
    assert history.best_epoch("loss") is None
    assert bn.History().best_epoch() is None
    with pytest.raises(ValueError, match="`monitor`: unknown name 'val_los'; did you mean 'val_loss'"):
        history.best_epoch("val_los")


def test_table():
    assert made().table() == "\n".join(
        [
            "epoch  loss  accuracy  val_loss  learning_rate  gradient_norm",
            "    1   0.9       0.5      0.95           0.05              1",
            "   2*   0.7       0.5      0.72          0.025              1",
            "    3   0.6       0.5      0.75       0.016667              1",
            "    4  0.65       0.5       0.8         0.0125              1",
        ]
    )
    assert str(made()) == made().table()
    assert str(bn.History()) == "<History of 0 epochs: >"


def test_a_long_table_shows_both_ends_and_the_best():
    history = bn.History()
    history.epoch = list(range(100))
    history.history = {"loss": [abs(40 - epoch) for epoch in range(100)]}
    numbers = [line.split()[0] for line in history.table(5).splitlines()]
    assert numbers == ["epoch", "1", "2", "…", "41*", "…", "98", "99", "100"]
    assert len(history.table(None).splitlines()) == 101
    assert history._repr_html_().count("<tr") < 70
    with pytest.raises(ValueError, match="`rows`"):
        history.table(0)


def test_a_table_in_a_notebook():
    history = made()
    history.history["<b>"] = [1.0]  # a callback's own name and gap
    html = history._repr_html_()
    assert html.count("<tr") == 5
    assert html.count("font-weight:bold") == 1
    assert '<tr style="font-weight:bold" title="best epoch"><td>2</td><td>0.7</td>' in html
    assert "<th>&lt;b&gt;</th>" in html


def test_a_figure_of_some_epochs_stays_with_them(digits):
    def add(epoch, logs):
        logs.update({"late": 7.0, "word": "x"} if epoch == 2 else {"early": 5.0} if epoch == 0 else {})

    model = network()
    history = model.fit(*digits, epochs=4, verbose=0, callbacks=[bn.callbacks.LambdaCallback(on_epoch_end=add)])
    nan = pytest.approx(np.nan, nan_ok=True)
    assert history.history["late"] == [nan, nan, 7.0, nan]
    assert history.history["early"] == [5.0, nan, nan, nan]
    head, *rows = [line.split() for line in history.table().splitlines()]
    assert head == ["epoch", "loss", "accuracy", "early", "late", "word", "learning_rate", "gradient_norm"]
    assert ["5" in row[3:-2] for row in rows] == [True, False, False, False]
    assert [row[3:5] == ["7", "x"] for row in rows] == [False, False, True, False]
    assert history.to_pandas()["late"].dropna().to_dict() == {2: 7.0}


def test_the_figures_of_a_parameter_are_those_of_its_epochs(digits):
    def freeze(epoch, logs):
        if epoch in {1, 2}:
            (model.freeze if epoch == 1 else model.unfreeze)("dense")

    model = network()
    history = model.fit(*digits, epochs=4, verbose=0, callbacks=[bn.callbacks.LambdaCallback(on_epoch_begin=freeze)])
    norms = history.parameters["dense.kernel"]["gradient_norm"]
    assert np.isnan(norms).tolist() == [False, True, False, False]
    assert np.isfinite(history.parameters["dense_1.kernel"]["gradient_norm"]).tolist() == [True] * 4


def test_curves(agg):
    figure = made().plot()
    assert [axis.get_ylabel() for axis in figure.axes] == [
        "loss",
        "accuracy",
        "learning_rate",
        "gradient_norm",
        "update_ratio",
    ]
    training, validation, best = figure.axes[0].lines
    assert training.get_xdata().tolist() == validation.get_xdata().tolist() == [1, 2, 3, 4]
    assert training.get_ydata().tolist() == LOSSES
    assert validation.get_ydata().tolist() == VALIDATION
    assert list(best.get_xdata()) == [2, 2]
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["training", "validation", "gap", "best epoch 2"]
    (gap,) = figure.axes[0].collections
    corners = {tuple(np.round(point, 9)) for point in gap.get_paths()[0].vertices}
    assert {(x, y) for x, y in zip([1, 2, 3, 4], VALIDATION, strict=True)} <= corners
    rate, _ = figure.axes[2].lines
    assert rate.get_xdata().tolist() == [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]
    assert figure.axes[4].get_yscale() == "linear"
    norm, _ = figure.axes[3].lines
    assert norm.get_ydata().tolist() == [1.0] * 4  # NaN, where a group stayed open, is left out


def test_many_steps_are_drawn_as_mean_and_band(agg):
    history = bn.History()
    norms = np.random.default_rng(0).lognormal(sigma=2.0, size=10_000)
    history.add_steps({"epoch": np.repeat(np.arange(10), 1000), "gradient_norm": norms})
    axis = history.plot(["gradient_norm"]).axes[0]
    (line,) = axis.lines
    assert len(line.get_ydata()) <= 300
    np.testing.assert_allclose(line.get_ydata()[0], norms[:34].mean())
    assert line.get_xdata()[-1] == 10
    assert axis.get_yscale() == "log"
    assert axis.collections[0].get_paths()[0].vertices[:, 1].max() == norms.max()


def test_what_to_draw_and_where(agg, digits):
    history = network().fit(*digits, epochs=2, validation_split=0.2, verbose=0)
    _, axes = agg.pyplot.subplots(1, 2)
    assert history.plot(["accuracy", "update_ratio"], axes=axes) is axes[0].figure
    assert [axis.get_ylabel() for axis in axes] == ["accuracy", "update_ratio"]
    with pytest.raises(ValueError, match="`names`: unknown name 'acuracy'; did you mean 'accuracy'"):
        history.plot(["acuracy"])
    with pytest.raises(ValueError, match="`axes` must hold one for each of loss, got 2"):
        history.plot(["loss"], axes=[None, None])


def test_a_history_without_epochs_can_be_drawn(agg, digits):
    assert network().fit(*digits, epochs=0, verbose=0).plot().axes


def test_what_the_logs_hold_of_the_steps_is_drawn_by_step(agg, digits):
    history = network().fit(*digits, epochs=3, verbose=0, callbacks=bn.callbacks.Monitor())
    figure = history.plot()
    names = [axis.get_ylabel() for axis in figure.axes]
    assert names == ["loss", "accuracy", "learning_rate", "gradient_norm", "update_ratio"]
    assert len(figure.axes[3].lines[0].get_xdata()) == len(history.steps["step"])


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["read", "last", ""])), max_size=12))
def test_rows_are_what_was_appended_and_what_was_read_does_not_change(steps):
    columns, expected, read = Columns(("a", "b"), np.arange(6.0).reshape(3, 2)), np.arange(6.0).reshape(3, 2), []
    for length, what in steps:
        rows = np.random.default_rng(len(expected)).normal(size=(length, 2))
        columns.append(rows)
        expected = np.vstack([expected, rows])
        if what == "last":
            columns.set_last({"b": -1.0})
            expected[-1, 1] = -1.0
        elif what:
            read.append((columns.read(), expected.copy()))
        for found, held in [(columns.read(), expected), *read]:
            assert np.array_equal(found, held)


def test_rows_with_other_columns_are_another_part():
    history = bn.History()
    history.add_steps({"epoch": np.zeros(2), "step": np.arange(2), "loss": np.ones(2), "mae": np.ones(2)})
    history.add_steps({"epoch": np.zeros(1), "step": np.full(1, 2), "loss": np.ones(1), "mse": np.ones(1)})
    history.add_steps({"epoch": np.ones(1), "step": np.zeros(1), "loss": np.full(1, 3.0), "mse": np.ones(1)})
    assert {name: values.tolist() for name, values in history.steps.items()} == {
        "epoch": [0, 0, 0, 1], "step": [0, 1, 2, 0], "loss": [1.0, 1.0, 1.0, 3.0]
    }  # fmt: skip
    assert [history.steps_of(epoch)["step"].tolist() for epoch in (0, 1)] == [[0, 1, 2], [0]]
    assert not history.steps_of(2)
    again = bn.History()
    again.load_state(history.state())
    assert {name: values.tolist() for name, values in again.steps.items()} == {
        name: values.tolist() for name, values in history.steps.items()
    }
