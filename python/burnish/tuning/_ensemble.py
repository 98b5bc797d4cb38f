"""Several models as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import ops
from .._errors import choice
from .._structure import is_dict, is_sequence
from ..model import Model, core_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Ensemble"]


class Ensemble(Model):
    """A model whose prediction is the mean of several models' predictions; it predicts, evaluates, saves and trains on.

    Parameters
    ----------
    models : sequence of Model
        Trained models of the same inputs and outputs. Their numbers are copied; the first one's loss and metrics are
        taken over, unless it comes from a file: then `compile` says them anew.
    average : {"mean", "softmax"}, default "mean"
        "mean": of the predictions themselves. "softmax": of the probabilities that logits stand for, given as their
        logarithms, which are logits again: log(mean(softmax(prediction))).

    Examples
    --------
    >>> import numpy as np
    >>> import burnish as bn
    >>> x = np.random.default_rng(0).normal(size=(64, 2))
    >>> models = []
    >>> for seed in range(3):
    ...     model = bn.Sequential([bn.layers.Dense(4, activation="tanh"), bn.layers.Dense(1)])
    ...     model.compile(loss="mse", learning_rate=0.01, seed=seed)
    ...     _ = model.fit(x, x[:, :1], epochs=3, verbose=0)
    ...     models.append(model)
    >>> together = bn.Ensemble(models)
    >>> bool(np.allclose(together.predict(x), np.mean([model.predict(x) for model in models], axis=0), atol=1e-6))
    True
    """

    def __init__(self, models: Sequence[Model], average: str = "mean", *, name: str | None = None) -> None:
        super().__init__(name)
        if not is_sequence(models) or not models or not all(isinstance(model, Model) for model in models):
            raise TypeError(f"`models` must be a sequence of at least one Model, got {models!r}")
        self.models = list(models)
        self.average = choice("average", average, ("mean", "softmax"))
        first, core = core_of(self.models[0]), core_of(self)
        if first.compiled is not None and first.compiled.loss is not None:
            core.compiled, core.learning_rate = first.compiled, first.learning_rate
        known = None if first.runtime is None else first.runtime.built.inputs
        core.known_inputs = lambda: known

    def call(self, x: Any) -> Any:
        """Average what the models predict."""
        predictions = [model(*x) if isinstance(x, tuple) else model(x) for model in self.models]
        if isinstance(predictions[0], (tuple, list)):
            return tuple(self._averaged(list(parts)) for parts in zip(*predictions, strict=True))
        names: Any = predictions[0] if is_dict(predictions[0]) else None
        if names is None:
            return self._averaged(predictions)
        return {name: self._averaged([each[name] for each in predictions]) for name in names}

    def _averaged(self, values: list[Any]) -> Any:
        if self.average == "softmax":
            values = [ops.softmax(value) for value in values]
        total = values[0]
        for value in values[1:]:
            total = total + value
        mean = total * (1.0 / len(values))
        return ops.log(ops.maximum(mean, 1e-30)) if self.average == "softmax" else mean
