"""tinygrad on its CPU device: one captured step, which is run again on each batch."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

import workloads as w
from peer import Peer, Run, clocked

# Its CPU device compiles with clang, which distributions also install with its number.
COMPILERS = ["clang", *(f"clang-{number}" for number in range(22, 13, -1))]
if not (compiler := next(filter(None, map(shutil.which, COMPILERS)), None)):
    raise ModuleNotFoundError("tinygrad's CPU device needs clang")
os.environ.setdefault("CC", compiler)

from tinygrad import Context, Device, Tensor, TinyJit, nn  # noqa: E402


class LastState:
    """An LSTM of which the last h goes on, one cell after the other."""

    def __init__(self, features: int, units: int) -> None:
        self.cell = nn.LSTMCell(features, units)

    def __call__(self, x: Tensor) -> Tensor:
        state = None
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return state[0]


class EncoderLayer:
    """Attention and a feed-forward network, each with a sum and a normalisation behind it."""

    def __init__(self, heads: int, width: int, hidden: int) -> None:
        self.heads = heads
        self.projections, self.after = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.hidden, self.output = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norms = [nn.LayerNorm(width) for _ in range(2)]

    def __call__(self, x: Tensor) -> Tensor:
        batch, places, width = x.shape
        split = self.projections(x).reshape(batch, places, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        found = split[0].scaled_dot_product_attention(split[1], split[2])
        x = self.norms[0](x + self.after(found.transpose(1, 2).reshape(batch, places, width)))
        return self.norms[1](x + self.output(self.hidden(x).relu()))


class Activated:
    """A layer with relu behind it."""

    def __init__(self, layer: Callable[[Tensor], Tensor]) -> None:
        self.layer = layer

    def __call__(self, x: Tensor) -> Tensor:
        return self.layer(x).relu()


def activated(layer: Any, relu: bool) -> Any:  # noqa: FBT001
    """Return the layer, with relu behind it if asked to."""
    return Activated(layer) if relu else layer


# A layer, and the channels or features before it.
LAYERS: dict[type, Callable[[Any, int], Callable[[Tensor], Tensor]]] = {
    w.Dense: lambda layer, width: activated(nn.Linear(width, layer.units), layer.relu),
    w.Convolution: lambda layer, width: activated(
        nn.Conv2d(width, layer.filters, 3, padding=1, bias=layer.bias), layer.relu
    ),
    w.BatchNorm: lambda _, width: nn.BatchNorm(width),
    w.Relu: lambda *_: Tensor.relu,
    w.Encoder: lambda layer, width: EncoderLayer(layer.heads, width, layer.hidden),
    w.MaxPool: lambda *_: Tensor.max_pool2d,
    w.Mean: lambda *_: lambda x: x.mean((2, 3)) if x.ndim == 4 else x.mean(1),
    w.Flatten: lambda *_: partial(Tensor.flatten, start_dim=1),
    w.LastState: lambda layer, width: LastState(width, layer.units),
    w.Embedding: lambda layer, _: nn.Embedding(layer.rows, layer.width),
}


class TinygradPeer(Peer):
    """Threads are set by NUM_CPU_THREADS, which the worker's environment holds. Batches are gathered by NumPy."""

    version = version("tinygrad")

    def training(self, workload: w.Training) -> Run:
        Tensor.manual_seed(0)
        layers = [LAYERS[type(layer)](layer, shape[-1]) for layer, shape in workload.inputs()]
        optimizer = nn.optim.Adam(nn.state.get_parameters(layers), lr=w.LEARNING_RATE)
        x, y = workload.arrays()
        x = np.ascontiguousarray(np.moveaxis(x, -1, 1)) if len(workload.shape) == 3 else x
        y, rng = y.astype(np.int32), np.random.default_rng(0)

        @TinyJit
        def step(x: Tensor, y: Tensor) -> Tensor:
            optimizer.zero_grad()
            loss = x.sequential(layers).sparse_categorical_crossentropy(y)
            loss.backward()
            return loss.realize(*optimizer.schedule_step())

        def epoch() -> float:
            losses = []
            for rows in rng.permutation(len(x)).reshape(-1, workload.batch_size):
                batch = (Tensor(array[rows]).realize() for array in (x, y))
                losses.append(step(*batch).clone().realize())
            return float(np.mean([loss.item() for loss in losses]))

        def train(epochs: int) -> float:
            with Context(TRAINING=1):
                return [epoch() for _ in range(epochs)][-1]

        return clocked(train)

    def update(self, workload: w.Update) -> Run:
        parameters = [Tensor.full((workload.side,) * 2, 0.5).contiguous().realize() for _ in range(workload.matrices)]
        optimizer = nn.optim.Adam(parameters, lr=w.LEARNING_RATE)
        gradients = [Tensor.full((workload.side,) * 2, 0.01).contiguous().realize() for _ in parameters]

        @TinyJit
        def step() -> None:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()

        def run(epochs: int) -> None:
            with Context(TRAINING=1):
                for _ in range(epochs * workload.steps):
                    step()
            Device[Device.DEFAULT].synchronize()

        return clocked(run)
