"""What the bench asks of a library. The list of libraries is here and nowhere else."""

from collections.abc import Callable
from importlib import import_module
from time import perf_counter
from typing import NamedTuple, NoReturn

from workloads import Differences, Training, Update, Workload

Timed = tuple[float, float | None]
Run = Callable[[int], Timed]  # that many epochs; the seconds that they took, and what came out


class Library(NamedTuple):
    """Where the peer is, what a user imports, and what a user installs."""

    peer: str
    module: str
    distributions: tuple[str, ...]


PEERS = {
    "burnish": Library("burnish_peer:BurnishPeer", "burnish", ("burnish",)),
    "torch": Library("torch_peer:TorchPeer", "torch", ("torch",)),
    "torch.compile": Library("torch_peer:CompiledPeer", "torch", ("torch",)),
    "jax": Library("jax_peer:JaxPeer", "jax", ("jax",)),
    "keras": Library("keras_peer:KerasPeer", "keras", ("keras", "jax")),
    "scikit-learn": Library("sklearn_peer:SklearnPeer", "sklearn.neural_network", ("scikit-learn",)),
    "tinygrad": Library("tinygrad_peer:TinygradPeer", "tinygrad", ("tinygrad",)),
}


class UnableError(Exception):
    """A library cannot do a workload; the message says why."""


class Peer:
    """One library in a process of its own, held to `threads` threads."""

    version: str

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def prepare(self, workload: Workload) -> Run:
        """Take the arrays, make what is to be timed, and return it."""
        match workload:
            case Training():
                return self.training(workload)
            case Update():
                return self.update(workload)
            case Differences():
                return self.differences(workload)

    def training(self, workload: Training) -> Run:
        """Train on shuffled batches and wait for the end; what comes out is the mean loss of the last epoch."""
        raise NotImplementedError

    def update(self, workload: Update) -> Run:
        """Do `workload.steps` updates an epoch; nothing comes out."""
        return self.lacks(f"an optimizer for {workload.name}")

    def differences(self, workload: Differences) -> Run:
        """Compute one gradient an epoch; its norm comes out."""
        return self.lacks(f"a way to run a network with many parameters at once, for {workload.name}")

    def lacks(self, what: str) -> NoReturn:
        """Say that the library cannot do it."""
        raise UnableError(f"lacks {what}")


def clocked(work: Callable[[int], float | None]) -> Run:
    """Time a function of the number of epochs."""

    def run(epochs: int) -> Timed:
        start = perf_counter()
        result = work(epochs)
        return perf_counter() - start, result

    return run


def load_peer(name: str, threads: int) -> Peer:
    """Import the library and make its peer."""
    module, attribute = PEERS[name].peer.split(":")
    peer: type[Peer] = getattr(import_module(module), attribute)
    return peer(threads)
