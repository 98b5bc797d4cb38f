"""Metrics of the user's own in files: `finish` as the operations that it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._burnish import Program, Session
from .._symbol import Symbol, Trace
from .base import Metric

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Traced", "finish_program"]

_WEIGHT, _RESULT = "weight", "result"


class Traced(Metric):
    """A metric of a loaded model whose class is not there: its result is computed by the program of its `finish`."""

    default_name: ClassVar[str] = "traced"

    def __init__(self, name: str, finish: str) -> None:
        super().__init__(name, finish=finish)
        program = Program.from_json(finish)
        if program.outputs() != [_RESULT]:
            raise ValueError(f"the file is damaged: the metric {name!r} has no result")
        self._sums = [sum_name for sum_name, *_ in program.inputs()]
        self._session = Session(program, "cpu", "float64")

    def finish(self, sums: Mapping[str, Any]) -> Any:
        """Return the result from the sums."""
        arrays = {key: np.atleast_1d(np.asarray(sums[key], np.float64)) for key in self._sums}
        (result,) = self._session.predict(arrays, batch_size=max(map(len, arrays.values())), outputs=[_RESULT])
        return result if np.ndim(sums[_WEIGHT]) else result[0]


def finish_program(metric: Metric, columns: Iterable[str]) -> str | None:
    """Return the program of a metric's `finish`; None if it is made of more than operations on the sums."""
    trace = Trace(Program(), {}, lambda _: False)
    sums = {key: trace.input(key, (None,), "float") for key in dict.fromkeys((*columns, _WEIGHT))}
    try:
        with trace:
            result = metric.finish(sums)
    except (AttributeError, TypeError, ValueError):
        return None
    if not isinstance(result, Symbol) or result.shape != (None,):
        return None
    trace.program.output(_RESULT, result.index)
    return trace.program.to_json()
