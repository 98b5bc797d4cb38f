"""What activation checkpointing saves and costs: peak memory and step time of deep networks, a process each (Linux).

`python benches/activation_memory.py [--layers 64] [--width 256] [--batch 8192] [--steps 3]` prints a Markdown table.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any


def peak() -> float:
    """Return the most memory that this process ever held, in MiB; ru_maxrss counts the parent before exec, too."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def network(kind: str, layers: int, width: int) -> Any:
    """Return a deep network: `linear` (Dense with its ReLU fused) or `norm` (LayerNorm, Dense, GELU, residual)."""
    import burnish as bn

    def block() -> list[Any]:
        if kind == "linear":
            return [bn.layers.Dense(width, activation="relu")]
        inner = [bn.layers.LayerNorm(), bn.layers.Dense(width), bn.layers.GELU()]
        return [bn.layers.Residual(bn.Sequential(inner))]

    return bn.Sequential([*(layer for _ in range(layers) for layer in block()), bn.layers.Dense(10)])


def run(task: dict[str, Any]) -> dict[str, float]:
    """Train some steps; return the growth of the peak in MiB, the median processor time of a step and the loss.

    Processor time of all threads, because other work on the machine counts little in it.
    """
    import numpy as np

    generator = np.random.default_rng(0)
    x = generator.normal(size=(task["batch"], task["width"])).astype(np.float32)
    y = generator.integers(0, 10, task["batch"])
    model = network(task["kind"], task["layers"], task["width"])
    model.compile("cross_entropy", "sgd", precision=task["precision"], checkpoint_activations=task["checkpoint"])
    model.build((None, task["width"]))
    model.predict(x[:8])
    before = peak()
    times: list[float] = []
    for _ in range(task["steps"]):
        start = process_time()
        loss = model.train_on_batch(x, y)["loss"]
        times.append(1e3 * (process_time() - start))
    return {"memory": peak() - before, "step": median(times), "loss": loss}


def child(task: dict[str, Any]) -> dict[str, float]:
    """Do the same in a new process, whose peak is its own."""
    command = [sys.executable, __file__, "--task", json.dumps(task)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    """Measure without and with checkpoints, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("layers", 64), ("width", 256), ("batch", 8192), ("steps", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(run(json.loads(options.task))))
        return
    sizes = {name: getattr(options, name) for name in ("layers", "width", "batch", "steps")}
    print(f"{options.layers} layers of width {options.width}, batch {options.batch}; above parameters and data\n")
    print("| network | precision | checkpoints | peak MiB | of plain | CPU ms a step | of plain |")
    print("|---|---|---|---|---|---|---|")
    for kind in ("linear", "norm"):
        plain: dict[str, float] | None = None
        for precision in ("float32", "mixed_bfloat16"):
            for checkpoint in (False, True):
                found = child({**sizes, "kind": kind, "precision": precision, "checkpoint": checkpoint})
                plain = plain or found
                memory, step = found["memory"] / plain["memory"], found["step"] / plain["step"]
                print(
                    f"| {kind} | {precision} | {checkpoint} | {found['memory']:.0f} | {memory:.2f} "
                    f"| {found['step']:.0f} | {step:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
