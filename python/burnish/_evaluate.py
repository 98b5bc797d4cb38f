"""Evaluation and prediction over arrays or batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._structure import Structure, flatten, is_sequence, unflatten
from .metrics import METRIC, own_names, reported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._feed.arrays import Array, Data
    from ._runtime import Runtime
    from .callbacks.collection import CallbackList

__all__ = ["BATCH_SIZE", "evaluate", "predict"]

BATCH_SIZE = 256  # forward only: memory is not scarce, and the result does not depend on it


def evaluate(runtime: Runtime, parts: Iterable[Data], batch_size: int, callbacks: CallbackList) -> dict[str, Any]:
    """Return loss and metrics over all parts; what is no number (a confusion matrix) is not shown to callbacks."""
    callbacks("on_test_begin", {})
    if is_sequence(parts):
        (part,) = parts
        of_all, arrays = _evaluate_part(runtime, part, batch_size, callbacks), _collected(runtime, part, batch_size)
    else:
        sums = _Sums(runtime, batch_size, callbacks)
        for part in parts:
            sums.add(part)
        of_all, arrays = sums.means(), sums.collected()
    logs: dict[str, Any] = {"loss": of_all["loss"]}
    for each in runtime.built.reported:
        if each.collected:
            logs[each.name] = each.computed(arrays, arrays["weight"])
        else:
            logs[each.name] = each.finished(own_names(of_all), of_all["weight"])
    callbacks("on_test_end", {name: value for name, value in logs.items() if np.ndim(value) == 0})
    return logs


class _Sums:
    """Loss and metrics over many parts, added up as the engine does over one, to the same bits."""

    def __init__(self, runtime: Runtime, batch_size: int, callbacks: CallbackList) -> None:
        self._runtime, self._batch_size, self._callbacks = runtime, batch_size, callbacks
        self._hooked = callbacks.wants("on_test_batch_begin", "on_test_batch_end")
        self._names = {"loss": "evaluation.loss"} | {
            f"{METRIC}{name}": f"evaluation.{METRIC}{name}" for name in runtime.built.metrics
        }
        self._collect = list(dict.fromkeys(n for each in runtime.built.reported for n in each.collected.values()))
        self._totals, self._batches = dict.fromkeys([*self._names, "weight"], 0.0), 0
        self._collected: list[list[Array]] = []

    def add(self, part: Data) -> None:
        """Add a part, which is of whole batches unless it is the last one."""
        for piece in _pieces(part, self._batch_size) if self._hooked else [part]:
            self._callbacks("on_test_batch_begin", self._batches, {})
            last = self._add(piece)
            if self._hooked:
                weight = last.pop("weight")
                means = {name: total / (weight or 1.0) for name, total in last.items()}
                metrics = reported(self._runtime.built.reported, own_names(means), weight)
                self._callbacks("on_test_batch_end", self._batches, {"loss": means["loss"], **metrics})
            self._batches += 1

    def means(self) -> dict[str, float]:
        """Return the weighted means, and the sum of the weights."""
        weight = self._totals["weight"]
        with np.errstate(invalid="ignore", divide="ignore"):
            means = {name: float(np.float64(total) / weight) for name, total in self._totals.items()}
        return {**means, "weight": weight}

    def collected(self) -> dict[str, Array]:
        """Return what metrics need of every sample, with the samples' weights."""
        arrays = [np.concatenate(several) for several in zip(*self._collected, strict=True)]
        return dict(zip(["weight", *self._collect], arrays, strict=True)) if self._collect else {}

    def _add(self, part: Data) -> dict[str, float]:
        """Add batch after batch; return the sums of the last one."""
        names = [*self._names.values(), *self._collect]
        arrays = self._runtime.session.predict(part.inputs, batch_size=self._batch_size, outputs=names)
        weight, sums = _weights(part), dict[str, float]()
        for start in range(0, part.rows, self._batch_size):
            rows = slice(start, start + self._batch_size)
            own = weight[rows]
            pairs = zip(self._names, arrays, strict=False)
            sums = {name: _sum(values[rows].astype(np.float64), own) for name, values in pairs}
            sums["weight"] = _sum(np.ones(len(own)), own)
            self._totals = {name: total + sums[name] for name, total in self._totals.items()}
        if self._collect:
            self._collected.append([weight, *arrays[len(self._names) :]])
        return sums


def _sum(values: Array, weight: Array) -> float:
    """Return the weighted sum, one number after the other, without those that weigh nothing."""
    products = (values * weight)[weight != 0]
    return float(np.add.accumulate(products)[-1]) if len(products) else 0.0


def _weights(part: Data) -> Array:
    return np.ones(part.rows) if part.weight is None else part.weight.astype(np.float64)


def _collected(runtime: Runtime, part: Data, batch_size: int) -> dict[str, Array]:
    """Return what metrics need of every sample, which takes another pass; with the samples' weights."""
    names = [name for each in runtime.built.reported for name in each.collected.values()]
    if not names:
        return {}
    arrays = runtime.session.predict(part.inputs, batch_size=batch_size, outputs=names)
    return {"weight": _weights(part), **dict(zip(names, arrays, strict=True))}


def _evaluate_part(runtime: Runtime, part: Data, batch_size: int, callbacks: CallbackList) -> dict[str, float]:
    session = runtime.session
    if callbacks.wants("on_test_batch_begin", "on_test_batch_end"):
        for index, piece in enumerate(_pieces(part, batch_size)):
            callbacks("on_test_batch_begin", index, {})
            means = session.evaluate(piece.inputs, batch_size=batch_size, sample_weight=piece.weight)
            metrics = reported(runtime.built.reported, own_names(means), means["weight"])
            callbacks("on_test_batch_end", index, {"loss": means["loss"], **metrics})
    # In one call always, so that hooks do not change how sums are rounded.
    return session.evaluate(part.inputs, batch_size=batch_size, sample_weight=part.weight)


def predict(runtime: Runtime, parts: Iterable[Data], batch_size: int, callbacks: CallbackList) -> Structure[Array]:
    """Return the predictions for all rows, in the structure of the model's outputs."""
    callbacks("on_predict_begin", {})
    names = list(flatten("prediction", runtime.built.outputs).values())
    hooked = callbacks.wants("on_predict_batch_begin", "on_predict_batch_end")
    found: list[list[Array]] = []
    index = 0
    for part in parts:
        for piece in _pieces(part, batch_size) if hooked else [part]:
            callbacks("on_predict_batch_begin", index, {})
            found.append(runtime.session.predict(piece.x, batch_size=batch_size, outputs=names))
            callbacks("on_predict_batch_end", index, {})
            index += 1
    arrays = found[0] if len(found) == 1 else [np.concatenate(pieces) for pieces in zip(*found, strict=True)]
    callbacks("on_predict_end", {})
    return unflatten(runtime.built.outputs, dict(zip(names, arrays, strict=True)))


def _pieces(data: Data, size: int) -> Any:
    return (data.slice(start, start + size) for start in range(0, data.rows, size))
