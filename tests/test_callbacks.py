"""Callbacks: their order, what they count, and that they go on where they were."""

import csv
import itertools
import json
import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import burnish as bn
from burnish import callbacks
from burnish._tree import pack, unpack
from burnish.callbacks import Callback
from burnish.callbacks.collection import CallbackList

X = np.random.default_rng(1).normal(size=(40, 3))


def network(learning_rate=0.5):
    model = bn.Sequential([bn.layers.Dense(1)])
    model.compile("mse", "sgd", learning_rate)
    return model.build((None, 3))


class Script(Callback):
    """Puts given numbers into the logs."""

    def __init__(self, values):
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs["watched"] = self.values[epoch]


def fit(model, values, *several, **options):
    model.fit(X, X[:, :1], epochs=len(values), callbacks=[Script(values), *several], verbose=0, **options)
    return model.history


MAKE = {
    "CSVLogger": lambda folder: callbacks.CSVLogger(folder / "log.csv"),
    "Checkpoint": lambda folder: callbacks.Checkpoint(folder / "run"),
    "Doctor": lambda folder: callbacks.Doctor(verbose=0),
    "EMA": lambda folder: callbacks.EMA(0.5),
    "EarlyStopping": lambda folder: callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True),
    "JSONLogger": lambda folder: callbacks.JSONLogger(folder / "log.jsonl"),
    "LambdaCallback": lambda folder: callbacks.LambdaCallback(),
    "LearningRateScheduler": lambda folder: callbacks.LearningRateScheduler(lambda epoch: 0.1),
    "MLflow": lambda folder: (
        pytest.importorskip("mlflow")
        and callbacks.MLflow(tracking_uri=f"file://{folder}/runs", backup=folder / "log.jsonl")
    ),
    "ModelCheckpoint": lambda folder: callbacks.ModelCheckpoint(folder / "model", "loss", save_best_only=True),
    "Monitor": lambda folder: callbacks.Monitor(),
    "ReduceLROnPlateau": lambda folder: callbacks.ReduceLROnPlateau("loss", patience=1),
    "SWA": lambda folder: callbacks.SWA(1),
    "TensorBoard": lambda folder: pytest.importorskip("tensorboardX") and callbacks.TensorBoard(folder / "logs"),
    "TerminateOnNaN": lambda folder: callbacks.TerminateOnNaN(),
    "Timer": lambda folder: callbacks.Timer(),
    "Tracker": lambda folder: callbacks.Tracker(folder / "log.jsonl"),
    "WandB": lambda folder: (
        pytest.importorskip("wandb") and callbacks.WandB(directory=folder, backup=folder / "log.jsonl")
    ),
}


@pytest.mark.parametrize("name", MAKE)
def test_a_state_goes_through_a_checkpoint_and_says_all(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # mlflow-skinny has no other store without a server
    callback = MAKE[name](tmp_path)
    states = []

    class Looks(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            states.append(pack(callback.state(), "x"))

    model = network()
    model.fit(X, X[:, :1], epochs=4, callbacks=[Looks(), callback], verbose=0)
    for plain, arrays in states:
        again = MAKE[name](tmp_path)
        again.set_model(network())
        again.model.train_on_batch(X, X[:, :1])
        again.set_params(callback.params)
        again.on_train_begin({})
        if plain:
            again.load_state(unpack(json.loads(json.dumps(plain)), arrays, "x"))
        found, others = pack(again.state(), "x")
        again.on_train_end({})
        assert json.dumps(found) == json.dumps(plain)
        assert {place: array.tobytes() for place, array in others.items()} == {
            place: array.tobytes() for place, array in arrays.items()
        }


def test_every_callback_with_a_state_is_in_the_suite():
    kinds = [getattr(callbacks, name) for name in callbacks.__all__]
    stateful = {kind for kind in kinds if kind.state is not Callback.state}
    # Trackers need their libraries; `test_trackers` has them.
    assert {kind.__name__ for kind in stateful if not issubclass(kind, callbacks.Tracker)} <= set(MAKE)


def plateau(values, patience, cooldown, delta):
    """Walk through the rule in plain words: which epochs end with a reduction."""
    best, bad, quiet, reduced = math.inf, 0, 0, []
    for epoch, value in enumerate(values):
        better = value < best if math.isinf(best) else best - value > delta
        best = value if better else best
        if quiet > 0:
            quiet -= 1
            continue
        bad = 0 if better else bad + 1
        if not better and bad >= patience:
            reduced.append(epoch)
            bad, quiet = 0, cooldown
    return reduced


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from([1.0, 2.0, 3.0, 2.95, float("nan")]), min_size=1, max_size=12),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.1]),
)
def test_plateau(values, patience, cooldown, delta):
    model = network()
    reduce = callbacks.ReduceLROnPlateau(
        "watched", factor=0.5, patience=patience, cooldown=cooldown, min_delta=delta, mode="min"
    )
    reduce.set_model(model)
    reduce.on_train_begin({})
    for epoch, value in enumerate(values):
        logs = {"watched": value}
        before = model.learning_rate
        reduce.on_epoch_end(epoch, logs)
        assert logs["learning_rate"] == before
        done = [one for one in plateau(values, patience, cooldown, delta) if one <= epoch]
        assert model.learning_rate == 0.5 * 0.5 ** len(done)


