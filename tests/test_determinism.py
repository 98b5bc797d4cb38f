"""The same seed gives the same bits, in two processes, whatever is watched or printed."""

import subprocess
import sys

import numpy as np
import pytest

import burnish as bn

SCRIPT = """
import hashlib, sys
import numpy as np
import burnish as bn

generator = np.random.default_rng(0)
x, y = generator.normal(size=(500, 20)).astype("f4"), generator.integers(0, 4, 500)
model = bn.Sequential([
    bn.layers.Dense(64, "relu"), bn.layers.BatchNorm(), bn.layers.Dropout(0.3),
    bn.layers.Residual(bn.layers.Dense(64, "gelu")),
    bn.layers.GaussianNoise(0.1), bn.layers.Dense(4),
])
model.compile("cross_entropy", "adamw", lambda update: 0.01 / (1 + update), ["accuracy"], clip_norm=1.0, seed=5)
history = model.fit(x, y, batch_size=32, epochs=3, validation_split=0.2, verbose=int(sys.argv[1]))
digest = hashlib.sha256(repr(history.history).encode())
for path, array in sorted(model.parameters(buffers=True).items()):
    digest.update(array.tobytes())
print(digest.hexdigest(), file=sys.stderr)
"""


def run(verbose):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, verbose], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stderr.strip()


def test_two_processes_give_the_same_bits():
    first = run("0")
    assert len(first) == 64
    assert first == run("2")


@pytest.mark.parametrize(
    "callbacks",
    [
        [],
        [bn.callbacks.TerminateOnNaN()],
        [bn.callbacks.LambdaCallback(on_test_batch_end=lambda batch, logs: None)],
        [bn.callbacks.EarlyStopping(patience=9)],
    ],
)
@pytest.mark.parametrize("verbose", [0, 2])
def test_watching_changes_nothing(digits, callbacks, verbose, capsys):
    def trained(callbacks, verbose):
        model = bn.Sequential([bn.layers.Dense(16, "relu"), bn.layers.Dropout(0.5), bn.layers.Dense(3)])
        model.compile("cross_entropy", "adam", 0.01, ["accuracy"])
        history = model.fit(*digits, batch_size=5, epochs=3, validation_split=0.3, callbacks=callbacks, verbose=verbose)
        return history.history, model.parameters()

    (one, expected), (two, found) = trained([], 0), trained(callbacks, verbose)
    assert one == two
    assert all(np.array_equal(expected[path], found[path]) for path in expected)
