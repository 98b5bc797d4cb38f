"""The networks and the arrays that every library trains on."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Workload:
    """A classifier: convolutions (3x3, same padding, relu, 2x2 max pooling after each), then dense layers with relu.

    With `units`, an LSTM over sequences whose last state the dense layers see.
    """

    name: str
    shape: tuple[int, ...]
    convolutions: tuple[int, ...]
    hidden: tuple[int, ...]
    classes: int
    batch_size: int
    steps: int  # per epoch
    units: int = 0

    @property
    def features(self) -> int:
        """Width of what the first dense layer sees."""
        if self.units:
            return self.units
        if not self.convolutions:
            return prod(self.shape)
        height, width, _ = self.shape
        shrink = 2 ** len(self.convolutions)
        return (height // shrink) * (width // shrink) * self.convolutions[-1]

    def arrays(self) -> tuple[Array, Array]:
        """Inputs (float32) and labels (int64) that a linear map explains, so that the loss can fall."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.batch_size * self.steps, *self.shape), dtype=np.float32)
        teacher = rng.standard_normal((prod(self.shape), self.classes), dtype=np.float32)
        return x, (x.reshape(len(x), -1) @ teacher).argmax(axis=1)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("mlp-128", (784,), (), (256, 128), 10, batch_size=128, steps=64),
        Workload("mlp-32", (784,), (), (256, 128), 10, batch_size=32, steps=128),
        Workload("cnn-64", (28, 28, 1), (16, 32), (), 10, batch_size=64, steps=16),
        Workload("lstm-32", (50, 64), (), (), 10, batch_size=32, steps=32, units=64),
        Workload("lstm-128", (50, 64), (), (), 10, batch_size=128, steps=16, units=64),
        Workload("tabular-32", (30,), (), (64, 64), 2, batch_size=32, steps=512),
    )
}
