"""A library in a process of its own, which works only while it is asked to.

The process reads one JSON request a line and answers each with one line.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO

from peer import load_peer
from workloads import WORKLOADS

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


class Worker:
    """The bench's end of the pipe."""

    def __init__(self, peer: str, threads: int) -> None:
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
        self.peer, self.threads = peer, threads
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), peer, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.version: str = self._answer()

    def build(self, workload: str) -> bool:
        """Make the network; False where the library has no such network."""
        return bool(self._ask({"build": workload}))

    def train(self, epochs: int) -> tuple[float, float]:
        """Train; the seconds that it took and the mean loss of the last epoch."""
        seconds, loss = self._ask({"train": epochs})
        return seconds, loss

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.peer} ended with status {self._process.wait()}; its error stands above")
        answer = json.loads(line)
        if "missing" in answer:
            self.close()
            raise ModuleNotFoundError(answer["missing"])
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
    for line in requests:
        request = json.loads(line)
        if "build" in request:
            answer(result=peer.build(WORKLOADS[request["build"]]))
        else:
            start = perf_counter()
            loss = peer.train(request["train"])
            answer(result=(perf_counter() - start, loss))


if __name__ == "__main__":
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not end up in the answers
    serve(sys.argv[1], int(sys.argv[2]), sys.stdin, pipe)
