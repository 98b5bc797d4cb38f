"""Time the same work from the same arrays in burnish and its peers, interleaved, and print the ratios.

    python benches/peers [--quick] [--json FILE] [--workloads NAME ...] [--peers NAME ...]
    python benches/peers --cold [--rounds N] [--json FILE] [--peers NAME ...]

A library that is not installed, or that cannot do a workload, is left out, and the reason is printed. With --cold, what
is timed is a script: from the start of its process to the end of its first epoch; beside it the import alone, the
memory's peak and what an installation takes. Numbers are fair only on a machine that does nothing else; on another,
--processor-time compares what one thread needs, which tells nothing of more, nor of an update, which is timed within a
step.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from cold import cold
from measure import measure
from peer import PEERS
from report import OURS, Row, details, document, overview, parts, processor
from worker import Worker, cores
from workloads import WORKLOADS, Training, Update


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python benches/peers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 rounds of 0.05 s with all cores, not 15 of 0.2 s")
    parser.add_argument("--cold", action="store_true", help="time scripts from the start instead of steps")
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for other processes, a workload")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="one thread's time on the processor, for a machine that is not idle",
    )
    parser.add_argument("--rounds", type=int, help="how often each is timed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every time there")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="NAME")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="NAME")
    return parser.parse_args()


def thread_counts() -> list[int]:
    """1, 2, 4, ... and all cores."""
    most = cores()
    return sorted({2**power for power in range(most.bit_length())} | {most})


def team(peer: str, counts: list[int]) -> list[Worker]:
    """A worker for each number of threads; none where the library is missing."""
    try:
        return [Worker(peer, threads) for threads in counts]
    except ModuleNotFoundError as error:
        if peer == OURS:
            raise
        print(f"{peer}: left out ({error})")
        return []


def row_of(teams: list[list[Worker]], name: str, **how: Any) -> Row:
    """Measure a workload and print it."""
    workload = WORKLOADS[name]
    row = Row(workload, *measure(teams, workload, **how))
    if row.ours and isinstance(workload, Training):
        worker = next(each for team in teams for each in team if (each.peer, each.threads) == (OURS, row.ours.threads))
        row.profile = worker.profile(name)
    print(f"\n{details(row)}", flush=True)
    for peer, reason in row.left_out.items():
        print(f"{peer}: left out ({reason})", flush=True)
    return row


def compare(options: argparse.Namespace) -> None:
    """Time steps."""
    how = {"rounds": options.rounds or 15, "window": 0.2, "patience": options.patience}
    how |= {"rounds": 3, "window": 0.05, "patience": 0} if options.quick else {}
    how |= {"patience": 0, "processor": True} if options.processor_time else {"processor": False}
    counts = [1] if options.processor_time else thread_counts()[-1:] if options.quick else thread_counts()
    names = [name for name in options.workloads if not (options.processor_time and isinstance(WORKLOADS[name], Update))]
    teams = [workers for peer in options.peers if (workers := team(peer, counts))]
    try:
        versions = {workers[0].peer: workers[0].version for workers in teams}
        print(f"{processor()}, {cores()} cores;", ", ".join(map(" ".join, versions.items())))
        rows = [row_of(teams, name, **how) for name in names]
    finally:
        for workers in teams:
            for worker in workers:
                worker.close()
    print(f"\n{overview(rows, list(versions))}\n\n{parts(rows)}")
    if options.json:
        options.json.write_text(json.dumps(document(versions, rows), indent=1) + "\n")
    if risen := [f"{row.workload.name} in {peer}" for row in rows for peer in row.risen]:
        raise SystemExit(f"the loss did not fall: {', '.join(risen)}")


def main() -> None:
    options = arguments()
    if options.cold:
        cold(options.peers, rounds=options.rounds or 7, file=options.json)
    else:
        compare(options)


if __name__ == "__main__":
    main()
