"""Evaluation and prediction over arrays or batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._structure import Structure, flatten, unflatten

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._data import Array, Data
    from ._runtime import Runtime
    from .callbacks.collection import CallbackList

__all__ = ["BATCH_SIZE", "evaluate", "predict"]

BATCH_SIZE = 256  # forward only: memory is not scarce, and the result does not depend on it


def evaluate(runtime: Runtime, parts: Iterable[Data], batch_size: int, callbacks: CallbackList) -> dict[str, float]:
    """Return the weighted means of loss and metrics over all parts."""
    callbacks("on_test_begin", {})
    means = _combined([_evaluate_part(runtime, part, batch_size, callbacks) for part in parts])
    logs = {"loss": means["loss"], **{name: means[f"metric.{name}"] for name in runtime.built.metrics}}
    callbacks("on_test_end", logs)
    return logs


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
            logs = session.evaluate(piece.inputs, batch_size=batch_size, sample_weight=piece.weight)
            callbacks("on_test_batch_end", index, {name.removeprefix("metric."): logs[name] for name in logs})
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
