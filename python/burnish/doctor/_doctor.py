"""The callback, and the examination of a history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from .._errors import boolean, integer
from .._feed.arrays import named
from .._feed.sources import ArraySource, BatchSource, unpack
from .._feed.stream import StreamSource
from .._structure import is_sequence
from ..callbacks.base import Callback
from ..model import core_of
from ._data import Sample, examine_data
from ._figures import Figures
from ._machine import Pace, few_updates, slow_input, small_batch
from ._numbers import Diagnosis, not_finite
from ._report import Finding, Report
from ._statistics import Settled, statistics_behind
from ._training import TRAINING
from ._trials import pace, settled
from ._weights import symmetric_units

if TYPE_CHECKING:
    from .._feed.arrays import Array
    from .._fit import Run
    from ..history import History
    from ..model import Model

__all__ = ["Doctor"]


class Doctor(Callback):
    """Watch a fit, or examine a history, and say what is wrong, with the figures that show it and remedies.

    As a callback it looks at the data before the first step, has the engine run the first batch again whose loss or
    gradient is not finite, so that the operation is named that made it so, and reports when the fit ends. It asks for
    no batches, and what is trained is the same to the bit.

    Parameters
    ----------
    verbose : int, default 1
        1: print what is found when the fit ends; 0: only keep it in `report`.
    check_data : bool, default True
        Whether scales, labels and repeated rows are looked at before the first step.

    Attributes
    ----------
    report : Report or None
        What was found in the last fit or examination.

    Examples
    --------
    >>> import numpy as np
    >>> import burnish as bn
    >>> x = np.random.default_rng(0).normal(size=(64, 2))
    >>> model = bn.Sequential([bn.layers.Dense(1)])
    >>> model.compile(loss="mse", optimizer="sgd", learning_rate=1e-7)
    >>> doctor = bn.Doctor(verbose=0)
    >>> history = model.fit(x, x.sum(axis=1, keepdims=True), epochs=10, verbose=0, callbacks=doctor)
    >>> doctor.report
    <Report: updates_too_small>
    >>> doctor.report["updates_too_small"].remedies[0]
    Remedy(text='Raise the learning rate', code='model.compile(..., learning_rate=0.0001)')
    """

    adds: ClassVar[tuple[str, ...] | None] = ()

    def __init__(self, verbose: int = 1, *, check_data: bool = True) -> None:
        self.verbose = integer("verbose", verbose, 0)
        self.check_data = boolean("check_data", check_data)
        self.report: Report | None = None
        self._diagnosis: Diagnosis | None = None
        self._found: list[Finding] = []

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        if hasattr(self, "model"):
            self._take_diagnosis()
        return {"diagnosis": None if self._diagnosis is None else list(self._diagnosis)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what a checkpoint kept."""
        self._diagnosis = None if state["diagnosis"] is None else Diagnosis(*state["diagnosis"])

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Look at the data, and ask the engine to run a failing batch again."""
        core = core_of(self.model)
        self.report, self._diagnosis, self._found = None, None, []
        core.diagnose = True
        if self.check_data and core.run is not None:
            self._found = examine_data(_sample_of(core.run))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Take over what the engine found."""
        self._take_diagnosis()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Examine, and report."""
        core = core_of(self.model)
        core.diagnose = False
        self._take_diagnosis()
        if self.model.history is None:
            return
        run = None if self._diagnosis is not None else core.run
        tried = (None, None) if run is None else (pace(run), settled(run))
        self._examine(self.model.history, self.model, *tried)
        if self.verbose and self.report:
            print(self.report)

    def examine(
        self,
        history: History,
        x: Any = None,
        y: Any = None,
        *,
        validation_data: Any = None,
        model: Model | None = None,
    ) -> Report:
        """Examine a history; also the data and the trained model's weights, if they are given.

        Parameters
        ----------
        history : History
            What `fit` returned.
        x, y : array_like, or dict or tuple of them, optional
            The training data.
        validation_data : tuple (x, y), optional
            The validation data, to be searched for training rows.
        model : Model, optional
            The trained model; with it, labels are known from other targets.
        """
        self._diagnosis, self._found = None, []
        if x is not None:
            self._found = examine_data(_given(x, y, validation_data, model))
        return self._examine(history, model)

    def _examine(
        self, history: History, model: Model | None, paces: Pace | None = None, statistics: Settled | None = None
    ) -> Report:
        figures = Figures(history)
        failure = not_finite(figures, self._diagnosis)
        # What broke off says nothing about gaps and paces; what led there, it does.
        several: list[Finding | None] = [failure, *(ailment(figures) for ailment in TRAINING)]
        several += [slow_input(figures), small_batch(paces), few_updates(figures), statistics_behind(statistics)]
        if model is not None and core_of(model).runtime is not None:
            several.append(symmetric_units(_trained_weights(model)))
        found = [*self._found, *(finding for finding in several if finding is not None)]
        self.report = Report(_without_consequences(found))
        return self.report

    def _take_diagnosis(self) -> None:
        runtime = core_of(self.model).runtime
        found = None if runtime is None else runtime.session.take_diagnosis()
        if found is not None and self._diagnosis is None:
            self._diagnosis = Diagnosis(*found)


_EXPLAINS = {
    "nothing_trains": {"loss_not_falling", "no_gradient", "vanishing_gradients", "updates_too_small", "few_updates"},
    "not_finite": {"overfitting", "few_updates", "loss_not_falling", "oscillation", "updates_too_large"},
    "no_gradient": {"vanishing_gradients", "updates_too_small", "updates_too_large", "loss_not_falling"},
    "updates_too_small": {"loss_not_falling", "few_updates"},
    "statistics_behind": {"overfitting"},
}


def _without_consequences(found: list[Finding]) -> list[Finding]:
    """Leave out what follows from something else that was found."""
    names = {finding.ailment for finding in found}
    explained = {name for cause in names for name in _EXPLAINS.get(cause, ())}
    return [finding for finding in found if finding.ailment not in explained]


def _trained_weights(model: Model) -> dict[str, Array]:
    trained = set(core_of(model).ready().trained()) if core_of(model).compiled is not None else set[str]()
    return {path: array for path, array in model.parameters().items() if path in trained}


def _sample_of(run: Run) -> Sample:
    """Return the data of a fit: its arrays, or its first batch."""
    source = run.source
    if isinstance(source, StreamSource):
        data = source.sample()
    else:
        data = source.data if isinstance(source, ArraySource) else cast("BatchSource", source).first
    labels = frozenset(name for name in data.y if name in run.runtime.built.classes)
    return Sample(data.x, data.y, _validation_of(run), labels)


def _validation_of(run: Run) -> dict[str, Array] | None:
    if run.validation is None or not isinstance(run.source, ArraySource):
        return None
    parts = run.validation()
    return parts[0].x if is_sequence(parts) else None


def _given(x: Any, y: Any, validation_data: Any, model: Model | None) -> Sample:
    arrays = named(x, "x")[0]
    targets = {} if y is None else named(y, "y")[0]
    runtime = None if model is None else core_of(model).runtime
    if runtime is None:
        labels = frozenset(name for name, array in targets.items() if array.dtype.kind in "iub" and array.ndim == 1)
    else:
        labels = frozenset(name for name in targets if name in runtime.built.classes)
    held_out = None if validation_data is None else named(unpack(validation_data, "`validation_data`")[0], "x")[0]
    return Sample(arrays, targets, held_out, labels)
