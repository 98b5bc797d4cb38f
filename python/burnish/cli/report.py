"""How good a model is on rows that it has not seen, and how good one would be that looks at no column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._text import aligned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["baseline", "measure", "probabilities", "show"]

_CLASSES = 12  # more are not shown one by one

Scores = dict[str, float]


def probabilities(logits: Any) -> Any:
    """Return softmax(logits) in float64."""
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    return exponents / exponents.sum(axis=1, keepdims=True)


def measure(task: str, target: Any, prediction: Any) -> Scores:
    """Return accuracy and log loss of probabilities `(rows, classes)`, or errors and R² of values `(rows, 1)`."""
    if task == "classification":
        return _of_classes(target, prediction)
    error = prediction - target
    spread = np.square(target - target.mean()).sum()
    return {
        "rmse": float(np.sqrt(np.square(error).mean())),
        "mae": float(np.abs(error).mean()),
        "r2": float(1 - np.square(error).sum() / spread) if spread else float("nan"),
    }


def _of_classes(target: Any, chances: Any) -> Scores:
    right = chances.argmax(axis=1) == target
    of_target = chances[np.arange(len(target)), target]
    recalls = [right[target == label].mean() for label in np.unique(target)]
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "log_loss": float(-np.log(np.maximum(of_target, np.finfo(np.float64).tiny)).mean()),
    }


def baseline(task: str, trained_on: Any, target: Any, classes: int) -> Scores:
    """Return the scores of always answering with the training classes' frequencies, or with the training mean."""
    if task == "classification":
        frequencies = np.bincount(trained_on, minlength=classes) / len(trained_on)
        return _of_classes(target, np.broadcast_to(frequencies, (len(target), classes)))
    return measure(task, target, np.full(target.shape, trained_on.mean()))


def confusion(target: Any, chances: Any, classes: Sequence[str]) -> list[str]:
    """Return the table of true classes by answers."""
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (target, chances.argmax(axis=1)), 1)
    head = ["true / answer", *classes]
    body = [[name, *map(str, row)] for name, row in zip(classes, counts.tolist(), strict=True)]
    return aligned([head, *body], 1)


def show(scores: Mapping[str, Scores], target: Any, prediction: Any, classes: Sequence[str]) -> str:
    """Return the report as text: each score beside the baseline's, and which classes are taken for which."""
    model, trivial = scores["test"], scores["baseline"]
    rows = [["test", "model", "baseline"], *([name, f"{model[name]:.4g}", f"{trivial[name]:.4g}"] for name in model)]
    lines = aligned(rows, 1)
    if 0 < len(classes) <= _CLASSES:
        lines += ["", *confusion(target, prediction, classes)]
    first = next(iter(model))
    better = model[first] > trivial[first] if classes else model[first] < trivial[first]
    verdict = "better than" if better else "NOT better than"
    what = "always answering the commonest class" if classes else "always answering the mean"
    return "\n".join([*lines, "", f"The model is {verdict} {what}."])
