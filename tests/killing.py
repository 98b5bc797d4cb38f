"""A run with everything on, and what ends its lives: exceptions, and kills of children while they train or save."""

import contextlib
import hashlib
import os
import signal
import sys
import time

import numpy as np
import pytest

import burnish as bn
from burnish import callbacks, layers

GENERATOR = np.random.default_rng(5)
X = GENERATOR.normal(size=(205, 12)).astype(np.float32)
Y = GENERATOR.integers(0, 3, 205)


def network(**options):
    """Dropout, running statistics, a schedule, accumulation that divides no epoch, a moving loss scale."""
    stack = [layers.Dense(24, "relu"), layers.BatchNorm(), layers.Dropout(0.3), layers.Dense(3)]
    model = bn.Sequential(stack)
    arguments = {
        "learning_rate": bn.schedules.warmup(5, then=bn.schedules.CosineAnnealing(0.03, 60)),
        "metrics": ["accuracy", "f1"],
        "accumulate_gradients": 3,
        "clip_norm": 1.0,
        "precision": "mixed_float16",
        "seed": 11,
    }
    model.compile("cross_entropy", "adamw", **{**arguments, **options})
    return model


def watchers(folder, every=4):
    """Callbacks that all have a state."""
    return [
        callbacks.ModelCheckpoint(folder / "best", save_best_only=True, save_weights_only=True),
        callbacks.EarlyStopping(patience=4, restore_best_weights=True),
        callbacks.ReduceLROnPlateau(patience=1, factor=0.5, cooldown=1),
        callbacks.EMA(0.9),
        callbacks.CSVLogger(folder / "log.csv"),
        callbacks.Checkpoint.every(every, folder / "run"),
    ]


def train(folder, extra=(), *, every=4, epochs=7, x=X, y=Y, model=None, **options):
    """Begin the run in a folder, or go on with it."""
    model = network() if model is None else model
    arguments = {"batch_size": 16, "validation_split": 0.2, "verbose": 0, **options}
    if y is None and not isinstance(x, bn.data.Dataset):
        del arguments["batch_size"], arguments["validation_split"]
    model.fit(
        x, y, epochs=epochs, callbacks=[*watchers(folder, every), *extra], resume_from=folder / "run", **arguments
    )
    return model


def names(folder):
    """The names of the run's checkpoints."""
    return sorted(path.name for path in (folder / "run").iterdir())


class Raise(callbacks.Callback):
    """Ends a life after so many batches."""

    def __init__(self, batches, error=RuntimeError):
        self.left, self.error = batches, error

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise self.error


def lives(live, error=RuntimeError, *, most=80):
    """Begin one life after the other, until one comes to its end; return what that one gave."""
    for _ in range(most):
        try:
            return live()
        except error:
            pass
    raise AssertionError("the run makes no progress")


def digest(model, folder=None):
    """Return what stands for every bit of weights, optimizer, history and the log."""
    history = model.history
    found = hashlib.sha256(repr((history.history, history.epoch, history.parameters, history.activations)).encode())
    from burnish._storage import model_arrays
    from burnish.model import core_of

    for arrays in (model_arrays(core_of(model).ready()), history.steps):
        for name, array in sorted(arrays.items()):
            found.update(name.encode() + array.tobytes())
    if folder is not None:
        found.update((folder / "log.csv").read_bytes())
    return found.hexdigest()


def forks(test):
    """Mark a test whose children are forks of this warm process."""
    ignored = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    return pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks by habit")(ignored(test))


@contextlib.contextmanager
def child(work):
    """A forked child that does some work; its process number."""
    number = os.fork()
    if number == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    yield number


def killed(work, seconds):
    """Run work in a child and kill it after some time; return whether it was done by then."""
    with child(work) as number:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done, status = os.waitpid(number, os.WNOHANG)
            if done:
                assert status == 0, status
                return True
            time.sleep(min(0.002, max(end - time.monotonic(), 0.0)))
        os.kill(number, signal.SIGKILL)
        _, status = os.waitpid(number, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return not os.WIFSIGNALED(status)
