"""Metrics, exact over the whole set: never means of batches.

A model takes them by name, as a class with arguments, or as any function `(target, prediction) -> value per sample`
made of `bn.ops`, which is averaged. Predictions of classes are logits. Sample weights apply. Those that are no means
are objects: called with arrays, `bn.metrics.f1(y, model.predict(x))`, they give the result for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

from .. import losses
from .._errors import nearest
from .._value import Operand, Value, shape_of
from . import counts, ranking, samples, sums
from .base import METRIC as METRIC
from .base import Metric as Metric
from .base import Reported as Reported
from .base import classes_of as classes_of
from .base import own_names as own_names
from .base import reported as reported
from .counts import *  # noqa: F403
from .ranking import *  # noqa: F403
from .samples import *  # noqa: F403
from .sums import *  # noqa: F403
from .traced import Traced, finish_program

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Metric"]
__all__ += counts.__all__
__all__ += ranking.__all__
__all__ += samples.__all__
__all__ += sums.__all__

_FAMILIES = (counts, ranking, samples, sums)
_NAMES: dict[str, Any] = {name: getattr(family, name) for family in _FAMILIES for name in family.__all__}

MetricFunction: TypeAlias = "Callable[[Any, Any], Value] | Metric"

BY_NAME: dict[str, MetricFunction] = {name: metric for name, metric in _NAMES.items() if not isinstance(metric, type)}
CLASSES: dict[str, type[Metric]] = {name: metric for name, metric in _NAMES.items() if isinstance(metric, type)}


def resolve(metric: Any, loss: losses.LossFunction) -> tuple[str, MetricFunction]:
    """Return name and function of a metric; under a binary loss, columns are labels of their own."""
    independent = _is_binary(loss)
    if isinstance(metric, str):
        if metric not in BY_NAME:
            raise ValueError(f"`metrics`: unknown name {metric!r}; {nearest(metric, BY_NAME)}")
        if metric == "accuracy" and independent:
            return metric, _accuracy_of_labels
        metric = BY_NAME[metric]
    if isinstance(metric, type) and not issubclass(metric, Metric):
        raise TypeError(f"`metrics` must be names or functions, got the class {metric.__name__}: give an object of it")
    given = cast("Any", metric() if isinstance(metric, type) else metric)
    if isinstance(given, Metric):
        return given.name, given.for_labels(independent=independent)
    if not callable(given):
        raise TypeError(
            f"`metrics` must be names or functions (target, prediction) -> value per sample, got {metric!r}"
        )
    return str(getattr(given, "__name__", type(given).__name__)).strip("<>"), cast("MetricFunction", given)


def plain(each: Reported) -> dict[str, Any] | None:
    """Return a metric as JSON can hold it; None if it is the user's own and more than operations on sums."""
    config = None if each.metric is None else each.metric.config()
    if each.metric is not None and type(each.metric) not in {Traced, *CLASSES.values()}:
        finish = finish_program(each.metric, each.columns) if each.columns else None
        if finish is None:
            return None
        config = {"class": Traced.__name__, "arguments": {"name": each.metric.name, "finish": finish}}
    return {**each._asdict(), "metric": config}


def restored(config: Any) -> Metric | None:
    """Return the metric that `plain` describes; None for none."""
    known: dict[str, type[Metric]] = {**CLASSES, Traced.__name__: Traced}
    return None if config is None else known[config["class"]](**config["arguments"])


def _is_binary(loss: losses.LossFunction) -> bool:
    functions = (losses.binary_cross_entropy, losses.focal, losses.hinge)
    return loss in functions or isinstance(loss, (losses.BinaryCrossEntropy, losses.Focal, losses.Hinge))


def _accuracy_of_labels(target: Operand, prediction: Operand) -> Value:
    """Return `binary_accuracy`, or `accuracy` where the focal loss has classes."""
    same = shape_of(target) == shape_of(prediction)
    return samples.binary_accuracy(target, prediction) if same else samples.accuracy(target, prediction)
