"""Tracing: a model's Python runs once over symbols, and each operation becomes a node of the program."""

from __future__ import annotations

import json
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from ._described import Described
from ._value import Shape, Value
from .initializers import Own

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    import numpy.typing as npt

    from ._burnish import Program
    from .initializers import Initializer

__all__ = ["LayerRow", "Symbol", "Trace", "current_trace"]

_current: ContextVar[Trace | None] = ContextVar("burnish_trace", default=None)


def current_trace() -> Trace | None:
    """Return the trace that is running, if any."""
    return _current.get()


class LayerRow(NamedTuple):
    """One line of a summary."""

    path: str
    type: str
    shape: Shape | None  # None: it gives several values, or values of several shapes
    uses: int  # how often the layer is called: more than once if it is shared


class Trace:
    """A program being written: where layers stand, what is frozen, and which form is traced, training or inference.

    `classes` collects the inputs that are used as indices, with how many values an index may take (None: not known),
    `ranges` the least and the greatest value that others may have (None: no bound).
    """

    def __init__(self, program: Program, paths: Mapping[int, str], is_frozen: Callable[[str], bool]) -> None:
        self.program = program
        self.paths = paths
        self.is_frozen = is_frozen
        self.training = False
        self.forms = 0  # how many were begun; a value of one must not be used in the next
        self.classes: dict[str, int | None] = {}
        self.ranges: dict[str, tuple[float | None, float | None]] = {}
        self.rows: dict[str, LayerRow] = {}
        self._noted: set[str] = set()  # the layers called in the form that is traced
        self.initial: dict[str, Own] = {}  # how parameters and buffers start that a function of the user's fills
        self.penalties: dict[str, Value] = {}  # added to the loss of the form that is traced
        self._assigned: dict[str, Symbol] = {}  # new values of buffers, by path
        self._scope = ""

    def __enter__(self) -> Trace:
        self._token = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
        self.program.scope("")

    def begin(self, form: str) -> None:
        """Begin to trace the training or the evaluation form."""
        self.training = form == "training"
        self.penalties = {}
        self._assigned = {}
        self._noted = set()
        self.forms += 1

    def note(self, row: LayerRow) -> None:
        """Note a call of a layer; its row counts those of one form."""
        earlier = self.rows.get(row.path) if row.path in self._noted else None
        if earlier is not None:
            shape = row.shape if row.shape == earlier.shape else None
            row = row._replace(shape=shape, uses=earlier.uses + row.uses)
        self._noted.add(row.path)
        self.rows[row.path] = row

    @contextmanager
    def scope(self, path: str) -> Generator[None]:
        """Give the nodes written meanwhile the path of their layer."""
        outer, self._scope = self._scope, path
        self.program.scope(path)
        try:
            yield
        finally:
            self._scope = outer
            self.program.scope(outer)

    @property
    def path(self) -> str:
        """The path of the layer that is being traced."""
        return self._scope

    def absolute(self, name: str) -> str:
        """Return the full path of something that belongs to the layer being traced."""
        return f"{self._scope}.{name}" if self._scope else name

    def input(self, name: str, shape: Shape, kind: str) -> Symbol:
        """Declare an input of the program."""
        return Symbol(self, self.program.input(name, shape, kind), name)

    def parameter(self, name: str, shape: Sequence[int], initializer: Initializer | str, role: str) -> Symbol:
        """Declare a parameter of the layer that is being traced, or return it if it is there."""
        return Symbol(self, self.program.parameter(self.absolute(name), shape, role, self._config(name, initializer)))

    def buffer(self, name: str, shape: Sequence[int], initializer: Initializer | str) -> Symbol:
        """Declare a buffer of the layer that is being traced, or return it: its new value if it was assigned before."""
        buffer = Symbol(self, self.program.buffer(self.absolute(name), shape, self._config(name, initializer)))
        return self._assigned.get(self.absolute(name), buffer)

    def _config(self, name: str, initializer: Initializer | str) -> str:
        """Return what the engine reads, and keep what it cannot know."""
        if isinstance(initializer, Own):
            self.initial[self.absolute(name)] = initializer
        return initializer if isinstance(initializer, str) else initializer.config()

    def penalise(self, value: Value, name: str | None = None) -> None:
        """Add a value to the loss; one that has a name only once, however often its layer is used."""
        self.penalties.setdefault(str(len(self.penalties)) if name is None else self.absolute(name), value)

    def assign(self, name: str, value: Symbol) -> None:
        """Let every training step end with `buffer = value`."""
        if self.training:
            self.program.assign(self.absolute(name), value.index)
            self._assigned[self.absolute(name)] = value


class Symbol(Described):
    """A value in a program: what a layer's `call`, a loss or a metric sees inside a model."""

    __slots__ = ("form", "index", "name", "trace")
    precedence: ClassVar[int] = 2
    __hash__ = object.__hash__

    def __init__(self, trace: Trace, index: int, name: str | None = None) -> None:
        self.trace = trace
        self.form = trace.forms
        self.index = index
        self.name = name

    @property
    def shape(self) -> Shape:
        """The length of each axis; None where it is that of the batch."""
        return self.trace.program.shape(self.index)

    @property
    def kind(self) -> str:
        """What the elements are: "float", "int" or "bool"."""
        return self.trace.program.kind(self.index)

    def emit(self, operation: str, values: Sequence[Value | npt.NDArray[Any]], attributes: dict[str, Any]) -> Symbol:
        """Write a node."""
        indices = [self._lifted(value).index for value in values]
        return Symbol(self.trace, self.trace.program.apply(operation, indices, json.dumps(attributes)))

    def mark_index(self, count: int | None) -> None:
        """Note that this value is used as an index below `count`, so that the data can be checked for it."""
        if self.name is None:
            return
        counts = [n for n in (self.trace.classes.get(self.name), count) if n is not None]
        self.trace.classes[self.name] = min(counts, default=None)

    def mark_range(self, low: float | None, high: float | None) -> None:
        """Note that this value must lie between two numbers (None: no bound), for the data to be checked for it."""
        if self.name is None:
            return
        lows, highs = zip((low, high), self.trace.ranges.get(self.name, (None, None)), strict=True)
        self.trace.ranges[self.name] = (
            max((n for n in lows if n is not None), default=None),
            min((n for n in highs if n is not None), default=None),
        )

    def _lifted(self, value: Value | npt.NDArray[Any]) -> Symbol:
        if isinstance(value, Symbol):
            if value.trace is not self.trace or value.form not in {0, self.trace.forms}:
                raise ValueError("a value of an earlier trace was used; do not keep values on a layer between calls")
            return value
        array = value.numpy() if isinstance(value, Value) else value
        return Symbol(self.trace, self.trace.program.constant(np.asarray(array)))

    def __repr__(self) -> str:
        return f"<Symbol shape={self.shape} kind={self.kind}>"
