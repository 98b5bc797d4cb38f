"""From a model's Python to one program: the training and the inference form, with losses and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from . import _compile, _freeze
from ._burnish import Program
from ._structure import Structure, flatten, is_sequence, mapped, skeleton, unflatten
from ._symbol import LayerRow, Symbol, Trace
from .layers.base import Layer, layer_paths
from .losses import show

if TYPE_CHECKING:
    from ._compile import Compiled
    from ._freeze import Rules
    from ._value import Shape
    from .initializers import Own
    from .metrics import Reported

__all__ = ["Built", "Signature", "build"]


class Signature(NamedTuple):
    """Names and shapes of the arrays of one argument: `x` or `y`."""

    names: Structure[str]
    shapes: dict[str, Shape]


class Built(NamedTuple):
    """A program and what is known of it."""

    program: Program
    inputs: Signature
    targets: Signature | None
    outputs: Structure[str]  # the names of the predictions
    classes: dict[str, int | None]  # inputs used as indices, and how many values an index may take
    ranges: dict[str, tuple[float | None, float | None]]  # inputs that must lie between two numbers (None: no bound)
    reported: list[Reported]
    rows: list[LayerRow]
    compiled: Compiled | None
    rules: Rules
    initial: dict[str, Own]  # what parameters and buffers start with where the engine does not know it

    @property
    def metrics(self) -> list[str]:
        """The names of what the engine averages for the metrics."""
        return [column for each in self.reported for column in each.columns.values()]

    def frozen(self) -> list[str]:
        """Return the paths of the frozen parameters."""
        return [path for path, _, _ in self.program.parameters() if _freeze.is_frozen(self.rules, path)]


def build(model: Layer, inputs: Signature, targets: Signature | None, compiled: Compiled | None, rules: Rules) -> Built:
    """Trace a model. Inputs are floats unless they are used as indices, which a first pass finds out."""
    integers: set[str] = set()
    while True:
        built = _trace(model, inputs, targets, compiled, rules, integers)
        if set(built.classes) == integers:
            return built
        integers = set(built.classes)


def _trace(  # noqa: PLR0917
    model: Layer,
    inputs: Signature,
    targets: Signature | None,
    compiled: Compiled | None,
    rules: Rules,
    integers: set[str],
) -> Built:
    program = Program()
    trace = Trace(program, layer_paths(model), lambda path: _freeze.is_frozen(rules, path))
    x = _declare(trace, inputs, integers)
    y = None if targets is None or compiled is None else _declare(trace, targets, integers)
    reported: list[Reported] = []
    outputs: Structure[str] = "prediction"
    for form, prefix in (("training", "training."), ("evaluation", "")):
        trace.begin(form)
        with trace:
            predictions = _predictions(_applied(model, x, inputs))
            for name, value in flatten(f"{prefix}prediction", predictions).items():
                program.output(name, value.index)
            if y is not None and compiled is not None:
                reported = _compile.trace_loss(trace, compiled, form, predictions, y)
        outputs = skeleton("prediction", predictions)
    return Built(
        program=program,
        inputs=inputs,
        targets=None if y is None else targets,
        outputs=outputs,
        classes=trace.classes,
        ranges=trace.ranges,
        reported=reported,
        rows=list(trace.rows.values()),
        compiled=compiled,
        rules=rules,
        initial=trace.initial,
    )


def _declare(trace: Trace, signature: Signature, integers: set[str]) -> Structure[Symbol]:
    symbols = {
        name: trace.input(name, shape, "int" if name in integers else "float")
        for name, shape in signature.shapes.items()
    }
    return unflatten(signature.names, symbols)


def _applied(model: Layer, x: Structure[Symbol], inputs: Signature) -> Any:
    """Call the model; what does not fit is told with the shapes of the arrays that came."""
    try:
        return model(x)
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        shapes = ", ".join(f"`{name}` has shape {show(shape)}" for name, shape in inputs.shapes.items())
        raise ValueError(f"{error}; {shapes}") from error


def _predictions(result: Any) -> Structure[Symbol]:
    structure: Structure[Any] = tuple(result) if is_sequence(result) else result
    return mapped(_checked, structure)


def _checked(value: Any) -> Symbol:
    if not isinstance(value, Symbol):
        raise TypeError(
            f"a model must return values of its inputs (or a tuple or dict of them), got {type(value).__name__}"
        )
    if not value.shape or value.shape[0] is not None:
        raise ValueError(f"a model must return a value per sample, shape (batch, …), got {show(value.shape)}")
    return value
