"""Precision, recall, F1 and the confusion matrix: metrics of how many were found and how many were right."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import losses, ops
from .._errors import boolean, choice, number
from .._value import Value, shape_of
from .base import Metric, check_labels, classes_of, ratio, total, weight_of_places

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._feed.arrays import Array

__all__ = ["F1", "ConfusionMatrix", "Precision", "Recall", "confusion_matrix", "f1", "precision", "recall"]

AVERAGES = ("auto", "binary", "macro", "micro", "weighted")


class ClassMetric(Metric):
    """The base of metrics of classes.

    Predictions are logits. `(batch,)` or `(batch, …, 1)`, the target of the same shape: one label, positive where its
    probability is above `threshold`. `(batch, …, classes)`: the largest is the answer, and targets are integers
    `(batch, …)` or one-hot. Where each column is a label of its own (under a binary loss; or `independent=True`): each
    is positive above the threshold.
    """

    def __init__(self, threshold: float, independent: bool | None, name: str | None, **arguments: Any) -> None:  # noqa: FBT001
        self.threshold = number("threshold", threshold, 0, 1, above=True, below=True)
        self.independent = None if independent is None else boolean("independent", independent)
        super().__init__(name, threshold=self.threshold, independent=self.independent, **arguments)

    def for_labels(self, *, independent: bool) -> Metric:
        """Return the metric for targets whose columns are labels of their own, or classes of which one is right."""
        return self if self.independent is not None else self.with_arguments(independent=independent)

    def is_single(self, prediction: Value) -> bool:
        """Say whether there is one label."""
        shape = prediction.shape
        return len(shape) < 2 or shape[-1] == 1

    def positives(self, target: Any, prediction: Value) -> tuple[Value, Value]:
        """Return where a label holds, and where it is said to."""
        losses.same_shape(target, prediction)
        edge = math.log(self.threshold / (1 - self.threshold))
        return ops.greater(target, 0.5), ops.greater(prediction, edge)

    def labels(self, target: Any, prediction: Value) -> Value:
        """Return the right classes as integers; raise for one of an array that is not among them."""
        losses.check_single(target)
        shape = prediction.shape
        if shape_of(target) == shape:
            return ops.argmax(target)
        if shape_of(target) != shape[:-1]:
            losses.same_shape(target, ops.argmax(prediction))
        check_labels(target, classes_of(shape))
        return ops.cast(ops.indexing.as_index(target, shape[-1]), "int")

    def of_each(self, target: Any, prediction: Value) -> bool:
        """Say whether every column is a label of its own."""
        return bool(self.independent) and shape_of(target) == prediction.shape


class FoundMetric(ClassMetric):
    """The base of precision, recall and F1."""

    def __init__(
        self,
        average: str | None = "auto",
        threshold: float = 0.5,
        *,
        independent: bool | None = None,
        name: str | None = None,
    ) -> None:
        self.average = None if average is None else choice("average", average, AVERAGES)
        self.scalar = average is not None
        super().__init__(threshold, independent, name, average=self.average)

    def score(self, right: Any, said: Any, there: Any) -> Any:
        """Return the result from how many are right, said to be there, and there."""
        raise NotImplementedError

    def columns(self, target: Any, prediction: Any) -> dict[str, Value]:
        """Return how many of a sample are right, said, there."""
        if self.is_single(prediction):
            there, said = self.positives(target, prediction)
        elif self.average == "micro":
            if not self.of_each(target, prediction):
                right = ops.equal(self.labels(target, prediction), ops.argmax(prediction))
                every = ops.ones_like(ops.cast(right, "float"))
                return {"right": total(right), "said": total(every), "there": total(every)}
            there, said = self.positives(target, prediction)
        elif self.average == "binary":
            if prediction.shape[-1] != 2:
                raise ValueError(f"average='binary' needs one column or two, got {losses.show(prediction.shape)}")
            there, said = ops.equal(self.labels(target, prediction), 1), ops.equal(ops.argmax(prediction), 1)
        else:
            return {}
        return {"right": total(ops.logical_and(there, said)), "said": total(said), "there": total(there)}

    def finish(self, sums: Mapping[str, Any]) -> Any:
        """Return the result from counts."""
        return self.score(sums["right"], sums["said"], sums["there"])

    def collected(self, target: Any, prediction: Any) -> dict[str, Value]:
        """Return right classes and answers, or labels that hold and that are said to."""
        if self.of_each(target, prediction):
            there, said = self.positives(target, prediction)
            return {"there": there, "said": said}
        return {"label": self.labels(target, prediction), "answer": ops.argmax(prediction)}

    def compute(self, arrays: Mapping[str, Array], weight: Array, classes: int) -> Any:
        """Return the result from the counts of each class."""
        right, said, there = self._counts(arrays, weight, classes)
        scores = self.score(right, said, there)
        if self.average is None:
            return scores
        if self.average == "weighted":
            return float(ratio(scores @ there, there.sum()))
        occurring = np.ones(classes, dtype=bool) if "there" in arrays else (said + there) > 0
        return float(ratio(scores[occurring].sum(), occurring.sum()))

    def _counts(self, arrays: Mapping[str, Array], weight: Array, classes: int) -> tuple[Array, Array, Array]:
        if "there" in arrays:
            there, said = (arrays[key].reshape(-1, classes).astype(bool) for key in ("there", "said"))
            each = weight_of_places(weight, len(there))
            return each @ (there & said), each @ said, each @ there
        label, answer = arrays["label"].ravel(), arrays["answer"].ravel()
        each = weight_of_places(weight, label.size)
        right, said, there = (
            np.bincount(chosen, weights, classes)
            for chosen, weights in ((label, each * (label == answer)), (answer, each), (label, each))
        )
        return right, said, there


class Precision(FoundMetric):
    """How many of those said to be there are: right / said.

    Parameters
    ----------
    average : {"auto", "binary", "macro", "micro", "weighted"} or None
        Of several classes or labels: "macro" is the mean over those that occur (in the target or the answers),
        "weighted" the mean by how often they occur in the target, "micro" counts all together, None gives an array, one
        of each. "binary" is that of class 1 of two. "auto": "binary" of one column, else "macro". As in scikit-learn.
    threshold : float in (0, 1), default 0.5
        The probability from which a label counts as positive; of logits whose sigmoid is the probability.
    independent : bool, optional
        Whether columns are labels of their own; by default they are under a binary loss.
    name : str, optional
        What the result is called.

    Notes
    -----
    "binary" and "micro" are reported for training batches too, the others by `evaluate` and for validation data. What
    is divided by 0 is 0.
    """

    default_name = "precision"

    def score(self, right: Any, said: Any, there: Any) -> Any:  # noqa: ARG002
        """Return right / said."""
        return ratio(right, said)


class Recall(FoundMetric):
    """How many of those there are said to be: right / there. Arguments as for `Precision`."""

    default_name = "recall"

    def score(self, right: Any, said: Any, there: Any) -> Any:  # noqa: ARG002
        """Return right / there."""
        return ratio(right, there)


class F1(FoundMetric):
    """2 · right / (said + there), the harmonic mean of precision and recall. Arguments as for `Precision`."""

    default_name = "f1"

    def score(self, right: Any, said: Any, there: Any) -> Any:
        """Return 2 · right / (said + there)."""
        return ratio(2.0 * np.asarray(right), np.asarray(said) + there)


class ConfusionMatrix(ClassMetric):
    """How often (by weight) class i was answered as class j: an array `(classes, classes)`, row i, column j.

    Of one label: `(2, 2)`. It is no number, so `evaluate` returns it and `fit` leaves it out.

    Parameters
    ----------
    normalize : {"true", "pred", "all"}, optional
        Whether rows, columns or everything are divided by their sums. As in scikit-learn.
    threshold : float in (0, 1), default 0.5
        The probability from which a label counts as positive.
    name : str, optional
        What the result is called.
    """

    default_name = "confusion_matrix"
    scalar = False

    def __init__(self, normalize: str | None = None, threshold: float = 0.5, *, name: str | None = None) -> None:
        self.normalize = None if normalize is None else choice("normalize", normalize, ("all", "pred", "true"))
        super().__init__(threshold, None, name, normalize=self.normalize)

    def for_labels(self, *, independent: bool) -> Metric:  # noqa: ARG002
        """Return the metric itself: the columns are classes always."""
        return self

    def config(self) -> dict[str, Any]:
        """Return class and arguments, as JSON can hold them."""
        arguments = {"name": self.name, "normalize": self.normalize, "threshold": self.threshold}
        return {"class": type(self).__name__, "arguments": arguments}

    def collected(self, target: Any, prediction: Any) -> dict[str, Value]:
        """Return right classes and answers."""
        if self.is_single(prediction):
            there, said = self.positives(target, prediction)
            return {"label": ops.cast(there, "int"), "answer": ops.cast(said, "int")}
        return {"label": self.labels(target, prediction), "answer": ops.argmax(prediction)}

    def compute(self, arrays: Mapping[str, Array], weight: Array, classes: int) -> Any:
        """Return the matrix."""
        label, answer = arrays["label"], arrays["answer"]
        classes = max(classes, 2)
        each = weight_of_places(weight, label.size)
        places = label.ravel().astype(np.int64) * classes + answer.ravel()
        matrix = np.bincount(places, each, classes * classes).reshape(classes, classes)
        if self.normalize is None:
            return matrix
        axis = {"true": 1, "pred": 0, "all": None}[self.normalize]
        return ratio(matrix, matrix.sum(axis, keepdims=True))


precision = Precision()
recall = Recall()
f1 = F1()
confusion_matrix = ConfusionMatrix()
