"""Write training.npz, what 25 updates of PyTorch give: `python tests/golden/make_training.py` (needs torch).

For each network: data, weights at the start under the names and in the layouts of `bn.layers`, the loss of each update,
and that of all data in inference after the last; the losses once in float32 and once in float64.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import transformer
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

FILE = Path(__file__).with_name("training.npz")
ROWS, BATCH, EPOCHS = 36, 8, 5  # an epoch's last batch has 4 rows
UPDATES = EPOCHS * -(-ROWS // BATCH)
TIME, TOKENS, FEATURES = 10, 20, 16


class Images(nn.Module):
    """Two convolutions with BatchNorm, over images whose channels stand last.

    Without biases, which BatchNorm would undo: their gradients are rounding alone, and Adam makes whole steps of it.
    """

    def __init__(self):
        super().__init__()
        self.wide, self.wide_norm = nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.deep, self.deep_norm = nn.Conv2d(8, 12, 3, bias=False), nn.BatchNorm2d(12)
        self.output = nn.Linear(2 * 2 * 12, 4)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.wide_norm(self.wide(x.permute(0, 3, 1, 2)))), 2)
        x = functional.relu(self.deep_norm(self.deep(x)))
        return self.output(x.permute(0, 2, 3, 1).flatten(1))


class Recurrent(nn.Module):
    """Two layers of LSTM or GRU; the last step's value goes on."""

    def __init__(self, kind):
        super().__init__()
        self.lower, self.upper = kind(5, 12, batch_first=True), kind(12, 8, batch_first=True)
        self.output = nn.Linear(8, 1)

    def forward(self, x):
        return self.output(self.upper(self.lower(x)[0])[0][:, -1])


class Encoder(nn.Module):
    """Embeddings with sines of their place, and two layers that normalise first; token 0 is padding."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(TOKENS, FEATURES)
        options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        self.first, self.second = (nn.TransformerEncoderLayer(FEATURES, 4, 24, **options) for _ in range(2))
        self.norm, self.output = nn.LayerNorm(FEATURES), nn.Linear(FEATURES, 5)
        angles = np.arange(TIME)[:, None] / 10000 ** (np.arange(0, FEATURES, 2) / FEATURES)
        self.places = torch.tensor(np.stack([np.sin(angles), np.cos(angles)], -1).reshape(TIME, FEATURES))

    def forward(self, x):
        padding, x = x == 0, self.tokens(x)
        x = x + self.places.to(x.dtype)
        for layer in (self.first, self.second):
            x = layer(x, src_key_padding_mask=padding)
        return self.output(self.norm(x).mean(1))


def mlp():
    layers = {"wide": nn.Linear(20, 32), "relu": nn.ReLU(), "deep": nn.Linear(32, 16), "tanh": nn.Tanh()}
    model = nn.Sequential()
    for name, layer in {**layers, "output": nn.Linear(16, 3)}.items():
        model.add_module(name, layer)
    return model


def lstm():
    """One bias, as ours has; the other of PyTorch's is 0 and stays it."""
    model = Recurrent(nn.LSTM)
    for layer in (model.lower, model.upper):
        layer.bias_hh_l0.requires_grad_(requires_grad=False).zero_()
    return model


class Case(NamedTuple):
    """A network, its data (inputs, targets), its loss and its optimizer."""

    model: Callable[[], nn.Module]
    data: Callable[[np.random.Generator], tuple[Any, Any]]
    loss: Callable[..., torch.Tensor]
    optimizer: Callable[..., torch.optim.Optimizer]


def vectors(rng):
    return rng.normal(size=(ROWS, 20)), rng.integers(0, 3, ROWS)


def images(rng):
    return rng.normal(size=(ROWS, 8, 8, 2)), rng.integers(0, 4, ROWS)


def sequences(rng):
    x = rng.normal(size=(ROWS, 9, 5))
    return x, np.sin(x[:, :, :1].sum(1))


def signs(rng):
    x, y = sequences(rng)
    return x, (y > 0).astype(float)


