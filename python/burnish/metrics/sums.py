"""Metrics that are functions of sums: root mean squared error, R², perplexity, the accuracy of the best k."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import losses, ops
from .._errors import integer
from .._value import shape_of
from .base import Metric, check_labels, classes_of, mean_of, ratio, total
from .samples import mse, top_k_accuracy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._feed.arrays import Array
    from .._value import Value

__all__ = ["R2", "Perplexity", "RootMeanSquaredError", "TopKAccuracy", "perplexity", "r2", "rmse"]

# What splits a single precision number in two halves whose products are exact (Dekker 1971).
_SPLITTER = 2.0**12 + 1


class TopKAccuracy(Metric):
    """`top_k_accuracy` with another k than 5."""

    default_name = "top_k_accuracy"

    def __init__(self, k: int = 5, *, name: str | None = None) -> None:
        self.k = integer("k", k, 1)
        super().__init__(name, k=self.k)

    def columns(self, target: Any, prediction: Any) -> dict[str, Value]:
        """Return what part of a sample is right."""
        return {"right": top_k_accuracy(target, prediction, self.k)}

    def finish(self, sums: Mapping[str, Any]) -> Any:
        """Return the mean."""
        return mean_of(sums["right"], sums["weight"])


class RootMeanSquaredError(Metric):
    """The root of the mean of (prediction - target)² over everything; both have the same shape."""

    default_name = "rmse"

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name)

    def columns(self, target: Any, prediction: Any) -> dict[str, Value]:
        """Return the squared error of a sample."""
        return {"squared": mse(target, prediction)}

    def finish(self, sums: Mapping[str, Any]) -> Any:
        """Return the root of the mean."""
        return np.sqrt(mean_of(sums["squared"], sums["weight"]))


class R2(Metric):
    """1 - Σ (target - prediction)² / Σ (target - mean of the targets)², the share of the variance that is explained.

    Both have the same shape. Of several columns the mean over them (scikit-learn's "uniform_average"). Of a target that
    never changes: 1 if it is met exactly, else 0. NaN where a number is NaN or nothing has a weight. For training
    batches one column is reported, by sums, which tell little of how numbers vary whose mean is a million times that.
    """

    default_name = "r2"
    approximate = True

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name)

    def columns(self, target: Any, prediction: Any) -> dict[str, Value]:
        """Return the sums of one column: squares in two parts, so that a large mean costs few digits."""
        losses.same_shape(target, prediction)
        if np.prod([length or 1 for length in prediction.shape[1:]]) > 1:
            return {}
        t, error = total(target), ops.square(total(target) - total(prediction))
        square = t * t
        shifted = t * _SPLITTER
        high = shifted - (shifted - t)
        low = t - high
        rest = ((high * high - square) + 2.0 * high * low) + low * low
        return {"target": t, "square": square, "rest": rest, "error": error}

    def finish(self, sums: Mapping[str, Any]) -> Any:
        """Return 1 - error / variation."""
        squares = np.asarray(sums["square"] + sums["rest"])
        variation = squares - ratio(np.square(sums["target"]), sums["weight"])
        # What is left of the squares' last digits is no variation.
        return _explained(sums["error"], np.where(variation <= 1e-13 * squares, 0.0, variation))

    def collected(self, target: Any, prediction: Any) -> dict[str, Value]:
        """Return targets and predictions."""
        losses.same_shape(target, prediction)
        return {"target": target, "prediction": prediction}

    def compute(self, arrays: Mapping[str, Array], weight: Array, classes: int) -> float:  # noqa: ARG002
        """Return the mean over the columns, in float64."""
        some = weight > 0
        if not some.any():
            return float("nan")
        w = weight[some]
        t, p = (arrays[key][some].reshape(len(w), -1).astype(np.float64) for key in ("target", "prediction"))
        with np.errstate(invalid="ignore", over="ignore"):
            deviation = t - w @ t / w.sum()
            deviation -= w @ deviation / w.sum()  # by how much the mean was rounded
            variation = np.where((t == t[0]).all(0), 0.0, w @ deviation**2)
            return float(_explained(w @ (t - p) ** 2, variation).mean())


def _explained(error: Any, variation: Any) -> Any:
    """Return 1 - error / variation; without variation 1 of no error, NaN of NaN, else 0."""
    return np.where(variation == 0, np.where(error > 0, 0.0, 1.0 - error), 1.0 - ratio(error, variation))


class Perplexity(Metric):
    """e to the mean cross entropy of all places: from how many equally likely classes a model seems to choose.

    `target (batch, …)` integers or `(batch, …, classes)` probabilities, `prediction (batch, …, classes)` logits.
    NaN, as e to the mean of nothing, where every place is ignored.

    Parameters
    ----------
    ignore_class : int, optional
        Places labelled so (padding) do not count; every other place counts alike.
    name : str, optional
        What the result is called.
    """

    default_name = "perplexity"

    def __init__(self, ignore_class: int | None = None, *, name: str | None = None) -> None:
        self.ignore_class = None if ignore_class is None else integer("ignore_class", ignore_class, -(2**31))
        super().__init__(name, ignore_class=self.ignore_class)

    def columns(self, target: Any, prediction: Any) -> dict[str, Value]:
        """Return the entropy of a sample's places, and their number."""
        if shape_of(target) == prediction.shape[:-1] and prediction.ndim > 1:
            check_labels(target, classes_of(prediction.shape), self.ignore_class)
        mean = losses.cross_entropy(target, prediction, 0.0, self.ignore_class)
        if self.ignore_class is None:
            return {"entropy": mean}
        places = total(ops.not_equal(target, self.ignore_class))
        return {"entropy": mean * places, "places": places}

    def finish(self, sums: Mapping[str, Any]) -> Any:
        """Return e to the mean."""
        return np.exp(mean_of(sums["entropy"], sums.get("places", sums["weight"])))


rmse = RootMeanSquaredError()
r2 = R2()
perplexity = Perplexity()