def test_a_cooldown_lasts_exactly_as_long():
    model = network(1.0)
    reduce = callbacks.ReduceLROnPlateau("watched", factor=0.5, patience=1, cooldown=2)
    history = fit(model, [1, 1, 1, 1, 1, 1, 1, 1], reduce)
    # Reduced after epochs 1, 4 and 7; epochs 2, 3, 5 and 6 are not counted.
    assert history.history["learning_rate"] == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert model.learning_rate == 0.125


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (bn.schedules.Linear(1.0, 0.0, 8), [1.0, 0.75, 0.25, 0.125]),
        (lambda update: 1.0 / (1 + update), [1.0, 1 / 3, 0.1, 1 / 14]),
    ],
)
def test_a_plateau_multiplies_a_schedule(rate, expected):
    reduce = callbacks.ReduceLROnPlateau("watched", factor=0.5, patience=1)
    history = fit(network(rate), [1, 1, 0, 0], reduce, batch_size=20)
    np.testing.assert_allclose(history.steps["learning_rate"][::2], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("rate", "several", "expected"),
    [
        # 4 updates an epoch; reduced after the second one.
        (bn.schedules.Linear(1.6, 0.0, 16), ["plateau"], [1.3, 0.9, 0.25, 0.05]),
        (bn.schedules.StepDecay(1.0, 1, 0.5, unit="epoch"), ["plateau"], [1.0, 0.5, 0.125, 0.0625]),
        (1.0, ["plateau", "plateau"], [1.0, 1.0, 0.25, 0.25]),
        (1.0, ["plateau", "scheduler"], [0.1, 0.2, 0.3, 0.4]),
        (bn.schedules.Linear(1.6, 0.0, 16), ["late"], [1.3, 0.9, 0.5, 0.1]),
    ],
)
def test_an_epoch_s_rate_in_the_logs_is_that_of_its_last_update(rate, several, expected, tmp_path):
    make = {
        "plateau": lambda: callbacks.ReduceLROnPlateau("watched", factor=0.5, patience=1),
        "scheduler": lambda: callbacks.LearningRateScheduler(lambda epoch: (epoch + 1) / 10),
        "late": lambda: callbacks.LearningRateScheduler(lambda epoch: rate),
    }
    log = callbacks.CSVLogger(tmp_path / "log.csv")
    history = fit(network(rate), [2, 2, 1, 0], *(make[name]() for name in several), log, batch_size=10)
    np.testing.assert_allclose(history.history["learning_rate"], expected, rtol=1e-12)
    assert history.history["learning_rate"] == history.steps["learning_rate"][3::4].tolist()
    rows = [line.split(",") for line in (tmp_path / "log.csv").read_text().splitlines()]
    assert [float(row[rows[0].index("learning_rate")]) for row in rows[1:]] == history.history["learning_rate"]


