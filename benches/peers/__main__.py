"""Train the same networks from the same arrays in burnish and its peers, interleaved, and print the ratios.

    python benches/peers [--quick] [--json FILE] [--workloads NAME ...] [--peers NAME ...]

A library that is not installed is left out. Numbers are fair only on a machine that does nothing else.
"""

import argparse
import json
import os
from pathlib import Path

from measure import measure
from peer import PEERS
from report import document, processor, table
from worker import Worker
from workloads import WORKLOADS


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python benches/peers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 rounds of 1 epoch instead of 15 of 3")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every time there")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="NAME")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="NAME")
    return parser.parse_args()


def thread_counts() -> list[int]:
    """1, 2, 4, ... and all cores."""
    cores = os.cpu_count() or 1
    return sorted({2**power for power in range(cores.bit_length()) if 2**power <= cores} | {cores})


def team(peer: str) -> list[Worker]:
    """A worker for each number of threads; none where the library is missing."""
    try:
        return [Worker(peer, threads) for threads in thread_counts()]
    except ModuleNotFoundError as error:
        print(f"{peer}: left out ({error})")
        return []


def main() -> None:
    options = arguments()
    rounds, epochs = (3, 1) if options.quick else (15, 3)
    teams = [workers for workers in map(team, options.peers) if workers]
    versions = {workers[0].peer: workers[0].version for workers in teams}
    print(
        f"{processor()}, {os.cpu_count()} cores;", ", ".join(f"{peer} {version}" for peer, version in versions.items())
    )
    results = {}
    for name in options.workloads:
        results[name] = measure(teams, WORKLOADS[name], rounds=rounds, epochs=epochs)
        print(f"\n{table(name, results[name])}", flush=True)
    for workers in teams:
        for worker in workers:
            worker.close()
    if options.json:
        options.json.write_text(json.dumps(document(versions, results), indent=1) + "\n")


if __name__ == "__main__":
    main()
