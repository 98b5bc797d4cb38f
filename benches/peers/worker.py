"""A library in a process of its own, which works only while it is asked to.

The process reads one JSON request a line and answers each with one line.
"""

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic, process_time
from typing import Any, NamedTuple, TextIO

from peer import UnableError, load_peer
from workloads import WORKLOADS

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "NUM_CPU_THREADS",  # tinygrad
)
SETTINGS = {"JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax", "DEV": "CPU"}  # the last is tinygrad's
LIMIT_SECONDS = 100.0  # of compiling and a first epoch, or of a round


def environment(threads: int) -> dict[str, str]:
    """Return the variables of a process held to so many threads."""
    return os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)) | SETTINGS


class Ran(NamedTuple):
    """Seconds of some epochs, by the clock and of processors, what came out, and the share of other processes."""

    seconds: float
    own: float
    result: float | None
    others: float


def cores() -> int:
    """Return how many processors there are."""
    return os.cpu_count() or 1


def busy_seconds() -> float:
    """Return how long the processors have worked since the machine started; 0 where the system does not tell it."""
    try:
        with Path("/proc/stat").open(encoding="ascii") as lines:
            user, nice, system, _idle, _waiting, *interrupts = map(int, next(lines).split()[1:9])
    except OSError:
        return 0.0
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


class Worker:
    """The bench's end of the pipe."""

    def __init__(self, peer: str, threads: int) -> None:
        self.peer, self.threads = peer, threads
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), self.peer, str(self.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(self.threads),
            process_group=0,  # that a compiler's processes end with it
        )
        self.version: str = self._answer()

    def prepare(self, workload: str) -> None:
        """Have the library take the arrays and make what is to be timed, and let go of what it had."""
        if self._process.poll() is not None:
            self._start()
        self._ask({"prepare": workload})

    def run(self, epochs: int) -> Ran:
        """Do so many epochs."""
        start, busy = monotonic(), busy_seconds()
        seconds, result, own = self._ask({"run": epochs})
        others = busy_seconds() - busy - own
        return Ran(seconds, own, result, max(0.0, others) / (cores() * (monotonic() - start)))

    def profile(self, workload: str) -> dict[str, Any]:
        """Return where a step's time goes (burnish)."""
        return self._ask({"profile": workload})

    def close(self) -> None:
        """End the process and those that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], LIMIT_SECONDS)[0]:
            self.close()
            raise UnableError(f"did not answer for {LIMIT_SECONDS:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.peer} ended with status {self._process.wait()}; its error stands above")
        answer = json.loads(line)
        if "missing" in answer:
            self.close()
            raise ModuleNotFoundError(answer["missing"])
        if "unable" in answer:
            raise UnableError(answer["unable"])
        return answer["result"]


def serve(name: str, threads: int, requests: TextIO, answers: TextIO) -> None:
    """Answer requests until there are no more."""

    def answer(**fields: Any) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    try:
        peer = load_peer(name, threads)
    except ModuleNotFoundError as error:
        answer(missing=str(error))
        return
    answer(result=peer.version)
    run = None
    for line in requests:
        match json.loads(line):
            case {"prepare": workload}:
                run = None  # frees what the workload before held
                try:
                    run = peer.prepare(WORKLOADS[workload])
                except UnableError as error:
                    answer(unable=str(error))
                else:
                    answer(result=None)
            case {"run": epochs} if run:
                before = process_time()
                answer(result=(*run(epochs), process_time() - before))
            case {"profile": workload}:
                answer(result=peer.profile(WORKLOADS[workload]))
            case other:
                raise ValueError(other)


if __name__ == "__main__":
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not end up in the answers
    serve(sys.argv[1], int(sys.argv[2]), sys.stdin, pipe)
