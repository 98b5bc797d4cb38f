"""Time Adam's update alone, burnish's against PyTorch's fused one, interleaved in one run.

    python benches/optimizer_step.py [--elements N] [--rounds N]

Both update one float32 parameter whose gradient is there already; neither computes a loss. burnish's is the engine's
rule, called by its bench binary (which `cargo bench` builds) and timed there, PyTorch's
`torch.optim.Adam(fused=True).step()`, timed here. Each runs in processes of its own, with 1 thread, 2, 4, … up to all
cores; one process works at a time. The times compared are those with the number of threads that suits each best.
"""

import argparse
import json
import os
import subprocess
import sys
from statistics import median
from time import perf_counter, sleep
from typing import IO

SETTLE_SECONDS = 0.05  # thread pools of the process before go to sleep


def bench_binary() -> str:
    """Build the engine's bench and return its path."""
    command = ["cargo", "bench", "--workspace", "--bench", "kernels", "--no-run", "--message-format=json"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    messages = [json.loads(line) for line in lines]
    return next(found for each in messages if (found := each.get("executable")))


def thread_counts() -> list[int]:
    """1, 2, 4, ... and all cores."""
    cores = os.cpu_count() or 1
    return sorted({2**power for power in range(cores.bit_length()) if 2**power <= cores} | {cores})


class Worker:
    """A process that answers each line with the seconds of one update."""

    def __init__(self, command: list[str], threads: int) -> None:
        variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), str(threads))
        self.threads = threads
        self.seconds: list[float] = []
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | variables
        )

    def run(self, updates: int) -> None:
        """Keep the median of some updates."""
        sleep(SETTLE_SECONDS)
        self.seconds.append(median(self._update() for _ in range(updates)))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _update(self) -> float:
        assert self._process.stdin
        assert self._process.stdout
        print(file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


def serve_torch(elements: int, requests: IO[str]) -> None:
    """Be the worker of PyTorch."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    parameter = torch.full((elements,), 0.5, requires_grad=True)
    parameter.grad = torch.full((elements,), 0.01)
    optimizer = torch.optim.Adam([parameter], fused=True)
    for _ in requests:
        start = perf_counter()
        optimizer.step()
        print(perf_counter() - start, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--elements", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--serve-torch", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_torch:
        serve_torch(options.elements, sys.stdin)
        return
    elements = str(options.elements)
    commands = {
        "burnish": [bench_binary(), "--update", "adam", elements],
        "torch": [sys.executable, __file__, "--serve-torch", "--elements", elements],
    }
    teams = {name: [Worker(command, threads) for threads in thread_counts()] for name, command in commands.items()}
    for _ in range(options.rounds):
        for worker in (worker for team in teams.values() for worker in team):
            worker.run(updates=5)
    best = {name: min(team, key=lambda worker: median(worker.seconds)) for name, team in teams.items()}
    pairs = zip(best["torch"].seconds, best["burnish"].seconds, strict=True)
    ratio = median(torch / burnish for torch, burnish in pairs)
    print(f"| Adam, {elements} parameters | threads | ms (median) | ms (best) | time / burnish |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, worker in best.items():
        times = f"{1e3 * median(worker.seconds):.2f} | {1e3 * min(worker.seconds):.2f}"
        print(f"| {name} | {worker.threads} | {times} | {ratio if name == 'torch' else 1.0:.2f} |")
    for worker in (worker for team in teams.values() for worker in team):
        worker.close()


if __name__ == "__main__":
    main()
