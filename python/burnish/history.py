"""What happened in a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._columns import Columns
from ._curves import draw
from ._errors import choice, integer, unknown
from ._optional import required
from ._table import html_table, text_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from ._monitor import EpochMonitor

__all__ = ["History"]


class History:
    """The record of a fit: a row an epoch and a row a step.

    Attributes
    ----------
    history : dict of str to list of float
        One number an epoch for each of "loss", the metrics, and "val_loss" and so on, as in Keras.
    epoch : list of int
        The epochs' numbers, from `initial_epoch` on.
    parameters : dict of str to dict of str to list of float
        By path: "gradient_norm" (before clipping) and "update_ratio" (norm of the update over that of the parameter),
        means over an epoch's updates.
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
        self._steps: list[Columns] = []  # more than one where a callback compiled the model anew
        self._kept: tuple[Any, dict[str, Any]] = None, {}  # what `state` last said of the epochs, by their lengths

    @property
    def steps(self) -> dict[str, npt.NDArray[Any]]:
        """The record of every micro-batch, a column each.

        "epoch", "step" (within the epoch), "learning_rate", "loss" (its weighted mean), "weight" (sum of weights),
        "gradient_norm" (before clipping) and "update_ratio" (norm of the update over that of the parameters; both NaN
        where an accumulation group stayed open), "finite" (an update that was not is skipped), the metrics, and
        "loss_scale" where the loss was scaled.
        """
        parts = [part.read() for part in self._steps]
        return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}

    @property
    def skipped_updates(self) -> int:
        """How many updates were skipped because their gradient was not finite."""
        return sum(int(np.count_nonzero(~part.read()["finite"])) for part in self._steps)

    def steps_of(self, epoch: int) -> dict[str, npt.NDArray[Any]]:
        """Return the columns of `steps` for one epoch, quickly for the last ones."""
        found: list[dict[str, npt.NDArray[Any]]] = []
        for columns in reversed(self._steps):
            part = columns.read()
            if part["epoch"][-1] < epoch:
                break
            rows = slice(*np.searchsorted(part["epoch"], [epoch, epoch + 1]))
            found.insert(0, {name: column[rows] for name, column in part.items()})
        if len(found) == 1:
            return found[0]
        return {name: np.concatenate([part[name] for part in found]) for name in (found[0] if found else ())}

    def movements(self) -> dict[str, float]:
        """Return gradient norm and update ratio of each parameter in the last epoch, as "gradient_norm/<path>"."""
        of_each = [
            (path, figure, values) for path, figures in self.parameters.items() for figure, values in figures.items()
        ]
        return {f"{figure}/{path}": values[-1] for path, figure, values in of_each}

    def add_movements(self, monitor: EpochMonitor) -> None:
        """Append the means over an epoch's updates, by parameter and by layer."""
        for kind, columns in (("parameters", self.parameters), ("activations", self.activations)):
            for name, figures in monitor.means(kind).items():
                for figure, mean in figures.items():
                    columns.setdefault(name, {}).setdefault(figure, []).append(mean)

    def add_epoch(self, epoch: int, logs: dict[str, float]) -> None:
        """Append a row for an epoch."""
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def add_timing(self, seconds: dict[str, float]) -> None:
        """Append a row of seconds for an epoch."""
        for name, spent in seconds.items():
            self.timing.setdefault(name, []).append(spent)

    def add_steps(self, columns: dict[str, npt.NDArray[Any]]) -> None:
        """Append rows for steps."""
        if self._steps and self._steps[-1].takes(columns):
            self._steps[-1].append(columns)
        else:
            self._steps.append(Columns(columns))

    def close_group(self, values: dict[str, npt.NDArray[Any]]) -> None:
        """Complete the last step with the update that closed its accumulation group."""
        if not self._steps:
            return
        for name in {"gradient_norm", "update_ratio", "finite"} & set(values):
            self._steps[-1].set_last(name, values[name][0])

    def state(self) -> dict[str, Any]:
        """Return everything, columns of numbers as arrays, for a checkpoint; it stays as it is when this one grows."""
        return {**self._epochs(), "steps": self._steps[0].read() if len(self._steps) == 1 else self.steps}

    def _epochs(self) -> dict[str, Any]:
        """Return what grows with the epochs, made anew if it has grown: checkpoints of one epoch share it."""
        lengths = len(self.epoch), len(self.parameters), sum(map(len, self.history.values()))
        if self._kept[0] != lengths:
            kinds = {"history": {(name,): values for name, values in self.history.items()}}
            kinds |= {kind: _flat(getattr(self, kind)) for kind in ("parameters", "activations")}
            self._kept = lengths, {kind: _table(columns) for kind, columns in kinds.items()}
        return {"epoch": [*self.epoch], **self._kept[1]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.epoch = state["epoch"]
        self.history = {name: values for (name,), values in _columns(state["history"]).items()}
        for kind in ("parameters", "activations"):
            figures: dict[str, dict[str, list[float]]] = {}
            for (name, figure), values in _columns(state[kind]).items():
                figures.setdefault(name, {})[figure] = values
            setattr(self, kind, figures)
        steps = state["steps"]
        self._steps = [Columns({**steps, "finite": steps["finite"].astype(np.bool_)})] if steps else []
        self._kept = None, {}

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
