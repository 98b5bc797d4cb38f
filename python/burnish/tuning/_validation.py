"""Many fits of the same model: over the folds of the data, or over seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import boolean, integer
from .._feed.arrays import Array, prepare
from .._feed.sources import unpack
from .._structure import mapped
from ..model import Model
from ._ensemble import Ensemble

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..history import History

__all__ = ["Scores", "cross_validate", "repeat"]


class Scores:
    """What several models of a kind scored on data that they were not trained on.

    Attributes
    ----------
    scores : dict of str to numpy.ndarray
        Loss and metrics, exact over each model's own test data, a number a model.
    models, histories : list
        The models and what happened in their fits.
    rows : list of numpy.ndarray
        The rows that each model was tested on; empty for `repeat`.
    """

    def __init__(self) -> None:
        self.models: list[Model] = []
        self.histories: list[History] = []
        self.rows: list[Array] = []
        self._logs: list[dict[str, float]] = []

    def add(self, model: Model, history: History, logs: dict[str, float]) -> None:
        """Take in a model."""
        self.models.append(model)
        self.histories.append(history)
        self._logs.append(logs)

    @property
    def scores(self) -> dict[str, Array]:
        """A number a model, by name."""
        return {name: np.array([logs[name] for logs in self._logs]) for name in self._logs[0]}

    @property
    def mean(self) -> dict[str, float]:
        """The mean over the models, by name."""
        return {name: float(values.mean()) for name, values in self.scores.items()}

    @property
    def standard_error(self) -> dict[str, float]:
        """The standard error of the mean, s / √n, by name; NaN for a single model."""
        return {
            name: float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
            for name, values in self.scores.items()
        }

    def ensemble(self, average: str = "mean") -> Ensemble:
        """Return the models as one; see `bn.Ensemble`."""
        return Ensemble(self.models, average)

    def __len__(self) -> int:
        return len(self.models)

    def __repr__(self) -> str:
        errors = self.standard_error
        told = ", ".join(f"{name} {mean:.4g} ± {errors[name]:.2g}" for name, mean in self.mean.items())
        return f"<Scores of {len(self)} models: {told}>"

    def _repr_html_(self) -> str:
        from html import escape

        rows = [(str(number + 1), logs) for number, logs in enumerate(self._logs)]
        rows += [("mean", self.mean), ("standard error", self.standard_error)]
        head = "".join(f"<th>{escape(name)}</th>" for name in ("model", *self.scores))
        body = "".join(
            f"<tr><td>{label}</td>{''.join(f'<td>{value:.6g}</td>' for value in logs.values())}</tr>"
            for label, logs in rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def cross_validate(
    make_model: Callable[..., Model],
    x: Any,
    y: Any,
    *,
    folds: int = 5,
    stratify: bool | None = None,
    seed: int = 0,
    sample_weight: Any = None,
    **fit: Any,
) -> Scores:
    """Train a new model on all folds but one, for each of them, and evaluate it on that one.

    Parameters
    ----------
    make_model : function () -> Model or function (seed) -> Model
        Returns a new, compiled model; if it takes an argument, it gets `seed` plus the number of the fold.
    x, y, sample_weight : array_like, or dict or tuple of them
        As for `Model.fit`.
    folds : int, default 5
        How many.
    stratify : bool, optional
        Whether each fold has its share of every class; by default if `y` is one array of whole numbers.
    seed : int, default 0
        Decides which rows go together.
    **fit
        Arguments of `Model.fit`: `epochs`, `batch_size`, `callbacks`, …. `verbose` is 0 by default. With
        `validate=True` the fold is the fit's validation data, too, which early stopping needs.

    Examples
    --------
    >>> import numpy as np
    >>> import burnish as bn
    >>> x = np.random.default_rng(0).normal(size=(90, 2))
    >>> def make(seed):
    ...     model = bn.Sequential([bn.layers.Dense(2)])
    ...     model.compile(loss="cross_entropy", learning_rate=0.1, metrics=["accuracy"], seed=seed)
    ...     return model
    >>> found = bn.tuning.cross_validate(make, x, (x[:, 0] > 0).astype(int), folds=3, epochs=10)
    >>> found.mean["accuracy"] > 0.9
    True
    """
    folds, seed = integer("folds", folds, 2), integer("seed", seed, 0)
    data = prepare(x, y, sample_weight, lambda value: value)
    if folds > data.rows:
        raise ValueError(f"`folds` must be at most the number of rows, {data.rows}, got {folds}")
    labels = data.y.get("y")
    grouped = _stratified(labels) if stratify is None else boolean("stratify", stratify)
    if grouped and (labels is None or labels.ndim != 1):
        raise ValueError("`stratify` needs a single array of labels as `y`, one a row")
    places = _folds(data.rows, folds, seed, labels if grouped else None)
    scores = Scores()
    for fold in range(folds):
        test = np.flatnonzero(places == fold)
        scores.rows.append(test)
        parts = [_taken(x, y, data.weight, rows) for rows in (np.flatnonzero(places != fold), test)]
        _train(scores, make_model, seed + fold, parts[0], parts[1], dict(fit))
    return scores


def repeat(
    make_model: Callable[..., Model],
    x: Any,
    y: Any,
    *,
    test_data: Any,
    seeds: int = 5,
    seed: int = 0,
    sample_weight: Any = None,
    **fit: Any,
) -> Scores:
    """Train a new model for each of several seeds, and evaluate each on the same test data.

    Parameters
    ----------
    make_model : function (seed) -> Model
        Returns a new model compiled with this seed.
    x, y, sample_weight : array_like, or dict or tuple of them
        As for `Model.fit`.
    test_data : tuple (x, y) or (x, y, sample_weight)
        What to evaluate on.
    seeds : int, default 5
        How many: `seed`, `seed` + 1, ….
    seed : int, default 0
        The first one.
    **fit
        Arguments of `Model.fit`; see `cross_validate`.
    """
    seeds, seed = integer("seeds", seeds, 1), integer("seed", seed, 0)
    if not _takes_seed(make_model):
        raise TypeError("`make_model` must take the seed that it compiles the model with: make_model(seed)")
    test = unpack(test_data, "`test_data`")
    scores = Scores()
    for number in range(seed, seed + seeds):
        _train(scores, make_model, number, (x, y, sample_weight), test, dict(fit))
    return scores


def _train(  # noqa: PLR0917
    scores: Scores, make_model: Any, seed: int, train: Any, test: Any, fit: dict[str, Any]
) -> None:
    """Train and evaluate one model."""
    model = make_model(seed) if _takes_seed(make_model) else make_model()
    if not isinstance(model, Model) or model in scores.models:
        raise TypeError(f"`make_model` must return a new Model every time, got {model!r}")
    if fit.pop("validate", False):
        fit["validation_data"] = test if test[2] is not None else test[:2]
    x, y, weight = train
    options: dict[str, Any] = {"verbose": 0, **fit}
    history = model.fit(x, y, sample_weight=weight, **options)
    scores.add(model, history, model.evaluate(test[0], test[1], sample_weight=test[2]))


def _takes_seed(make_model: Any) -> bool:
    if not callable(make_model):
        raise TypeError(f"`make_model` must be a function that returns a compiled model, got {make_model!r}")
    import inspect

    try:
        inspect.signature(make_model).bind(0)
    except TypeError:
        return False
    return True


def _stratified(labels: Array | None) -> bool:
    return labels is not None and labels.ndim == 1 and labels.dtype.kind in "iub"


def _folds(rows: int, folds: int, seed: int, labels: Array | None) -> Array:
    """Return the fold of each row: rows are shuffled, sorted by class if there are classes, and dealt in turn."""
    order = np.random.default_rng(seed).permutation(rows)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    places = np.empty(rows, dtype=np.int64)
    places[order] = np.arange(rows) % folds
    return places


def _taken(x: Any, y: Any, weight: Array | None, rows: Array) -> tuple[Any, Any, Array | None]:
    def take(leaf: Any) -> Array:
        return np.asarray(leaf)[rows]

    return mapped(take, x), mapped(take, y), None if weight is None else weight[rows]
