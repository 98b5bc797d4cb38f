"""Figures of one epoch by parameter and by layer, from what the engine records with every update."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _burnish

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

__all__ = ["EpochMonitor"]

# The figures of a name, by attribute of History: columns of the engine's tables, one behind the other for each name.
_FIGURES = {"parameters": ("gradient_norm", "update_ratio"), "activations": ("zeros", "dead")}


class _Table(NamedTuple):
    """The sums of each figure of each name, then the counts."""

    names: Sequence[str]
    totals: npt.NDArray[np.float64]


class EpochMonitor:
    """Means over an epoch's updates, of finite figures only."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str], tuple[float, float]] = {}
        self._open: dict[str, _Table] = {}  # what goes before the sums, if it is there

    def add(self, kind: str, names: Sequence[str], rows: npt.NDArray[np.float64]) -> None:
        """Take in rows of figures of "parameters" or "activations"."""
        if rows.size:
            # One by one in the order of the batches: sums must not depend on how these were cut into pieces.
            self._open[kind] = _Table(names, _burnish.add_finite(self._opened(kind, names).totals, rows))

    def _opened(self, kind: str, names: Sequence[str]) -> _Table:
        table = self._open.get(kind)
        if table is not None and table.names is names:
            return table
        if table is not None:  # parameters were frozen meanwhile
            self._sums, self._open = self._all(), {}
        rows = [self._sums.get((kind, name, figure), (0.0, 0.0)) for name in names for figure in _FIGURES[kind]]
        return _Table(names, np.array([*zip(*rows, strict=True)]).reshape(-1))

    def _all(self) -> dict[tuple[str, str, str], tuple[float, float]]:
        rows = dict(self._sums)
        for kind, table in self._open.items():
            rows |= _rows(kind, *table)
        return rows

    def state(self) -> dict[str, Any]:
        """Return sums and counts for a checkpoint; they stay as they are."""
        tables = _tables(self._all()) if self._sums else self._open
        return {kind: {"names": table.names, "totals": table.totals} for kind, table in tables.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._sums, self._open = {}, {}
        for kind, table in state.items():
            self._sums |= _rows(kind, table["names"], table["totals"])

    def means(self, kind: str) -> dict[str, dict[str, float]]:
        """Return the means by name, NaN for what never moved."""
        means: dict[str, dict[str, float]] = {}
        for (of, name, figure), (total, count) in self._all().items():
            if of == kind:
                means.setdefault(name, {})[figure] = total / count if count else float("nan")
        return means


def _rows(
    kind: str, names: Sequence[str], totals: npt.NDArray[np.float64]
) -> dict[tuple[str, str, str], tuple[float, float]]:
    keys = [(kind, name, figure) for name in names for figure in _FIGURES[kind]]
    sums, counts = totals.reshape(2, -1).tolist()
    return dict(zip(keys, zip(sums, counts, strict=True), strict=True))


def _tables(rows: dict[tuple[str, str, str], tuple[float, float]]) -> dict[str, _Table]:
    tables: dict[str, _Table] = {}
    for kind in dict.fromkeys(kind for kind, *_ in rows):
        names = [*dict.fromkeys(name for of, name, _ in rows if of == kind)]
        columns = zip(*(rows[kind, name, figure] for name in names for figure in _FIGURES[kind]), strict=True)
        tables[kind] = _Table(names, np.array([*columns]).reshape(-1))
    return tables
