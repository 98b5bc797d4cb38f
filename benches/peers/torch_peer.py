"""PyTorch in eager mode and compiled, with its fused Adam; tensors made once, batches gathered by index."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.func import vmap

import workloads as w
from peer import Peer, Run, clocked

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

PERTURBED = 256  # copies of a network that run at once


class LastState(nn.Module):
    """An LSTM of which the last h goes on."""

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, units, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x)[1][0][0]


class Mean(nn.Module):
    """The mean over all places: channels stand second in images, last in sequences."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) if x.ndim == 4 else x.mean(1)


def activated(layer: nn.Module, relu: bool) -> list[nn.Module]:  # noqa: FBT001
    """Return a layer, with what follows it."""
    return [layer, nn.ReLU()] if relu else [layer]


# A layer, and the channels or features before it.
LAYERS: dict[type, Callable[[Any, int], list[nn.Module]]] = {
    w.Dense: lambda layer, width: activated(nn.Linear(width, layer.units), layer.relu),
    w.Convolution: lambda layer, width: activated(
        nn.Conv2d(width, layer.filters, 3, padding=1, bias=layer.bias), layer.relu
    ),
    w.BatchNorm: lambda _, width: [nn.BatchNorm2d(width)],
    w.Relu: lambda *_: [nn.ReLU()],
    w.Encoder: lambda layer, width: [
        nn.TransformerEncoderLayer(width, layer.heads, layer.hidden, dropout=0.0, batch_first=True)
    ],
    w.MaxPool: lambda *_: [nn.MaxPool2d(2)],
    w.Mean: lambda *_: [Mean()],
    w.Flatten: lambda *_: [nn.Flatten()],
    w.LastState: lambda layer, width: [LastState(width, layer.units)],
    w.Embedding: lambda layer, _: [nn.Embedding(layer.rows, layer.width)],
}


class TorchPeer(Peer):
    """Images with channels last, as the arrays have them: on the CPU 2 to 5 % faster than the default format."""

    version = torch.__version__

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        torch.set_num_threads(threads)
        torch.manual_seed(0)

    def quicken(self, function: Any) -> Any:
        """Return what is called instead of the function."""
        return function

    def training(self, workload: w.Training) -> Run:
        layers = [LAYERS[type(layer)](layer, shape[-1]) for layer, shape in workload.inputs()]
        model = nn.Sequential(*chain.from_iterable(layers)).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(model.parameters(), lr=w.LEARNING_RATE, fused=True)
        x, y = map(torch.from_numpy, workload.arrays())
        x = x.movedim(-1, 1) if len(workload.shape) == 3 else x
        loss_of = self.quicken(lambda x, y: nn.functional.cross_entropy(model(x), y))

        def epoch() -> float:
            total, batches = torch.zeros(()), torch.randperm(len(x)).split(workload.batch_size)
            for rows in batches:
                loss = loss_of(x[rows], y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach()
            return total.item() / len(batches)

        return clocked(lambda epochs: [epoch() for _ in range(epochs)][-1])

    def update(self, workload: w.Update) -> Run:
        parameters = [torch.full((workload.side,) * 2, 0.5, requires_grad=True) for _ in range(workload.matrices)]
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 0.01)
        optimizer = self.optimizer(parameters)
        step = self.quicken(optimizer.step)

        def run(epochs: int) -> None:
            for _ in range(epochs * workload.steps):
                step()

        return clocked(run)

    def optimizer(self, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
        """Make the Adam that is the fastest alone."""
        return torch.optim.Adam(parameters, lr=w.LEARNING_RATE, fused=True)

    def differences(self, workload: w.Differences) -> Run:
        arrays = [torch.from_numpy(array) for array in chain.from_iterable(workload.parameters())]
        point, shapes = torch.cat([array.flatten() for array in arrays]), [array.shape for array in arrays]
        x, y = map(torch.from_numpy, workload.arrays())
        step = workload.step * point.abs().clamp(min=1)

        def loss(flat: torch.Tensor) -> torch.Tensor:
            parts = map(torch.Tensor.view, flat.split([shape.numel() for shape in shapes]), shapes)
            *parts, kernel, bias = parts
            value = x
            for before, offset in zip(parts[::2], parts[1::2], strict=True):
                value = torch.relu(value @ before + offset)
            return nn.functional.cross_entropy(value @ kernel + bias, y)

        def slope(place: torch.Tensor) -> torch.Tensor:
            move = torch.where(torch.arange(len(point)) == place, step, 0)
            return (loss(point + move) - loss(point - move)) / (2 * step[place])

        slopes = self.quicken(vmap(slope))
        places = torch.arange(len(point)).split(PERTURBED)
        return clocked(lambda epochs: [torch.cat([*map(slopes, places)]).norm().item() for _ in range(epochs)][-1])


class CompiledPeer(TorchPeer):
    """`torch.compile` with its default settings: what it takes is in the warm-up."""

    def prepare(self, workload: w.Workload) -> Run:
        torch.compiler.reset()  # or shapes of the workload before make this one's dynamic
        return super().prepare(workload)

    def quicken(self, function: Any) -> Any:
        return torch.compile(function)

    def optimizer(self, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
        """A fused one is one call already, which leaves nothing to compile."""
        return torch.optim.Adam(parameters, lr=w.LEARNING_RATE, foreach=True)
