"""A script that trains for one epoch, and says what that took: started by cold.py."""

import sys
from importlib import import_module
from time import monotonic

if __name__ == "__main__":
    module, name, threads, folder, began = sys.argv[1:]
    before = monotonic()
    import_module(module)
    imported = monotonic() - before

import json
from dataclasses import dataclass, fields
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import numpy as np

from peer import load_peer
from workloads import WORKLOADS, Array, Training

WORKLOAD = "mlp-128"
ARRAYS = ("x.npy", "y.npy")


@dataclass(frozen=True)
class Stored(Training):
    """A workload whose arrays are read from files."""

    folder: Path

    def arrays(self) -> tuple[Array, Array]:
        x, y = (np.load(self.folder / name) for name in ARRAYS)
        return x, y


def peak_memory() -> float:
    """Return the most MB that the process had in memory: on Linux without what it inherited as it was started."""
    if (status := Path("/proc/self/status")).exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1e3
    return getrusage(RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    given = WORKLOADS[WORKLOAD]
    workload = Stored(*(getattr(given, each.name) for each in fields(given)), folder=Path(folder))
    load_peer(name, int(threads)).prepare(workload)(1)
    print(json.dumps({"epoch": monotonic() - float(began), "import": imported, "memory": peak_memory()}))
