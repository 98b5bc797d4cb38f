"""What `fit`, `evaluate` and `predict` were given, checked: arrays, a dataset, or an iterable of batches."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from .._checks import check_values
from .._errors import named
from .._evaluate import BATCH_SIZE
from ..data.augmentation import augmentations
from ..data.base import Dataset
from .arrays import Array, Data, apply_class_weight, is_batches, prepare, signature_of, split
from .frames import in_order
from .sources import BatchSource, check_data_signature, unpack
from .stream import StreamSource, array_source, check_parts, parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .._compile import Compiled
    from .._runtime import Core, Runtime
    from .sources import Source

__all__ = [
    "Feed",
    "Request",
    "built_for",
    "compiled_of",
    "evaluated",
    "predicted",
    "training",
    "validation",
    "whole",
]


class Feed(NamedTuple):
    """What a fit trains on, the model built for it, and what gives the rows that were held out."""

    source: Source
    runtime: Runtime
    held_out: Callable[[], Iterable[Data]] | None


class Request(NamedTuple):
    """What the arguments of a fit say of its data."""

    batch_size: int
    validation_batch_size: int = BATCH_SIZE
    fraction: float = 0.0
    epochs: int = 1
    class_weight: Any = None
    augment: Any = None
    shuffle: bool = True
    check_data: bool = True
    one_length: bool = True
    """Whether all batches must have the shapes that the model was built for."""


def training(  # noqa: PLR0917
    core: Core, compiled: Compiled, x: Any, y: Any, sample_weight: Any, request: Request
) -> Feed:
    """Return where a fit's batches come from."""
    if isinstance(x, Dataset):
        return _of_dataset(core, compiled, x, (y, sample_weight), request)
    if is_batches(x):
        return _of_batches(core, compiled, x, (y, sample_weight), request)
    return _of_arrays(core, compiled, whole(core, x, y, sample_weight), request)


def _of_arrays(core: Core, compiled: Compiled, data: Data, request: Request) -> Feed:
    data, held_out = split(data, request.fraction) if request.fraction else (data, None)
    _check_batch(compiled, request.batch_size, data.rows)
    data = apply_class_weight(data, request.class_weight)
    runtime = built_for(core, data)
    augment = augmentations(request.augment)
    source = array_source(data, request.batch_size, compiled.seed, shuffle=request.shuffle, augment=augment)
    if isinstance(source, StreamSource):
        source.expect(runtime.built, None)
    for each in (data, held_out):
        if each is not None:
            _check(each, runtime, check_data=request.check_data)
    if held_out is None:
        return Feed(source, runtime, None)
    return Feed(source, runtime, lambda: parts(held_out, request.validation_batch_size))


def _of_dataset(core: Core, compiled: Compiled, dataset: Dataset, beside: tuple[Any, Any], request: Request) -> Feed:
    _nothing_beside(beside, "a dataset")
    _check_batch(compiled, request.batch_size, len(dataset))
    held_out = None
    if request.fraction:
        dataset, held_out = dataset.held_out(request.fraction)
    augment = augmentations(request.augment)
    source = StreamSource(
        dataset,
        request.batch_size,
        compiled.seed,
        core.arranged,
        augment,
        request.class_weight,
        shuffle=request.shuffle,
        by_runs=not request.one_length and not compiled.full_batch,
    )
    runtime = _expecting(core, source, check_data=request.check_data)
    for form in source.forms():
        core.fitting(runtime, form.inputs)
    if held_out is None:
        return Feed(source, runtime, None)
    rest = StreamSource(held_out, request.validation_batch_size, arrange=core.arranged)
    _expecting(core, rest, check_data=request.check_data)
    return Feed(source, runtime, lambda: rest.parts(request.validation_batch_size))


def _of_batches(core: Core, compiled: Compiled, x: Any, beside: tuple[Any, Any], request: Request) -> Feed:
    _nothing_beside((*beside, request.fraction or None), "an iterable of batches")
    _check_batch(compiled, request.batch_size, None)
    augment = augmentations(request.augment)
    source = _batch_source(core, x, request.class_weight, request.epochs, augment, compiled.seed)
    return Feed(source, _built_for_batches(core, source, check_data=request.check_data), None)


def validation(
    core: Core, runtime: Runtime, given: Any, epochs: int, batch_size: int, *, check_data: bool
) -> Callable[[], Iterable[Data]] | None:
    """Return what gives the validation data of an epoch, checked now."""
    if given is None:
        return None
    with named("`validation_data`"):
        if isinstance(given, Dataset):
            stream = StreamSource(given, batch_size, arrange=core.arranged)
            _expecting(core, stream, check_data=check_data)
            return lambda: stream.parts(batch_size)
        if is_batches(given):
            source = _batch_source(core, given, None, epochs)
            check_data_signature(source.first, runtime.built)
            _check(source.first, runtime, check_data=check_data)
            source.expect(runtime.built, check=_checker(runtime, check_data=check_data))
            return source.data
        data = whole(core, *unpack(given, "it"))
        check_data_signature(data, runtime.built)
        _check(data, runtime, check_data=check_data)
        return lambda: parts(data, batch_size)


