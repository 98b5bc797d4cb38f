"""The folder of a run: what was decided, what came out, and what is needed to go on and to predict."""

from __future__ import annotations

import csv
import hashlib
import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._optional import required
from .._structure import is_dict, is_sequence
from ..history import History
from .columns import Columns
from .recipe import Recipe

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["Run", "new_folder"]

VERSION = 1


class Run:
    """A folder.

    run.json         the recipe, what was learnt of the columns, and the data file's checksum
    train.py         the script that repeats the run
    checkpoints/     what `burnish resume` goes on from
    model.burnish    the trained model
    history.json     every epoch and step; history.csv has the epochs, history.png the curves
    report.json      scores on the test rows; report.txt says them
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder)

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.folder / "checkpoints"

    @property
    def model(self) -> Path:
        """Where the trained model is."""
        return self.folder / "model.burnish"

    @property
    def finished(self) -> bool:
        """Whether there is a report."""
        return (self.folder / "report.json").exists()

    def begin(self, recipe: Recipe, columns: Columns, script: str) -> None:
        """Write down what was decided."""
        self.folder.mkdir(parents=True, exist_ok=True)
        data = {"sha256": checksum(recipe.data)}
        self.write("train.py", script)
        self.write_json(
            "run.json", {"version": VERSION, **data, "recipe": recipe.to_plain(), "columns": columns.to_plain()}
        )

    def load(self) -> tuple[Recipe, Columns, str]:
        """Return what was decided, and the data file's checksum."""
        path = self.folder / "run.json"
        if not path.is_file():
            raise ValueError(f"{str(self.folder)!r} is no run of `burnish train`: it has no run.json")
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            version = plain["version"]
            if version == VERSION:
                return Recipe(**plain["recipe"]), Columns.from_plain(plain["columns"]), str(plain["sha256"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{str(path)!r} is damaged: {type(error).__name__}: {error}") from error
        raise ValueError(f"{str(path)!r} has version {version}, this burnish reads {VERSION}")

    def save_history(self, history: History) -> None:
        """Write the history as JSON and CSV, and as a picture where matplotlib is."""
        public = {name: value for name, value in vars(history).items() if not name.startswith("_")}
        self.write_json("history.json", {**public, "steps": history.steps})
        with (self.folder / "history.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["epoch", *history.history])
            writer.writerows(zip(history.epoch, *history.history.values(), strict=False))
        if history.epoch and find_spec("matplotlib") is not None:
            self._draw(history)

    def load_history(self) -> History:
        """Return the history of a run that has ended or was interrupted."""
        path = self.folder / "history.json"
        if not path.is_file():
            raise ValueError(f"{str(self.folder)!r} has no history yet: `burnish resume` finishes it")
        document: dict[str, Any] = _with_nan(json.loads(path.read_text(encoding="utf-8")))
        steps = {name: np.array(values) for name, values in document.pop("steps").items()}
        history = History()
        vars(history).update(document)
        if steps:
            history.add_steps(steps)
        return history

    def write(self, name: str, text: str) -> None:
        """Write a text file."""
        (self.folder / name).write_text(text, encoding="utf-8")

    def write_json(self, name: str, document: Any) -> None:
        """Write a document; arrays become lists, what is not finite null."""
        self.write(name, json.dumps(_plain(document), indent=1, allow_nan=False) + "\n")

    def _draw(self, history: History) -> None:
        mpl: Any = required("matplotlib", "plot")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fonts and caches are no concern of the run's
            mpl.use("Agg")
            figure = history.plot()
            figure.savefig(self.folder / "history.png", dpi=120)
            required("matplotlib.pyplot", "plot").close(figure)


def new_folder(data: str) -> Path:
    """Return runs/<name of the file>, or the first of runs/<name>-2 and so on that is not there."""
    name = Path(data).name.partition(".")[0]
    folder, number = Path("runs") / name, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder


def checksum(path: str) -> str:
    """Return the SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    if is_dict(value):
        return {str(name): _plain(one) for name, one in value.items()}
    if is_sequence(value):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _with_nan(value: Any) -> Any:
    if is_dict(value):
        return {name: _with_nan(one) for name, one in value.items()}
    if is_sequence(value):
        return [_with_nan(one) for one in value]
    return float("nan") if value is None else value
