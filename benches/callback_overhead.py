"""What callbacks and checkpoints cost: `fit` against the engine's own loop, on the MLP 784-256-128-10, batch 128.

    python benches/callback_overhead.py [rounds]

"loop" gives the engine the same batches and does nothing else; "fit" is `Model.fit` without callbacks and silent;
"default" is `Model.fit` as it is when nobody says otherwise (history, progress as lines) with a checkpoint every 100
steps; "all" has a checkpoint every 100 steps and many callbacks besides, whose best weights are in each checkpoint too.
In turn, in random order; medians and quartiles of the ratios to the loop of the same round. A fit has the length of one
on MNIST: 8 epochs of 500 steps, two seconds.
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


def loop(x, y):
    """Give the engine the batches in pieces of a tenth of a second, and nothing else."""
    session = core_of(ready()).ready().session
    started, pieces = clocks(), 1
    for epoch in range(EPOCHS):
        order, done = _burnish.permutation(0, epoch, len(x)), 0
        while done < STEPS:
            count, before = min(pieces, STEPS - done), time.perf_counter()
            rows, rates = order[done * BATCH : (done + count) * BATCH], np.full(count, 1e-3)
            session.train({"x": x, "y": y}, rows, batch_size=BATCH, learning_rates=rates, epoch=epoch, first_step=done)
            done += count
            pieces = max(1, min(int(0.1 * count / (time.perf_counter() - before)), 4 * pieces))
    return clocks() - started


def fit(x, y, callbacks, verbose=0):
    """Train with callbacks."""
    model = ready()
    options = {"epochs": EPOCHS, "batch_size": BATCH, "check_data": False, "verbose": verbose}
    with contextlib.redirect_stdout(io.StringIO()):
        started = clocks()
        model.fit(x, y, callbacks=callbacks, **options)
        return clocks() - started


def clocks():
    """Return wall and processor time; the second one does not mind what else the machine does."""
    return np.array([time.perf_counter(), time.process_time()])


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


def main(rounds):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(STEPS * BATCH, 784)).astype(np.float32)
    y = generator.integers(0, 10, len(x))
    times = [measured(x, y) for _ in range(rounds)]
    base = np.median([one["loop"] for one in times], axis=0) * 1000 / (EPOCHS * STEPS)
    print(f"loop: {base[0]:.3f} ms a step, {base[1]:.3f} ms of processor time")
    for name in ("fit", "default", "all"):
        ratios = np.array([one[name] / one["loop"] for one in times]) * 100 - 100
        low, middle, high = np.percentile(ratios, [25, 50, 75], axis=0)
        print(f"{name}: {middle[0]:+.1f} % ({low[0]:+.1f} to {high[0]:+.1f}), processor time {middle[1]:+.1f} % "
              f"({low[1]:+.1f} to {high[1]:+.1f})")  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
