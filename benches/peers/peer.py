"""What the bench asks of a library. The list of libraries is here and nowhere else."""

from importlib import import_module
from typing import Protocol, cast

from workloads import Workload

PEERS = {
    "burnish": "burnish_peer:BurnishPeer",
    "torch": "torch_peer:TorchPeer",
    "jax": "jax_peer:JaxPeer",
    "jax-reshape-pool": "jax_peer:JaxReshapePeer",
    "scikit-learn": "sklearn_peer:SklearnPeer",
}


class Peer(Protocol):
    """One library in a process of its own, held to `threads` threads."""

    version: str

    def __init__(self, threads: int) -> None: ...

    def build(self, workload: Workload) -> bool:
        """Take the arrays and make the network; False where the library has no such network."""
        ...

    def train(self, epochs: int) -> float:
        """Train on shuffled batches, wait for the end, return the mean loss of the last epoch."""
        ...


def load_peer(name: str, threads: int) -> Peer:
    """Import the library and make its peer."""
    module, attribute = PEERS[name].split(":")
    return cast("type[Peer]", getattr(import_module(module), attribute))(threads)
