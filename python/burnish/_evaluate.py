"""Evaluation and prediction over arrays or batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._data import Array
from ._structure import Structure, flatten, unflatten
from .metrics import reported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._data import Data
    from ._runtime import Runtime
    from .callbacks.collection import CallbackList

__all__ = ["BATCH_SIZE", "evaluate", "predict"]

BATCH_SIZE = 256  # forward only: memory is not scarce, and the result does not depend on it


def evaluate(runtime: Runtime, parts: Iterable[Data], batch_size: int, callbacks: CallbackList) -> dict[str, Any]:
    """Return loss and metrics over all parts; what is no number (a confusion matrix) is not shown to callbacks."""
    callbacks("on_test_begin", {})
    metrics, means, collected = runtime.built.reported, list[dict[str, float]](), list[dict[str, Array]]()
    for part in parts:
        means.append(_evaluate_part(runtime, part, batch_size, callbacks))
        collected.append(_collected(runtime, part, batch_size))
    of_all = _combined(means)
    arrays = {name: np.concatenate([each[name] for each in collected]) for name in collected[0]}
    logs: dict[str, Any] = {"loss": of_all["loss"]}
    for each in metrics:
        if each.collected:
            logs[each.name] = each.computed(arrays, arrays["weight"])
        else:
            logs[each.name] = each.finished(_plain(of_all), of_all["weight"])
    callbacks("on_test_end", {name: value for name, value in logs.items() if np.ndim(value) == 0})
    return logs


def _collected(runtime: Runtime, part: Data, batch_size: int) -> dict[str, Array]:
    """Return what metrics need of every sample, which takes another pass; with the samples' weights."""
    names = [name for each in runtime.built.reported for name in each.collected.values()]
    if not names:
        return {}
    arrays = runtime.session.predict(part.inputs, batch_size=batch_size, outputs=names)
    weight = np.ones(part.rows) if part.weight is None else part.weight.astype(np.float64)
    return {"weight": weight, **dict(zip(names, arrays, strict=True))}


def _plain(means: dict[str, float]) -> dict[str, float]:
    return {name.removeprefix("metric."): mean for name, mean in means.items()}


def _combined(parts: list[dict[str, float]]) -> dict[str, float]:
    if len(parts) == 1:
        return parts[0]
    weight = sum(part["weight"] for part in parts)
    return {name: sum(part[name] * part["weight"] for part in parts) / weight for name in parts[0]}


def _evaluate_part(runtime: Runtime, part: Data, batch_size: int, callbacks: CallbackList) -> dict[str, float]:
    session = runtime.session
    if callbacks.wants("on_test_batch_begin", "on_test_batch_end"):
        for index, piece in enumerate(_pieces(part, batch_size)):
            callbacks("on_test_batch_begin", index, {})
            means = session.evaluate(piece.inputs, batch_size=batch_size, sample_weight=piece.weight)
            metrics = reported(runtime.built.reported, _plain(means), means["weight"])
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
