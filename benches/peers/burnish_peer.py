"""burnish, as a user calls it: `compile` and `fit`."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

import burnish as bn
import workloads as w
from peer import Peer, Run, Timed, clocked

ACTIVATION = {False: "linear", True: "relu"}
LAYERS: dict[type, Callable[[Any], bn.layers.Layer]] = {
    w.Dense: lambda layer: bn.layers.Dense(layer.units, activation=ACTIVATION[layer.relu]),
    w.Convolution: lambda layer: bn.layers.Conv2D(
        layer.filters, 3, padding="same", activation=ACTIVATION[layer.relu], use_bias=layer.bias
    ),
    w.BatchNorm: lambda _: bn.layers.BatchNorm(),
    w.Relu: lambda _: bn.layers.ReLU(),
    w.Encoder: lambda layer: bn.layers.TransformerEncoderLayer(layer.hidden, layer.heads),
    w.MaxPool: lambda _: bn.layers.MaxPool2D(2),
    w.Mean: lambda _: bn.layers.GlobalAvgPool(),
    w.Flatten: lambda _: bn.layers.Flatten(),
    w.LastState: lambda layer: bn.layers.LSTM(layer.units),
    w.Embedding: lambda layer: bn.layers.Embedding(layer.rows, layer.width),
}
PROFILED_SECONDS = 0.5
MATMUL_SIDE = 1024


class BurnishPeer(Peer):
    """Threads are set by RAYON_NUM_THREADS, which the worker's environment holds."""

    version = bn.__version__

    def training(self, workload: w.Training) -> Run:
        model, (x, y) = network(workload.layers), workload.arrays()

        def train(epochs: int) -> float:
            history = model.fit(x, y, epochs=epochs, batch_size=workload.batch_size, verbose=0)
            return float(history.history["loss"][-1])

        return clocked(train)

    def update(self, workload: w.Update) -> Run:
        """What a profile of training on one row says of the update."""
        side = workload.side
        model = bn.Sequential([bn.layers.Dense(side, use_bias=False) for _ in range(workload.matrices)])
        model.compile(loss="mse", optimizer="adam", learning_rate=w.LEARNING_RATE)
        x = np.ones((1, side), np.float32)

        def run(epochs: int) -> Timed:
            steps = epochs * workload.steps
            found = bn.profile(model, x, x, batch_size=1, steps=steps)
            return steps * sum(row.seconds for row in found.rows if row.phase == "update"), None

        return run

    def differences(self, workload: w.Differences) -> Run:
        model, (x, y) = network(w.perceptron(*workload.widths[1:])), workload.arrays()
        model.build((None, workload.widths[0]))
        for end, arrays in zip((".kernel", ".bias"), zip(*workload.parameters(), strict=True), strict=True):
            paths = [path for path in model.parameters() if path.endswith(end)]
            model.set_parameters(dict(zip(paths, arrays, strict=True)))

        def run(epochs: int) -> float:
            found = [bn.gradients(model, x, y, method="numerical") for _ in range(epochs)]
            return float(np.sqrt(sum(np.square(part).sum() for part in found[-1].values())))

        return clocked(run)

    def profile(self, workload: w.Training) -> dict[str, Any]:
        """Where a step's time goes, and the machine's peak."""
        model, (x, y) = network(workload.layers), workload.arrays()
        step = bn.profile(model, x, y, batch_size=workload.batch_size, steps=2).seconds
        steps = max(2, min(50, int(PROFILED_SECONDS / step)))
        found = bn.profile(model, x, y, batch_size=workload.batch_size, steps=steps)
        rows = sorted(found.rows, key=lambda row: -row.seconds)
        return {
            "flops": sum(row.flops for row in found.rows),
            "peak": max(found.peak, numpy_peak()),
            "seconds": found.seconds,
            "rows": [[row.phase, row.layer, row.operation, row.seconds, row.flops] for row in rows],
        }


def network(layers: tuple[w.Layer, ...], device: str = "cpu") -> bn.Sequential:
    """Build and compile."""
    model = bn.Sequential([LAYERS[type(layer)](layer) for layer in layers])
    model.compile(loss="cross_entropy", optimizer="adam", learning_rate=w.LEARNING_RATE, device=device)
    return model


def numpy_peak() -> float:
    """Return the most FLOPs a second of some products in NumPy."""
    matrix, seconds = np.ones((MATMUL_SIDE, MATMUL_SIDE), np.float32), list[float]()
    for _ in range(8):
        start = perf_counter()
        matrix @ matrix
        seconds.append(perf_counter() - start)
    return 2 * MATMUL_SIDE**3 / min(seconds)
