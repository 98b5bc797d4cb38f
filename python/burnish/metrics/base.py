"""Metrics that are no means of values per sample: functions of sums over the whole set, or of the whole set itself."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from .. import _checks, ops
from .._value import Operand, Shape, Value
from ..losses.base import is_described
from ..tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._feed.arrays import Array

__all__ = [
    "Metric",
    "Reported",
    "check_labels",
    "classes_of",
    "mean_of",
    "ratio",
    "reported",
    "total",
    "weight_of_places",
]

T = TypeVar("T")


class Metric:
    """A metric of a whole set, exact whatever the batches.

    It is made of `columns`, numbers per sample whose weighted sums over the set `finish` turns into the result; or,
    where sums do not suffice, of the `collected` values of all samples, which `compute` turns into it. What is
    collected is reported by `evaluate` and for validation data, but not for training batches.

    A metric of your own derives from this. It is saved with its model if it has `columns` and its `finish` is made of
    operators and `bn.ops`; one that needs Python (NumPy in `finish`, or `compute`) is not, and a warning says so: the
    loaded model knows it once it is compiled again.

    Parameters
    ----------
    name : str, optional
        What the result is called; by default the metric's name.

    Examples
    --------
    The mean of a prediction, weighted by a target:

    >>> import numpy as np
    >>> import burnish as bn
    >>> class WeightedMean(bn.metrics.Metric):
    ...     default_name = "weighted_mean"
    ...     def columns(self, target, prediction):
    ...         return {"product": target * prediction, "target": target * 1.0}
    ...     def finish(self, sums):
    ...         return sums["product"] / sums["target"]
    >>> float(WeightedMean()(np.array([1.0, 3.0]), np.array([10.0, 20.0])))
    17.5
    """

    default_name: ClassVar[str] = "metric"
    scalar: bool = True  # whether the result is a number, which fit can log
    approximate: ClassVar[bool] = False  # whether sums of columns lose digits, and `evaluate` collects besides

    def __init__(self, name: str | None = None, **arguments: Any) -> None:
        if name is not None and not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"`name` must be a text, got {name!r}")
        self.name = name or self.default_name
        self._arguments = arguments

    def columns(self, target: Any, prediction: Any) -> dict[str, Value]:  # noqa: ARG002
        """Return numbers per sample by name, averaged over other axes than the batch; none if `compute` does it all."""
        return {}

    def finish(self, sums: Mapping[str, Any]) -> Any:
        """Return the result from the weighted sums of the columns, and of "weight"; each may be an array of them."""
        raise NotImplementedError(f"{type(self).__name__} must define finish(self, sums)")

    def collected(self, target: Any, prediction: Any) -> dict[str, Value]:
        """Return values with an entry per sample, by name, that `compute` is to be given of the whole set."""
        raise NotImplementedError(f"{type(self).__name__} must define columns or collected(self, target, prediction)")

    def compute(self, arrays: Mapping[str, Array], weight: Array, classes: int) -> Any:
        """Return the result from what was collected, the samples' weights, and the prediction's last length."""
        raise NotImplementedError(f"{type(self).__name__} must define compute(self, arrays, weight, classes)")

    def for_labels(self, *, independent: bool) -> Metric:  # noqa: ARG002
        """Return the metric for targets whose columns are labels of their own, or classes of which one is right."""
        return self

    def config(self) -> dict[str, Any]:
        """Return class and arguments, as JSON can hold them."""
        return {"class": type(self).__name__, "arguments": {"name": self.name, **self._arguments}}

    def with_arguments(self, **arguments: Any) -> Metric:
        """Return the metric with other arguments."""
        other = copy(self)
        other._arguments = {**self._arguments, **arguments}
        vars(other).update(arguments)
        return other

    def __call__(self, target: Operand, prediction: Operand, sample_weight: Any = None) -> Any:
        """Return the result for a whole set of arrays, which must have a row; rows that weigh nothing do not count."""
        value = prediction if isinstance(prediction, Value) else Tensor(np.asarray(prediction))
        rows = (value.shape[0] or 0) if value.shape else 0
        if rows == 0:
            raise ValueError("`prediction` must have at least one row, got none")
        weight = _weights(sample_weight, rows)
        columns = self.columns(target, value)
        if columns and not self.approximate:
            some = weight > 0
            means = {key: np.asarray(each, np.float64).reshape(rows, -1).mean(1) for key, each in columns.items()}
            sums = {key: mean[some] @ weight[some] for key, mean in means.items()}
            return finished(self, {**sums, "weight": weight.sum()})
        arrays = {key: np.asarray(each) for key, each in self.collected(target, value).items()}
        return self.compute(arrays, weight, classes_of(value.shape))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self._arguments.items())})"


def _weights(sample_weight: Any, rows: int) -> Array:
    """Return the weight of each row, 1 by default; raise for what `fit` does not take."""
    weight = np.ones(rows) if sample_weight is None else np.asarray(sample_weight, np.float64)
    if weight.shape != (rows,):
        raise ValueError(f"`sample_weight` must have shape ({rows},), got {weight.shape}")
    wrong = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    if wrong.size:
        raise ValueError(f"`sample_weight` must be finite and not negative, got {weight[wrong[0]]:g} at row {wrong[0]}")
    return weight


METRIC = "metric."
"""What the engine's names of metrics begin with."""


