"""What the commands do."""

from __future__ import annotations

import csv
import os
import shlex
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from .. import callbacks as _callbacks
from .._device import devices as _devices
from ..loaded import load
from . import report
from .columns import infer_task
from .recipe import Parts, Recipe, compiled, default_batch_size, normalised, prepare
from .recipe import train as _train
from .run import Run, checksum, new_folder
from .script import script
from .table import read_table

if TYPE_CHECKING:
    from argparse import Namespace
    from contextlib import AbstractContextManager

    from ..model import Model
    from .columns import Columns

__all__ = ["devices", "doctor", "predict", "resume", "train"]


def train(options: Namespace) -> None:
    """Train on a table, and write the run's folder."""
    run = Run(options.run or new_folder(options.data))
    if run.folder.exists() and any(run.folder.iterdir()):
        raise ValueError(
            f"{str(run.folder)!r} is not empty; choose another folder, or `burnish resume` to go on with it"
        )
    table = read_table(options.data, header=not options.no_header)
    task = options.task or infer_task(table.column(options.target))
    recipe = Recipe(
        data=os.path.abspath(options.data),  # noqa: PTH100  resolve() would follow links
        target=options.target,
        task=task,
        header=not options.no_header,
        drop=options.drop,
        categorical=options.categorical,
        test=options.test,
        validation=options.validation,
        hidden=options.hidden,
        dropout=options.dropout,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        epochs=options.epochs,
        patience=options.patience,
        device=options.device,
        seed=options.seed,
    )
    parts = prepare(recipe, table)
    recipe.batch_size = options.batch_size or default_batch_size(len(parts.rows["train"]))
    command = shlex.join(["burnish", *options.given])
    model = compiled(recipe, parts)
    run.begin(recipe, parts.columns, script(recipe, parts.columns, command))
    say = _quiet if options.quiet else print
    for line in _what(recipe, parts, guessed=options.task is None):
        say(line)
    _finish(run, model, recipe, parts, options, resume_from=None)


def resume(options: Namespace) -> None:
    """Go on with a run from its last checkpoint."""
    run = Run(options.run)
    recipe, columns, sha256 = run.load()
    if run.finished:
        raise ValueError(f"{str(run.folder)!r} is finished; there is nothing to go on with")
    if checksum(recipe.data) != sha256:
        raise ValueError(f"{recipe.data!r} has changed since the run began")
    parts = prepare(recipe)
    if parts.columns != columns:
        raise ValueError(f"{recipe.data!r} gives other columns than when the run began")
    _finish(run, compiled(recipe, parts), recipe, parts, options, resume_from=run.checkpoints)


def _finish(
    run: Run, model: Model, recipe: Recipe, parts: Parts, options: Namespace, *, resume_from: Path | None
) -> None:
    """Train, and write what came out."""
    began = time.perf_counter()
    verbose = 0 if options.quiet else "auto"
    checkpoint = _callbacks.Checkpoint.every(options.checkpoint, run.checkpoints, "seconds")
    try:
        history = _train(model, recipe, parts, [checkpoint], verbose=verbose, resume_from=resume_from)
    except KeyboardInterrupt:
        if model.history is not None:
            run.save_history(model.history)
        raise KeyboardInterrupt(f"go on with: burnish resume {shlex.quote(str(run.folder))}") from None
    model.save(run.model)
    run.save_history(history)
    prediction = _answers(recipe.task, model.predict(parts.x["test"]))
    scores = _scores(recipe, parts, prediction)
    text = report.show(scores, parts.y["test"], prediction, parts.columns.classes)
    run.write("report.txt", text + "\n")
    rows = {part: len(some) for part, some in parts.rows.items()}
    figures = {"epochs": len(history.epoch), "best_epoch": history.best_epoch(), "seconds": time.perf_counter() - began}
    run.write_json("report.json", {"task": recipe.task, **scores, "rows": rows, **figures, "notes": parts.notes})
    if not options.quiet:
        print(f"\n{text}\n\nEverything is in {run.folder}{os.sep}: predict with burnish predict {run.folder} FILE")


def _scores(recipe: Recipe, parts: Parts, prediction: Any) -> dict[str, report.Scores]:
    target = parts.y["test"]
    return {
        "test": report.measure(recipe.task, target, prediction),
        "baseline": report.baseline(recipe.task, parts.y["train"], target, len(parts.columns.classes)),
    }


def _answers(task: str, outputs: Any) -> Any:
    return report.probabilities(outputs) if task == "classification" else np.asarray(outputs, np.float64)


