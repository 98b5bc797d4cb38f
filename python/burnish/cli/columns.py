"""From a table's columns to a network's inputs and targets, by what is learnt from the training rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import choice
from .table import is_number

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy.typing as npt

    from .table import Table

__all__ = ["Columns", "infer_task", "split_rows"]

TASKS = ("classification", "regression")
_CLASSES = 20  # whole numbers of at most so many values are taken for classes
_ONE_HOT = 16  # more categories than these are embedded
_SHOWN = 5


def infer_task(target: Any) -> str:
    """Return "classification" for texts and for whole numbers of at most 20 values, else "regression"."""
    if target.dtype == object:
        return "classification"
    values = np.unique(target[np.isfinite(target)])
    whole = bool((values == np.round(values)).all())
    return "classification" if whole and len(values) <= min(_CLASSES, max(len(target) // 2, 2)) else "regression"


def split_rows(target: Any, task: str, *, test: float, validation: float, seed: int) -> tuple[Any, Any, Any]:
    """Return the rows for training, validation and test, each in order and each with its share of every class.

    For a regression, each has its share of every tenth of the targets. Classes of fewer than three rows are trained on.
    """
    strata = _strata(target, task)
    order = np.lexsort((np.random.default_rng(seed).random(len(strata)), strata))
    counts = np.bincount(strata)
    dealt = order[counts[strata[order]] >= 3]
    # Cards dealt from a deck sorted by stratum: every part gets its share of each, to one row.
    place = np.arange(1, len(dealt) + 1)
    in_test = np.diff(np.floor(place * test + 0.5), prepend=0.0) > 0
    left = np.cumsum(~in_test)
    in_validation = ~in_test & (np.diff(np.floor(left * validation / (1 - test) + 0.5), prepend=0.0) > 0)
    held_out = np.concatenate([dealt[in_test], dealt[in_validation]])
    train = np.setdiff1d(np.arange(len(strata)), held_out)
    return train, np.sort(dealt[in_validation]), np.sort(dealt[in_test])


def _strata(target: Any, task: str) -> npt.NDArray[np.intp]:
    if task == "classification":
        _, inverse = np.unique(target.astype(str), return_inverse=True)
        return inverse.reshape(-1)
    values: npt.NDArray[np.float64] = target
    return np.digitize(values, np.quantile(values, np.arange(1, 10) / 10))


@dataclass
class Feature:
    """How one column becomes numbers."""

    name: str
    kind: str  # "number", "one_hot" or "embedding"
    median: float = 0.0
    gaps: bool = False  # whether numbers were missing in training: then a column says where
    categories: list[str] = field(default_factory=list[str])


@dataclass
class Columns:
    """What was learnt from the training rows: medians, categories, classes, and which columns say nothing."""

    target: str
    task: str
    classes: list[str]
    features: list[Feature]
    left_out: dict[str, str]  # column -> why

    @classmethod
    def learn(
        cls, table: Table, target: str, task: str, *, drop: Sequence[str] = (), categorical: Sequence[str] = ()
    ) -> Columns:
        """Learn from training rows. A column without any information is left out, and why is kept.

        Parameters
        ----------
        table : Table
            The rows to train on.
        target : str
            What to predict.
        task : {"classification", "regression"}
            What kind of prediction.
        drop : sequence of str
            Columns to leave out.
        categorical : sequence of str
            Columns of numbers that name categories.
        """
        choice("task", task, TASKS)
        for name in (target, *drop, *categorical):
            table.column(name)
        classes = _categories(table.column(target)) if task == "classification" else []
        features: list[Feature] = []
        left_out = dict.fromkeys(drop, "as you asked")
        for name, column in table.columns.items():
            if name == target or name in left_out:
                continue
            texts = _texts(column) if name in categorical else column
            reason = _useless(texts)
            if reason:
                left_out[name] = reason
            else:
                features.append(_learnt(name, texts))
        if not features:
            raise ValueError(f"no column but the target {target!r} says anything")
        return cls(target, task, classes, features, left_out)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Columns:
        """Return what `to_plain` was made from."""
        features = [Feature(**feature) for feature in plain["features"]]
        return cls(plain["target"], plain["task"], plain["classes"], features, plain["left_out"])

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    @property
    def embedded(self) -> list[Feature]:
        """The features with an input of their own, in order: category_0, category_1 and so on."""
        return [feature for feature in self.features if feature.kind == "embedding"]

    @property
    def width(self) -> int:
        """How many numbers a row has beside what is embedded."""
        return sum(1 + feature.gaps if feature.kind == "number" else len(feature.categories) for feature in self.flat)

    @property
    def flat(self) -> list[Feature]:
        """The features that become numbers at once."""
        return [feature for feature in self.features if feature.kind != "embedding"]

    def inputs(self, table: Table) -> dict[str, Any]:
        """Return a network's inputs: "features" of shape (rows, width), and of each embedded column its numbers.

        A missing number is the training median; a category that is missing or was not in training is none: all zeros,
        or number 0 of an embedding.
        """
        blocks = [_encoded(feature, table.column(feature.name)) for feature in self.flat]
        inputs: dict[str, Any] = {"features": np.concatenate(blocks, axis=1)} if blocks else {}
        for index, feature in enumerate(self.embedded):
            inputs[f"category_{index}"] = _numbered(feature, table.column(feature.name))
        return inputs

    def statistics(self, features: Any) -> tuple[Any, Any]:
        """Return mean and variance to normalise with: those of numbers; 0 and 1 for columns of zeros and ones."""
        mean, variance = np.zeros(self.width), np.ones(self.width)
        place = 0
        for feature in self.flat:
            if feature.kind == "number":
                mean[place], variance[place] = features[:, place].mean(), features[:, place].var()
            place += 1 + feature.gaps if feature.kind == "number" else len(feature.categories)
        return mean, variance

    def targets(self, table: Table) -> Any:
        """Return the targets: numbers of classes `(rows,)`, or values `(rows, 1)`."""
        column = table.column(self.target)
        if self.task == "regression":
            return column.astype(np.float64)[:, np.newaxis]
        numbers = {name: index for index, name in enumerate(self.classes)}
        return np.array([numbers.get(text, -1) for text in _texts(column)])

    def surprises(self, table: Table) -> list[str]:
        """Say what is in the rows that was not in training: missing numbers, and categories."""
        notes: list[str] = []
        for feature in self.features:
            column = table.column(feature.name)
            if feature.kind == "number":
                count = 0 if feature.gaps else int(np.count_nonzero(~np.isfinite(_as_numbers(feature.name, column))))
                if count:
                    notes.append(f"{feature.name!r}: {count} missing numbers, none in training; the median stands in")
            else:
                notes += _unknown(feature, _texts(column))
        return notes


def _categories(column: Any) -> list[str]:
    """Return the different texts, those of numbers in the order of the numbers."""
    if column.dtype == object:
        return sorted({text for text in column if text is not None})
    return [_label(value) for value in np.unique(column[np.isfinite(column)])]


def _label(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _texts(column: Any) -> Any:
    """Return a column of categories as texts, None where one is missing."""
    if column.dtype == object:
        return column
    return np.array([_label(value) if np.isfinite(value) else None for value in column], object)


def _useless(column: Any) -> str:
    """Say why a column is left out; nothing if it is not."""
    present = column[[text is not None for text in column]] if column.dtype == object else column[np.isfinite(column)]
    different = len(set(present.tolist()))
    if different < 2:
        empty = column.dtype == object or np.isnan(column).all()
        return "it is always the same" if different else "it is empty" if empty else "it holds no finite number"
    if column.dtype == object and different > max(len(column) // 2, _ONE_HOT):
        return f"its {different} different texts look like names or free text"
    return ""


def _learnt(name: str, column: Any) -> Feature:
    if column.dtype != object:
        finite = np.isfinite(column)
        return Feature(name, "number", median=float(np.median(column[finite])), gaps=not finite.all())
    categories = _categories(column)
    return Feature(name, "one_hot" if len(categories) <= _ONE_HOT else "embedding", categories=categories)


def _encoded(feature: Feature, column: Any) -> Any:
    if feature.kind == "one_hot":
        return np.equal.outer(_texts(column), np.array(feature.categories, object)).astype(np.float64)
    numbers = _as_numbers(feature.name, column)
    finite = np.isfinite(numbers)
    filled = np.where(finite, numbers, feature.median)
    return np.stack([filled, ~finite] if feature.gaps else [filled], axis=1)


def _numbered(feature: Feature, column: Any) -> Any:
    numbers = {name: index for index, name in enumerate(feature.categories, 1)}
    return np.array([numbers.get(text, 0) for text in _texts(column)])


def _as_numbers(name: str, column: Any) -> Any:
    if column.dtype == object:
        example = next((text for text in column if text is not None and not is_number(text)), column[0])
        raise ValueError(f"column {name!r} must hold numbers as in training, got {example!r}")
    return column


def _unknown(feature: Feature, texts: Collection[Any]) -> list[str]:
    known = {*feature.categories, None}
    strange = [text for text in texts if text not in known]
    if not strange:
        return []
    names = list(dict.fromkeys(strange))
    shown = ", ".join(map(repr, names[:_SHOWN])) + (", …" if len(names) > _SHOWN else "")
    return [f"{feature.name!r}: {len(strange)} rows hold categories that were not in training: {shown}"]