def own_names(values: Mapping[str, T]) -> dict[str, T]:
    """Return what the engine recorded, metrics by their own names."""
    return {name.removeprefix(METRIC): value for name, value in values.items()}


class Reported(NamedTuple):
    """A metric as a model reports it: what the engine adds up for it, or collects, and what finishes it."""

    name: str
    columns: dict[str, str]  # the engine's metrics by the names that `finish` knows them by
    collected: dict[str, str]  # the program's outputs by the names that `compute` knows them by
    classes: int  # the length of the prediction's last axis
    metric: Metric | None  # None: the mean of its one column

    @property
    def logged(self) -> bool:
        """Whether it is a number."""
        return self.metric is None or self.metric.scalar

    def finished(self, means: Mapping[str, Any], weight: Any) -> Any:
        """Return the result from the weighted means of the engine's metrics and the sum of the weights."""
        if self.metric is None:
            return means[self.name]
        sums = {key: means[column] * weight for key, column in self.columns.items()}
        return finished(self.metric, {**sums, "weight": weight})

    def computed(self, arrays: Mapping[str, Array], weight: Array) -> Any:
        """Return the result from the program's outputs for all samples."""
        assert self.metric is not None  # noqa: S101  what is collected is computed
        return self.metric.compute({key: arrays[name] for key, name in self.collected.items()}, weight, self.classes)


def reported(metrics: Sequence[Reported], means: Mapping[str, Any], weight: Any) -> dict[str, Any]:
    """Return the metrics that are numbers made of sums, by name; both may be arrays, with an entry for each set.

    What was not added up is left out: a callback may have compiled the model anew since the last batch.
    """
    made = [each for each in metrics if each.columns and each.logged and means.keys() >= set(each.columns.values())]
    return {each.name: each.finished(means, weight) for each in made}


def finished(metric: Metric, sums: Mapping[str, Any]) -> Any:
    """Return the result of sums: a float, or an array of them for sums that are arrays."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        result = metric.finish(sums)
    return float(result) if np.ndim(result) == 0 else result


def classes_of(shape: Shape) -> int:
    """Return the length of the prediction's last axis, 1 where there is only the batch."""
    return (shape[-1] or 1) if len(shape) > 1 else 1


def weight_of_places(weight: Array, places: int) -> Array:
    """Return the weight of every place from that of each sample."""
    return np.repeat(weight, places // len(weight))


def check_labels(target: Operand, classes: int, ignored: int | None = None) -> None:
    """Raise for the first label of an array that is not among the classes; `fit` and `evaluate` check a model's own."""
    if is_described(target):
        return
    labels = np.asarray(target)
    _checks.check_labels("target", labels if ignored is None else np.where(labels == ignored, 0, labels), classes)


def total(value: Value) -> Value:
    """Return the sum over all axes but the batch, as a float."""
    number = ops.cast(value, "float")
    return ops.sum(number, range(1, number.ndim)) if number.ndim > 1 else number


def mean_of(part: Any, whole: Any) -> Any:
    """Return part / whole, and NaN, the mean of nothing, where both are 0."""
    return np.divide(part, whole)


def ratio(part: Any, whole: Any) -> Any:
    """Return part / whole, and 0 where the whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.zeros(np.broadcast_shapes(part.shape, whole.shape)), where=whole != 0)
