"""A fit on a memory-mapped array: its peak memory, and how fast it reads beside the same array in memory.

`python benches/streaming.py [--gigabytes 4] [--rows 100000]` prints both; the large array is a sparse file of zeros.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

import burnish as bn
from burnish import layers

COLUMNS = 1024


def network(units: int = 64) -> bn.Model:
    model = bn.Sequential([layers.Dense(units, "relu"), layers.Dense(10)])
    model.compile("cross_entropy", "sgd", 0.01)
    return model


def peak() -> float:
    """Return the most memory that this process ever held, in MB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1e3


def large(path: Path, gigabytes: float) -> None:
    """Fit, evaluate and predict on a file of so many gigabytes, and print the peak."""
    rows = int(gigabytes * 1e9 / (4 * COLUMNS))
    x = np.memmap(path, np.float32, "w+", shape=(rows, COLUMNS))
    x = np.memmap(path, np.float32, "r", shape=(rows, COLUMNS))
    y = np.arange(rows) % 10
    before, model = peak(), network()
    began = perf_counter()
    model.fit(x, y, batch_size=256, validation_split=0.1, verbose=0)
    fitted = perf_counter()
    model.evaluate(x, y)
    model.predict(x)
    print(f"{x.nbytes / 1e9:.1f} GB: peak {peak():.0f} MB, of it {before:.0f} MB before the fit")
    print(f"fit {fitted - began:.1f} s, evaluate and predict {perf_counter() - fitted:.1f} s")


def compare(path: Path, rows: int) -> None:
    """Time epochs over a file in the page cache and over the same array in memory, one after the other."""
    inside = np.random.default_rng(0).normal(size=(rows, COLUMNS)).astype(np.float32)
    inside.tofile(path)
    mapped = np.memmap(path, np.float32, "r", shape=inside.shape)
    y = np.arange(rows) % 10
    print(f"an epoch of {rows} rows ({inside.nbytes / 1e9:.2f} GB), of it waited for data:")
    for units in (64, 512):
        spent: dict[str, list[tuple[float, float]]] = {"memory": [], "file": []}
        models = {name: network(units) for name in spent}
        for _ in range(3):
            for name, x in (("memory", inside), ("file", mapped)):
                timing = models[name].fit(x, y, batch_size=256, verbose=0, check_data=False).timing
                spent[name].append((timing["total"][0], timing["data"][0]))
        (memory, _), (file, waited) = (np.median(spent[name], axis=0) for name in ("memory", "file"))
        share = f"waited {100 * waited / file:.0f} %"
        print(f"{units} units: in memory {memory:.2f} s, from a file {file:.2f} s ({share}), ratio {file / memory:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--child", type=Path)
    arguments = parser.parse_args()
    if arguments.child is not None:
        large(arguments.child, arguments.gigabytes)
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--child", f"{folder}/large", "--gigabytes", str(arguments.gigabytes)]
        subprocess.run(command, check=True)
        compare(Path(folder) / "small", arguments.rows)


if __name__ == "__main__":
    main()
