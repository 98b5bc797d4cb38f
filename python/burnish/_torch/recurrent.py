"""Recurrent modules of PyTorch: several layers and directions in one, with two biases, where here each is a layer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._feed.arrays import Array

__all__ = ["Found", "joined_biases", "level_apart", "placed"]

_CELLS = frozenset({"RNN", "GRU", "LSTM"})
_LEVEL = re.compile(r"(?P<module>.*\.|)(?P<what>(?:weight|bias)_(?:ih|hh|hr))_(?P<level>l\d+)(?P<back>_reverse|)")
_LEVELS = re.compile(r"l\d+")
_PARTS = frozenset({"weight_ih", "weight_hh", "bias_ih", "bias_hh"})
_ENDINGS = {"weight_ih": "kernel", "weight_hh": "recurrent_kernel"}


class Found(NamedTuple):
    """An array of the file under the names of this model's layers."""

    source: str
    array: Array


def level_apart(name: str) -> str:
    """Return `rnn.weight_ih_l1_reverse` as `rnn.l1.reverse.weight_ih`, so that levels and directions can be named."""
    match = _LEVEL.fullmatch(name)
    if match is None:
        return name
    back = "reverse." if match["back"] else ""
    return f"{match['module']}{match['level']}.{back}{match['what']}"


def placed(name: str, kinds: Mapping[str, str]) -> str:
    """Name an array after the layer here that has its level and direction, if there is one."""
    layer, _, what = name.rpartition(".")
    back = layer.endswith("reverse")
    layer = layer.removesuffix("reverse").removesuffix(".")
    outer, _, level = layer.rpartition(".")
    if layer not in kinds and _LEVELS.fullmatch(level):
        layer = outer
    if kinds.get(layer) == "Bidirectional":
        layer = _half(layer, "backward" if back else "forward", kinds)
        back = False
    fits = kinds.get(layer) in _CELLS and what in _PARTS and not back
    return f"{layer}.{_ENDINGS.get(what, what)}" if fits else name


def _half(layer: str, direction: str, kinds: Mapping[str, str]) -> str:
    start = f"{layer}.{direction}_"
    return next((path for path in kinds if path.startswith(start)), f"{start}layer")


def joined_biases(found: Mapping[str, Found], kinds: Mapping[str, str]) -> dict[str, Found]:
    """Add the two biases of a layer, of a GRU lay one under the other, and put gates in this library's order."""
    done: dict[str, Found] = {}
    for name, (source, array) in found.items():
        layer, _, what = name.rpartition(".")
        kind = kinds.get(layer)
        other = found.get(f"{layer}.bias_hh")
        if kind not in _CELLS:
            done[name] = Found(source, array)
        elif what in {"kernel", "recurrent_kernel"}:
            done[name] = Found(source, _gates(array.T, kind))
        elif what == "bias_ih" and other is not None and other.array.shape == array.shape:
            both = np.stack([array, other.array])
            done[f"{layer}.bias"] = Found(source, _gates(both, kind) if kind == "GRU" else both.sum(0))
        elif what != "bias_hh" or f"{layer}.bias_ih" not in found:
            done[name] = Found(source, array)
    return done


def _gates(array: Array, kind: str) -> Array:
    """Return r, z, n as z, r, n; the gates of an LSTM stand alike."""
    if kind != "GRU" or array.shape[-1] % 3:
        return array
    r, z, n = np.split(array, 3, axis=-1)
    return np.concatenate([z, r, n], axis=-1)
