"""Models in files: arrays by path in safetensors, everything else one JSON document in its metadata. No pickle."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _burnish
from ._errors import boolean, choice, nearest
from ._feed.arrays import Array, as_array
from ._structure import to_plain
from .metrics import plain
from .optimizers.base import learning_rate_at, plain_learning_rate

if TYPE_CHECKING:
    from os import PathLike

    from ._build import Built
    from ._runtime import Core, Runtime
    from ._torch import Names

__all__ = [
    "Difference",
    "described",
    "document_of",
    "json_of",
    "load_weights",
    "model_arrays",
    "save",
    "save_weights",
    "set_parameters",
    "split_arrays",
]

KEY = "burnish"
VERSION = 1
OPTIMIZER = "optimizer/"  # layers' names cannot hold a slash
RUN = "run/"  # what belongs to a run: see `_snapshot`


class Difference(NamedTuple):
    """How the arrays of a file differ from a model's."""

    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]


def save(core: Core, runtime: Runtime, path: str | PathLike[str]) -> None:
    """Write program, arrays, optimizer and position."""
    document = json_of(*document_of(core, runtime))
    _burnish.write_arrays(os.fsdecode(path), model_arrays(runtime), {KEY: document})


def model_arrays(runtime: Runtime) -> dict[str, Array]:
    """Return copies of parameters, buffers and the optimizer's arrays, under their names in a file."""
    optimizer = runtime.optimizer_state()
    return runtime.session.state() | {f"{OPTIMIZER}{name}": array for name, array in optimizer.items()}


def save_weights(runtime: Runtime, path: str | PathLike[str]) -> None:
    """Write parameters and buffers; of parameters that are averaged the averages, with which the model predicts."""
    _burnish.write_arrays(os.fsdecode(path), runtime.session.state() | runtime.session.averages(), {})


def load_weights(
    runtime: Runtime, path: str | PathLike[str], *, strict: bool, layout: str, names: Names | None
) -> Difference:
    """Read parameters and buffers, all of them if strict."""
    strict = boolean("strict", strict)
    arrays, _ = split_arrays(_burnish.read_arrays(os.fsdecode(path))[0])
    arrays = {name: _widened(array) for name, array in arrays.items()}
    if choice("layout", layout, ("burnish", "torch")) == "torch":
        from ._torch import from_torch

        arrays = from_torch(runtime.built, arrays, names)
    elif names is not None:
        raise ValueError('`names` needs `layout="torch"`')
    return set_parameters(runtime, arrays, strict=strict)


def set_parameters(runtime: Runtime, arrays: Mapping[str, Any], *, strict: bool | None = None) -> Difference:
    """Set parameters and buffers: exactly all (strict), those that fit (not strict), or some that must fit (None)."""
    if not isinstance(arrays, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"`arrays` must be a dict of path -> array, got {type(arrays).__name__}")
    for path in arrays:
        if not isinstance(path, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"`arrays` must be a dict of path -> array, got the path {path!r}")
    program = runtime.built.program
    shapes = {path: tuple(shape) for path, shape, *_ in [*program.parameters(), *program.buffers()]}
    given = {path: as_array(array, path) if np.ndim(array) else np.asarray(array) for path, array in arrays.items()}
    missing = [path for path in shapes if path not in given]
    unexpected = [path for path in given if path not in shapes]
    misshapen = [path for path in given if path in shapes and given[path].shape != shapes[path]]
    difference = Difference(missing, unexpected, misshapen)
    if strict is not False and (unexpected or misshapen or (strict and missing)):
        raise ValueError(_message(difference, shapes, given, strict=bool(strict)))
    fitting = {path: array for path, array in given.items() if path in shapes and path not in misshapen}
    runtime.session.load_state({path: _floats(array) for path, array in fitting.items()})
    return difference


def split_arrays(arrays: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the model's arrays and the optimizer's; a checkpoint's others are left out."""
    state = {path: array for path, array in arrays.items() if not path.startswith((OPTIMIZER, RUN))}
    optimizer = {path.removeprefix(OPTIMIZER): array for path, array in arrays.items() if path.startswith(OPTIMIZER)}
    return state, optimizer


def document_of(core: Core, runtime: Runtime, *, quiet: bool = False) -> tuple[str, dict[str, Any]]:
    """Return all but the arrays, what training leaves alone as JSON; unless `quiet`, warn of what JSON cannot hold."""
    built, position = runtime.built, core.position
    learning_rate = plain_learning_rate(core.learning_rate)
    if learning_rate is None and not quiet:
        warnings.warn(
            "a function cannot be saved: the loaded model goes on with the learning rate of now; "
            "set `learning_rate` again after loading",
            stacklevel=4,
        )
    left_out = [each.name for each in built.reported if plain(each) is None] if not quiet else []
    if left_out:
        warnings.warn(
            f"the metric {left_out[0]!r} is computed by Python and is not saved: the loaded model knows it when it is "
            "compiled again (one with `columns` is saved if its `finish` is made of operators and bn.ops)",
            stacklevel=4,
        )
    return runtime.description, {
        "columns": {**core.columns},
        "position": {**vars(position)},
        "learning_rate": learning_rate_at(core.learning_rate, position) if learning_rate is None else learning_rate,
    }


def json_of(description: str, changing: dict[str, Any]) -> str:
    """Return one document of the two parts of one."""
    return f"{description.removesuffix('}')}, {json.dumps(changing).removeprefix('{')}"


def described(built: Built) -> dict[str, Any]:
    """Return what training does not change of a model that is built, as JSON can hold it."""
    metrics, compiled = [plain(each) for each in built.reported], built.compiled
    return {
        "version": VERSION,
        "program": built.program.to_json(),
        "inputs": to_plain(built.inputs.names),
        "targets": None if built.targets is None else to_plain(built.targets.names),
        "outputs": to_plain(built.outputs),
        "classes": built.classes,
        "ranges": built.ranges,
        "metrics": [metric for metric in metrics if metric is not None],
        "rows": [list(row) for row in built.rows],
        "rules": [list(rule) for rule in built.rules],
        "compiled": None
        if compiled is None
        else {"optimizer": compiled.optimizer, "precision": compiled.precision, "seed": compiled.seed},
    }


def _widened(array: Array) -> Array:
    """Return bfloat16, which NumPy lacks and which is read as uint16, as the float32 whose first half it is."""
    return (array.astype(np.uint32) << 16).view(np.float32) if array.dtype == np.uint16 else array


def _floats(array: Array) -> Array:
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _message(
    difference: Difference, shapes: dict[str, tuple[int, ...]], given: dict[str, Array], *, strict: bool
) -> str:
    parts = [f"unexpected {path!r} ({nearest(path, shapes)})" for path in difference.unexpected]
    parts += [f"{path!r} must have shape {shapes[path]}, got {given[path].shape}" for path in difference.misshapen]
    if strict:
        parts += [f"missing {path!r}" for path in difference.missing]
    return f"the arrays do not fit the model: {'; '.join(parts)}"
