"""What callbacks and checkpoints cost: `fit` against the engine's own loop, on the MLP 784-256-128-10, batch 128.

    python benches/callback_overhead.py [rounds]

"loop" gives the engine the same batches in pieces of the same size and does nothing else; "fit" is `Model.fit` without
callbacks; "all" adds every callback of `bn.callbacks` that a user would add by default and a checkpoint every 100
steps. Interleaved; medians of the ratio to the loop of the same round.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import burnish as bn
from burnish import _burnish
from burnish.model import core_of

STEPS, BATCH = 600, 128


def network():
    layers = [bn.layers.Dense(256, "relu"), bn.layers.Dense(128, "relu"), bn.layers.Dense(10)]
    model = bn.Sequential(layers)
    model.compile("cross_entropy", "adam", 1e-3, ["accuracy"])
    return model


def watchers(folder):
    callbacks = bn.callbacks
    return [
        callbacks.ReduceLROnPlateau("loss", patience=5),
        callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True),
        callbacks.CSVLogger(folder / "log.csv"),
        callbacks.Timer(),
        callbacks.Monitor(),
        callbacks.Checkpoint.every(100, folder / "run"),
    ]


def loop(x, y, pieces):
    model = network()
    model.fit(x[:BATCH], y[:BATCH], batch_size=BATCH, verbose=0)
    session = core_of(model).ready().session
    order = _burnish.permutation(0, 0, len(x))
    started = time.perf_counter()
    for start in range(0, len(x), pieces * BATCH):
        rows = order[start : start + pieces * BATCH]
        rates = np.full(len(rows) // BATCH, 1e-3)
        session.train({"x": x, "y": y}, rows, batch_size=BATCH, learning_rates=rates)
    return time.perf_counter() - started


def fit(x, y, callbacks):
    model = network()
    model.fit(x[:BATCH], y[:BATCH], batch_size=BATCH, verbose=0)
    started = time.perf_counter()
    model.fit(x, y, batch_size=BATCH, epochs=1, callbacks=callbacks, check_data=False, verbose=0)
    return time.perf_counter() - started


def main(rounds):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(STEPS * BATCH, 784)).astype(np.float32)
    y = generator.integers(0, 10, len(x))
    ratios = {"fit": [], "all": []}
    seconds = []
    for _ in range(rounds):
        base = loop(x, y, 60)
        ratios["fit"].append(fit(x, y, []) / base)
        with tempfile.TemporaryDirectory() as folder:
            ratios["all"].append(fit(x, y, watchers(Path(folder))) / base)
        seconds.append(base)
    print(f"loop: {1000 * statistics.median(seconds) / STEPS:.3f} ms a step")
    for name, values in ratios.items():
        print(f"{name}: {100 * (statistics.median(values) - 1):+.2f} %  (of {len(values)}: {sorted(values)})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
