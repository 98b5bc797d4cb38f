"""The Python script that repeats a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .recipe import embedding_width

if TYPE_CHECKING:
    from .columns import Columns
    from .recipe import Recipe

__all__ = ["script"]


def script(recipe: Recipe, columns: Columns, command: str) -> str:
    """Return the script: plain calls of burnish, with every decision of the run written out, to read and to change."""
    return "\n".join([*_head(recipe, command), *_network(recipe, columns), *_training(recipe)]) + "\n"


def _head(recipe: Recipe, command: str) -> list[str]:
    read = repr(recipe.data) if recipe.header else f"{recipe.data!r}, header=False"
    options = [f", {name}={value!r}" for name in ("drop", "categorical") if (value := getattr(recipe, name))]
    return [
        '"""Repeats a run to the same numbers, given the same file, machine and version."""',
        "",
        f"# Made by: {' '.join(command.splitlines())}",
        "",
        "import burnish as bn",
        "from burnish.cli.columns import Columns, split_rows",
        "from burnish.cli.table import read_table",
        "",
        f"table = read_table({read})",
        f"table = table.take(table.known({recipe.target!r}))  # rows without a target are left out",
        "train, validation, test = split_rows(",
        f"    table.column({recipe.target!r}), {recipe.task!r}, "
        f"test={recipe.test}, validation={recipe.validation}, seed={recipe.seed}",
        ")",
        f"columns = Columns.learn(table.take(train), {recipe.target!r}, {recipe.task!r}{''.join(options)})",
        "x, x_validation, x_test = (columns.inputs(table.take(rows)) for rows in (train, validation, test))",
        "y, y_validation, y_test = (columns.targets(table.take(rows)) for rows in (train, validation, test))",
        "",
    ]


def _network(recipe: Recipe, columns: Columns) -> list[str]:
    lines = ["inputs, values = {}, []"]
    if columns.flat:
        lines += [
            f'inputs["features"] = bn.Input(({columns.width},), name="features")',
            'mean, variance = columns.statistics(x["features"])',
            'values.append(bn.layers.Normalization(mean=mean, variance=variance)(inputs["features"]))',
        ]
    for index, feature in enumerate(columns.embedded):
        name = f"category_{index}"
        layer = f"bn.layers.Embedding({len(feature.categories) + 1}, {embedding_width(feature)})"
        lines += [
            f'inputs["{name}"] = bn.Input((), name="{name}")  # {feature.name!r}',
            f'values.append({layer}(inputs["{name}"]))',
        ]
    several = bool(columns.flat) + len(columns.embedded) > 1
    lines.append("hidden = bn.layers.Concatenate()(values)" if several else "hidden = values[0]")
    for units in recipe.hidden:
        lines += [
            f'hidden = bn.layers.Dense({units}, activation="relu")(hidden)',
            f"hidden = bn.layers.Dropout({recipe.dropout})(hidden)",
        ]
    lines.append(f"outputs = bn.layers.Dense({max(len(columns.classes), 1)})(hidden)")
    if recipe.task == "regression":
        lines.append("outputs = bn.layers.Normalization(mean=y.mean(0), variance=y.var(0), invert=True)(outputs)")
    return [*lines, "model = bn.Model(inputs, outputs)", ""]


def _training(recipe: Recipe) -> list[str]:
    scaled = recipe.task == "regression"
    loss = [
        "deviation = float(y.std())",
        "",
        "",
        "def scaled_mse(target, prediction):",
        "    return bn.losses.mse(target / deviation, prediction / deviation)",
        "",
        "",
    ]
    return [
        *(loss if scaled else []),
        "model.compile(",
        f"    loss={'scaled_mse' if scaled else repr('cross_entropy')},",
        '    optimizer="adamw",',
        f"    learning_rate={recipe.learning_rate},",
        f"    weight_decay={recipe.weight_decay},",
        f"    metrics={recipe.metrics!r},",
        f'    device="{recipe.device}",',
        f"    seed={recipe.seed},",
        ")",
        "history = model.fit(",
        "    x,",
        "    y,",
        f"    batch_size={recipe.batch_size},",
        f"    epochs={recipe.epochs},",
        "    validation_data=(x_validation, y_validation),",
        f"    callbacks=bn.callbacks.EarlyStopping(patience={recipe.patience}, restore_best_weights=True),",
        ")",
        'print("test:", model.evaluate(x_test, y_test))',
    ]
