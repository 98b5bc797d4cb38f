"""Time a step against width, depth, batch and rows, and fit how it grows.

    python benches/growth.py [--rounds N] [--seconds S] [--rows N] [--memmap FOLDER]

Of a perceptron a step's work is, where overhead no longer counts, the width squared, the depth and the batch; it does
not know of how many rows the array is. The exponent is that of the line through the logarithms of sizes and times, and
beside it that of the last two sizes. Rows are one row shown many times, which takes no memory, or with --memmap a file
of their full size. Numbers are fair only on a machine that does nothing else.
"""

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import linear_regression, median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

import burnish as bn

Array = np.ndarray[Any, Any]
CLASSES = 10
LEAST_ROWS = 4096  # of the fits whose rows do not grow


class Fit(NamedTuple):
    """A model and what it is fitted to."""

    model: bn.Sequential
    x: Array
    y: Array
    batch_size: int

    @property
    def steps(self) -> int:
        """How many an epoch has."""
        return -(-len(self.x) // self.batch_size)

    def milliseconds(self, epochs: int) -> float:
        """Time of a step, where so many epochs are fitted."""
        start = perf_counter()
        self.model.fit(self.x, self.y, epochs=epochs, batch_size=self.batch_size, verbose=0)
        return 1e3 * (perf_counter() - start) / (epochs * self.steps)


class Growth(NamedTuple):
    """What grows, through which sizes, and what is fitted at each."""

    name: str
    sizes: tuple[int, ...]
    ideal: float
    fit: Callable[[int], Fit]


def perceptron(width: int, depth: int) -> bn.Sequential:
    """So many hidden layers of one width, compiled."""
    hidden = [bn.layers.Dense(width, activation="relu") for _ in range(depth)]
    model = bn.Sequential([*hidden, bn.layers.Dense(CLASSES)])
    model.compile("cross_entropy", "adam", 1e-3)
    return model


def fit(*, width: int, depth: int, batch_size: int) -> Fit:
    """A fit of random rows as wide as the layers."""
    rng = np.random.default_rng(0)
    rows = max(LEAST_ROWS, batch_size)
    x = rng.standard_normal((rows, width), dtype=np.float32)
    return Fit(perceptron(width, depth), x, rng.integers(0, CLASSES, rows), batch_size)


def fit_of_rows(rows: int, folder: Path | None, width: int = 64) -> Fit:
    """A fit of so many rows in batches of 256."""
    rng = np.random.default_rng(0)
    row = rng.standard_normal(width, dtype=np.float32)
    if folder:
        x: Array = np.memmap(folder / f"{rows}.raw", np.float32, "w+", shape=(rows, width))
        x[:] = row
    else:
        x = np.broadcast_to(row, (rows, width))
    return Fit(perceptron(width, 2), x, np.broadcast_to(np.int64(1), (rows,)), 256)


def growths(most_rows: int, folder: Path | None) -> list[Growth]:
    """All that is measured."""
    rows = (*(size for size in (10_000, 100_000, 1_000_000) if size < most_rows), most_rows)
    return [
        Growth("width", (256, 512, 1024, 2048), 2, lambda width: fit(width=width, depth=3, batch_size=256)),
        Growth("depth", (2, 4, 8, 16, 32), 1, lambda depth: fit(width=256, depth=depth, batch_size=256)),
        Growth("batch", (128, 256, 512, 1024, 2048), 1, lambda batch: fit(width=512, depth=3, batch_size=batch)),
        Growth("rows", rows, 0, partial(fit_of_rows, folder=folder)),
    ]


def epochs_in(one: Fit, seconds: float) -> int:
    """How many epochs fit in so many seconds, after one that compiles."""
    one.milliseconds(1)
    return max(1, round(1e3 * seconds / (one.milliseconds(1) * one.steps)))


def measured(growth: Growth, rounds: int, seconds: float) -> list[float]:
    """Median milliseconds of a step at each size; the sizes take turns."""
    fits = [growth.fit(size) for size in growth.sizes]
    epochs = [epochs_in(one, seconds) for one in fits]
    times = [[one.milliseconds(count) for one, count in zip(fits, epochs, strict=True)] for _ in range(rounds)]
    return [median(column) for column in zip(*times, strict=True)]


def exponents(sizes: tuple[int, ...], times: list[float]) -> tuple[float, float]:
    """Slopes in logarithms: through all points, and through the last two."""
    x, y = np.log(sizes).tolist(), np.log(times).tolist()
    return linear_regression(x, y).slope, (y[-1] - y[-2]) / (x[-1] - x[-2])


def line(growth: Growth, times: list[float]) -> str:
    """A line of the table."""
    points = ", ".join(f"{size:,}: {time:.3g}" for size, time in zip(growth.sizes, times, strict=True))
    fitted, last = exponents(growth.sizes, times)
    return f"| {growth.name} | {points} | {fitted:.2f} | {last:.2f} | {growth.ideal:g} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python benches/growth.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.25, help="of each measurement, one epoch at least")
    parser.add_argument("--rows", type=int, default=10_000_000, help="the most rows")
    parser.add_argument("--memmap", type=Path, metavar="FOLDER", help="write the rows to files there for the while")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, float32, Adam; medians of {options.rounds} rounds\n")
    print("| against | ms a step | exponent | of the last two | ideal |\n| --- | --- | ---: | ---: | ---: |")
    with TemporaryDirectory(dir=options.memmap) as folder:
        for growth in growths(options.rows, Path(folder) if options.memmap else None):
            print(line(growth, measured(growth, options.rounds, options.seconds)), flush=True)


if __name__ == "__main__":
    main()
