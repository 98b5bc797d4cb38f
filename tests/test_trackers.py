"""Trackers: what they write, and that one that raises, hangs or is slow neither stops nor slows a fit."""

import json
import math
import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import numpy as np
import pytest

import burnish as bn
from burnish.callbacks import Callback, JSONLogger, Tracker
from burnish.callbacks import tracker as module


def network(**options):
    model = bn.Sequential([bn.layers.Dense(8, "tanh"), bn.layers.Dense(3)])
    model.compile("cross_entropy", "adam", 0.01, ["accuracy"], **options)
    return model


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class Notes(Tracker):
    """Keeps what it is given; `before` is run first in each call."""

    def __init__(self, backup, before=lambda call: None):
        super().__init__(backup, timeout=0.5)
        self.before, self.calls = before, []

    def start(self, parameters):
        self._note("start", parameters)

    def log(self, epoch, figures):
        self._note("log", epoch, figures)

    def finish(self, status):
        self._note("finish", status)

    def _note(self, call, *arguments):
        self.before(call)
        self.calls.append((call, *arguments, threading.current_thread().name))


class Longer(Callback):
    """Epochs that last."""

    def __init__(self, seconds):
        self.seconds = seconds

    def on_epoch_begin(self, epoch, logs=None):
        time.sleep(self.seconds)


@pytest.fixture
def released():
    """What a hanging tracker waits for, so that no thread outlives its test."""
    event = threading.Event()
    yield event
    event.set()


def test_json_lines(digits, tmp_path):
    path = tmp_path / "folder" / "figures.jsonl"
    model = network()
    history = model.fit(*digits, epochs=3, validation_split=0.2, verbose=0, callbacks=JSONLogger(path))
    rows = lines(path)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert all(abs(row["time"] - time.time()) < 60 for row in rows)
    for name, values in history.history.items():
        assert [row[name] for row in rows] == values
    model.fit(*digits, epochs=1, verbose=0, callbacks=JSONLogger(path, append=True))
    assert len(lines(path)) == 4
    model.fit(*digits, epochs=1, verbose=0, callbacks=JSONLogger(path))
    assert len(lines(path)) == 1


def test_json_lines_know_no_nan(tmp_path):
    logger = JSONLogger(tmp_path / "f")
    logger.on_train_begin()
    logger.on_epoch_end(0, {"a": math.nan, "b": -math.inf, "c": np.float32(0.5)})
    logger.on_train_end()
    (row,) = lines(tmp_path / "f")
    assert {name: row[name] for name in "abc"} == {"a": None, "b": None, "c": 0.5}


def test_a_resumed_run_goes_on_after_its_checkpoint(tmp_path):
    path = tmp_path / "f"
    killed, resumed = JSONLogger(path), JSONLogger(path)
    killed.on_train_begin()
    for epoch in range(2):
        killed.on_epoch_end(epoch, {"loss": 1.0})
    state = json.loads(json.dumps(killed.state()))
    killed.on_epoch_end(2, {"loss": 1.0})
    killed.on_train_end()
    resumed.on_train_begin()
    resumed.load_state(state)
    resumed.on_epoch_end(2, {"loss": 2.0})
    resumed.on_train_end()
    assert [(row["epoch"], row["loss"]) for row in lines(path)] == [(0, 1.0), (1, 1.0), (2, 2.0)]


def test_a_file_that_cannot_be_written_does_not_stop_the_fit(digits, tmp_path):
    with pytest.warns(RuntimeWarning, match="JSONLogger: .* cannot be written, the fit goes on: ") as told:
        history = network().fit(*digits, epochs=3, verbose=0, callbacks=JSONLogger(tmp_path))
    assert len(told) == 1
    assert len(history.epoch) == 3


def test_what_a_tracker_is_given(digits, tmp_path):
    tracker = Notes(tmp_path / "f")
    model = network(clip_norm=5.0)
    history = model.fit(*digits, batch_size=32, epochs=3, validation_split=0.25, verbose=0, callbacks=tracker)
    assert tracker.wait()
    (first, parameters, thread), *logs, (last, status, _) = tracker.calls
    assert (first, last, status, thread) == ("start", "finish", "finished", "burnish Notes")
    assert parameters["optimizer"] == "adam"
    assert parameters["learning_rate"] == 0.01
    assert parameters["clip_norm"] == 5.0
    assert parameters["parameters"] == 4 * 8 + 8 + 8 * 3 + 3
    assert parameters["epochs"] == 3
    assert [epoch for _, epoch, _, _ in logs] == [0, 1, 2]
    for _, epoch, figures, _ in logs:
        steps = history.steps["gradient_norm"][3 * epoch : 3 * epoch + 3]
        assert figures["gradient_norm"] == pytest.approx(steps.mean())
        assert figures["val_loss"] == history.history["val_loss"][epoch]
    assert [row["loss"] for row in lines(tmp_path / "f")] == history.history["loss"]
    assert not [one for one in threading.enumerate() if one.name == "burnish Notes"]


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "failed"), (KeyboardInterrupt, "interrupted")])
def test_how_a_fit_ends_is_told(digits, tmp_path, error, status):
    tracker = Notes(tmp_path / "f")

    def fail(*_):
        raise error

    with pytest.raises(error):
        network().fit(*digits, verbose=0, callbacks=[tracker, bn.callbacks.LambdaCallback(on_epoch_end=fail)])
    assert tracker.wait()
    assert tracker.calls[-1][:2] == ("finish", status)


