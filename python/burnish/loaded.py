"""Models from files: what runs is the saved program, not the code that described it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from . import _burnish, _freeze
from ._build import Built, Signature
from ._compile import Compiled
from ._device import resolve_device
from ._errors import choice, integer, number
from ._feed.arrays import check_signature
from ._precision import PRECISIONS
from ._replay import replay_program
from ._runtime import Position, Runtime, weak
from ._storage import KEY, VERSION, split_arrays
from ._structure import by_name, flatten, from_plain, is_dict, is_sequence, mapped, unflatten
from ._symbol import LayerRow, Symbol, current_trace
from .metrics import Reported, restored
from .model import Model, core_of
from .optimizers.base import restored_learning_rate

if TYPE_CHECKING:
    from os import PathLike

    from ._structure import Structure

__all__ = ["LoadedModel", "load"]


class LoadedModel(Model):
    """A model from a file; it predicts, evaluates and trains on, and can be a layer of another model."""

    def __init__(self, built: Built, *, name: str | None = None) -> None:
        super().__init__(name)
        self._saved = built
        self._document: dict[str, Any] = json.loads(built.program.to_json())
        core = core_of(self)
        core.compiled, core.rules = built.compiled, built.rules
        core.describe, core.known_inputs = weak(self._describe), lambda: built.inputs
        core.arrange = weak(self._arrange)

    def call(self, *x: Any, training: bool = False) -> Any:
        """Write the saved program's predictions."""
        trace = current_trace()
        if trace is None:
            raise TypeError("a loaded model takes arrays in predict")
        buffers = [path for path, _ in self._saved.program.buffers()]
        frozen = [trace.is_frozen(trace.absolute(path)) for path in buffers]
        form = training and not (frozen and all(frozen))
        if form and any(frozen):
            raise ValueError(
                "the running statistics of a loaded model can only be frozen all together: freeze all of it"
            )
        names = mapped(lambda name: f"training.{name}", self._saved.outputs) if form else self._saved.outputs
        outputs = list(flatten("", names).values())
        values = self._arrange(x[0] if len(x) == 1 else x)
        inputs: dict[str, Symbol] = flatten("x", tuple(values) if is_sequence(values) else values)
        penalty = "training.penalty" if form else "evaluation.penalty"
        wanted = [*outputs, penalty] if penalty in self._document["outputs"] else outputs
        values = replay_program(trace, self._document, inputs, wanted, self._saved.classes, training=form)
        for row in self._saved.rows:
            if row.path:
                trace.note(row._replace(path=trace.absolute(row.path)))
        if len(wanted) > len(outputs):
            self.add_loss(values[-1])
        return unflatten(names, dict(zip(outputs, values, strict=False)))

    def _arrange(self, x: Any) -> Any:
        """Return several inputs that have names as a dict, also when they came by position."""
        names = self._saved.inputs.names
        return by_name(list(names), x) if is_dict(names) else x

    def _describe(self, inputs: Signature, targets: Signature | None) -> Built:
        saved = self._saved
        if core_of(self).compiled is not saved.compiled:
            return core_of(self).trace(inputs, targets)
        if targets is not None and saved.targets is not None:
            check_signature("y", saved.targets, targets)
        for path, _ in saved.program.buffers():
            if _freeze.is_frozen(core_of(self).rules, path) != _freeze.is_frozen(saved.rules, path):
                raise ValueError(
                    f"compile the loaded model again before freezing or unfreezing the statistics {path!r}"
                )
        return saved._replace(rules=core_of(self).rules)


