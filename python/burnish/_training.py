"""What `fit`, `train_on_batch`, `evaluate` and `predict` do before the engine runs: check everything, then build."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ._checks import check_values
from ._data import Array, Data, apply_class_weight, is_batches, prepare, signature_of, split
from ._errors import boolean, integer, named, number
from ._evaluate import BATCH_SIZE
from ._evaluate import evaluate as _evaluate
from ._evaluate import predict as _predict
from ._fit import Run, train_piece
from ._resume import adopt_rules, check, find, settings_of
from ._sources import ArraySource, BatchSource, Piece, check_data_signature, unpack
from .callbacks.base import Callback
from .callbacks.collection import CallbackList
from .callbacks.progress import progress
from .history import History
from .metrics import reported
from .optimizers.base import learning_rate_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ._compile import Compiled
    from ._runtime import Core, Runtime
    from ._structure import Structure
    from .model import Model

__all__ = ["built_for_batches", "evaluate", "fit", "predict", "ready", "train_on_batch"]


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
) -> History:
    """Check, build and run; see `Model.fit`."""
    compiled = _compiled(core)
    batch_size, epochs = integer("batch_size", batch_size, 1), integer("epochs", epochs, 0)
    initial_epoch = integer("initial_epoch", initial_epoch, 0)
    validation_batch_size = _evaluation_size("validation_batch_size", validation_batch_size)
    fraction = number("validation_split", validation_split, 0, 1, below=True)
    shuffle, check_data = boolean("shuffle", shuffle), boolean("check_data", check_data)
    callbacks = _listed(callbacks)
    printing = progress(verbose, callbacks)
    _one_validation(validation_data, fraction)
    stored = None if resume_from is None else find(resume_from)
    with core.unchanged_on_error():
        if stored is not None:
            adopt_rules(core, stored)
        if is_batches(x):
            _no_arrays_beside_batches(y, sample_weight, fraction)
            _check_batch(compiled, batch_size, None)
            source = _batch_source(core, x, class_weight, epochs - initial_epoch)
            runtime = _built_for(core, source.first)
            _check(source.first, runtime, check_data=check_data)
            source.expect(runtime.built, check=_checker(runtime, check_data=check_data))
            held_out = None
        else:
            data = _whole(core, x, y, sample_weight)
            data, held_out = split(data, fraction) if fraction else (data, None)
            _check_batch(compiled, batch_size, data.rows)
            data = apply_class_weight(data, class_weight)
            runtime = _built_for(core, data)
            _check(data, runtime, check_data=check_data)
            source = ArraySource(data, batch_size, compiled.seed, shuffle=shuffle)
        _check_classes(class_weight, runtime)
        times = epochs - initial_epoch
        validation = _validation(core, runtime, validation_data, held_out, times, check_data=check_data)
        params = {"epochs": epochs, "steps": source.steps, "verbose": verbose}
        several = CallbackList([*callbacks, *printing], model, params)
        several.check_monitors(_log_names(runtime, validated=validation is not None))
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
    run = Run(model, core, source, validation, validation_batch_size, several, history, settings)
    run.run(initial_epoch, epochs, stored)
    return history


def ready(core: Core, x: Any, y: Any, sample_weight: Any) -> tuple[Runtime, Data]:
    """Check, build, and return the model's runtime with the data."""
    _compiled(core)
    with core.unchanged_on_error():
        data = _whole(core, x, y, sample_weight)
        runtime = _built_for(core, data)
        _check(data, runtime, check_data=True)
    return runtime, data


def built_for_batches(core: Core, source: BatchSource) -> Runtime:
    """Check and build for batches, which are checked as they come, and return the model's runtime."""
    _compiled(core)
    with core.unchanged_on_error():
        runtime = _built_for(core, source.first)
        _check(source.first, runtime, check_data=True)
        source.expect(runtime.built, check=_checker(runtime, check_data=True))
    return runtime


def train_on_batch(core: Core, x: Any, y: Any, sample_weight: Any, class_weight: Any) -> dict[str, float]:
    """Check, build and make one step; see `Model.train_on_batch`."""
    with core.unchanged_on_error():
        runtime, data = ready(core, x, y, sample_weight)
        data = apply_class_weight(data, class_weight)
        _check_classes(class_weight, runtime)
    records = train_piece(core, runtime, Piece(data.inputs, None, data.weight, data.rows, 1))
    runtime.session.signalled()
    means = {name: float(records[f"metric.{name}"][0]) for name in runtime.built.metrics}
    metrics = reported(runtime.built.reported, means, float(records["weight"][0]))
    return {"loss": float(records["loss"][0]), **metrics}


