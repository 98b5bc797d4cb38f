"""Interleaved measurement: one worker runs at a time, each in its turn, every round."""

from dataclasses import dataclass, field
from math import isfinite
from statistics import median
from time import monotonic, sleep
from typing import NamedTuple

from peer import UnableError
from worker import Ran, Worker, busy_seconds, cores
from workloads import Workload

SETTLE_SECONDS = 0.05  # thread pools of the peer before go to sleep
QUIET = 0.1  # share of the machine that other processes may have; with more it is waited, or tried again
TRIES = 4
LEAST_ROUNDS = 3  # of a library that is so slow that its share of the time is used up


class Round(NamedTuple):
    """Seconds that a worker worked, and that it was waited before."""

    ran: float
    waited: float


@dataclass
class Result:
    """A library's times on one workload with some number of threads."""

    peer: str
    threads: int
    epochs: int  # a round
    first: float | None  # what came out of the first epoch
    last: float | None = None
    milliseconds: list[float] = field(default_factory=list[float])  # per step, one value a round
    others: list[float] = field(default_factory=list[float])  # share of the machine that other processes had

    @property
    def fell(self) -> bool:
        """Whether the last result is less than the first."""
        return self.first is not None and self.last is not None and self.last < self.first

    @property
    def median(self) -> float:
        """Median milliseconds per step."""
        return median(self.milliseconds)

    def ratio(self, to: "Result") -> float:
        """Median over rounds of this time by the other's in the same round."""
        return median(mine / other for mine, other in zip(self.milliseconds, to.milliseconds, strict=False))


def started(worker: Worker, workload: Workload, window: float) -> Result:
    """Have a worker compile, allocate and warm up, and choose how many epochs fit in a window of so many seconds."""
    worker.prepare(workload.name)
    first = worker.run(1).result
    return Result(worker.peer, worker.threads, max(1, round(window / worker.run(1).seconds)), first)


def settle(patience: float) -> float:
    """Wait until nothing else works on the machine, so many seconds at most; how many it was."""
    start = monotonic()
    while True:
        before = busy_seconds()
        sleep(SETTLE_SECONDS)
        waited = monotonic() - start
        if (busy_seconds() - before) / (SETTLE_SECONDS * cores()) <= QUIET or waited > patience:
            return waited


def run_round(worker: Worker, workload: Workload, result: Result, patience: float, *, processor: bool) -> Round:
    """Keep the time per step, of the clock or of the processors, of the least disturbed of a few tries."""
    tries: list[Ran] = []
    waited = 0.0
    while not tries or (len(tries) < TRIES and waited < patience and tries[-1].others > QUIET):
        waited += settle(patience - waited)
        tries.append(worker.run(result.epochs))
        result.last = tries[-1].result
        if result.last is not None and not isfinite(result.last):
            raise RuntimeError(f"{worker.peer} on {workload.name}: {result.last}")
    best = min(tries, key=lambda each: each.others)
    result.milliseconds.append(1e3 * (best.own if processor else best.seconds) / (result.epochs * workload.steps))
    result.others.append(best.others)
    return Round(sum(each.seconds for each in tries), waited)


def measure(
    teams: list[list[Worker]], workload: Workload, *, rounds: int, window: float, patience: float, processor: bool
) -> tuple[list[Result], dict[str, str]]:
    """Time every library that can; the rest with the reason.

    A team is one library with several numbers of threads, of which the best counts. For so many seconds in all it is
    waited until other processes leave the machine alone.
    """
    results: dict[Worker, Result] = {}
    left_out: dict[str, str] = {}
    for team in teams:
        try:
            results |= {worker: started(worker, workload, window) for worker in team}
        except UnableError as reason:
            left_out[team[0].peer] = str(reason)
    left = dict.fromkeys(results, rounds * 2 * window)
    for number in range(rounds):
        for worker, result in results.items():
            if number < LEAST_ROUNDS or left[worker] > 0:
                done = run_round(worker, workload, result, patience, processor=processor)
                left[worker] -= done.ran
                patience -= done.waited
    teams = [team for team in teams if team[0] in results and team[0].peer not in left_out]
    best = [min((results[worker] for worker in team), key=lambda result: result.median) for team in teams]
    return best, left_out
