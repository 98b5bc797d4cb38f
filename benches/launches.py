"""Count the kernels that a training step asks of a GPU: each costs some microseconds, however little it computes.

    python benches/launches.py [--device wgpu] [--workloads NAME …]

The workloads are those of `benches/peers`. CubeCL logs every kernel that it launches; which are fused it decides by
timing them on the device, so that counts differ a little between devices and runs. It needs a build with a GPU backend.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.append(str(Path(__file__).parent / "peers"))
import workloads as w
from burnish_peer import network

STEPS = 8  # of a fit
NETWORKS = {name: workload for name, workload in w.WORKLOADS.items() if isinstance(workload, w.Training)}
MARK = "Executing "
CONFIGURATION = """
[profiling.logger]
level = "minimal"
file = "{}"
"""


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--workloads", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    parser.add_argument("--device", default="wgpu")
    arguments = parser.parse_args()
    print("| workload | kernels a step |\n|---|---|")
    with TemporaryDirectory() as folder:
        log = Path(folder, "kernels.log")
        Path(folder, "cubecl.toml").write_text(CONFIGURATION.format(log))
        os.chdir(folder)  # CubeCL looks for its configuration here when the first device is used
        for name in arguments.workloads:
            print(f"| {name} | {kernels(NETWORKS[name], arguments.device, log):.1f} |", flush=True)


def kernels(workload: w.Training, device: str, log: Path) -> float:
    """Count those of a step, once all are compiled and chosen."""
    model, (x, y) = network(workload.layers, device), replace(workload, steps=STEPS).arrays()

    def fit() -> int:
        model.fit(x, y, epochs=1, batch_size=workload.batch_size, verbose=0)
        return log.read_text(errors="replace").count(MARK)

    before, after = [fit() for _ in range(3)][1:]
    return (after - before) / STEPS


if __name__ == "__main__":
    main()
