"""Figures of one epoch by parameter and by layer, from what the engine records with every update."""

from __future__ import annotations

from itertools import islice
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


def _tables(rows: dict[tuple[str, str, str], tuple[float, int]]) -> dict[tuple[str, str], _Table]:
    columns: dict[tuple[str, str], list[tuple[str, float, int]]] = {}
    for (kind, name, figure), (total, count) in rows.items():
        columns.setdefault((kind, figure), []).append((name, total, count))
    made = {key: zip(*column, strict=True) for key, column in columns.items()}
    return {key: _Table(names, np.array(sums), np.array(counts)) for key, (names, sums, counts) in made.items()}


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

    def state(self) -> dict[str, Any]:
        """Return the sums and counts, one behind the other, for a checkpoint; they stay as they are."""
        tables = _tables(self._all()) if self._sums else self._open
        numbers = [column for table in tables.values() for column in (table.sums, table.counts)]
        return {
            "kinds": [kind for kind, _ in tables],
            "figures": [figure for _, figure in tables],
            "counts": [len(table.names) for table in tables.values()],
            "names": [name for table in tables.values() for name in table.names],
            "numbers": np.concatenate(numbers, dtype=np.float64) if numbers else None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._sums, self._open = {}, {}
        names, numbers = iter(state["names"]), iter([] if state["numbers"] is None else state["numbers"].tolist())
        for kind, figure, count in zip(state["kinds"], state["figures"], state["counts"], strict=True):
            keys = [(kind, name, figure) for name in islice(names, count)]
            sums, counts = [*islice(numbers, count)], map(int, islice(numbers, count))
            self._sums |= dict(zip(keys, zip(sums, counts, strict=True), strict=True))

    def means(self, kind: str) -> dict[str, dict[str, float]]:
        """Return the means by name, NaN for what never moved."""
        means: dict[str, dict[str, float]] = {}
        for (of, name, figure), (total, count) in self._all().items():
            if of == kind:
                means.setdefault(name, {})[figure] = total / count if count else float("nan")
        return means
