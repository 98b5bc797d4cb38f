"""What mixed precision costs or saves: step times of an MLP and a CNN in each precision of a device, interleaved.

`python benches/precision.py [--device cpu] [--rounds 7]` prints a Markdown table.
"""

import argparse
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

import burnish as bn
from burnish import layers

PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
Workload = tuple[Any, Any, Any, int]


def mlp(width: int, rows: int) -> Workload:
    """Return a network of three layers with its data and batch size."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, width)).astype(np.float32)
    hidden = [layers.Dense(width, activation="relu") for _ in range(2)]
    return bn.Sequential([*hidden, layers.Dense(10)]), x, generator.integers(0, 10, rows), 128


def cnn(filters: int, rows: int) -> Workload:
    """Return two stages of convolution and pooling with data and batch size."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, 28, 28, 1)).astype(np.float32)
    stages = [
        layer
        for factor in (1, 2)
        for layer in (layers.Conv2D(factor * filters, 3, activation="relu"), layers.MaxPool2D())
    ]
    return bn.Sequential([*stages, layers.Flatten(), layers.Dense(10)]), x, generator.integers(0, 10, rows), 64


WORKLOADS = {
    "MLP, 3 layers of 256, batch 128": lambda: mlp(256, 2560),
    "MLP, 3 layers of 1024, batch 128": lambda: mlp(1024, 1280),
    "CNN, 16 and 32 filters, batch 64": lambda: cnn(16, 640),
}


def available(device: str, precision: str) -> bool:
    """Whether the device has the types."""
    try:
        bn.Sequential([layers.Dense(1)]).compile("mse", precision=precision, device=device)
    except ValueError:
        return False
    return True


def milliseconds(workload: Workload) -> float:
    """Time one epoch; return it per step."""
    model, x, y, batch = workload
    start = perf_counter()
    model.fit(x, y, batch_size=batch, verbose=0, check_data=False)
    return 1e3 * (perf_counter() - start) / (len(x) // batch)


def main() -> None:
    """Measure all precisions in turn, round by round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    precisions = [name for name in PRECISIONS if available(options.device, name)]
    print("| network | precision | ms a step | of float32 |\n|---|---|---|---|")
    for name, make in WORKLOADS.items():
        teams = {precision: make() for precision in precisions}
        for precision, team in teams.items():
            team[0].compile("cross_entropy", precision=precision, device=options.device)
            milliseconds(team)
        rounds = [{precision: milliseconds(team) for precision, team in teams.items()} for _ in range(options.rounds)]
        for precision in precisions:
            time = median(times[precision] for times in rounds)
            ratio = median(times[precision] / times["float32"] for times in rounds)
            print(f"| {name} | {precision} | {time:.2f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
