"""Write transformer.npz, what PyTorch's transformer layers give: `python tests/golden/transformer.py` (needs torch).

Weights are stored as `bn.layers` names and lays them out: kernels (in, out), heads side by side. Float64, no dropout.
"""

from pathlib import Path

import numpy as np
import torch

FEATURES, HEADS, HIDDEN = 6, 2, 9


def split(weight, bias, prefix):
    """Return the three projections that PyTorch keeps in one matrix."""
    kernels, biases = np.split(weight.T, 3, axis=1), np.split(bias, 3)
    names = ("query", "key", "value")
    return {
        **{f"{prefix}.{name}_kernel": kernel for name, kernel in zip(names, kernels, strict=True)},
        **{f"{prefix}.{name}_bias": part for name, part in zip(names, biases, strict=True)},
    }


def attention(module, prefix):
    return {
        **split(module.in_proj_weight.detach().numpy(), module.in_proj_bias.detach().numpy(), prefix),
        f"{prefix}.output_kernel": module.out_proj.weight.detach().numpy().T,
        f"{prefix}.output_bias": module.out_proj.bias.detach().numpy(),
    }


def linear(module, prefix):
    return {f"{prefix}_kernel": module.weight.detach().numpy().T, f"{prefix}_bias": module.bias.detach().numpy()}


def norm(module, prefix):
    return {f"{prefix}.scale": module.weight.detach().numpy(), f"{prefix}.offset": module.bias.detach().numpy()}


def weights(layer, decoder):
    """Return a layer's arrays under our names."""
    last = layer.norm3 if decoder else layer.norm2
    arrays = {
        **attention(layer.self_attn, "self_attention"),
        **norm(layer.norm1, "self_attention_norm"),
        **linear(layer.linear1, "feed_forward.hidden"),
        **linear(layer.linear2, "feed_forward.output"),
        **norm(last, "feed_forward_norm"),
    }
    if decoder:
        arrays |= {**attention(layer.multihead_attn, "cross_attention"), **norm(layer.norm2, "cross_attention_norm")}
    return arrays


def main():
    """Run both layers, normalising last and first."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    x, memory = torch.randn(3, 5, FEATURES), torch.randn(3, 4, FEATURES)
    lengths, memory_lengths = torch.tensor([5, 3, 4]), torch.tensor([4, 2, 3])
    padding = torch.arange(5) >= lengths[:, None]
    memory_padding = torch.arange(4) >= memory_lengths[:, None]
    causal = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
    found = {"x": x, "memory": memory, "mask": ~padding, "memory_mask": ~memory_padding}
    for first in (False, True):
        options = {"dropout": 0.0, "batch_first": True, "norm_first": first}
        for name, kind in (
            ("encoder", torch.nn.TransformerEncoderLayer),
            ("decoder", torch.nn.TransformerDecoderLayer),
        ):
            layer = kind(FEATURES, HEADS, HIDDEN, activation="gelu" if first else "relu", **options)
            for parameter in layer.parameters():
                torch.nn.init.normal_(parameter, std=0.5)
            layer.train()  # the fused inference path has other masks
            if name == "encoder":
                y = layer(x, src_mask=causal, src_key_padding_mask=padding)
            else:
                masks = {"tgt_key_padding_mask": padding, "memory_key_padding_mask": memory_padding}
                y = layer(x, memory, tgt_mask=causal, **masks)
            key = f"{name}.{'first' if first else 'last'}"
            found[f"{key}.y"] = y.detach()
            found |= {f"{key}.{path}": array for path, array in weights(layer, name == "decoder").items()}
    np.savez_compressed(
        Path(__file__).with_suffix(".npz"), **{name: np.asarray(array) for name, array in found.items()}
    )


if __name__ == "__main__":
    main()
