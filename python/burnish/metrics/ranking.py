"""The area under a curve: how well scores rank what holds above what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import ops
from .._errors import choice
from .base import ratio, weight_of_places
from .counts import ClassMetric

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._feed.arrays import Array
    from .._value import Value

__all__ = ["AUC", "auc"]


class AUC(ClassMetric):
    """The area under the curve of all thresholds, exact: every score is one, and equal scores count half.

    Of one label, or of each where columns are labels of their own, by the logit; of classes, each against the rest, by
    its probability. Reported by `evaluate` and for validation data, not for training batches.

    Parameters
    ----------
    curve : {"ROC", "PR"}
        "ROC": the probability that what holds has a higher score than what does not (Hanley and McNeil 1982). "PR": the
        average precision Σ (recall_i - recall_{i-1}) · precision_i, without interpolation. As in scikit-learn.
    average : {"macro", "weighted"}
        Of several classes: the mean over those that occur (but not always), or weighted by how often they do.
    independent : bool, optional
        Whether columns are labels of their own; by default they are under a binary loss.
    name : str, optional
        What the result is called.

    Notes
    -----
    NaN where nothing can be ranked.
    """

    default_name = "auc"

    def __init__(
        self, curve: str = "ROC", average: str = "macro", *, independent: bool | None = None, name: str | None = None
    ) -> None:
        self.curve = choice("curve", curve, ("PR", "ROC"))
        self.average = choice("average", average, ("macro", "weighted"))
        super().__init__(0.5, independent, name)
        self._arguments = {"curve": self.curve, "average": self.average, "independent": self.independent}

    def collected(self, target: Any, prediction: Any) -> dict[str, Value]:
        """Return what holds, and the scores."""
        if self.is_single(prediction) or self.of_each(target, prediction):
            there, _ = self.positives(target, prediction)
            return {"there": there, "score": ops.cast(prediction, "float")}
        return {"label": self.labels(target, prediction), "score": ops.softmax(prediction)}

    def compute(self, arrays: Mapping[str, Array], weight: Array, classes: int) -> float:
        """Return the mean of the areas."""
        score = arrays["score"].reshape(-1, classes)
        there = arrays["there"].reshape(-1, classes) if "there" in arrays else np.eye(classes)[arrays["label"].ravel()]
        each = weight_of_places(weight, len(score))
        area = _roc if self.curve == "ROC" else _precision_recall
        areas = np.array([area(there[:, n].astype(bool), score[:, n], each) for n in range(classes)])
        counts = each @ there if self.average == "weighted" else np.ones(classes)
        known = np.isfinite(areas)
        return float(areas[known] @ counts[known] / counts[known].sum()) if (counts * known).any() else float("nan")


def _by_score(there: Array, score: Array, weight: Array) -> tuple[Array, Array]:
    """Return the weight of what holds and of what does not at each score, from the lowest to the highest."""
    _, place = np.unique(score, return_inverse=True)
    return np.bincount(place, weight * there), np.bincount(place, weight * ~there)


def _roc(there: Array, score: Array, weight: Array) -> float:
    positive, negative = _by_score(there, score, weight)
    pairs = positive.sum() * negative.sum()
    below = np.cumsum(negative) - negative / 2
    return float(positive @ below / pairs) if pairs > 0 else float("nan")


def _precision_recall(there: Array, score: Array, weight: Array) -> float:
    positive, negative = (counts[::-1] for counts in _by_score(there, score, weight))
    found, false = np.cumsum(positive), np.cumsum(negative)
    return float(positive @ ratio(found, found + false) / found[-1]) if found[-1] > 0 else float("nan")


auc = AUC()
