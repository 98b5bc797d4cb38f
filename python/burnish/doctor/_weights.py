"""Ailments of the weights themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._report import Finding, Remedy

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

__all__ = ["symmetric_units"]


def symmetric_units(weights: Mapping[str, npt.NDArray[Any]]) -> Finding | None:
    """All units of a layer have the same weights: they began alike, get the same gradient, and stay one unit."""
    alike = [path for path, array in weights.items() if _alike(array)]
    if not alike:
        return None
    text = f"all {weights[alike[0]].shape[-1]} units of {alike[0]!r} have the same weights, and so they stay one unit"
    remedies = (Remedy("Start from random weights", 'bn.layers.Dense(units, kernel_initializer="glorot_uniform")'),)
    return Finding("symmetric_units", "error", text, {"layers": len(alike), "first": alike[0]}, remedies)


def _alike(array: npt.NDArray[Any]) -> bool:
    if array.ndim < 2 or array.shape[-1] < 2 or array.size == array.shape[-1]:
        return False
    table = array.reshape(-1, array.shape[-1]).astype(np.float64)
    size = float(np.abs(table).max())
    return bool(np.ptp(table, axis=1).max() <= 1e-6 * size)
