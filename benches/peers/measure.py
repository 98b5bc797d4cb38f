"""Interleaved measurement: one worker runs at a time, each in its turn, every round."""

from dataclasses import dataclass, field
from math import isfinite
from statistics import median
from time import sleep

from peer import UnableError
from worker import Worker
from workloads import Workload

SETTLE_SECONDS = 0.05  # thread pools of the peer before go to sleep
LEAST_ROUNDS = 3  # of a library that is so slow that its share of the time is used up


@dataclass
class Result:
    """A library's times on one workload with some number of threads."""

    peer: str
    threads: int
    epochs: int  # a round
    first: float | None  # what came out of the first epoch
    last: float | None = None
    milliseconds: list[float] = field(default_factory=list[float])  # per step, one value a round

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
    _, first = worker.run(1)
    seconds, _ = worker.run(1)
    return Result(worker.peer, worker.threads, max(1, round(window / seconds)), first)


def run_round(worker: Worker, workload: Workload, result: Result) -> float:
    """Keep the time per step; the seconds of the round."""
    sleep(SETTLE_SECONDS)
    seconds, result.last = worker.run(result.epochs)
    if result.last is not None and not isfinite(result.last):
        raise RuntimeError(f"{worker.peer} on {workload.name}: {result.last}")
    result.milliseconds.append(1e3 * seconds / (result.epochs * workload.steps))
    return seconds


def measure(
    teams: list[list[Worker]], workload: Workload, *, rounds: int, window: float
) -> tuple[list[Result], dict[str, str]]:
    """Time every library that can; the rest with the reason.

    A team is one library with several numbers of threads, of which the best counts.
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
                left[worker] -= run_round(worker, workload, result)
    teams = [team for team in teams if team[0] in results and team[0].peer not in left_out]
    best = [min((results[worker] for worker in team), key=lambda result: result.median) for team in teams]
    return best, left_out
