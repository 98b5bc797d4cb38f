"""What every library is timed on: networks described once, layer by layer, and the arrays that they train on."""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Dense:
    """x · kernel + bias."""

    units: int
    relu: bool = False

    def output(self, shape: Shape) -> Shape:
        """Shape of a row behind the layer."""
        return (*shape[:-1], self.units)


@dataclass(frozen=True)
class Convolution:
    """3x3, same padding."""

    filters: int
    relu: bool = False
    bias: bool = True

    def output(self, shape: Shape) -> Shape:
        return (*shape[:-1], self.filters)


@dataclass(frozen=True)
class Kept:
    """A layer whose output has the shape of its input."""

    def output(self, shape: Shape) -> Shape:
        return shape


class BatchNorm(Kept):
    """Normalisation by the batch's statistics, with running ones beside them."""


class Relu(Kept):
    """max(x, 0)."""


@dataclass(frozen=True)
class Encoder(Kept):
    """A transformer's encoder layer: normalisation after each sum, relu, no dropout."""

    heads: int
    hidden: int


@dataclass(frozen=True)
class MaxPool:
    """The largest of each 2x2."""

    def output(self, shape: Shape) -> Shape:
        height, width, channels = shape
        return (height // 2, width // 2, channels)


@dataclass(frozen=True)
class Mean:
    """The mean over all places."""

    def output(self, shape: Shape) -> Shape:
        return shape[-1:]


@dataclass(frozen=True)
class Flatten:
    """All of a row's numbers along one axis."""

    def output(self, shape: Shape) -> Shape:
        return (prod(shape),)


@dataclass(frozen=True)
class LastState:
    """The last h of an LSTM."""

    units: int

    def output(self, _shape: Shape) -> Shape:
        return (self.units,)


@dataclass(frozen=True)
class Embedding:
    """A learnt vector for each of `rows` integers."""

    rows: int
    width: int

    def output(self, shape: Shape) -> Shape:
        return (*shape, self.width)


Layer = Dense | Convolution | BatchNorm | Relu | Encoder | MaxPool | Mean | Flatten | LastState | Embedding


@dataclass(frozen=True)
class Training:
    """A classifier, trained on shuffled batches with Adam and cross-entropy; what is timed is a step."""

    name: str
    shape: Shape
    layers: tuple[Layer, ...]
    batch_size: int
    steps: int  # per epoch

    def inputs(self) -> list[tuple[Layer, Shape]]:
        """Each layer with the shape of a row before it."""
        shapes = [self.shape]
        for layer in self.layers:
            shapes.append(layer.output(shapes[-1]))
        return list(zip(self.layers, shapes, strict=False))

    @property
    def classes(self) -> int:
        """How many classes there are."""
        (classes,) = self.layers[-1].output(())
        return classes

    def arrays(self) -> tuple[Array, Array]:
        """Inputs (float32, or int64 for an embedding) and labels (int64) that a linear map explains."""
        rng = np.random.default_rng(0)
        rows = self.batch_size * self.steps
        if isinstance(first := self.layers[0], Embedding):
            tokens = rng.integers(0, first.rows, (rows, *self.shape))
            votes = rng.standard_normal((first.rows, self.classes), dtype=np.float32)
            return tokens, votes[tokens].sum(axis=1).argmax(axis=1)
        x = rng.standard_normal((rows, *self.shape), dtype=np.float32)
        teacher = rng.standard_normal((prod(self.shape), self.classes), dtype=np.float32)
        return x, (x.reshape(rows, -1) @ teacher).argmax(axis=1)


@dataclass(frozen=True)
class Update:
    """Adam's step alone, on square matrices whose gradients are there already."""

    name: str
    matrices: int
    side: int
    steps: int


@dataclass(frozen=True)
class Differences:
    """The gradient of a perceptron's loss on one batch by central differences: every parameter moved up and down."""

    name: str
    widths: Shape
    batch_size: int
    step: float = 1e-2  # times the larger of 1 and |parameter|

    steps = 1

    def arrays(self) -> tuple[Array, Array]:
        """One batch."""
        return Training(self.name, self.widths[:1], perceptron(*self.widths[1:]), self.batch_size, 1).arrays()

    def parameters(self) -> list[tuple[Array, Array]]:
        """Kernel and bias of each layer, the same in every library."""
        rng = np.random.default_rng(1)
        return [dense(rng, *shape) for shape in pairwise(self.widths)]


Workload = Training | Update | Differences


def dense(rng: np.random.Generator, *shape: int) -> tuple[Array, Array]:
    """Return a He-initialised kernel and a bias of zeros."""
    scale = np.float32(np.sqrt(2 / prod(shape[:-1])))
    return scale * rng.standard_normal(shape, dtype=np.float32), np.zeros(shape[-1], np.float32)


def perceptron(*widths: int) -> tuple[Layer, ...]:
    """Dense layers with relu between them."""
    *hidden, classes = widths
    return (*(Dense(units, relu=True) for units in hidden), Dense(classes))


def normalised(filters: int) -> tuple[Layer, ...]:
    """A convolution, normalisation and relu."""
    return Convolution(filters, bias=False), BatchNorm(), Relu()


MLP = perceptron(256, 128, 10)
CNN = (Convolution(16, relu=True), MaxPool(), Convolution(32, relu=True), MaxPool(), Flatten(), Dense(10))
DEEP_CNN = (
    *(*normalised(32), *normalised(32), MaxPool()),
    *(*normalised(64), *normalised(64), MaxPool()),
    *(*normalised(128), Mean(), Dense(10)),
)
WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Training("mlp-128", (784,), MLP, batch_size=128, steps=64),
        Training("mlp-32", (784,), MLP, batch_size=32, steps=128),
        Training("tabular-32", (30,), perceptron(64, 64, 2), batch_size=32, steps=512),
        Training("cnn-64", (28, 28, 1), CNN, batch_size=64, steps=16),
        Training("deep-cnn-64", (32, 32, 3), DEEP_CNN, batch_size=64, steps=4),
        Training("lstm-32", (50, 64), (LastState(64), Dense(10)), batch_size=32, steps=32),
        Training("lstm-128", (50, 64), (LastState(64), Dense(10)), batch_size=128, steps=16),
        Training(
            "transformer-32", (64, 128), (Encoder(4, 512), Encoder(4, 512), Mean(), Dense(10)), batch_size=32, steps=4
        ),
        Training("embedding-128", (32,), (Embedding(50_000, 64), Mean(), Dense(10)), batch_size=128, steps=16),
        Update("adam-10m", matrices=10, side=1000, steps=5),
        Differences("differences", (64, 128, 10), batch_size=32),
    )
}
