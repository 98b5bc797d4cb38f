"""What code of one's own costs: a step with custom layers and a custom loss against the built-in ones.

    python benches/custom_layer.py [rounds]

Two networks, one whose steps are all arithmetic and one whose steps are so small that overhead would show. "layers",
"loss" and "both" replace Dense, LayerNorm and the Huber loss by classes and functions over `bn.ops`. In turn, in random
order; medians and quartiles of the ratios to "built-in" of the same round, of wall and processor time.
"""

import random
import sys
import time

import numpy as np

import burnish as bn
from burnish import layers, ops
from burnish.model import core_of

# Width of the input and of the hidden layers, rows of a batch, steps of one fit.
NETWORKS = {"wide": (784, 512, 128, 20), "tiny": (8, 16, 16, 1000)}
FITS = 8


class OwnDense(layers.Layer):
    """What Dense does."""

    def __init__(self, units, activation="none"):
        super().__init__()
        self.units, self.activation = units, activation

    def call(self, x):
        kernel = self.parameter("kernel", (x.shape[-1], self.units))
        bias = self.parameter("bias", (self.units,), "zeros", "bias")
        return ops.linear(x, kernel, bias, self.activation)


class OwnNorm(layers.Layer):
    """What LayerNorm does."""

    def call(self, x):
        width = (x.shape[-1],)
        return ops.layer_norm(
            x, self.parameter("scale", width, "ones", "scale"), self.parameter("offset", width, "zeros")
        )


def own_huber(target, prediction):
    error = ops.abs(prediction - target)
    near = ops.minimum(error, 1.0)
    return near * (error - 0.5 * near)


def network(width, own_layers, own_loss):
    dense, norm = (OwnDense, OwnNorm) if own_layers else (layers.Dense, layers.LayerNorm)
    model = bn.Sequential([dense(width, "relu"), norm(), dense(width, "relu"), norm(), dense(4)])
    model.compile(own_huber if own_loss else "huber", "adam", 1e-3)
    return model


CASES = {"built-in": (False, False), "layers": (True, False), "loss": (False, True), "both": (True, True)}


def measured(name):
    """Return wall and processor time of a step by each case: new models, short fits in random order."""
    features, width, batch, steps = NETWORKS[name]
    generator = np.random.default_rng(0)
    x = generator.normal(size=(batch * steps, features)).astype(np.float32)
    y = generator.normal(size=(batch * steps, 4)).astype(np.float32)
    models = {case: network(width, *own) for case, own in CASES.items()}
    for model in models.values():
        model.fit(x[:batch], y[:batch], batch_size=batch, verbose=0)
    times = {case: np.zeros(2) for case in CASES}
    for _ in range(FITS):
        for case in random.sample(sorted(models), len(models)):
            before = clocks()
            models[case].fit(x, y, batch_size=batch, check_data=False, verbose=0)
            times[case] += (clocks() - before) / (FITS * steps)
    return times


def clocks():
    return np.array([time.perf_counter(), time.process_time()])


def operations(name, case):
    """Return the operations of the program."""
    features, width, *_ = NETWORKS[name]
    model = network(width, *CASES[case])
    model.fit(np.zeros((1, features)), np.zeros((1, 4)), verbose=0)
    return sorted(operation for _, operation, _ in core_of(model).ready().built.program.nodes())


def main(rounds):
    for name in NETWORKS:
        times = [measured(name) for _ in range(rounds)]
        base = np.median([one["built-in"] for one in times], axis=0) * 1000
        print(f"{name}: built-in {base[0]:.3f} ms a step, {base[1]:.3f} ms of processor time")
        for case in ("layers", "loss", "both"):
            low, middle, high = np.percentile([one[case] / one["built-in"] for one in times], [25, 50, 75], axis=0)
            alike = operations(name, case) == operations(name, "built-in")
            print(f"  {case}: {middle[0]:.3f} ({low[0]:.3f} to {high[0]:.3f}), processor time {middle[1]:.3f} "
                  f"({low[1]:.3f} to {high[1]:.3f}); {'the same' if alike else 'other'} operations")  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