def evaluated(
    core: Core, x: Any, y: Any, sample_weight: Any, batch_size: int, *, check_data: bool
) -> tuple[Runtime, Iterable[Data]]:
    """Return the model built for the data of an evaluation, and its parts."""
    if isinstance(x, Dataset):
        _nothing_beside((y, sample_weight), "a dataset")
        stream = StreamSource(x, batch_size, arrange=core.arranged)
        return _expecting(core, stream, check_data=check_data), stream.parts(batch_size)
    if is_batches(x):
        _nothing_beside((y, sample_weight), "an iterable of batches")
        source = _batch_source(core, x, None, 1)
        return _built_for_batches(core, source, check_data=check_data), source.data()
    data = whole(core, x, y, sample_weight)
    runtime = built_for(core, data)
    _check(data, runtime, check_data=check_data)
    return runtime, parts(data, batch_size)


def predicted(core: Core, x: Any, batch_size: int, *, check_data: bool) -> tuple[Runtime, Iterable[Data]]:
    """Return the model built for the data of a prediction, and its parts."""
    if isinstance(x, Dataset):
        stream = StreamSource(x, batch_size, arrange=core.arranged)
        runtime = core.ensure(signature_of(stream.first.x, stream.first.x_names), None)
        check = _checker(runtime, check_data=check_data)
        stream.expect(runtime.built, check=lambda part, rows: check(part._replace(y={}, y_names=None), rows))
        return runtime, stream.parts(batch_size)
    if is_batches(x):
        several = (_inputs(core, batch) for batch in x)
        first = next(several, None)
        if first is None:
            raise ValueError("`x` must give at least one batch, got none")
        runtime = core.ensure(signature_of(first.x, first.x_names), None)
        return runtime, _checked_parts(chain([first], several), runtime, check_data=check_data)
    data = _inputs(core, x)
    runtime = core.ensure(signature_of(data.x, data.x_names), None)
    _check(data, runtime, check_data=check_data)
    return runtime, parts(data, batch_size)


def compiled_of(core: Core) -> Compiled:
    """Return what the model was compiled with."""
    if core.compiled is None:
        raise ValueError("the model has no loss yet: call compile first")
    return core.compiled


def built_for(core: Core, data: Data) -> Runtime:
    """Return the model built for the shapes of arrays."""
    if data.y_names is None:
        raise ValueError("`y` is needed for the loss, got None")
    return core.ensure(signature_of(data.x, data.x_names), signature_of(data.y, data.y_names))


def whole(core: Core, x: Any, y: Any, sample_weight: Any) -> Data:
    """Return arrays with their targets."""
    data = prepare(x, in_order("y", y, core.columns), sample_weight, core.arranged)
    if data.y_names is None:
        raise ValueError("`y` is needed for the loss, got None")
    return data


def _built_for_batches(core: Core, source: BatchSource, *, check_data: bool) -> Runtime:
    """Return the model built for batches, which are checked as they come."""
    runtime = built_for(core, source.first)
    _check(source.first, runtime, check_data=check_data)
    source.expect(runtime.built, check=_checker(runtime, check_data=check_data))
    return runtime


def _expecting(core: Core, source: StreamSource, *, check_data: bool) -> Runtime:
    """Return the model built for a dataset, whose rows are checked as they come."""
    runtime = built_for(core, source.first)
    source.expect(runtime.built, check=_checker(runtime, check_data=check_data))
    return runtime


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


def _nothing_beside(given: tuple[Any, ...], what: str) -> None:
    for argument, value in zip(("y", "sample_weight", "validation_split"), given, strict=False):
        if value is not None:
            raise ValueError(f"`{argument}` must be left out when `x` is {what}, which holds everything")


def _batch_source(  # noqa: PLR0917
    core: Core, batches: Any, class_weight: Any, epochs: int, augment: Any = (), seed: int = 0
) -> BatchSource:
    """Return a source that can be read as many times as there are epochs."""
    source = BatchSource(batches, core.arranged, class_weight, augment, seed)
    if source.once and epochs > 1:
        raise ValueError(
            f"`x` is an iterator, which gives its batches once, but {epochs} epochs were asked for; "
            "give a list of batches or an object with __iter__"
        )
    return source


def _inputs(core: Core, x: Any) -> Data:
    return prepare(x, None, None, core.arranged)


def _check(data: Data, runtime: Runtime, *, check_data: bool) -> None:
    if check_data:
        check_parts(data, runtime.built)


def _checker(runtime: Runtime, *, check_data: bool) -> Callable[..., None]:
    def check(data: Data, rows: Array | None = None) -> None:
        if check_data:
            check_values(data, runtime.built, rows)

    return check


def _checked_parts(several: Iterable[Data], runtime: Runtime, *, check_data: bool) -> Iterator[Data]:
    for part in several:
        check_data_signature(part, runtime.built)
        _check(part, runtime, check_data=check_data)
        yield part
