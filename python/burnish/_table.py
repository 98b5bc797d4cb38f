"""A history as a table: text for terminals, HTML for notebooks."""

from __future__ import annotations

import math
import numbers
from typing import TYPE_CHECKING, Any

import numpy as np

from ._text import aligned

if TYPE_CHECKING:
    from .history import History

__all__ = ["html_table", "text_table"]

_BEST = "*"


def text_table(history: History, rows: int | None) -> str:
    """Return the table as lines, the best epoch marked by a star."""
    head, body = _cells(history, rows)
    return "\n".join(aligned([head, *body]))


def html_table(history: History, rows: int | None) -> str:
    """Return the table as HTML, the best epoch in bold."""
    from html import escape

    head, body = _cells(history, rows)
    header = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><thead><tr>{header}</tr></thead><tbody>{''.join(map(_html_row, body))}</tbody></table>"


def _html_row(cells: list[str]) -> str:
    best = cells[0].endswith(_BEST)
    style = ' style="font-weight:bold" title="best epoch"' if best else ""
    return f"<tr{style}>" + "".join(f"<td>{cell.removesuffix(_BEST)}</td>" for cell in cells) + "</tr>"


def _cells(history: History, rows: int | None) -> tuple[list[str], list[list[str]]]:
    """Return head and rows; of too many rows, the first and last ones and the best."""
    columns = {**_padded(history), **_of_steps(history)}
    best = history.best_epoch()
    body: list[list[str]] = []
    previous = -1
    for index in _shown(len(history.epoch), rows, None if best is None else history.epoch.index(best)):
        if index > previous + 1:
            body.append(["…"] * (len(columns) + 1))
        epoch, previous = history.epoch[index], index
        number = f"{epoch + 1}{_BEST if epoch == best else ''}"
        body.append([number, *(_figure(column[index]) for column in columns.values())])
    return ["epoch", *columns], body


def _figure(value: Any) -> str:
    if not isinstance(value, numbers.Real):  # what a callback has added
        return str(value)
    return "" if math.isnan(value) else f"{value:.5g}"


def _shown(count: int, rows: int | None, best: int | None) -> list[int]:
    if rows is None or count <= rows:
        return list(range(count))
    first = rows // 2
    shown = {*range(first), *range(count - (rows - first), count)}
    return sorted(shown | ({best} if best is not None else set()))


def _padded(history: History) -> dict[str, list[float]]:
    """Return the epochs' figures, NaN at the end of a column that somebody has put there and is shorter."""
    count = len(history.epoch)
    return {name: [*values, *[float("nan")] * (count - len(values))] for name, values in history.history.items()}


def _of_steps(history: History) -> dict[str, Any]:
    """Return each epoch's last learning rate and mean gradient norm, where the steps are known."""
    steps = history.steps
    if not steps:
        return {}
    starts, ends = (np.searchsorted(steps["epoch"], history.epoch, side) for side in ("left", "right"))
    parts = [slice(start, end) for start, end in zip(starts, ends, strict=True)]
    rates = [float(steps["learning_rate"][part][-1]) if part.stop > part.start else np.nan for part in parts]
    norms = [_mean(steps["gradient_norm"][part]) for part in parts]
    return {"learning_rate": rates, "gradient_norm": norms}


def _mean(values: Any) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")