def test_a_plateau_stops_at_its_least_rate(capsys):
    model = network(1.0)
    reduce = callbacks.ReduceLROnPlateau("watched", factor=0.1, patience=1, min_lr=0.05, verbose=1)
    fit(model, [1, 1, 1, 1], reduce)
    assert model.learning_rate == 0.05
    assert capsys.readouterr().out.splitlines() == [
        "epoch 2: learning rate reduced to 0.1",
        "epoch 3: learning rate reduced to 0.05",
    ]
    scheduled = network(bn.schedules.Constant(1.0))
    fit(scheduled, [1, 1, 1, 1], callbacks.ReduceLROnPlateau("watched", patience=1, min_lr=0.05))
    assert scheduled.learning_rate == pytest.approx(0.05, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"factor": 1.0}, "`factor` must be a finite number in (0, 1)"),
        ({"factor": 0}, "`factor` must be a finite number in (0, 1)"),
        ({"patience": -1}, "`patience` must be an integer of at least 0"),
        ({"cooldown": -1}, "`cooldown` must be an integer of at least 0"),
        ({"min_lr": -1.0}, "`min_lr` must be a finite number of at least 0"),
        ({"mode": "up"}, "`mode`: unknown name 'up'"),
    ],
)
def test_arguments(options, words):
    with pytest.raises(ValueError) as told:  # noqa: PT011  the words are compared below
        callbacks.ReduceLROnPlateau(**options)
    assert words in str(told.value)


def test_the_order_at_an_epoch_s_end():
    called = []

    def noting(kind, **options):
        class Noting(kind):
            def on_epoch_end(self, epoch, logs=None):
                called.append(self)
                super().on_epoch_end(epoch, logs)

        return Noting("watched", **options)

    user = [callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs, n=n: called.append(n)) for n in range(3)]
    stop = noting(callbacks.EarlyStopping, patience=9)
    reduce, second = noting(callbacks.ReduceLROnPlateau), noting(callbacks.ReduceLROnPlateau)
    save = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: called.append("save"))
    save.rank = callbacks.ModelCheckpoint.rank
    fit(network(), [1], save, user[0], stop, user[1], reduce, user[2], second)
    assert called == [0, 1, reduce, 2, second, stop, "save"]


@given(st.lists(st.sampled_from([None, 0, 1, 2]), max_size=7))
def test_order_is_by_rank_and_nobody_is_called_early(ranks):
    several = []
    for rank in ranks:
        several.append(Callback())
        several[-1].rank = rank
    called = CallbackList(several, None, {})._by_rank
    assert sorted(map(id, called)) == sorted(map(id, several))
    ranked = [callback.rank for callback in called if callback.rank is not None]
    assert ranked == sorted(ranked)
    without = [callback for callback in called if callback.rank is None]
    assert without == [callback for callback in several if callback.rank is None]
    for index, callback in enumerate(several):
        if callback.rank is not None:
            earlier = several[:index]
            assert all(
                called.index(one) < called.index(callback) for one in earlier if one.rank in (None, callback.rank)
            )


def test_a_callback_that_raises_is_what_is_told_and_the_rest_is_ended():
    ended = []

    def fail(*_):
        raise RuntimeError("first")

    def fail_again(*_):
        raise OSError("second")

    several = [
        callbacks.LambdaCallback(on_epoch_begin=fail),
        callbacks.LambdaCallback(on_train_end=fail_again),
        callbacks.LambdaCallback(on_train_end=lambda logs: ended.append(1)),
    ]
    model = network()
    with pytest.raises(RuntimeError, match="first") as told:
        fit(model, [1], *several)
    assert told.value.__notes__ == ["and when the fit was ended: OSError: second"]
    assert ended == [1]
    assert np.isfinite(model.predict(X)).all()