def _what(recipe: Recipe, parts: Parts, *, guessed: bool) -> list[str]:
    """Say what was found in the data, and what is done with it."""
    columns = parts.columns
    kind = f"{recipe.task} of {recipe.target!r}"
    if columns.classes:
        kind += f", {len(columns.classes)} classes: {_listed(columns.classes)}"
    guess = " (guessed; --task says otherwise)" if guessed else ""
    sizes = ", ".join(f"{len(some)} {part}" for part, some in parts.rows.items())
    lines = [f"{kind}{guess}", f"rows: {sizes}; {len(columns.features)} columns -> {columns.width} numbers"]
    gaps = [feature.name for feature in columns.features if feature.gaps]
    if gaps:
        lines.append(f"missing numbers become the median, marked by a column of their own: {_listed(gaps)}")
    embedded = [feature.name for feature in columns.embedded]
    if embedded:
        lines.append(f"embedded, for their many categories: {_listed(embedded)}")
    lines += [f"left out: {name!r}, {reason}" for name, reason in columns.left_out.items()]
    return [*lines, *parts.notes]


def _listed(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f", … ({len(names)})" if len(names) > most else "")


def _quiet(_: str) -> None:
    """Say nothing."""


def predict(options: Namespace) -> None:
    """Write predictions for the rows of a table as CSV."""
    run = Run(options.run)
    recipe, columns, _ = run.load()
    if not run.model.is_file():
        raise ValueError(f"{str(run.folder)!r} has no model yet: `burnish resume` finishes it")
    table = read_table(options.data, header=recipe.header)
    missing = [feature.name for feature in columns.features if feature.name not in table.columns]
    if missing:
        raise ValueError(f"{options.data!r} lacks columns that the model needs: {_listed(missing)}")
    kept = [table.column(name) for name in options.keep]
    for note in columns.surprises(table):
        print(f"burnish: note: {note}", file=sys.stderr)
    answers = _answers(recipe.task, load(run.model, device=options.device).predict(columns.inputs(table)))
    with _output(options.output) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*options.keep, *_names(columns)])
        writer.writerows(_rows(kept, answers, columns))
    if recipe.target in table.columns:
        _compare(recipe, columns, table, answers)


def doctor(options: Namespace) -> None:
    """Say what is wrong with a run, by its history, data and model."""
    from ..doctor import Doctor

    run = Run(options.run)
    recipe, _, sha256 = run.load()
    history = run.load_history()
    given: dict[str, Any] = {}
    if Path(recipe.data).is_file() and checksum(recipe.data) == sha256:
        x, y = normalised(recipe, prepare(recipe))
        given = {"x": x["train"], "y": y["train"], "validation_data": (x["validation"], y["validation"])}
    else:
        print(f"burnish: note: {recipe.data} is not what was trained on; it is not examined", file=sys.stderr)
    if run.model.is_file():
        given["model"] = load(run.model)
    print(Doctor(verbose=0).examine(history, **given))


def _output(path: str | None) -> AbstractContextManager[TextIO]:
    return nullcontext(sys.stdout) if path is None else Path(path).open("w", newline="", encoding="utf-8")


def _names(columns: Columns) -> list[str]:
    return ["prediction", *(f"probability_{name}" for name in columns.classes)]


def _rows(kept: list[Any], answers: Any, columns: Columns) -> Any:
    """Return the lines: what is kept, the answer, and the classes' probabilities."""
    for index, answer in enumerate(answers):
        values = ["" if column[index] is None else column[index] for column in kept]
        if columns.classes:
            yield [*values, columns.classes[int(answer.argmax())], *(f"{chance:.6g}" for chance in answer)]
        else:
            yield [*values, f"{answer[0]:.9g}"]


def _compare(recipe: Recipe, columns: Columns, table: Any, answers: Any) -> None:
    """Say how good the answers are, for the file tells the truth."""
    target = columns.targets(table)
    known = np.isfinite(target[:, 0]) if recipe.task == "regression" else target >= 0
    if known.any():
        scores = report.measure(recipe.task, target[known], answers[known])
        words = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
        print(f"burnish: against {recipe.target!r} in {np.count_nonzero(known)} rows: {words}", file=sys.stderr)


def devices(options: Namespace) -> None:  # noqa: ARG001
    """List the devices."""
    found = _devices()
    width = max(len(device["name"]) for device in found)
    for device in found:
        print(f"{device['name']:<{width}}  {device['description']}")
