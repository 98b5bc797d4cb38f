"""Write recurrent.npz, what PyTorch's recurrent layers give: `python tests/golden/recurrent.py` (needs torch).

Weights are stored as `bn.layers` names and lays them out: kernels (in, gates · units), a GRU's gates in the order
z, r, n. Where PyTorch has two biases and we have one, the second is 0 and fixed. Float64. `losses` are those of
25 steps of SGD.
"""

from pathlib import Path

import numpy as np
import torch

FEATURES, UNITS, STEPS = 3, 5, 6
KINDS = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}


def blocks(array, kind):
    """Return gates in our order: PyTorch's GRU has r, z, n."""
    if kind != "gru":
        return array
    r, z, n = np.split(array, 3)
    return np.concatenate([z, r, n])


def arrays(module, kind, suffix=""):
    """Return weights (or, with `grad`, their gradients) under our names."""

    def get(name):
        return blocks(getattr(module, f"{name}_l0{suffix}").detach().numpy().copy(), kind)

    biases = get("bias_ih"), get("bias_hh")
    return {
        "kernel": get("weight_ih").T,
        "recurrent_kernel": get("weight_hh").T,
        "bias": np.stack(biases) if kind == "gru" else biases[0],
    }


def gradients(module, kind):
    found = {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}
    biases = [blocks(found[name].numpy(), kind) for name in ("bias_ih_l0", "bias_hh_l0") if name in found]
    return {
        "kernel": blocks(found["weight_ih_l0"].numpy(), kind).T,
        "recurrent_kernel": blocks(found["weight_hh_l0"].numpy(), kind).T,
        "bias": np.stack(biases) if kind == "gru" else biases[0],
    }


def make(kind, **options):
    module = KINDS[kind](FEATURES, UNITS, batch_first=True, **options)
    if kind != "gru":
        for name, parameter in module.named_parameters():
            if name.startswith("bias_hh"):
                torch.nn.init.zeros_(parameter)
                parameter.requires_grad_(False)
    return module


def run(module, x, lengths, state=None):
    """Return all outputs, 0 at padding, and the last states, of padded sequences."""
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    packed, last = module(packed, state)
    return torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True, total_length=STEPS)[0], last


def one_way(kind, x, y, lengths):
    module = make(kind)
    initial = tuple(torch.randn(1, len(x), UNITS) for _ in range(2 if kind == "lstm" else 1))
    state = initial if kind == "lstm" else initial[0]
    found = arrays(module, kind)
    outputs, last = run(module, x, lengths, state)
    found |= {f"initial_{index}": one[0].numpy() for index, one in enumerate(initial)}
    found |= {f"last_{index}": one[0].detach().numpy() for index, one in enumerate(last if kind == "lstm" else [last])}
    found["outputs"] = outputs.detach().numpy()
    optimizer, losses = torch.optim.SGD(module.parameters(), 0.5), []
    for step in range(25):
        outputs, _ = module(x)
        loss = ((outputs - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            found |= {f"gradient.{name}": array for name, array in gradients(module, kind).items()}
        optimizer.step()
        losses.append(loss.item())
    return found | {"losses": np.array(losses)}


def two_ways(kind, x, lengths):
    module = make(kind, bidirectional=True)
    outputs, _ = run(module, x, lengths)
    found = {f"forward_layer.{name}": array for name, array in arrays(module, kind).items()}
    found |= {f"backward_layer.{name}": array for name, array in arrays(module, kind, "_reverse").items()}
    return found | {"outputs": outputs.detach().numpy()}


def main():
    """Run each kind in one direction and in both."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    x, y = torch.randn(4, STEPS, FEATURES), torch.rand(4, STEPS, UNITS) - 0.5
    lengths = torch.tensor([6, 2, 4, 1])
    found = {"x": x.numpy(), "y": y.numpy(), "lengths": lengths.numpy()}
    for kind in KINDS:
        found |= {f"{kind}.{name}": array for name, array in one_way(kind, x, y, lengths).items()}
        found |= {f"{kind}.both.{name}": array for name, array in two_ways(kind, x, lengths).items()}
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **found)


if __name__ == "__main__":
    main()
