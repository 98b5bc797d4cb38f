"""Figures of one epoch by parameter and by layer, from what the engine records with every update."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from . import _burnish

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


class _Table(NamedTuple):
    """Sums and counts of one figure, a column for each name."""

    names: Sequence[str]
    sums: Array
    counts: Array

    def plus(self, values: Array) -> _Table:
        """Return it with more rows of values."""
        # One by one in the order of the batches: sums must not depend on how these were cut into pieces.
        return _Table(self.names, *_burnish.add_finite(self.sums, self.counts, values.reshape(-1)))


class EpochMonitor:
    """Means over an epoch's updates, of finite figures only."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str], tuple[float, int]] = {}
        self._open: dict[tuple[str, str], _Table] = {}  # what goes before the sums, if it is there

    def add(self, tables: Records, runtime: Runtime) -> None:
        """Take in the tables of some micro-batches."""
        names = {"parameters": runtime.trained(), "activations": runtime.rectified()}
        for name, (kind, figure) in _TABLES.items():
            if name in tables and tables[name].size:
                self._open[kind, figure] = self._opened(kind, figure, names[kind]).plus(tables[name])

    def _opened(self, kind: str, figure: str, names: Sequence[str]) -> _Table:
        table = self._open.get((kind, figure))
        if table is not None and table.names is names:
            return table
        if table is not None:  # parameters were frozen meanwhile
            self._sums, self._open = self._all(), {}
        rows = [self._sums.get((kind, name, figure), (0.0, 0)) for name in names]
        return _Table(names, np.array([total for total, _ in rows]), np.array([count for _, count in rows]))

    def _all(self) -> dict[tuple[str, str, str], tuple[float, int]]:
        rows = dict(self._sums)
        for (kind, figure), table in self._open.items():
            columns = zip(table.names, table.sums.tolist(), table.counts.tolist(), strict=True)
            rows |= {(kind, name, figure): (total, count) for name, total, count in columns}
        return rows

    def copy(self) -> EpochMonitor:
        """Return one that does not change when this one takes in more."""
        copied = EpochMonitor()
        copied._sums, copied._open = self._sums, {**self._open}
        return copied

    def state(self) -> list[list[Any]]:
        """Return the sums as rows, for a checkpoint."""
        return [[*key, total, count] for key, (total, count) in self._all().items()]

    def load_state(self, rows: list[list[Any]]) -> None:
        """Go on from such rows."""
        self._sums = {(kind, name, figure): (total, count) for kind, name, figure, total, count in rows}
        self._open = {}

    def means(self, kind: str) -> dict[str, dict[str, float]]:
        """Return the means by name, NaN for what never moved."""
        means: dict[str, dict[str, float]] = {}
        for (of, name, figure), (total, count) in self._all().items():
            if of == kind:
                means.setdefault(name, {})[figure] = total / count if count else float("nan")
        return means