@pytest.mark.parametrize("where", ["start", "log", "finish"])
def test_a_tracker_that_raises_is_told_once(digits, tmp_path, where):
    def fail(call):
        if call == where:
            raise ConnectionError("no network")

    tracker = Notes(tmp_path / "f", fail)
    message = r"Notes failed \(ConnectionError: no network\); the fit goes on, the figures are in '.*f'"
    with pytest.warns(RuntimeWarning, match=message) as told:
        history = network().fit(*digits, epochs=20, verbose=0, callbacks=[tracker, Longer(0.01)])
    assert len(told) == 1
    assert len(history.epoch) == len(lines(tmp_path / "f")) == 20
    assert tracker.wait()
    assert ("start" in {call for call, *_ in tracker.calls}) == (where != "start")


@pytest.mark.parametrize("where", ["start", "log", "finish"])
def test_a_tracker_that_hangs_does_not_slow_the_fit(digits, tmp_path, released, where, monkeypatch):
    """It hangs for 30 s; how little the fit takes longer is measured by benches/trackers.py, on a quiet machine."""
    monkeypatch.setattr(module, "_HANGS", 0.5)
    tracker = Notes(tmp_path / "f", lambda call: released.wait(30) if call == where else None)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        began = time.perf_counter()
        history = network().fit(*digits, epochs=20, verbose=0, callbacks=[tracker, Longer(0.05)])
        seconds = time.perf_counter() - began
    assert len(history.epoch) == len(lines(tmp_path / "f")) == 20
    assert seconds < 10
    assert [str(one.message).partition(";")[0] for one in told] == (
        [] if where == "finish" else ["Notes has not answered for 0 s"]
    )
    assert not tracker.wait(0.05)
    released.set()
    assert tracker.wait()
    assert [call for call, *_ in tracker.calls] == ["start", *["log"] * 20, "finish"]


def test_a_tracker_that_is_slow_gets_everything_in_the_end(digits, tmp_path, released):
    tracker = Notes(tmp_path / "f", lambda call: released.wait(30) if len(tracker.calls) == 3 else None)
    network().fit(*digits, epochs=30, verbose=0, callbacks=tracker)
    assert len(tracker.calls) <= 3
    released.set()
    assert tracker.wait()
    assert len(tracker.calls) == 32


def test_a_tracker_that_is_far_behind_misses_figures_and_that_is_told(digits, tmp_path, released, monkeypatch):
    monkeypatch.setattr(module, "_WAITING", 3)
    tracker = Notes(tmp_path / "f", lambda call: released.wait(30))
    with pytest.warns(RuntimeWarning, match="is so far behind that it misses figures") as told:
        network().fit(*digits, epochs=10, verbose=0, callbacks=[tracker, Longer(0.01)])
    assert len(told) == 1
    assert len(lines(tmp_path / "f")) == 10


@pytest.mark.parametrize(("seconds", "written"), [(0.4, True), (60, False)])
def test_the_end_of_the_process_waits_a_bounded_time(tmp_path, seconds, written):
    script = f"""
        import time, numpy as np, burnish as bn
        class Slow(bn.callbacks.Tracker):
            def finish(self, status):
                time.sleep({seconds})
                open({str(tmp_path / "done")!r}, "w").close()
        model = bn.Sequential([bn.layers.Dense(1)])
        model.compile("mse")
        model.fit(np.zeros((4, 2)), np.zeros((4, 1)), verbose=0, callbacks=Slow({str(tmp_path / "f")!r}, timeout=2))
    """
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert time.monotonic() - began < 30
    assert (tmp_path / "done").exists() == written
    assert ("Slow: not everything was handed over" in done.stderr) != written


def test_a_tracker_can_be_used_again(digits, tmp_path):
    tracker = Notes(tmp_path / "f")
    for _ in range(2):
        network().fit(*digits, epochs=2, verbose=0, callbacks=tracker)
        assert tracker.wait()
    assert [call for call, *_ in tracker.calls] == ["start", "log", "log", "finish"] * 2


def test_a_tracker_changes_no_number(digits, tmp_path):
    plain, tracked = network(), network()
    plain.fit(*digits, epochs=3, verbose=0)
    tracked.fit(*digits, epochs=3, verbose=0, callbacks=Notes(tmp_path / "f"))
    for path, array in plain.parameters().items():
        np.testing.assert_array_equal(tracked.parameters()[path], array)


