"""PyTorch in eager mode with its fused Adam; tensors made once, batches gathered by index."""

import torch
from torch import nn

from workloads import LEARNING_RATE, Workload


class LastState(nn.Module):
    """An LSTM of which the last h goes on."""

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, units, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x)[1][0][0]


class TorchPeer:
    """The default memory format: channels last is no faster on images this small."""

    version = torch.__version__

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)

    def build(self, workload: Workload) -> bool:
        x, y = workload.arrays()
        channels, layers = workload.shape[-1], list[nn.Module]()
        for filters in workload.convolutions:
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            channels = filters
        if workload.convolutions:
            x = x.transpose(0, 3, 1, 2).copy()
            layers.append(nn.Flatten())
        if workload.units:
            layers.append(LastState(channels, workload.units))
        width = workload.features
        for units in workload.hidden:
            layers += [nn.Linear(width, units), nn.ReLU()]
            width = units
        self.model = nn.Sequential(*layers, nn.Linear(width, workload.classes))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE, fused=True)
        self.x, self.y, self.batch_size = torch.from_numpy(x), torch.from_numpy(y), workload.batch_size
        return True

    def train(self, epochs: int) -> float:
        return [self._epoch() for _ in range(epochs)][-1]

    def _epoch(self) -> float:
        total, batches = torch.zeros(()), torch.randperm(len(self.x)).split(self.batch_size)
        for rows in batches:
            loss = nn.functional.cross_entropy(self.model(self.x[rows]), self.y[rows])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
        return total.item() / len(batches)
