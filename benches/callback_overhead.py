"""What callbacks and checkpoints cost: `fit` against the engine's own loop, on the MLP 784-256-128-10, batch 128.

    python benches/callback_overhead.py [rounds]

"loop" gives the engine the same batches and does nothing else; "fit" is `Model.fit` without callbacks and silent;
"default" is `Model.fit` as it is when nobody says otherwise (history, progress as lines) with a checkpoint every 100
steps; "all" has a checkpoint every 100 steps and many callbacks besides, whose best weights are in each checkpoint too.
A fit has the length of one on MNIST: 8 epochs of 500 steps, two seconds. All run in turn, in random order. A machine
that others use is slow for moments: so the time of each epoch (and of what comes before and after) is the median over
the rounds, and the time of a fit the sum of these. The range is that of 90 % of a thousand draws of as many rounds.
"""

import contextlib
import io
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import burnish as bn
from burnish import _burnish
from burnish.model import core_of

EPOCHS, STEPS, BATCH = 8, 500, 128


def network():
    layers = [bn.layers.Dense(256, "relu"), bn.layers.Dense(128, "relu"), bn.layers.Dense(10)]
    model = bn.Sequential(layers)
    model.compile("cross_entropy", "adam", 1e-3, ["accuracy"])
    return model


def watchers(folder):
    """Return many callbacks."""
    callbacks = bn.callbacks
    return [
        callbacks.ReduceLROnPlateau("loss", patience=5),
        callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True),
        callbacks.CSVLogger(folder / "log.csv"),
        callbacks.Timer(),
        callbacks.Monitor(),
        callbacks.Checkpoint.every(100, folder / "run"),
    ]


def ready():
    """Return a model whose first step, with everything that is built and allocated there, is done."""
    model = network()
    model.fit(np.zeros((BATCH, 784), np.float32), np.zeros(BATCH, int), batch_size=BATCH, verbose=0)
    return model


class Clocks(bn.callbacks.Callback):
    """Note wall and processor time at the beginning of each epoch; the latter does not mind what else runs."""

    def __init__(self):
        self.noted = []

    def on_epoch_begin(self, epoch, logs=None):  # noqa: ARG002
        self.note()

    def note(self):
        """Note the times of now."""
        self.noted.append((time.perf_counter(), time.process_time()))

    def times(self):
        """Return the times from note to note."""
        return np.diff(self.noted, axis=0)


def loop(x, y):
    """Give the engine the batches in pieces of a tenth of a second, and nothing else."""
    session = core_of(ready()).ready().session
    clocks, pieces = Clocks(), 1
    clocks.note()
    for epoch in range(EPOCHS):
        clocks.note()
        order, done = _burnish.permutation(0, epoch, len(x)), 0
        while done < STEPS:
            count, before = min(pieces, STEPS - done), time.perf_counter()
            rows, rates = order[done * BATCH : (done + count) * BATCH], np.full(count, 1e-3)
            session.train({"x": x, "y": y}, rows, batch_size=BATCH, learning_rates=rates, epoch=epoch, first_step=done)
            done += count
            pieces = max(1, min(int(0.1 * count / (time.perf_counter() - before)), 4 * pieces))
    clocks.note()
    return clocks.times()


def fit(x, y, callbacks, verbose=0):
    """Train with callbacks."""
    model, clocks = ready(), Clocks()
    options = {"epochs": EPOCHS, "batch_size": BATCH, "check_data": False, "verbose": verbose}
    with contextlib.redirect_stdout(io.StringIO()):
        clocks.note()
        model.fit(x, y, callbacks=[clocks, *callbacks], **options)
        clocks.note()
    return clocks.times()


def measured(x, y):
    """Return the times of one round, in random order."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = bn.callbacks.Checkpoint.every(100, Path(folder) / "default")
        cases = {
            "loop": lambda: loop(x, y),
            "fit": lambda: fit(x, y, []),
            "default": lambda: fit(x, y, [checkpoint], verbose="auto"),
            "all": lambda: fit(x, y, watchers(Path(folder))),
        }
        return {name: cases[name]() for name in random.sample(sorted(cases), len(cases))}


def total(times):
    """Return the time of a fit, from those of its parts in each round."""
    return np.median(times, axis=0).sum(axis=0)


def main(rounds):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(STEPS * BATCH, 784)).astype(np.float32)
    y = generator.integers(0, 10, len(x))
    measurements = [measured(x, y) for _ in range(rounds)]
    times = {name: np.array([one[name] for one in measurements]) for name in measurements[0]}
    base = total(times["loop"]) * 1000 / (EPOCHS * STEPS)
    print(f"loop: {base[0]:.3f} ms a step, {base[1]:.3f} ms of processor time")
    for name in ("fit", "default", "all"):
        draws = [np.arange(rounds), *generator.integers(rounds, size=(1000, rounds))]
        ratios = np.array([100 * total(times[name][draw]) / total(times["loop"][draw]) - 100 for draw in draws])
        low, high = np.percentile(ratios, [5, 95], axis=0)
        print(f"{name}: {ratios[0, 0]:+.1f} % ({low[0]:+.1f} to {high[0]:+.1f}), processor time {ratios[0, 1]:+.1f} % "
              f"({low[1]:+.1f} to {high[1]:+.1f})")  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