def evaluate(  # noqa: PLR0917
    model: Model, core: Core, x: Any, y: Any, batch_size: Any, sample_weight: Any, callbacks: Any, *, check_data: bool
) -> dict[str, Any]:
    """Check, build and evaluate; see `Model.evaluate`."""
    _compiled(core)
    size = _evaluation_size("batch_size", batch_size)
    check_data = boolean("check_data", check_data)
    several = CallbackList(_listed(callbacks), model, {})
    with core.unchanged_on_error():
        if is_batches(x):
            _no_arrays_beside_batches(y, sample_weight, 0.0)
            source = _batch_source(core, x, None, 1)
            runtime = _built_for(core, source.first)
            _check(source.first, runtime, check_data=check_data)
            source.expect(runtime.built, check=_checker(runtime, check_data=check_data))
            return _evaluate(runtime, source.data(), size, several)
        data = _whole(core, x, y, sample_weight)
        runtime = _built_for(core, data)
        _check(data, runtime, check_data=check_data)
        return _evaluate(runtime, [data], size, several)


def predict(model: Model, core: Core, x: Any, batch_size: Any, callbacks: Any, *, check_data: bool) -> Structure[Array]:
    """Check, build and predict; see `Model.predict`."""
    size = _evaluation_size("batch_size", batch_size)
    check_data = boolean("check_data", check_data)
    several = CallbackList(_listed(callbacks), model, {})
    parts = _inputs_of(core, iter(x)) if is_batches(x) else iter([_inputs(core, x)])
    first = next(parts, None)
    if first is None:
        raise ValueError("`x` must give at least one batch, got none")
    with core.unchanged_on_error():
        runtime = core.ensure(signature_of(first.x, first.x_names), None)
        return _predict(runtime, _checked_parts(first, parts, runtime, check_data=check_data), size, several)


def _compiled(core: Core) -> Compiled:
    if core.compiled is None:
        raise ValueError("the model has no loss yet: call compile first")
    return core.compiled


def _check_batch(compiled: Compiled, batch_size: int, rows: int | None) -> None:
    """Raise if the optimizer needs the whole set as one batch and that is not what comes; no `rows`: batches."""
    if not compiled.full_batch or (rows is not None and batch_size >= rows):
        return
    name = compiled.optimizer["name"]
    wanted = (
        f"`x` must be arrays, not batches, with {name}"
        if rows is None
        else f"`batch_size` must be at least {rows}, the number of rows, with {name}, got {batch_size}"
    )
    raise ValueError(f"{wanted}: each update needs the loss of the whole set")


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


def _no_arrays_beside_batches(y: Any, sample_weight: Any, fraction: float) -> None:
    for argument, given in (("y", y), ("sample_weight", sample_weight), ("validation_split", fraction or None)):
        if given is not None:
            raise ValueError(
                f"`{argument}` must be left out when `x` is an iterable of batches, which holds everything"
            )


def _batch_source(core: Core, batches: Any, class_weight: Any, epochs: int) -> BatchSource:
    """Return a source that can be read as many times as there are epochs."""
    source = BatchSource(batches, core.arrange, class_weight)
    if source.once and epochs > 1:
        raise ValueError(
            f"`x` is an iterator, which gives its batches once, but {epochs} epochs were asked for; "
            "give a list of batches or an object with __iter__"
        )
    return source


def _whole(core: Core, x: Any, y: Any, sample_weight: Any) -> Data:
    data = prepare(x, y, sample_weight, core.arrange)
    if data.y_names is None:
        raise ValueError("`y` is needed for the loss, got None")
    return data


def _inputs(core: Core, x: Any) -> Data:
    return prepare(x, None, None, core.arrange)


def _inputs_of(core: Core, batches: Iterator[Any]) -> Iterator[Data]:
    return (_inputs(core, batch) for batch in batches)


def _built_for(core: Core, data: Data) -> Runtime:
    if data.y_names is None:
        raise ValueError("`y` is needed for the loss, got None")
    return core.ensure(signature_of(data.x, data.x_names), signature_of(data.y, data.y_names))


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


def _check(data: Data, runtime: Runtime, *, check_data: bool) -> None:
    if check_data:
        check_values(data, runtime.built)


def _checker(runtime: Runtime, *, check_data: bool) -> Callable[[Data], None]:
    return lambda data: _check(data, runtime, check_data=check_data)


def _checked_parts(first: Data, rest: Iterator[Data], runtime: Runtime, *, check_data: bool) -> Iterable[Data]:
    _check(first, runtime, check_data=check_data)
    yield first
    for part in rest:
        check_data_signature(part, runtime.built)
        _check(part, runtime, check_data=check_data)
        yield part


def _validation(
    core: Core, runtime: Runtime, given: Any, held_out: Data | None, epochs: int, *, check_data: bool
) -> Callable[[], Iterable[Data]] | None:
    """Return what gives the validation data of an epoch, checked now."""
    if held_out is not None:
        _check(held_out, runtime, check_data=check_data)
        return lambda: [held_out]
    if given is None:
        return None
    with named("`validation_data`"):
        if is_batches(given):
            source = _batch_source(core, given, None, epochs)
            check_data_signature(source.first, runtime.built)
            _check(source.first, runtime, check_data=check_data)
            source.expect(runtime.built, check=_checker(runtime, check_data=check_data))
            return source.data
        data = _whole(core, *unpack(given, "it"))
        check_data_signature(data, runtime.built)
        _check(data, runtime, check_data=check_data)
        return lambda: [data]
