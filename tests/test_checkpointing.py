"""Activation checkpointing: less memory, the same bits."""

import subprocess
import sys

import numpy as np
import pytest

import burnish as bn
from burnish import layers, ops
from burnish.model import core_of


def deep(rng):
    blocks = [[layers.Dense(12, "tanh"), layers.Dropout(0.3), layers.LayerNorm()] for _ in range(8)]
    model = bn.Sequential([*(layer for block in blocks for layer in block), layers.Dense(3)])
    return model, rng.normal(size=(48, 5)), rng.integers(0, 3, 48)


def convolutional(rng):
    blocks = [[layers.Conv2D(4, 3, padding="same"), layers.BatchNorm(), layers.ReLU()] for _ in range(4)]
    stages = [*(layer for block in blocks for layer in block), layers.MaxPool2D(), layers.Flatten()]
    return bn.Sequential([*stages, layers.Dense(3)]), rng.normal(size=(24, 8, 8, 2)), rng.integers(0, 3, 24)


def skipping(rng):
    """A graph whose branches leave at the start and meet at the end."""
    x = bn.Input((6,))
    first = layers.Dense(8, "tanh", name="first")(x)
    value = first
    for index in range(6):
        block = bn.Sequential([layers.Dense(8), layers.GELU(), layers.Dropout(0.2)], name=f"block{index}")
        value = layers.Residual(block, name=f"residual{index}")(value)
    joined = layers.Concatenate()([value, first, x])
    return bn.Model(x, layers.Dense(3)(joined)), rng.normal(size=(48, 6)), rng.integers(0, 3, 48)


class Shared(bn.Model):
    """One layer used over and over, with another one between."""

    def __init__(self):
        super().__init__()
        self.block, self.other = layers.Dense(6, "sigmoid"), layers.Dropout(0.2)

    def call(self, x):
        for _ in range(5):
            x = self.other(self.block(x)) + ops.sin(x)
        return x


def shared(rng):
    return Shared(), rng.normal(size=(48, 6)), rng.integers(0, 6, 48)


GLOBS = {
    deep: ["dense*", ("dense_[1-3]", "layer_norm_2", "dropout*")],
    convolutional: ["conv2d*", ("batch_norm", "batch_norm_2"), "*"],
    skipping: ["residual*", ("*.block3", "residual1", "first")],
    shared: ["block", ["block", "other"]],
}
CASES = [(network, globs) for network, several in GLOBS.items() for globs in (True, *several)]


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
@pytest.mark.parametrize(("network", "checkpoint"), CASES)
def test_gradients_and_training_are_the_same_bits(network, checkpoint, precision):
    found = []
    for option in (False, checkpoint):
        model, x, y = network(np.random.default_rng(2))
        model.compile("cross_entropy", "adam", precision=precision, checkpoint_activations=option, seed=5)
        gradients = bn.gradients(model, x, y)
        history = model.fit(x, y, epochs=2, batch_size=20, verbose=0)
        found.append(gradients | model.parameters(buffers=True) | {f"step.{k}": v for k, v in history.steps.items()})
    assert list(found[0]) == list(found[1])
    for name, array in found[0].items():
        np.testing.assert_array_equal(array, found[1][name], err_msg=name)


def test_frozen_layers_and_accumulation_change_nothing():
    found = []
    for option in (False, True, "residual*"):
        model, x, y = skipping(np.random.default_rng(2))
        model.compile("cross_entropy", accumulate_gradients=2, checkpoint_activations=option)
        model.freeze("residual[0-2]*")
        model.fit(x, y, epochs=2, batch_size=10, verbose=0)
        found.append(model.parameters())
    for other in found[1:]:
        assert all(np.array_equal(array, other[path]) for path, array in found[0].items())


def test_a_saved_model_keeps_its_checkpoints(tmp_path):
    model, x, y = skipping(np.random.default_rng(2))
    model.compile("cross_entropy", checkpoint_activations=["residual*"])
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    assert core_of(loaded).compiled.optimizer["checkpoint_activations"] == ["residual*"]
    for one in (model, loaded):
        one.fit(x, y, verbose=0)
    assert all(np.array_equal(array, loaded.parameters()[path]) for path, array in model.parameters().items())
    loaded.compile("cross_entropy", checkpoint_activations="*.block3")
    loaded.fit(x, y, verbose=0)


MEMORY = """
import re, sys
from pathlib import Path
import numpy as np
import burnish as bn
from burnish import layers

# Not ru_maxrss, which counts what the parent had before exec.
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

model = bn.Sequential([layer for _ in range(32) for layer in (layers.Dense(128), layers.GELU())] + [layers.Dense(1)])
model.compile("mse", "sgd", checkpoint_activations=sys.argv[1] == "True")
model.build((None, 128))
x, y = np.ones((4096, 128), np.float32), np.ones((4096, 1), np.float32)
model.predict(x[:64])
before = peak()
model.train_on_batch(x, y)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_deep_network_needs_less_memory():
    def peak(option):
        command = [sys.executable, "-c", MEMORY, str(option)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    # 32 layers keep two arrays of 2 MiB each, 128 MiB; checkpoints keep a few of each.
    assert peak(False) > 110 * 1024
    assert peak(True) < 0.5 * peak(False)


def test_globs_that_match_nothing_are_told_at_once():
    model, x, _ = deep(np.random.default_rng(2))
    with pytest.raises(ValueError, match="'densee' matches no layer; did you mean 'dense'"):
        model.compile("cross_entropy", checkpoint_activations=["dropout", "densee"])
    for wrong in (3, [True], None):
        with pytest.raises(TypeError, match="`checkpoint_activations` must be True, False, or globs"):
            model.compile("cross_entropy", checkpoint_activations=wrong)
    with pytest.raises(ValueError, match="no loss yet"):
        model.evaluate(x)