class Keeps(Callback):
    """Keeps a callback's states at the beginning of epochs."""

    def __init__(self, callback):
        self.callback, self.states = callback, []

    def on_epoch_begin(self, epoch, logs=None):
        self.states.append(self.callback.state())


def continued(logger, state, rows):
    """Go on with a log and write some rows."""
    logger.on_train_begin({})
    logger.load_state(state)
    for epoch, logs in rows:
        logger.on_epoch_end(epoch, logs)
    logger.on_train_end({})


@pytest.mark.parametrize("append", [False, True])
def test_a_resumed_log_has_every_epoch_once(tmp_path, append):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss,watched\n9,9,9\n")
    logger = callbacks.CSVLogger(path, append=append)
    keeps = Keeps(logger)
    history = fit(network(), [5.0, 4.0, 3.0, 2.0], keeps, logger).history
    written = path.read_text()
    assert [int(row["epoch"]) for row in csv.DictReader(written.splitlines())] == [*[9] * append, 0, 1, 2, 3]
    rows = [(epoch, {name: values[epoch] for name, values in history.items()}) for epoch in range(4)]
    for done, state in enumerate(keeps.states):
        continued(callbacks.CSVLogger(path, append=append), state, rows[done:])
        assert path.read_text() == written


def test_a_log_that_lost_rows_is_told(tmp_path):
    path = tmp_path / "log.csv"
    with pytest.warns(RuntimeWarning, match="is shorter than when the checkpoint was written"):
        continued(callbacks.CSVLogger(path), {"size": 100}, [(2, {"loss": 1.0})])
    assert path.read_text().splitlines() == ["epoch,loss", "2,1.0"]


def test_a_log_that_cannot_be_written_is_told_at_the_beginning(tmp_path):
    with pytest.raises(FileNotFoundError):
        fit(network(), [1], callbacks.CSVLogger(tmp_path / "absent" / "log.csv"))


