"""Weights of PyTorch: a `state_dict` saved as safetensors, under other names and in other layouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .order import feature_orders
from .recurrent import Found, joined_biases, level_apart, placed

if TYPE_CHECKING:
    from .._build import Built
    from .._feed.arrays import Array

__all__ = ["Names", "from_torch"]

Names: TypeAlias = Mapping[str, str | None] | Callable[[str], str | None]

# What PyTorch calls the parts of a layer, by the layer's class here.
_PARTS = {
    "MultiHeadAttention": {"out_proj": "output"},
    "TransformerEncoderLayer": {
        "self_attn": "self_attention",
        "norm1": "self_attention_norm",
        "linear1": "feed_forward.hidden",
        "linear2": "feed_forward.output",
        "norm2": "feed_forward_norm",
    },
    "TransformerDecoderLayer": {
        "self_attn": "self_attention",
        "norm1": "self_attention_norm",
        "multihead_attn": "cross_attention",
        "norm2": "cross_attention_norm",
        "linear1": "feed_forward.hidden",
        "linear2": "feed_forward.output",
        "norm3": "feed_forward_norm",
    },
}
_THIRDS = ("query", "key", "value")
# The name of an array here for that of PyTorch; the first that the model has.
_ENDINGS = {
    "weight": (".kernel", "_kernel", ".scale", ".embeddings", ".alpha"),
    "bias": (".bias", "_bias", ".offset"),
    "running_mean": (".moving_mean",),
    "running_var": (".moving_variance",),
}
_COUNTER = "num_batches_tracked"


def from_torch(built: Built, arrays: Mapping[str, Array], names: Names | None) -> dict[str, Array]:
    """Return arrays under this model's paths and in its layouts; what it has no place for keeps its name."""
    shapes = {path: tuple(shape) for path, shape, *_ in [*built.program.parameters(), *built.program.buffers()]}
    kinds = {row.path: row.type for row in built.rows}
    orders = feature_orders(built)
    converted: dict[str, Array] = {}
    for name, (source, array) in _renamed(arrays, kinds, names).items():
        path = _path(name, shapes)
        if path is None:
            converted[source] = array
            continue
        arranged = array if path == name else _arranged(path, array)
        ordered = _reordered(arranged, orders.inputs.get(path), orders.outputs.get(path))
        converted[path] = _shaped(ordered, shapes[path], kinds.get(path.rpartition(".")[0], ""))
    return converted


def _renamed(arrays: Mapping[str, Array], kinds: Mapping[str, str], names: Names | None) -> dict[str, Found]:
    """Name arrays after this model's layers, those that hold several of ours taken apart."""
    found: dict[str, Found] = {}
    rename = _renaming(names)
    for source, array in arrays.items():
        name = rename(source)
        if not isinstance(name, str | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"`names` must give strings or None, got {name!r} for {source!r}")
        if name is None or source.rpartition(".")[2] == _COUNTER:
            continue
        for part, piece in _pieces(placed(_with_parts(name, kinds), kinds), array).items():
            if part in found:
                raise ValueError(f"`names` gives {found[part].source!r} and {source!r} the same name {part!r}")
            found[part] = Found(source, piece)
    return joined_biases(found, kinds)


def _renaming(names: Names | None) -> Callable[[str], str | None]:
    """Return what changes a name of PyTorch: by the longest prefix of whole parts in a mapping, or by a function."""
    if names is None:
        return level_apart
    if callable(names):
        return lambda name: _level_apart_of(names(name))
    if not isinstance(names, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"`names` must be a dict of PyTorch's names -> layers' paths or a function, got {names!r}")

    def rename(name: str) -> str | None:
        name = level_apart(name)
        ends = [len(name), *(place for place in range(len(name) - 1, -1, -1) if name[place] == ".")]
        for end in ends:
            if name[:end] in names:
                path = names[name[:end]]
                return f"{path}{name[end:]}".lstrip(".") if isinstance(path, str) else path
        return name

    return rename


def _level_apart_of(name: str | None) -> str | None:
    return level_apart(name) if isinstance(name, str) else name


def _with_parts(name: str, kinds: Mapping[str, str]) -> str:
    """Name the parts of layers that PyTorch names otherwise, from the outermost layer inwards."""
    parts = name.split(".")
    for end in range(len(parts) + 1):
        others = _PARTS.get(kinds.get(".".join(parts[:end]), ""), {})
        if end < len(parts) and parts[end] in others:
            parts[end : end + 1] = others[parts[end]].split(".")
    return ".".join(parts)


def _pieces(name: str, array: Array) -> dict[str, Array]:
    """Take apart the three projections that attention keeps in one array."""
    layer, _, last = name.rpartition(".")
    if last in {"in_proj_weight", "in_proj_bias"} and array.ndim and len(array) % 3 == 0:
        ending = last.removeprefix("in_proj_")
        return {_inside(layer, f"{n}.{ending}"): part for n, part in zip(_THIRDS, np.split(array, 3), strict=True)}
    for letter, third in zip("qkv", _THIRDS, strict=True):
        if last == f"{letter}_proj_weight":
            return {_inside(layer, f"{third}.weight"): array}
    return {name: array}


def _inside(layer: str, name: str) -> str:
    return f"{layer}.{name}" if layer else name


def _path(name: str, shapes: Mapping[str, Any]) -> str | None:
    """Return the path of an array that the model has under PyTorch's name or its own, or none."""
    if name in shapes:
        return name
    layer, _, last = name.rpartition(".")
    return next((f"{layer}{ending}" for ending in _ENDINGS.get(last, ()) if f"{layer}{ending}" in shapes), None)


def _arranged(path: str, array: Array) -> Array:
    """Return a kernel with the axes in this library's order: places, inputs, outputs.

    A transposed convolution has inputs and outputs the other way round in both libraries.
    """
    if not path.endswith("kernel") or array.ndim < 2:
        return array
    return np.moveaxis(array, (0, 1), (-1, -2))


def _reordered(array: Array, inputs: Array | None, outputs: Array | None) -> Array:
    """Return features that PyTorch holds channels first in the order of this library, where the lengths fit."""
    if inputs is not None and array.ndim == 2 and len(array) == len(inputs):
        array = array[inputs]
    if outputs is not None and array.ndim and array.shape[-1] == len(outputs):
        array = array[..., outputs]
    return array


def _shaped(array: Array, shape: tuple[int, ...], layer: str) -> Array:
    """Split a depthwise kernel's channels; give every place its slope, of which PyTorch has one, or one a channel."""
    if layer == "DepthwiseConv2D" and array.ndim == 4 and array.shape[2] == 1 and array.size == np.prod(shape):
        return array.reshape(shape)
    if layer == "PReLU" and array.shape in {(1,), shape[-1:]}:
        return np.broadcast_to(array, shape)
    return array
