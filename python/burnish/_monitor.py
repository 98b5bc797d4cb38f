"""Figures of one epoch by parameter and by layer, from what the engine records with every update."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._feed.arrays import Array
    from ._runtime import Runtime

__all__ = ["EpochMonitor", "Records", "split_records"]

Records: TypeAlias = "dict[str, Array]"

# Where the engine's tables go: History attribute, name of the figure, and what names the columns.
_TABLES = {
    "parameters.gradient_norm": ("parameters", "gradient_norm"),
    "parameters.update_ratio": ("parameters", "update_ratio"),
    "activations.zeros": ("activations", "zeros"),
    "activations.dead": ("activations", "dead"),
}


def split_records(records: Records) -> tuple[Records, Records]:
    """Return the columns of a number a micro-batch, and the tables of a number a parameter or layer."""
    tables = {
        name: values for name, values in records.items() if name.partition(".")[0] in {"parameters", "activations"}
    }
    return {name: values for name, values in records.items() if name not in tables}, tables


class EpochMonitor:
    """Means over an epoch's updates, of finite figures only."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str], tuple[float, int]] = {}

    def add(self, tables: Records, runtime: Runtime) -> None:
        """Take in the tables of some micro-batches."""
        names = {"parameters": runtime.trained(), "activations": runtime.rectified()}
        for table, (kind, figure) in _TABLES.items():
            if table in tables and tables[table].size:
                self._add_table(tables[table], kind, figure, names[kind])

    def _add_table(self, values: Array, kind: str, figure: str, names: Sequence[str]) -> None:
        finite = np.isfinite(values)
        keys = [(kind, name, figure) for name in names]
        before = np.array([self._sums.get(key, (0.0, 0))[0] for key in keys])
        # One by one in the order of the batches: sums must not depend on how these were cut into pieces.
        sums = np.cumsum(np.vstack([before, np.where(finite, values, 0.0)]), axis=0)[-1]
        counts = np.count_nonzero(finite, axis=0)
        for key, total, count in zip(keys, sums, counts, strict=True):
            self._sums[key] = float(total), self._sums.get(key, (0.0, 0))[1] + int(count)

    def state(self) -> list[list[Any]]:
        """Return the sums as rows, for a checkpoint."""
        return [[*key, total, count] for key, (total, count) in self._sums.items()]

    def load_state(self, rows: list[list[Any]]) -> None:
        """Go on from such rows."""
        self._sums = {(kind, name, figure): (total, count) for kind, name, figure, total, count in rows}

    def means(self, kind: str) -> dict[str, dict[str, float]]:
        """Return the means by name, NaN for what never moved."""
        means: dict[str, dict[str, float]] = {}
        for (of, name, figure), (total, count) in self._sums.items():
            if of == kind:
                means.setdefault(name, {})[figure] = total / count if count else float("nan")
        return means
