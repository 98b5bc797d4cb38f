"""All that decides a run: the file, what to predict, the split, the network and how it is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import callbacks as _callbacks
from .. import layers
from ..functional import Input
from ..losses import mse
from ..model import Model
from .columns import Columns, split_rows
from .table import read_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._value import Value
    from ..callbacks import Callback
    from ..history import History
    from .table import Table

__all__ = [
    "Parts",
    "Recipe",
    "build",
    "compiled",
    "default_batch_size",
    "embedding_width",
    "normalised",
    "prepare",
    "train",
]

_BATCH_SIZES = ((2_000, 32), (20_000, 64), (200_000, 256))
_LARGEST = 1024


@dataclass
class Recipe:
    """Every decision of a run, as `run.json` keeps it; the same recipe and file give the same numbers."""

    data: str
    target: str
    task: str
    header: bool = True
    drop: list[str] = field(default_factory=list[str])
    categorical: list[str] = field(default_factory=list[str])
    test: float = 0.15
    validation: float = 0.15
    hidden: list[int] = field(default_factory=lambda: [64, 64])
    dropout: float = 0.1
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    batch_size: int = 32
    epochs: int = 200
    patience: int = 20
    device: str = "cpu"
    seed: int = 0

    @property
    def metrics(self) -> list[str]:
        """What is measured beside the loss."""
        return ["accuracy"] if self.task == "classification" else ["mae"]

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)


def default_batch_size(rows: int) -> int:
    """Return a batch size that makes a few dozen updates an epoch and uses the machine."""
    return next((size for most, size in _BATCH_SIZES if rows < most), _LARGEST)


class Parts(NamedTuple):
    """A table split and encoded."""

    columns: Columns
    rows: dict[str, Any]  # "train", "validation" and "test": numbers of rows
    x: dict[str, Any]
    y: dict[str, Any]
    notes: list[str]


def prepare(recipe: Recipe, table: Table | None = None) -> Parts:
    """Read, split and encode; what is learnt from the data is learnt from the training rows."""
    table = read_table(recipe.data, header=recipe.header) if table is None else table
    notes: list[str] = []
    known = table.known(recipe.target)
    if recipe.task == "regression" and table.column(recipe.target).dtype == object:
        raise ValueError(f"the target {recipe.target!r} holds texts; a regression needs numbers")
    if len(known) < table.rows:
        notes.append(f"{table.rows - len(known)} rows without a target are left out")
        table = table.take(known)
    train, validation, test = split_rows(
        table.column(recipe.target), recipe.task, test=recipe.test, validation=recipe.validation, seed=recipe.seed
    )
    rows = {"train": train, "validation": validation, "test": test}
    _check_sizes(rows, table, recipe)
    columns = Columns.learn(
        table.take(train), recipe.target, recipe.task, drop=recipe.drop, categorical=recipe.categorical
    )
    tables = {part: table.take(some) for part, some in rows.items()}
    for part in ("validation", "test"):
        notes += [f"{part}: {note}" for note in columns.surprises(tables[part])]
    x = {part: columns.inputs(some) for part, some in tables.items()}
    y = {part: columns.targets(some) for part, some in tables.items()}
    _check_target(y["train"], recipe)
    return Parts(columns, rows, x, y, notes)


def _check_sizes(rows: dict[str, Any], table: Table, recipe: Recipe) -> None:
    if min(map(len, rows.values())) > 0:
        return
    sizes = ", ".join(f"{len(some)} for {part}" for part, some in rows.items())
    classes = len(set(table.column(recipe.target).tolist()))
    two = np.arange(table.rows) % 2
    of_two = split_rows(two, "classification", test=recipe.test, validation=recipe.validation, seed=recipe.seed)
    if recipe.task == "classification" and min(map(len, of_two)) > 0:  # there are rows enough for fewer classes
        raise ValueError(
            f"the target {recipe.target!r} has too many classes to split, {classes} in {table.rows} rows (those of "
            f"fewer than three rows are only trained on): {sizes}"
        )
    raise ValueError(f"{table.rows} rows are too few to split: {sizes}")


def _check_target(values: Any, recipe: Recipe) -> None:
    if (values == values[0]).all():
        raise ValueError(f"the target {recipe.target!r} is always the same in the rows to train on")


def build(recipe: Recipe, parts: Parts) -> Model:
    """Return the network: normalise and embed, dense layers with dropout, and out in classes or the target's units."""
    columns, x, y = parts.columns, parts.x["train"], parts.y["train"]
    inputs: dict[str, Any] = {}
    values: list[Any] = []
    if columns.flat:
        inputs["features"] = Input((columns.width,), name="features")
        mean, variance = columns.statistics(x["features"])
        values.append(layers.Normalization(mean=mean, variance=variance)(inputs["features"]))
    for index, feature in enumerate(columns.embedded):
        name = f"category_{index}"
        inputs[name] = Input((), name=name)
        values.append(layers.Embedding(len(feature.categories) + 1, embedding_width(feature))(inputs[name]))
    hidden = layers.Concatenate()(values) if len(values) > 1 else values[0]
    for units in recipe.hidden:
        hidden = layers.Dropout(recipe.dropout)(layers.Dense(units, activation="relu")(hidden))
    outputs = layers.Dense(max(len(columns.classes), 1))(hidden)
    if recipe.task == "regression":
        outputs = layers.Normalization(mean=y.mean(0), variance=y.var(0), invert=True)(outputs)
    return Model(inputs, outputs)


def normalised(recipe: Recipe, parts: Parts) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return inputs and targets of each part as the layers between the model's first and last see them."""
    x, y = dict(parts.x), dict(parts.y)
    if parts.columns.flat:
        mean, variance = parts.columns.statistics(x["train"]["features"])
        x = {part: {**one, "features": (one["features"] - mean) / np.sqrt(variance)} for part, one in x.items()}
    if recipe.task == "regression":
        mean, deviation = parts.y["train"].mean(0), parts.y["train"].std(0)
        y = {part: (one - mean) / deviation for part, one in y.items()}
    return x, y


def embedding_width(feature: Any) -> int:
    """Return how many numbers a category becomes: 1.6 · n^0.56, at most 50 (the rule of fastai)."""
    return min(50, round(1.6 * (len(feature.categories) + 1) ** 0.56))


def scaled_mse(deviation: float) -> Callable[[Any, Any], Value]:
    """Return the squared error in units of the targets' variance: 1 is what always answering their mean gives."""
    return lambda target, prediction: mse(target / deviation, prediction / deviation)


def compiled(recipe: Recipe, parts: Parts) -> Model:
    """Return the network, ready to be trained."""
    model = build(recipe, parts)
    model.compile(
        loss="cross_entropy" if recipe.task == "classification" else scaled_mse(float(parts.y["train"].std())),
        optimizer="adamw",
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        metrics=recipe.metrics,
        device=recipe.device,
        seed=recipe.seed,
    )
    return model


def train(
    model: Model, recipe: Recipe, parts: Parts, more: Sequence[Callback], *, verbose: Any, resume_from: Any
) -> History:
    """Fit until the validation loss has not improved for `patience` epochs; the model then has its best weights."""
    stopping = _callbacks.EarlyStopping(patience=recipe.patience, restore_best_weights=True)
    return model.fit(
        parts.x["train"],
        parts.y["train"],
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        validation_data=(parts.x["validation"], parts.y["validation"]),
        callbacks=[stopping, *more],
        verbose=verbose,
        resume_from=resume_from,
    )