def test_a_log_without_a_row_is_not_left(tmp_path):
    raises = callbacks.LambdaCallback(on_train_begin=lambda logs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit(network(), [1], callbacks.CSVLogger(tmp_path / "new.csv"), raises)
    fit(network(), [], callbacks.CSVLogger(tmp_path / "new.csv"))
    assert not (tmp_path / "new.csv").exists()
    (tmp_path / "old.csv").write_text("epoch,loss\n0,1\n")
    fit(network(), [], callbacks.CSVLogger(tmp_path / "old.csv"))
    assert (tmp_path / "old.csv").read_text() == "epoch,loss\n0,1\n"


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: callbacks.CSVLogger("log.csv", ", "), ValueError, "`separator` must be one character.*got ', '"),
        (lambda: callbacks.CSVLogger("log.csv", ""), ValueError, "`separator`"),
        (lambda: callbacks.CSVLogger("log.csv", "\n"), ValueError, "`separator`"),
        (lambda: callbacks.CSVLogger("log.csv", 3), TypeError, "`separator` must be one character, got 3"),
        (lambda: callbacks.CSVLogger(3), TypeError, r"`filename` must be a path, got 3 \(int\)"),
        (lambda: callbacks.JSONLogger(None), TypeError, "`filename` must be a path, got None"),
        (lambda: callbacks.ModelCheckpoint(3), TypeError, r"`filepath` must be a path, got 3 \(int\)"),
        (lambda: callbacks.ModelCheckpoint("m-{epoch:.2q}"), ValueError, "`filepath` 'm-{epoch:.2q}' cannot be filled"),
        (lambda: callbacks.ModelCheckpoint("m-{loss"), ValueError, "`filepath` 'm-{loss' cannot be filled in"),
        (lambda: callbacks.ModelCheckpoint("m-{}"), ValueError, "`filepath` 'm-{}' cannot be filled in"),
        (lambda: callbacks.ModelCheckpoint("m-{loss.x}"), ValueError, "`filepath` 'm-{loss.x}' cannot be filled in"),
        (lambda: callbacks.ModelCheckpoint("m-{loss!x}"), ValueError, "`filepath` 'm-{loss!x}' cannot be filled in"),
    ],
)
def test_paths_and_separators_are_checked_when_they_are_given(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("m-{loss:zz}", ValueError),
        ("m-{loss:d}", ValueError),
        ("file/m-{loss:.2f}", OSError),
        ("file/below/m", OSError),
        ("folder", OSError),
        ("new/", OSError),
    ],
)
def test_a_file_that_cannot_be_saved_is_told_before_the_first_step(tmp_path, name, error):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    model, steps = network(), []
    watch = callbacks.LambdaCallback(on_train_begin=steps.append, on_epoch_end=lambda epoch, logs: steps.append(epoch))
    with pytest.raises(error, match="ModelCheckpoint: `filepath`"):
        fit(model, [1], watch, callbacks.ModelCheckpoint(f"{tmp_path}/{name}"))
    assert not steps
    assert model.history is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_path_may_hold_every_figure_and_new_folders(tmp_path):
    class Words(Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["word"], logs["count"] = "well", epoch + 7

    path = tmp_path / "{word:>5}" / "{{{count:03d}}}-{epoch}-{loss:.1f}-{watched}"
    history = fit(network(), [0.5], Words(), callbacks.ModelCheckpoint(path)).history
    assert (tmp_path / " well" / f"{{007}}-1-{history['loss'][0]:.1f}-0.5").exists()


def test_timer(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    class Slow(Callback):
        def on_train_batch_end(self, batch, logs=None):
            now[0] += 0.5

        def on_test_end(self, logs=None):
            now[0] += 60

    model = network()
    history = model.fit(
        X, X[:, :1], epochs=2, batch_size=10, validation_data=(X, X[:, :1]), callbacks=[Slow(), callbacks.Timer()],
        verbose=0,
    )  # fmt: skip
    assert history.history["seconds"] == [2.0, 2.0]
    assert history.history["samples_per_second"] == [20.0, 20.0]
    timer = callbacks.Timer()
    timer.load_state({"seconds": 5.0, "samples": 100})
    now[0] += 1.0
    timer.on_progress(1, {}, 20)
    logs = {}
    timer.on_epoch_end(0, logs)
    assert logs == {"seconds": 6.0, "samples_per_second": 20.0}


def test_progress_comes_once_in_its_period_and_when_an_epoch_s_batches_are_done():
    class Follows(Callback):
        def __init__(self, **period):
            vars(self).update(period)
            self.told = []

        def on_progress(self, done, logs, samples):
            self.told.append((done, samples, logs))

    always, tenth, last = Follows(), Follows(progress_period=0.1), Follows(progress_period=math.inf)
    single = callbacks.LambdaCallback(on_train_batch_end=lambda *_: None)
    moments = itertools.count(1000.0, 0.02)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("burnish.callbacks.collection.time", SimpleNamespace(perf_counter=lambda: next(moments)))
        fit(network(), [1, 1], always, tenth, last, single, batch_size=3)
    # 14 batches an epoch, and three looks at the clock for each.
    assert [told[:2] for told in always.told] == 2 * [(done, 1 if done == 14 else 3) for done in range(1, 15)]
    assert [told[:2] for told in tenth.told] == 2 * [(1, 3), *((done, 6) for done in range(3, 14, 2)), (14, 1)]
    assert last.told == [(14, 40, always.told[13][2]), (14, 40, always.told[27][2])]


def test_a_stop_is_where_the_next_piece_ends():
    asked, ends = [], []

    class Stops(Callback):
        def next_stop(self, step):
            asked.append(step)
            return None if step >= 7 else 7

        def on_progress(self, done, logs, samples):
            ends.append((done, samples))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("burnish._feed.sources.Pacer.note", lambda self, batches, seconds: setattr(self, "batches", 100))
        fit(network(), [1, 1], Stops(), batch_size=3)
    # 14 batches of 3 rows an epoch, the last of 1; the first piece of a fit is one batch.
    assert ends == [(1, 3), (7, 18), (14, 19), (14, 40)]
    assert asked[-1] == 28