def test_tensorboard_arguments(tmp_path):
    pytest.importorskip("tensorboardX")
    with pytest.raises(ValueError, match="`update_freq`"):
        bn.callbacks.TensorBoard(tmp_path, update_freq="step")
    with pytest.raises(ValueError, match="`histogram_freq`"):
        bn.callbacks.TensorBoard(tmp_path, histogram_freq=-1)


def events(folder):
    """The scalars of event files by tag: TFRecords of Event messages, read as TensorBoard's format says."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_tensorboard(digits, tmp_path):
    pytest.importorskip("tensorboardX")
    seen = []

    class Look(Callback):
        """What is on the disk while the fit runs."""

        def on_epoch_begin(self, epoch, logs=None):
            end = time.monotonic() + 10
            while epoch and len(events(tmp_path / "train").get("epoch_loss", ())) < epoch:
                assert time.monotonic() < end
                time.sleep(0.01)
            seen.append(epoch)

    tracker = bn.callbacks.TensorBoard(tmp_path, update_freq=2, histogram_freq=2)
    history = network().fit(
        *digits, batch_size=16, epochs=3, validation_split=0.25, verbose=0, callbacks=[tracker, Look()]
    )
    assert tracker.wait()
    assert seen == [0, 1, 2]
    train, validation = events(tmp_path / "train"), events(tmp_path / "validation")
    for name in ("loss", "accuracy"):
        for found, column in ((train, name), (validation, f"val_{name}")):
            steps, values = zip(*found[f"epoch_{name}"], strict=True)
            assert steps == (0, 1, 2)
            np.testing.assert_allclose(values, history.history[column], rtol=1e-6)
    steps, values = zip(*train["batch_gradient_norm"], strict=True)
    assert steps == tuple(range(0, 15, 2))  # 5 batches an epoch
    np.testing.assert_allclose(values, history.steps["gradient_norm"][::2], rtol=1e-6)
    assert {"epoch_learning_rate", "epoch_update_ratio", "batch_loss", "batch_learning_rate"} <= set(train)


def test_tensorboard_reads_it(digits, tmp_path):
    pytest.importorskip("tensorboardX")
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tracker = bn.callbacks.TensorBoard(tmp_path, histogram_freq=1)
    model = network()
    history = model.fit(*digits, epochs=3, validation_split=0.25, verbose=0, callbacks=tracker)
    assert tracker.wait()
    train = reader.EventAccumulator(os.fspath(tmp_path / "train")).Reload()
    np.testing.assert_allclose([one.value for one in train.Scalars("epoch_loss")], history.history["loss"], rtol=1e-6)
    assert train.Tags()["histograms"] == [path.replace(".", "/") for path in model.parameters()]
    kernel = model.parameters()["dense.kernel"]
    last = train.Histograms("dense/kernel")[-1]
    assert last.histogram_value.num == kernel.size
    assert last.histogram_value.min == pytest.approx(kernel.min())
    text = train.Tensors(train.Tags()["tensors"][0])[0].tensor_proto.string_val[0].decode()
    assert "| optimizer | adam |" in text


def test_mlflow(digits, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # mlflow-skinny has no other that needs no server
    tracker = bn.callbacks.MLflow("digits", "first", f"file://{tmp_path}/runs", tags={"who": "me"})
    history = network().fit(*digits, epochs=3, validation_split=0.25, verbose=0, callbacks=tracker)
    assert tracker.wait(60)
    client = mlflow.MlflowClient(f"file://{tmp_path}/runs")
    run = client.get_run(tracker.run_id)
    assert (run.info.status, run.info.run_name, run.data.tags["who"]) == ("FINISHED", "first", "me")
    assert run.data.params["optimizer"] == "adam"
    values = client.get_metric_history(tracker.run_id, "val_loss")
    assert [(one.step, one.value) for one in values] == list(enumerate(history.history["val_loss"]))
    assert mlflow.active_run() is None
    assert len(lines(tmp_path / "mlflow.jsonl")) == 3


def wandb_records(path):
    """The records of an offline run: LevelDB's log format, blocks of 32 KiB after a header of 7 bytes."""
    data = path.read_bytes()
    place, record = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def test_wandb(digits, tmp_path):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    tracker = bn.callbacks.WandB("digits", "first", directory=tmp_path, backup=tmp_path / "f", config={"who": "me"})
    history = network().fit(*digits, epochs=3, verbose=0, callbacks=tracker)
    assert tracker.wait(60)
    end = time.monotonic() + 30
    while not [path for path in tmp_path.glob("wandb/*/run-*.wandb") if path.stat().st_size > 1000]:
        assert time.monotonic() < end  # a process of its own writes it
        time.sleep(0.05)
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    records = [Record.FromString(data) for data in wandb_records(path)]
    items = [{".".join([item.key, *item.nested_key]).strip("."): item for item in r.history.item} for r in records]
    losses = [json.loads(row["loss"].value_json) for row in items if "loss" in row]
    assert losses == history.history["loss"]
    (run,) = [record.run for record in records if record.HasField("run")][:1]
    assert (run.project, run.display_name) == ("digits", "first")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert (config["optimizer"], config["who"]) == ("adam", "me")
