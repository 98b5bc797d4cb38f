"""How near `model.summary()` comes with its activations: against the peak memory of a step, a process each (Linux).

    python benches/activation_estimate.py

The peak holds the gradients that flow back, too, and what kernels need; what no gradient reads is not in it.
"""

import json
import subprocess
import sys

import numpy as np
from activation_memory import peak

import burnish as bn
from burnish._summary import lines
from burnish.layers import (
    GELU,
    LSTM,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    LayerNorm,
    MaxPool2D,
    ReLU,
    Residual,
    TransformerEncoderLayer,
)
from burnish.model import core_of


def convolutions():
    block = [Conv2D(32, 3, padding="same"), BatchNorm(), ReLU(), MaxPool2D()]
    return [Conv2D(32, 3, activation="relu", padding="same"), *block, Conv2D(64, 3, activation="relu"), Flatten()]


# The layers before the last one, the shape of a sample, the rows of the batch.
NETWORKS = {
    "Dense and ReLU in one": (lambda: [Dense(256, "relu") for _ in range(24)], (256,), 8192),
    "LayerNorm, Dense, GELU": (
        lambda: [Residual(bn.Sequential([LayerNorm(), Dense(256), GELU()])) for _ in range(24)],
        (256,),
        4096,
    ),
    "Dropout": (lambda: [layer for _ in range(12) for layer in (Dense(256, "relu"), Dropout(0.3))], (256,), 8192),
    "LSTM": (lambda: [LSTM(64, return_sequences=True), LSTM(64, return_sequences=True), LSTM(64)], (40, 32), 512),
    "transformer": (lambda: [*(TransformerEncoderLayer(256, 4) for _ in range(4)), GlobalAvgPool()], (40, 64), 256),
    "convolutions": (convolutions, (28, 28, 1), 256),
}


def measured(name):
    """Return the estimate for the batch and the growth of the peak in a step, in MiB."""
    make, shape, rows = NETWORKS[name]
    model = bn.Sequential([*make(), Dense(10)])
    model.compile("cross_entropy", "sgd")
    x = np.random.default_rng(0).normal(size=(rows, *shape)).astype(np.float32)
    model.predict(x[:2])
    estimate = sum(line.activations for line in lines(core_of(model).ready().built)) * rows / 2**20
    before = peak()
    model.train_on_batch(x, np.zeros(rows, int))
    return estimate, peak() - before


def main():
    print("| network | summary, MiB | peak of a step, MiB | peak / summary |\n|---|---|---|---|")
    for name in NETWORKS:
        child = subprocess.run([sys.executable, __file__, name], check=True, capture_output=True, text=True)
        estimate, grown = json.loads(child.stdout)
        print(f"| {name} | {estimate:.0f} | {grown:.0f} | {grown / estimate:.2f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measured(sys.argv[1])))
    else:
        main()
