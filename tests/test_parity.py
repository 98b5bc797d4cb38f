"""Training of whole networks against PyTorch's, from the same weights and data (tests/golden/make_training.py)."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import burnish as bn
from burnish import layers, optimizers, schedules

GOLDEN = np.load(Path(__file__).parent / "golden" / "training.npz")
# Relative, of losses between 0.05 and 2. PyTorch's own losses in float32 and in float64 are up to 4.5e-7 apart.
TOLERANCES = {"float32": 1e-5, "float64": 1e-12}


def mlp():
    return bn.Sequential(
        [
            layers.Dense(32, activation="relu", name="wide"),
            layers.Dense(16, activation="tanh", name="deep"),
            layers.Dense(3, name="output"),
        ]
    )


def cnn():
    return bn.Sequential(
        [
            layers.Conv2D(8, 3, padding="same", use_bias=False, name="wide"),
            layers.BatchNorm(name="wide_norm"),
            layers.ReLU(),
            layers.MaxPool2D(2),
            layers.Conv2D(12, 3, use_bias=False, name="deep"),
            layers.BatchNorm(name="deep_norm"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(4, name="output"),
        ]
    )


def recurrent(kind):
    return bn.Sequential(
        [kind(12, return_sequences=True, name="lower"), kind(8, name="upper"), layers.Dense(1, name="output")]
    )


def transformer():
    tokens = bn.Input((10,))
    x = layers.PositionalEncoding()(layers.Embedding(20, 16, name="tokens")(tokens))
    for name in ("first", "second"):
        layer = layers.TransformerEncoderLayer(24, 4, activation="gelu", normalize_first=True, name=name)
        x = layer(x, padding_mask=tokens != 0)
    x = layers.GlobalAvgPool()(layers.LayerNorm(name="norm")(x))
    return bn.Model(tokens, layers.Dense(5, name="output")(x))


def golden(name):
    """Return what PyTorch left of a network: data, weights at the start and losses."""
    return {key.removeprefix(f"{name}."): GOLDEN[key] for key in GOLDEN.files if key.startswith(f"{name}.")}


class Case(NamedTuple):
    """A network of golden/make_training.py in burnish, and what `compile` is told."""

    name: str
    model: object
    loss: str
    optimizer: object

    def losses(self, record, device, precision):
        """Return the loss of each update, and that of all data in inference after the last."""
        x, y = record["x"], record["y"]
        model = self.model()
        model.compile(self.loss, self.optimizer, precision=precision, device=device, decay_roles="all")
        model.build((None, *x.shape[1:]))
        model.set_parameters({key[6:]: array for key, array in record.items() if key.startswith("start.")})
        history = model.fit(x, y, batch_size=8, epochs=5, shuffle=False, verbose=0)
        return np.array([*history.steps["loss"], model.evaluate(x, y)["loss"]])

    def error(self, record, device, precision):
        """Return the largest relative difference from PyTorch's."""
        return np.abs(self.losses(record, device, precision) / record[precision] - 1).max()


CASES = [
    Case("mlp", mlp, "cross_entropy", optimizers.SGD(0.1, momentum=0.9, nesterov=True)),
    Case("cnn", cnn, "cross_entropy", optimizers.Adam(0.01)),
    Case("lstm", partial(recurrent, layers.LSTM), "mse", optimizers.Adam(0.01)),
    Case("gru", partial(recurrent, layers.GRU), "binary_cross_entropy", optimizers.RMSprop(0.003)),
    Case(
        "transformer",
        transformer,
        "cross_entropy",
        optimizers.AdamW(schedules.OneCycle(0.01, 25), weight_decay=0.01),
    ),
]


each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@each_case
def test_losses_of_25_updates_are_pytorchs(case, device):
    assert case.error(golden(case.name), device, "float32") < TOLERANCES["float32"]


@pytest.mark.parametrize("device", ["cpu", "ndarray"])
@each_case
def test_losses_of_25_updates_are_pytorchs_in_float64(case, device):
    assert case.error(golden(case.name), device, "float64") < TOLERANCES["float64"]


def test_every_golden_training_is_followed():
    assert {case.name for case in CASES} == {key.partition(".")[0] for key in GOLDEN.files}
