"""Ctrl-C answers within a second and leaves a usable model; other threads run meanwhile."""

import os
import pkgutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from killing import digest, train

import burnish as bn
from burnish import _fit
from burnish._monitor import EpochMonitor
from burnish._runtime import Position
from burnish.model import core_of

SCRIPT = """
import os, signal, sys, threading, time
import numpy as np
import burnish as bn

# A shell's background jobs, and so their children, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

sent = []

def interrupt():
    sent.append(time.process_time())
    os.kill(os.getpid(), signal.SIGINT)

x = np.random.default_rng(0).normal(size=(20000, 200)).astype("f4")
y = x.argmax(1)
model = bn.Sequential([bn.layers.Dense(400, "relu"), bn.layers.Dense(400, "relu"), bn.layers.Dense(200)])
options = {"accumulate_gradients": 3} if sys.argv[1] == "accumulate" else {}
model.compile("cross_entropy", "adam", 1e-3, **options)
big = x[:640], y[:640]
try:
    model.fit(*big, verbose=0)
    threading.Timer(0.7, interrupt).start()
    while sys.argv[1] == "predict":
        model.predict(x)
    model.fit(x, y, epochs=1000, verbose=0)
except KeyboardInterrupt:
    print("interrupted", time.process_time() - sent[0])
    if sys.argv[1] != "predict":
        assert np.isfinite(model.predict(x[:10])).all()
        before = model.evaluate(*big)["loss"]
        history = model.fit(*big, epochs=3, verbose=0)
        assert model.evaluate(*big)["loss"] < before
        model.save(sys.argv[2])
        assert bn.load(sys.argv[2]).train_on_batch(*big) == model.train_on_batch(*big)
    print("usable")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise")
@pytest.mark.parametrize("case", ["fit", "accumulate", "predict"])
def test_control_c(case, tmp_path):
    command = [sys.executable, "-c", SCRIPT, case, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    word, seconds, usable = done.stdout.split()
    assert (word, usable) == ("interrupted", "usable")
    # A second of all processors, which other programs that run meanwhile do not use up.
    assert float(seconds) < os.cpu_count()


def test_the_history_so_far_is_kept(digits):
    model = bn.Sequential([bn.layers.Dense(3)])
    model.compile("cross_entropy")

    class Interrupts(bn.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.history.epoch == [0, 1] and batch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(*digits, epochs=5, callbacks=[Interrupts()], verbose=0)
    assert len(model.history.history["loss"]) == 2
    assert len(model.history.steps["loss"]) == 2 * 3 + 2
    model.fit(*digits, epochs=1, verbose=0)


@pytest.mark.parametrize("method", [(EpochMonitor, "add"), (_fit.Meter, "add"), (bn.History, "add_rows")])
@pytest.mark.parametrize("after", [False, True])
def test_ctrl_c_while_steps_are_added_up_loses_none(whole, tmp_path, monkeypatch, method, after):
    owner, name = method
    original, calls = getattr(owner, name), []

    def interrupted(*arguments):
        calls.append(name)
        if after:
            original(*arguments)
        if len(calls) == 20:
            raise KeyboardInterrupt
        if not after:
            original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert digest(train(tmp_path), tmp_path) == whole


def test_after_an_interrupt_updates_are_counted_right(digits):
    rates = []
    model = bn.Sequential([bn.layers.Dense(3)])
    model.compile("cross_entropy", "sgd", lambda update: rates.append(update) or 0.01, accumulate_gradients=2)

    class Interrupts(bn.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(*digits, batch_size=10, callbacks=[Interrupts()], verbose=0)
    rates.clear()
    model.fit(*digits, batch_size=10, verbose=0)
    assert sorted(set(rates)) == [1, 2, 3, 4, 5]  # one update was made, the half-filled group is forgotten


def dropping():
    model = bn.Sequential([bn.layers.Dense(8, "relu"), bn.layers.Dropout(0.5), bn.layers.Dense(3)])
    model.compile("cross_entropy", accumulate_gradients=2, seed=1)
    return model


def fail(*arguments):
    raise RuntimeError("stop")


@pytest.mark.parametrize("hook", ["on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_epoch_end"])
def test_a_fit_that_fails_between_epochs_leaves_the_next_one_as_it_was(digits, hook):
    model, twin = dropping(), dropping()
    with pytest.raises(RuntimeError, match="stop"):
        model.fit(*digits, callbacks=bn.callbacks.LambdaCallback(**{hook: fail}), verbose=0)
    expected = twin.fit(*digits, epochs=4, verbose=0).history["loss"]
    done = hook == "on_epoch_end"
    assert model.fit(*digits, epochs=3, verbose=0).history["loss"] == expected[done : done + 3]


def test_an_epoch_is_over_if_a_batch_of_it_was_trained(digits, monkeypatch):
    model = dropping()
    for trained, owner, name in ((False, _fit, "learning_rates"), (True, Position, "advance")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            with pytest.raises(RuntimeError, match="stop"):
                model.fit(*digits, batch_size=96, verbose=0)  # half a group: no update is made
        assert core_of(model).position.batch == trained


class Signalled:
    """A session while whose training Ctrl-C came: its exception waits to be asked for."""

    def __init__(self, session):
        self._session = session

    def __getattr__(self, name):
        return getattr(self._session, name)

    def signalled(self):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("owner", "name", "look"),
    [
        ("burnish._profile", "copied_session", lambda model, *data: bn.profile(model, *data, steps=1)),
        ("burnish.tuning._learning_rate", "copied_session", bn.tuning.find_learning_rate),
        (
            "burnish.doctor._trials",
            "copied_session",
            lambda model, *data: model.fit(*data, batch_size=1, callbacks=bn.Doctor(verbose=0), verbose=0),
        ),
        (
            "burnish._runtime.Runtime",
            "copy",
            lambda model, *data: model.fit(*data, callbacks=bn.callbacks.SWA(0), verbose=0),
        ),
    ],
)
def test_ctrl_c_while_a_copy_trains_is_not_swallowed(digits, monkeypatch, owner, name, look):
    model = bn.Sequential([bn.layers.Dense(4), bn.layers.BatchNorm(), bn.layers.Dense(3)])
    model.compile("cross_entropy")
    made = pkgutil.resolve_name(f"{owner}.{name}")
    monkeypatch.setattr(f"{owner}.{name}", lambda *given: Signalled(made(*given)))
    with pytest.raises(KeyboardInterrupt):
        look(model, *digits)


def test_other_threads_run(monkeypatch):
    x = np.zeros((4000, 300), dtype=np.float32)
    model = bn.Sequential([bn.layers.Dense(600, "relu"), bn.layers.Dense(300)])
    model.compile("mse")
    ticks, pieces, done = [], [], threading.Event()

    def tick():
        while not done.wait(0.001):
            ticks.append(time.perf_counter())

    def timed(*arguments):
        started = time.perf_counter()
        made = train_piece(*arguments)
        pieces.append((started, time.perf_counter()))
        return made

    def most():
        """How many ticks came while the engine was at one piece of work."""
        return max((sum(began < moment < ended for moment in ticks) for began, ended in pieces), default=0)

    train_piece = _fit.train_piece
    monkeypatch.setattr(_fit, "train_piece", timed)
    thread = threading.Thread(target=tick)
    thread.start()
    end = time.monotonic() + 60
    while most() < 10 and time.monotonic() < end:
        model.fit(x, x, batch_size=500, epochs=5, verbose=0)
    done.set()
    thread.join()
    assert most() >= 10


def test_two_models_train_in_two_threads(digits):
    def train(results, index):
        model = bn.Sequential([bn.layers.Dense(16, "tanh"), bn.layers.Dense(3)])
        model.compile("cross_entropy", seed=1)
        results[index] = model.fit(*digits, epochs=5, verbose=0).history["loss"]

    results = [None, None]
    threads = [threading.Thread(target=train, args=(results, index)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == results[1]
