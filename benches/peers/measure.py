"""Interleaved measurement: one worker runs at a time, each in its turn, every round."""

from dataclasses import dataclass, field
from math import isfinite
from statistics import median
from time import sleep

from worker import Worker
from workloads import Workload

SETTLE_SECONDS = 0.05  # thread pools of the peer before go to sleep


@dataclass
class Result:
    """A library's times on one workload, with the number of threads that suits it best."""

    peer: str
    threads: int
    milliseconds: list[float] = field(default_factory=list[float])  # per step, one value a round
    loss: float = 0.0

    @property
    def median(self) -> float:
        """Median milliseconds per step."""
        return median(self.milliseconds)

    def ratio(self, to: "Result") -> float:
        """Median over rounds of this time by the other's in the same round."""
        return median(mine / other for mine, other in zip(self.milliseconds, to.milliseconds, strict=True))


def step_milliseconds(worker: Worker, workload: Workload, epochs: int) -> tuple[float, float]:
    """Time per step and the loss at the end."""
    sleep(SETTLE_SECONDS)
    seconds, loss = worker.train(epochs)
    if not isfinite(loss):
        raise RuntimeError(f"{worker.peer} on {workload.name}: loss {loss}")
    return 1e3 * seconds / (epochs * workload.steps), loss


def measure(teams: list[list[Worker]], workload: Workload, *, rounds: int, epochs: int) -> list[Result]:
    """Times of every library that has such a network; a team is one library with several numbers of threads."""
    able = [team for team in teams if all(worker.build(workload.name) for worker in team)]
    results = {worker: Result(worker.peer, worker.threads) for team in able for worker in team}
    for worker in results:
        worker.train(1)  # compiles, allocates, warms up
    for _ in range(rounds):
        for worker, result in results.items():
            milliseconds, result.loss = step_milliseconds(worker, workload, epochs)
            result.milliseconds.append(milliseconds)
    return [min((results[worker] for worker in team), key=lambda result: result.median) for team in able]
