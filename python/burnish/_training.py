"""What `fit`, `train_on_batch`, `evaluate` and `predict` do before the engine runs: check everything, then build."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ._errors import boolean, integer, number
from ._evaluate import BATCH_SIZE
from ._evaluate import evaluate as _evaluate
from ._evaluate import predict as _predict
from ._feed.arrays import Array, Data, apply_class_weight
from ._feed.request import Request, built_for, compiled_of, evaluated, predicted, training, validation, whole
from ._feed.sources import Piece
from ._feed.stream import check_parts
from ._fit import Run, train_piece
from ._resume import adopt_rules, check, find, settings_of
from .callbacks.base import Callback
from .callbacks.collection import CallbackList
from .callbacks.progress import progress
from .history import History
from .metrics import own_names, reported
from .optimizers.base import learning_rate_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._runtime import Core, Runtime
    from ._structure import Structure
    from .model import Model

__all__ = ["evaluate", "fit", "predict", "ready", "train_on_batch"]


def fit(
    model: Model,
    core: Core,
    x: Any,
    y: Any,
    *,
    batch_size: Any,
    epochs: Any,
    validation_data: Any,
    validation_split: Any,
    shuffle: Any,
    sample_weight: Any,
    class_weight: Any,
    callbacks: Any,
    verbose: Any,
    initial_epoch: Any,
    resume_from: Any,
    validation_batch_size: Any,
    check_data: Any,
    augment: Any,
) -> History:
    """Check, build and run; see `Model.fit`."""
    compiled = compiled_of(core)
    batch_size, epochs = integer("batch_size", batch_size, 1), integer("epochs", epochs, 0)
    initial_epoch = integer("initial_epoch", initial_epoch, 0)
    validation_batch_size = _evaluation_size("validation_batch_size", validation_batch_size)
    fraction = number("validation_split", validation_split, 0, 1, below=True)
    shuffle, check_data = boolean("shuffle", shuffle), boolean("check_data", check_data)
    callbacks = _listed(callbacks)
    printing = progress(verbose, callbacks)
    _one_validation(validation_data, fraction)
    request = Request(
        batch_size=batch_size,
        validation_batch_size=validation_batch_size,
        fraction=fraction,
        epochs=epochs - initial_epoch,
        class_weight=class_weight,
        augment=augment,
        shuffle=shuffle,
        check_data=check_data,
        one_length=False,
    )
    stored = None if resume_from is None else find(resume_from)
    with core.unchanged_on_error():
        if stored is not None:
            adopt_rules(core, stored)
        source, runtime, held_out = training(core, compiled, x, y, sample_weight, request)
        _check_classes(class_weight, runtime)
        given = validation(core, runtime, validation_data, request.epochs, validation_batch_size, check_data=check_data)
        validated = held_out if given is None else given
        params = {"epochs": epochs, "steps": source.steps, "verbose": verbose}
        several = CallbackList([*callbacks, *printing], model, params)
        names = _log_names(runtime, validated=validated is not None)
        several.check_monitors(names)
        several.check_figures(names)
        core.position.updates_per_epoch = -(-(source.steps or 0) // compiled.accumulate)
        learning_rate_at(core.learning_rate, core.position)
        settings = settings_of(core, source, initial_epoch)
        if stored is not None:
            check(core, settings, stored)
        for checkpoint in several.checkpoints:
            checkpoint.prepare(None if stored is None else stored.path)
    if resume_from is not None and stored is None and verbose:
        print(f"no checkpoint in {os.fsdecode(resume_from)!r} yet: starting from the beginning")
    if stored is not None and core.left_rate is not None and core.learning_rate is core.left_rate[0]:
        core.learning_rate = core.left_rate[1]
    model.stop_training = False
    model.history = history = History()
    run = Run(model, core, source, validated, validation_batch_size, several, history, settings)
    run.run(initial_epoch, epochs, stored)
    return history


def ready(core: Core, x: Any, y: Any, sample_weight: Any) -> tuple[Runtime, Data]:
    """Check, build, and return the model's runtime with the data."""
    compiled_of(core)
    with core.unchanged_on_error():
        data = whole(core, x, y, sample_weight)
        runtime = built_for(core, data)
        check_parts(data, runtime.built)
    return runtime, data


def train_on_batch(core: Core, x: Any, y: Any, sample_weight: Any, class_weight: Any) -> dict[str, float]:
    """Check, build and make one step; see `Model.train_on_batch`."""
    with core.unchanged_on_error():
        runtime, data = ready(core, x, y, sample_weight)
        data = apply_class_weight(data, class_weight)
        _check_classes(class_weight, runtime)
    records, session = train_piece(core, runtime, Piece(data.inputs, None, data.weight, data.rows, 1))
    session.signalled()
    numbers = own_names(dict(zip(records.columns, records.rows[0].tolist(), strict=True)))
    return {"loss": numbers["loss"], **reported(runtime.built.reported, numbers, numbers["weight"])}


def evaluate(  # noqa: PLR0917
    model: Model, core: Core, x: Any, y: Any, batch_size: Any, sample_weight: Any, callbacks: Any, *, check_data: bool
) -> dict[str, Any]:
    """Check, build and evaluate; see `Model.evaluate`."""
    compiled_of(core)
    size = _evaluation_size("batch_size", batch_size)
    check_data = boolean("check_data", check_data)
    several = CallbackList(_listed(callbacks), model, {})
    with core.unchanged_on_error():
        runtime, parts = evaluated(core, x, y, sample_weight, size, check_data=check_data)
        return _evaluate(runtime, parts, size, several)


def predict(model: Model, core: Core, x: Any, batch_size: Any, callbacks: Any, *, check_data: bool) -> Structure[Array]:
    """Check, build and predict; see `Model.predict`."""
    size = _evaluation_size("batch_size", batch_size)
    check_data = boolean("check_data", check_data)
    several = CallbackList(_listed(callbacks), model, {})
    with core.unchanged_on_error():
        runtime, parts = predicted(core, x, size, check_data=check_data)
        return _predict(runtime, parts, size, several)


def _evaluation_size(argument: str, size: Any) -> int:
    return BATCH_SIZE if size is None else integer(argument, size, 1)


def _listed(callbacks: Any) -> list[Any]:
    if callbacks is None or isinstance(callbacks, Callback):
        return [] if callbacks is None else [callbacks]
    if isinstance(callbacks, str) or not hasattr(callbacks, "__iter__"):
        raise TypeError(f"`callbacks` must be a Callback or a list of them, got {callbacks!r}")
    return list(callbacks)


def _one_validation(validation_data: Any, fraction: float) -> None:
    if validation_data is not None and fraction:
        raise ValueError("give either `validation_data` or `validation_split`, not both")


def _check_classes(class_weight: Mapping[int, float] | None, runtime: Runtime) -> None:
    """Raise for a class that no label can be."""
    count = runtime.built.classes.get("y")
    for label in class_weight or ():
        if count is not None and label >= count:
            raise ValueError(f"`class_weight` must name classes from 0 to {count - 1}, got {label}")


def _log_names(runtime: Runtime, *, validated: bool) -> list[str]:
    """Return what the logs hold at an epoch's end before callbacks add to them."""
    metrics = [each for each in runtime.built.reported if each.logged]
    names = ["loss", *(each.name for each in metrics if each.columns)]
    return [*names, "val_loss", *(f"val_{each.name}" for each in metrics)] if validated else names