def texts(rng):
    x = rng.integers(1, TOKENS, (ROWS, TIME))
    x[np.arange(TIME) >= rng.integers(3, TIME + 1, (ROWS, 1))] = 0
    return x, x[:, 0] % 5


def one_cycle(parameters):
    """AdamW over a OneCycle that is stepped by the optimizer itself."""
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, UPDATES, cycle_momentum=False)
    optimizer.register_step_post_hook(lambda *_: schedule.step())
    return optimizer


CASES = {
    "mlp": Case(
        mlp,
        vectors,
        functional.cross_entropy,
        lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, nesterov=True),
    ),
    "cnn": Case(Images, images, functional.cross_entropy, lambda parameters: torch.optim.Adam(parameters, 0.01)),
    "lstm": Case(lstm, sequences, functional.mse_loss, lambda parameters: torch.optim.Adam(parameters, 0.01)),
    "gru": Case(
        lambda: Recurrent(nn.GRU),
        signs,
        functional.binary_cross_entropy_with_logits,
        lambda parameters: torch.optim.RMSprop(parameters, 0.003),
    ),
    "transformer": Case(Encoder, texts, functional.cross_entropy, one_cycle),
}


def dense(layer):
    return {"kernel": layer.weight.T, "bias": layer.bias}


def norm(layer):
    return {"scale": layer.weight, "offset": layer.bias}


def recurrent(layer):
    return {"kernel": layer.weight_ih_l0.T, "recurrent_kernel": layer.weight_hh_l0.T}


def gru(layer):
    """Return PyTorch's gates (reset, update, new) as Keras orders them (update, reset, new)."""
    biases = torch.stack([layer.bias_ih_l0, layer.bias_hh_l0])
    arrays = {**recurrent(layer), "bias": biases}
    return {name: array[..., gates(array.shape[-1] // 3)] for name, array in arrays.items()}


def gates(units):
    return np.r_[units : 2 * units, :units, 2 * units : 3 * units]


LAYOUTS = {
    nn.Linear: dense,
    nn.Conv2d: lambda layer: {"kernel": layer.weight.permute(2, 3, 1, 0)},
    nn.BatchNorm2d: norm,
    nn.LayerNorm: norm,
    nn.Embedding: lambda layer: {"embeddings": layer.weight},
    nn.LSTM: lambda layer: {**recurrent(layer), "bias": layer.bias_ih_l0},
    nn.GRU: gru,
    nn.TransformerEncoderLayer: lambda layer: transformer.weights(layer, decoder=False),
}


def weights(model):
    """Return the arrays of all layers under our names."""
    return {
        f"{path}.{name}": torch.as_tensor(array).detach().numpy().copy()
        for path, layer in model.named_children()
        if type(layer) in LAYOUTS
        for name, array in LAYOUTS[type(layer)](layer).items()
    }


def train(case, x, y, dtype):
    """Return the weights at the start and the losses: of each update, and of all data after the last."""
    torch.manual_seed(0)
    model = case.model().to(dtype)
    start = weights(model)
    x, y = (torch.tensor(array).to(dtype if array.dtype.kind == "f" else torch.int64) for array in (x, y))
    optimizer = case.optimizer([each for each in model.parameters() if each.requires_grad])
    losses = []
    for rows in EPOCHS * torch.arange(ROWS).split(BATCH):
        loss = case.loss(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return start, np.array([*losses, case.loss(model(x), y).item()])


def record(name):
    """Return a network's data, weights at the start, and losses in both precisions."""
    case = CASES[name]
    x, y = case.data(np.random.default_rng(0))
    x, y = (array.astype(np.float32 if array.dtype.kind == "f" else np.uint8) for array in (x, y))
    start, single = train(case, x, y, torch.float32)
    _, double = train(case, x, y, torch.float64)
    found = {"x": x, "y": y, "float32": single, "float64": double}
    return found | {f"start.{path}": array for path, array in start.items()}


if __name__ == "__main__":
    records = {name: record(name) for name in CASES}
    np.savez_compressed(
        FILE, **{f"{name}.{key}": array for name, each in records.items() for key, array in each.items()}
    )
