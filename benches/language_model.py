"""Train the network of examples/character_model.py in burnish and in PyTorch, by turns, and print losses and times.

`python benches/language_model.py [--epochs 2] [TEXT]` needs torch. Both start from the same weights and see the same
batches; what is left is how each computes. The last row is the validation loss.
"""

import argparse
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

import burnish as bn

sys.path.append(str(Path(__file__).parents[1] / "examples"))

import character_model as example

BATCH, TURNS = 32, 20
Arrays = dict[str, np.ndarray[Any, Any]]


class Peer(nn.Module):
    """The same network, with the weights of ours."""

    def __init__(self, weights: Arrays) -> None:
        super().__init__()
        letters, width = weights["embedding.embeddings"].shape
        options: dict[str, Any] = {"activation": "gelu", "batch_first": True, "norm_first": True, "dropout": 0.0}
        self.tokens = nn.Embedding(letters, width)
        self.places = nn.Parameter(torch.zeros(example.LENGTH, width))
        self.layers = nn.ModuleList([nn.TransformerEncoderLayer(width, 4, 4 * width, **options) for _ in range(2)])
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, letters)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(example.LENGTH), persistent=False)
        self.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in torch_state(weights).items()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.tokens(x) + self.places
        for layer in self.layers:
            x = layer(x, src_mask=self.mask, is_causal=True)
        return self.output(self.norm(x))

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self(x).flatten(0, 1), y.flatten())


def torch_state(weights: Arrays) -> Arrays:
    """Our arrays under PyTorch's names: kernels transposed, the three projections of attention in one."""
    state = {
        "tokens.weight": weights["embedding.embeddings"],
        "places": weights["positional_encoding.embeddings"],
        "norm.weight": weights["layer_norm.scale"],
        "norm.bias": weights["layer_norm.offset"],
        "output.weight": weights["dense.kernel"].T,
        "output.bias": weights["dense.bias"],
    }
    for place, name in enumerate(("transformer_encoder_layer", "transformer_encoder_layer_1")):
        inner = {path.removeprefix(f"{name}."): array for path, array in weights.items()}
        state |= {f"layers.{place}.{key}": array for key, array in encoder_layer(inner).items()}
    return state


def encoder_layer(weights: Arrays) -> Arrays:
    """The arrays of one layer."""
    names = ("query", "key", "value")
    attention, hidden = "self_attention", "feed_forward"
    return {
        "self_attn.in_proj_weight": np.concatenate([weights[f"{attention}.{name}_kernel"].T for name in names]),
        "self_attn.in_proj_bias": np.concatenate([weights[f"{attention}.{name}_bias"] for name in names]),
        "self_attn.out_proj.weight": weights[f"{attention}.output_kernel"].T,
        "self_attn.out_proj.bias": weights[f"{attention}.output_bias"],
        "linear1.weight": weights[f"{hidden}.hidden_kernel"].T,
        "linear1.bias": weights[f"{hidden}.hidden_bias"],
        "linear2.weight": weights[f"{hidden}.output_kernel"].T,
        "linear2.bias": weights[f"{hidden}.output_bias"],
        "norm1.weight": weights[f"{attention}_norm.scale"],
        "norm1.bias": weights[f"{attention}_norm.offset"],
        "norm2.weight": weights[f"{hidden}_norm.scale"],
        "norm2.bias": weights[f"{hidden}_norm.offset"],
    }


class PeerTraining:
    """AdamW over a OneCycle, as the example's `compile` says: decay for kernels and embeddings, gradients clipped."""

    def __init__(self, model: Peer, updates: int) -> None:
        kernels = [each for each in model.parameters() if each.ndim > 1]
        others = [each for each in model.parameters() if each.ndim == 1]
        groups = [{"params": kernels, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        self.model = model
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 3e-3, updates, cycle_momentum=False)

    def fit(self, x: torch.Tensor, y: torch.Tensor) -> float:
        """Train on all rows in their order; the mean loss."""
        total = torch.zeros(())
        for rows in torch.arange(len(x)).split(BATCH):
            loss = self.model.loss(x[rows], y[rows])
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.schedule.step()
            total += loss.detach() * len(rows)
        return total.item() / len(x)

    @torch.no_grad()
    def evaluate(self, x: torch.Tensor, y: torch.Tensor) -> float:
        parts = zip(x.split(256), y.split(256), strict=True)
        return sum(self.model.loss(*part).item() * len(part[0]) for part in parts) / len(x)


def timed(function: Any, *arguments: Any) -> tuple[float, float]:
    """What a function gives, and the seconds that it took."""
    start = perf_counter()
    value = function(*arguments)
    return value, perf_counter() - start


def main() -> None:
    """Train both by turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path, nargs="?", default=example.JARGON)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()

    alphabet, characters = example.encode(example.read(options.text))
    cut = len(characters) * 9 // 10
    x, y = example.windows(characters[:cut])
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(len(x))[: len(x) // BATCH * BATCH] for _ in range(options.epochs)])
    updates = len(order) // BATCH
    model = example.build(len(alphabet), updates)
    model.build((None, example.LENGTH))
    peer = PeerTraining(Peer(model.parameters()), updates)

    def ours(x: Any, y: Any) -> float:
        return model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0).history["loss"][0]

    print(f"burnish {bn.__version__}, torch {torch.__version__}; {updates} updates of {BATCH} x {example.LENGTH}")
    print("| updates | burnish | PyTorch | ms a step | ms a step | PyTorch / burnish |\n|---|---|---|---|---|---|")
    ratios, done = list[float](), 0
    for rows in np.array_split(order.reshape(updates, BATCH), TURNS):
        batch = x[rows.ravel()], y[rows.ravel()]
        mine, seconds = timed(ours, *batch)
        other, peers = timed(peer.fit, *(torch.from_numpy(each).long() for each in batch))
        ratios.append(peers / seconds)
        done += len(rows)
        times = " | ".join(f"{1e3 * each / len(rows):.1f}" for each in (seconds, peers))
        print(f"| {done} | {mine:.4f} | {other:.4f} | {times} | {ratios[-1]:.2f} |", flush=True)
    validation = example.windows(characters[cut:])
    mine = model.evaluate(*validation)["loss"]
    other = peer.evaluate(*(torch.from_numpy(each).long() for each in validation))
    print(f"| validation | {mine:.4f} | {other:.4f} | | | {median(ratios):.2f} |")
    print(f"burnish's validation loss is {100 * (mine / other - 1):+.2f} % from PyTorch's")


if __name__ == "__main__":
    main()
