"""What happened in a fit."""

from __future__ import annotations

import numbers
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
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
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self.parameters: dict[str, dict[str, list[float]]] = {}
        self.activations: dict[str, dict[str, list[float]]] = {}
        self._steps: list[dict[str, npt.NDArray[Any]]] = []

    @property
    def steps(self) -> dict[str, npt.NDArray[Any]]:
        """The record of every micro-batch, a column each.

        "epoch", "step" (within the epoch), "learning_rate", "loss" (its weighted mean), "weight" (sum of weights),
        "gradient_norm" (before clipping) and "update_ratio" (norm of the update over that of the parameters; both NaN
        where an accumulation group stayed open), "finite" (an update that was not is skipped), the metrics, and
        "loss_scale" where the loss was scaled.
        """
        names = self._steps[0] if self._steps else ()
        return {name: np.concatenate([part[name] for part in self._steps]) for name in names}

    @property
    def skipped_updates(self) -> int:
        """How many updates were skipped because their gradient was not finite."""
        return sum(int(np.count_nonzero(~part["finite"])) for part in self._steps)

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

    def add_steps(self, columns: dict[str, npt.NDArray[Any]]) -> None:
        """Append rows for steps."""
        self._steps.append(columns)
        # Parts grow like powers of two, so that there are few of them and each row is copied a few times only.
        while len(self._steps) > 1 and _to_be_joined(*self._steps[-2:]):
            last = self._steps.pop()
            self._steps[-1] = {name: np.concatenate([part, last[name]]) for name, part in self._steps[-1].items()}

    def close_group(self, values: dict[str, npt.NDArray[Any]]) -> None:
        """Complete the last step with the update that closed its accumulation group."""
        if not self._steps:
            return
        for name in {"gradient_norm", "update_ratio", "finite"} & set(values):
            # A copy: a checkpoint may be reading the column.
            column = self._steps[-1][name].copy()
            column[-1] = values[name][0]
            self._steps[-1] = {**self._steps[-1], name: column}

    def copy(self) -> History:
        """Return a history that does not change when this one grows."""
        copied = History()
        copied.history = {name: [*values] for name, values in self.history.items()}
        copied.epoch = [*self.epoch]
        for mine, other in ((self.parameters, copied.parameters), (self.activations, copied.activations)):
            for name, figures in mine.items():
                other[name] = {figure: [*values] for figure, values in figures.items()}
        copied._steps = [*self._steps]
        return copied

    def state(self) -> dict[str, Any]:
        """Return everything, columns of numbers as arrays, for a checkpoint."""
        nested = ("parameters", "activations")
        figures = {
            kind: {name: _as_arrays(columns) for name, columns in getattr(self, kind).items()} for kind in nested
        }
        return {"history": _as_arrays(self.history), "epoch": [*self.epoch], **figures, "steps": self.steps}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.history, self.epoch = _as_lists(state["history"]), state["epoch"]
        for kind in ("parameters", "activations"):
            setattr(self, kind, {name: _as_lists(columns) for name, columns in state[kind].items()})
        self._steps = [state["steps"]] if state["steps"] else []

    def to_pandas(self) -> Any:
        """Return the epochs as a `pandas.DataFrame` indexed by epoch."""
        pd: Any = import_module("pandas")

        return pd.DataFrame(self.history, index=pd.Index(self.epoch, name="epoch"))

    def plot(self, *, axes: Any = None) -> Any:
        """Draw every curve over the epochs with matplotlib, a validation curve beside its own.

        Parameters
        ----------
        axes : sequence of matplotlib.axes.Axes, optional
            Where to draw, one for each of `loss` and the metrics; by default a new figure.

        Returns
        -------
        matplotlib.figure.Figure
        """
        names = [name for name in self.history if not name.startswith("val_")]
        if axes is None:
            plt: Any = import_module("matplotlib.pyplot")

            _, axes = plt.subplots(1, max(len(names), 1), figsize=(5 * max(len(names), 1), 3.5), squeeze=False)
        axes = np.ravel(axes)
        if names and len(axes) != len(names):
            raise ValueError(f"`axes` must hold one for each of {', '.join(names)}, got {len(axes)}")
        for name, axis in zip(names, axes, strict=False):
            _draw(axis, name, self.epoch, self.history)
        figure = axes[0].figure
        figure.tight_layout()
        return figure

    def __repr__(self) -> str:
        last = ", ".join(f"{name}={values[-1]:.4g}" for name, values in self.history.items())
        return f"<History of {len(self.epoch)} epochs: {last}>"

    def _repr_html_(self) -> str:
        from html import escape

        head = "".join(f"<th>{escape(name)}</th>" for name in ("epoch", *self.history))
        rows = "".join(self._html_row(index, epoch) for index, epoch in enumerate(self.epoch))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"

    def _html_row(self, index: int, epoch: int) -> str:
        cells = [f"{values[index]:.6g}" if index < len(values) else "" for values in self.history.values()]
        return "<tr>" + "".join(f"<td>{cell}</td>" for cell in (epoch + 1, *cells)) + "</tr>"


def _draw(axis: Any, name: str, epochs: list[int], history: dict[str, list[float]]) -> None:
    numbers = [epoch + 1 for epoch in epochs]
    for curve, label in ((name, "training"), (f"val_{name}", "validation")):
        if curve in history:
            axis.plot(numbers[: len(history[curve])], history[curve], label=label)
    axis.set(xlabel="epoch", ylabel=name)
    axis.legend()


def _as_arrays(columns: dict[str, list[Any]]) -> dict[str, Any]:
    """Return columns of numbers as arrays of float64, others as they are."""
    return {
        name: np.array(values, np.float64) if all(isinstance(value, numbers.Real) for value in values) else values
        for name, values in columns.items()
    }


def _as_lists(columns: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: values.tolist() if isinstance(values, np.ndarray) else values for name, values in columns.items()}


def _to_be_joined(part: dict[str, npt.NDArray[Any]], last: dict[str, npt.NDArray[Any]]) -> bool:
    return part.keys() == last.keys() and len(part["step"]) <= len(last["step"])
