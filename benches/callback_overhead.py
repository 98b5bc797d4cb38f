"""What callbacks and checkpoints cost: `fit` against the engine's own loop, on the MLP 784-256-128-10, batch 128.

    python benches/callback_overhead.py [rounds]

"fit" is `Model.fit` without callbacks and silent; "default" is `Model.fit` as it is when nobody says otherwise
(history, progress as lines) with a checkpoint every 100 steps; "all" has a checkpoint every 100 steps and many
callbacks besides, whose best weights are in each checkpoint too. They run in random order, each as long as a fit on
MNIST: two seconds in 8 epochs. The loop gives the engine of another model the same batches and does nothing else. A
machine that others use is slow for moments, so before each epoch of a fit the loop does one too, and the two are
compared: what the fit costs is the sum of the medians, over the rounds, of these differences and of what comes before
the first epoch; what comes after the last one counts as part of it. The range is that of 90 % of a thousand draws of
as many rounds.
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

# No epoch ends with a checkpoint, whose writing would disturb the loop.
EPOCHS, STEPS, BATCH, EVERY = 8, 530, 128, 100


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
        callbacks.Checkpoint.every(EVERY, folder / "run"),
    ]


def ready():
    """Return a model whose first step, with everything that is built and allocated there, is done."""
    model = network()
    model.fit(np.zeros((BATCH, 784), np.float32), np.zeros(BATCH, int), batch_size=BATCH, verbose=0)
    return model


class Loop(bn.callbacks.Callback):
    """Before each epoch of a fit, give the engine the batches in pieces of a tenth of a second, and nothing else."""

    def __init__(self, x, y):
        self._inputs = {"x": x, "y": y}
        self._session = core_of(ready()).ready().session
        self._pieces = 1
        self.noted = []

    def on_epoch_begin(self, epoch, logs=None):  # noqa: ARG002
        self.note()
        order, done = _burnish.permutation(0, epoch, STEPS * BATCH), 0
        while done < STEPS:
            count, before = min(self._pieces, STEPS - done), time.perf_counter()
            rows, rates = order[done * BATCH : (done + count) * BATCH], np.full(count, 1e-3)
            self._session.train(
                self._inputs, rows, batch_size=BATCH, learning_rates=rates, epoch=epoch, first_step=done
            )
            done += count
            self._pieces = max(1, min(int(0.1 * count / (time.perf_counter() - before)), 4 * self._pieces))
        self.note()

    def note(self):
        """Note the wall and the processor time of now; the latter does not mind what else runs."""
        self.noted.append((time.perf_counter(), time.process_time()))


def measured(x, y, callbacks, verbose=0):
    """Train with callbacks; return the times of the loop's epochs, and of the fit's beginning and its epochs."""
    model, loop = ready(), Loop(x, y)
    options = {"epochs": EPOCHS, "batch_size": BATCH, "check_data": False, "verbose": verbose}
    with contextlib.redirect_stdout(io.StringIO()):
        loop.note()
        model.fit(x, y, callbacks=[loop, *callbacks], **options)
        loop.note()
    times = np.diff(loop.noted, axis=0)
    return times[1::2], times[::2]


def one_round(x, y):
    """Return the times of each case, done in random order."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = bn.callbacks.Checkpoint.every(EVERY, Path(folder) / "default")
        cases = {
            "fit": lambda: measured(x, y, []),
            "default": lambda: measured(x, y, [checkpoint], verbose="auto"),
            "all": lambda: measured(x, y, watchers(Path(folder))),
        }
        return {name: cases[name]() for name in random.sample(sorted(cases), len(cases))}


def overhead(rounds):
    """Return what a fit costs more than the loop, of wall and of processor time, in per cent."""
    loops, fits = (np.array(times) for times in zip(*rounds, strict=True))
    more = np.median(fits[:, 1:] - loops, axis=0).sum(axis=0) + np.median(fits[:, 0], axis=0)
    return 100 * more / np.median(loops, axis=0).sum(axis=0)


def main(count):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(STEPS * BATCH, 784)).astype(np.float32)
    y = generator.integers(0, 10, len(x))
    rounds = [one_round(x, y) for _ in range(count)]
    loops = [loop for one in rounds for loop, _ in one.values()]
    base = np.median(loops, axis=(0, 1)) * 1000 / STEPS
    print(f"loop: {base[0]:.3f} ms a step, {base[1]:.3f} ms of processor time")
    for name in ("fit", "default", "all"):
        times = [one[name] for one in rounds]
        draws = [overhead([times[one] for one in draw]) for draw in generator.integers(count, size=(1000, count))]
        (wall, own), (low, high) = overhead(times), np.percentile(draws, [5, 95], axis=0)
        print(f"{name}: {wall:+.1f} % ({low[0]:+.1f} to {high[0]:+.1f}), processor time {own:+.1f} % "
              f"({low[1]:+.1f} to {high[1]:+.1f})")  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