def load(path: str | PathLike[str], *, device: str = "cpu") -> Model:
    """Return the model that `Model.save` wrote, ready to predict, evaluate and train on from the very next step.

    Nothing is imported or run from the file. A learning rate that was a function is the number it had come to;
    a schedule goes on.

    Parameters
    ----------
    path : path
        The file.
    device : str, default "cpu"
        Where the model is to run.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it holds no model, or is damaged.
    """
    arrays, metadata = _burnish.read_arrays(os.fsdecode(path))
    if KEY not in metadata:
        raise ValueError(f"{os.fsdecode(path)!r} holds no burnish model; for weights alone use model.load_weights")
    device = resolve_device(device)
    try:
        return _restored(json.loads(metadata[KEY]), arrays, device)
    except (AttributeError, IndexError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{os.fsdecode(path)!r} is damaged: {type(error).__name__}: {error}") from error


def _restored(document: dict[str, Any], arrays: dict[str, Any], device: str) -> Model:
    if document["version"] != VERSION:
        raise ValueError(f"the file has version {document['version']}, this burnish reads {VERSION}")
    built = _built(document, device)
    state, optimizer = split_arrays(arrays)
    compiled = built.compiled
    options = ("float32", 0) if compiled is None else (compiled.precision, compiled.seed)
    session = _burnish.Session(built.program, device, *options, state)
    if compiled is not None and built.targets is not None:
        session.optimizer(compiled.engine_config(built.program, built.frozen()))
        session.load_optimizer_state(optimizer)
    model = LoadedModel(built)
    core = core_of(model)
    core.runtime = Runtime(built, session)
    core.learning_rate = restored_learning_rate(document["learning_rate"])
    columns = document.get("columns", {})
    core.columns = {str(name): [str(column) for column in several] for name, several in columns.items()}
    core.position = Position(**{name: integer(name, value, 0) for name, value in document["position"].items()})
    return model


def _built(document: dict[str, Any], device: str) -> Built:
    program = _burnish.Program.from_json(document["program"])
    _check_outputs(program, document)
    shapes = {name: tuple(shape) for name, shape, _ in program.inputs()}
    targets = document["targets"]
    return Built(
        program=program,
        inputs=_signature(document["inputs"], shapes),
        targets=None if targets is None else _signature(targets, shapes),
        outputs=from_plain(document["outputs"]),
        classes={str(name): None if n is None else integer(name, n, 1) for name, n in document["classes"].items()},
        ranges={str(name): (_bound(low), _bound(high)) for name, (low, high) in document["ranges"].items()},
        reported=[_reported(plain) for plain in document["metrics"]],
        rows=[
            LayerRow(path, kind, None if shape is None else tuple(shape), uses)
            for path, kind, shape, uses in document["rows"]
        ],
        compiled=_compiled(document["compiled"], document["learning_rate"], device),
        rules=tuple((str(pattern), bool(frozen)) for pattern, frozen in document["rules"]),
        initial={},
    )


def _check_outputs(program: _burnish.Program, document: dict[str, Any]) -> None:
    """Raise unless the program has every output that the document speaks of."""
    wanted = list(flatten("", from_plain(document["outputs"])).values())
    wanted += [f"training.{name}" for name in wanted]
    if document["compiled"] is not None and document["targets"] is not None:
        for form in ("training", "evaluation"):
            columns = [column for each in document["metrics"] for column in each["columns"].values()]
            wanted += [f"{form}.loss", *(f"{form}.metric.{name}" for name in columns)]
        wanted += [name for each in document["metrics"] for name in each["collected"].values()]
    missing = sorted(set(wanted) - set(program.outputs()))
    if missing:
        raise ValueError(f"the file is damaged: the program has no output {missing[0]!r}")


def _reported(plain: dict[str, Any]) -> Reported:
    columns, collected = (
        {str(key): str(name) for key, name in plain[part].items()} for part in ("columns", "collected")
    )
    classes = integer("classes", plain["classes"], 1)
    return Reported(str(plain["name"]), columns, collected, classes, restored(plain["metric"]))


def _bound(plain: Any) -> float | None:
    return None if plain is None else number("range", plain)


def _signature(plain: Any, shapes: dict[str, Any]) -> Signature:
    names: Structure[str] = from_plain(plain)
    return Signature(names, {name: shapes[name] for name in flatten("", names).values()})


def _compiled(plain: Any, learning_rate: Any, device: str) -> Compiled | None:
    if plain is None:
        return None
    return Compiled(
        loss=None,
        metrics=(),
        optimizer=plain["optimizer"],
        learning_rate=restored_learning_rate(learning_rate),
        precision=choice("precision", plain["precision"], PRECISIONS),
        device=device,
        seed=integer("seed", plain["seed"], 0, 2**64 - 1),
    )
