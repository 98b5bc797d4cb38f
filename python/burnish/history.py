"""What happened in a fit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._columns import Columns
from ._curves import draw
from ._errors import choice, integer, unknown
from ._optional import required
from ._table import html_table, text_table
from .metrics import METRIC, own_names, reported

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from ._monitor import EpochMonitor
    from .metrics import Reported

__all__ = ["History"]


# Types of the columns of `steps` that are no float64.
_TYPES: dict[str, type[np.generic]] = {"epoch": np.int64, "step": np.int64, "finite": np.bool_}


class _Part(NamedTuple):
    """Rows of steps as the engine recorded them, and what makes metrics of their columns."""

    rows: Columns
    metrics: Sequence[Reported]

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """Return a column as it was recorded."""
        return self.rows.read()[:, self.rows.names.index(name)]

    def columns(self, rows: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[Any]]:
        """Return some of the rows as columns of their types, the metrics finished."""
        found = dict(zip(self.rows.names, rows.T, strict=True))
        order = sorted(found, key=lambda name: name not in ("epoch", "step"))
        columns = {name: found[name].astype(_TYPES.get(name, np.float64)) for name in order}
        means = own_names({name: columns.pop(name) for name in order if name.startswith(METRIC)})
        return {**columns, **(reported(self.metrics, means, columns["weight"]) if means else {})}


class History:
    """The record of a fit: a row an epoch and a row a step.

    Attributes
    ----------
    history : dict of str to list of float
        One number an epoch for each of "loss", the metrics, and "val_loss" and so on, as in Keras; NaN in epochs that
        lack it, such as those before a callback first added it to the logs.
    epoch : list of int
        The epochs' numbers, from `initial_epoch` on.
    parameters : dict of str to dict of str to list of float
        By path: "gradient_norm" (before clipping) and "update_ratio" (norm of the update over that of the parameter),
        means over an epoch's updates; NaN for an epoch in which it was frozen.
    activations : dict of str to dict of str to list of float
        By layer that rectifies (relu): "zeros", the part of its activations that was 0, and "dead", the part of its
        units that was 0 for a whole micro-batch; means over every 16th micro-batch of an epoch.
    timing : dict of str to list of float
        Seconds an epoch: "data" (waiting for batches), "engine" (training on them), "validation", and "total". They
        differ from run to run, which nothing else in a history does.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self.parameters: dict[str, dict[str, list[float]]] = {}
        self.activations: dict[str, dict[str, list[float]]] = {}
        self.timing: dict[str, list[float]] = {}
        self._parts: list[_Part] = []  # more than one where a callback compiled the model anew
        self._kept: tuple[Any, dict[str, Any]] = None, {}  # what `state` last said of the epochs, by their lengths

    @property
    def steps(self) -> dict[str, npt.NDArray[Any]]:
        """The record of every micro-batch, a column each.

        "epoch", "step" (within the epoch), "learning_rate", "loss" (its weighted mean), "weight" (sum of weights),
        "gradient_norm" (before clipping) and "update_ratio" (norm of the update over that of the parameters; both NaN
        where an accumulation group stayed open), "finite" (an update that was not is skipped), the metrics, and
        "loss_scale" where the loss was scaled.
        """
        return _joined([part.columns(part.rows.read()) for part in self._parts])

    @property
    def skipped_updates(self) -> int:
        """How many updates were skipped because their gradient was not finite."""
        return sum(int(np.count_nonzero(part.numbers("finite") == 0)) for part in self._parts)

    def steps_of(self, epoch: int) -> dict[str, npt.NDArray[Any]]:
        """Return the columns of `steps` for one epoch, quickly for the last ones."""
        found: list[dict[str, npt.NDArray[Any]]] = []
        for part in reversed(self._parts):
            epochs = part.numbers("epoch")
            if epochs[-1] < epoch:
                break
            found.insert(0, part.columns(part.rows.read()[slice(*np.searchsorted(epochs, [epoch, epoch + 1]))]))
        return _joined(found)

    def movements(self) -> dict[str, float]:
        """Return gradient norm and update ratio of each parameter in the last epoch, as "gradient_norm/<path>"."""
        of_each = [
            (path, figure, values) for path, figures in self.parameters.items() for figure, values in figures.items()
        ]
        return {f"{figure}/{path}": values[-1] for path, figure, values in of_each}

    def add_movements(self, monitor: EpochMonitor) -> None:
        """Append the means over an epoch's updates, by parameter and by layer."""
        for kind, columns in (("parameters", self.parameters), ("activations", self.activations)):
            means = monitor.means(kind)
            for name, figures in means.items():
                for figure in figures:
                    columns.setdefault(name, {}).setdefault(figure, [math.nan] * len(self.epoch))
            for name, figures in columns.items():
                for figure, values in figures.items():
                    values.append(means.get(name, {}).get(figure, math.nan))

    def add_epoch(self, epoch: int, logs: dict[str, float]) -> None:
        """Append a row for an epoch: NaN where it lacks a figure that others have."""
        before = len(self.epoch)
        self.epoch.append(epoch)
        for name in logs:
            self.history.setdefault(name, [math.nan] * before)
        for name, values in self.history.items():
            values.append(logs.get(name, math.nan))

    def add_timing(self, seconds: dict[str, float]) -> None:
        """Append a row of seconds for an epoch."""
        for name, spent in seconds.items():
            self.timing.setdefault(name, []).append(spent)

    def add_steps(self, columns: dict[str, npt.NDArray[Any]]) -> None:
        """Append rows for steps, of columns as in `steps`."""
        self.add_rows(tuple(columns), np.column_stack([*columns.values()]).astype(np.float64))

    def add_rows(self, names: tuple[str, ...], rows: npt.NDArray[np.float64], metrics: Sequence[Reported] = ()) -> None:
        """Append rows for steps as the engine records them, with the metrics that are made of its columns."""
        last = self._parts[-1] if self._parts else None
        if last is not None and last.rows.names == names and (last.metrics is metrics or last.metrics == metrics):
            last.rows.append(rows)
        else:
            self._parts.append(_Part(Columns(names, rows), metrics))

    def close_group(self, gradient_norm: float, update_ratio: float, finite: float, **more: float) -> None:
        """Complete the last step with the update that closed its accumulation group."""
        if self._parts:
            values = {"gradient_norm": gradient_norm, "update_ratio": update_ratio, "finite": finite, **more}
            self._parts[-1].rows.set_last(values)

    def state(self, metrics: Sequence[Reported] = ()) -> dict[str, Any]:
        """Return everything, columns of numbers as arrays, for a checkpoint; it stays as it is when this one grows.

        "epochs" is the object of the last time if nothing has been added to it. Metrics in "steps" are finished, unless
        `load_state` will be given those that they were recorded with.
        """
        return {"epochs": self._epochs(), "steps": self._of_steps(metrics)}

    def _of_steps(self, metrics: Sequence[Reported]) -> dict[str, Any]:
        if len(self._parts) == 1 and (self._parts[0].metrics is metrics or self._parts[0].metrics == metrics):
            rows = self._parts[0].rows
            return {"names": rows.names, "rows": rows.read()}
        steps = self.steps
        return {"names": (*steps,), "rows": np.column_stack([*steps.values()]).astype(np.float64) if steps else None}

    def _epochs(self) -> dict[str, Any]:
        """Return what grows with the epochs, made anew if it has grown: checkpoints of one epoch share it."""
        lengths = len(self.epoch), len(self.parameters), sum(map(len, self.history.values()))
        if self._kept[0] != lengths:
            kinds = {"history": {(name,): values for name, values in self.history.items()}}
            kinds |= {kind: _flat(getattr(self, kind)) for kind in ("parameters", "activations")}
            tables = {kind: _table(columns) for kind, columns in kinds.items()}
            self._kept = lengths, {"epoch": [*self.epoch], **tables}
        return self._kept[1]

    def load_state(self, state: dict[str, Any], metrics: Sequence[Reported] = ()) -> None:
        """Go on from what `state` returned, with the metrics that the steps' columns are finished by."""
        epochs = state["epochs"]
        self.epoch = [*epochs["epoch"]]
        self.history = {name: values for (name,), values in _columns(epochs["history"]).items()}
        for kind in ("parameters", "activations"):
            figures: dict[str, dict[str, list[float]]] = {}
            for (name, figure), values in _columns(epochs[kind]).items():
                figures.setdefault(name, {})[figure] = values
            setattr(self, kind, figures)
        names, rows = tuple(state["steps"]["names"]), state["steps"]["rows"]
        self._parts = [] if rows is None else [_Part(Columns(names, rows), metrics)]
        self._kept = None, {}

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes, metrics finished: what makes them may be functions, which cannot be pickled."""
        plain = History()
        if self._parts:
            plain.add_steps(self.steps)
        return {**vars(self), "_parts": plain._parts}

    def to_pandas(self) -> Any:
        """Return the epochs as a `pandas.DataFrame` indexed by epoch."""
        pd: Any = required("pandas", "pandas")

        return pd.DataFrame(self.history, index=pd.Index(self.epoch, name="epoch"))

    def best_epoch(self, monitor: str | None = None, mode: str = "auto") -> int | None:
        """Return the epoch, as `epoch` counts them, in which a figure was best; None if it never was a number.

        Parameters
        ----------
        monitor : str, optional
            A name of `history`; by default "val_loss", or "loss" where nothing was validated.
        mode : {"auto", "min", "max"}
            Which way is better; "auto" is "max" for accuracies and "min" otherwise.
        """
        if monitor is None:
            monitor = "val_loss" if "val_loss" in self.history else "loss"
        elif monitor not in self.history:
            raise unknown("monitor", monitor, self.history)
        largest = choice("mode", mode, ("auto", "max", "min")) == "max" or (mode == "auto" and "acc" in monitor)
        values = np.array(self.history.get(monitor, ())) * (-1.0 if largest else 1.0)
        return None if np.isnan(values).all() else self.epoch[int(np.nanargmin(values))]

    def plot(self, names: Sequence[str] | None = None, *, axes: Any = None) -> Any:
        """Draw the fit with matplotlib: loss and metrics by epoch; learning rate, gradient norm, update ratio by step.

        A validation curve stands beside its own, the gap between them shaded, and the best epoch is marked.

        Parameters
        ----------
        names : sequence of str, optional
            What to draw, such as `["loss", "gradient_norm"]`; by default everything.
        axes : sequence of matplotlib.axes.Axes, optional
            Where to draw, one for each name; by default a new figure.

        Returns
        -------
        matplotlib.figure.Figure
        """
        return draw(self, names, axes)

    def table(self, rows: int | None = 20) -> str:
        """Return the epochs as a table, what `print(history)` shows: figures, last learning rate, mean gradient norm.

        The best epoch has a star. Of more than `rows` epochs, the first and last ones and the best are shown; None:
        all of them.
        """
        return text_table(self, rows if rows is None else integer("rows", rows, 1))

    def __str__(self) -> str:
        return self.table() if self.epoch else repr(self)

    def __repr__(self) -> str:
        last = ", ".join(f"{name}={values[-1]:.4g}" for name, values in self.history.items())
        return f"<History of {len(self.epoch)} epochs: {last}>"

    def _repr_html_(self) -> str:
        return html_table(self, 60)


def _joined(parts: list[dict[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    """Return what columns all parts have, one behind the other."""
    if len(parts) == 1:
        return parts[0]
    names = [name for name in parts[0] if all(name in part for part in parts)] if parts else []
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _flat(figures: dict[str, dict[str, list[float]]]) -> dict[tuple[str, ...], list[float]]:
    return {(name, figure): values for name, columns in figures.items() for figure, values in columns.items()}


def _table(columns: dict[tuple[str, ...], list[Any]]) -> dict[str, Any]:
    """Return columns of numbers as one array, a row each; others (of unlike lengths, or of words) as lists."""
    values: Any = [*columns.values()]
    try:
        array = np.array(values)
        values = array.astype(np.float64) if array.dtype.kind in "biuf" else values
    except ValueError:
        pass
    return {"names": [part for name in columns for part in name], "values": values}


def _columns(table: dict[str, Any]) -> dict[tuple[str, ...], list[Any]]:
    columns = [[*column] for column in _lists(table["values"])]
    parts = len(table["names"]) // max(len(columns), 1)
    names = [tuple(table["names"][at : at + parts]) for at in range(0, len(table["names"]), parts or 1)]
    return dict(zip(names, columns, strict=True))


def _lists(values: Any) -> list[list[Any]]:
    return values.tolist() if isinstance(values, np.ndarray) else values
