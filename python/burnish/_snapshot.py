"""Checkpoint files: the copied state of a run, written to one safetensors file, and read back.

A checkpoint is a saved model (see `_storage`) with a second document, of the run, and its arrays below `run/`.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _burnish
from ._errors import named
from ._storage import KEY, RUN, document_of, model_arrays, split_arrays
from ._tree import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ._feed.arrays import Array
    from ._fit import Run
    from .history import History

__all__ = ["Snapshot", "Stored", "capture", "checkpoints_in", "names_in", "read"]

DOCUMENT = "burnish.run"
VERSION = 1
SUFFIX = ".safetensors"
_HISTORY = f"{RUN}history"
_CALLBACKS = f"{RUN}callbacks"
_NAME = re.compile(r"epoch-(\d+)-step-(\d+)" + re.escape(SUFFIX))


class Snapshot(NamedTuple):
    """A copy of everything; nothing in it changes when training goes on."""

    name: str
    arrays: dict[str, Array]
    model: dict[str, Any]
    run: dict[str, Any]
    history: History

    def write(
        self, path: Path, write: Callable[[str, Mapping[str, Any], Mapping[str, str]], None] = _burnish.write_arrays
    ) -> None:
        """Write it, whole or not at all."""
        history, columns = pack(self.history.state(), _HISTORY)
        documents = {KEY: json.dumps(self.model), DOCUMENT: json.dumps({**self.run, "history": history})}
        write(os.fspath(path), {**self.arrays, **columns}, documents)


class Stored(NamedTuple):
    """A checkpoint that was read."""

    path: Path
    state: dict[str, Array]
    optimizer: dict[str, Array]
    model: dict[str, Any]
    run: dict[str, Any]


def capture(run: Run) -> Snapshot:
    """Copy the state of a run, between two pieces of its work."""
    callbacks, arrays = _of_callbacks(run)
    document = {"version": VERSION, **run.state(), "callbacks": callbacks}
    epoch, step, _ = run.place()
    return Snapshot(
        name=f"epoch-{epoch:06d}-step-{step:010d}{SUFFIX}",
        arrays={**model_arrays(run.runtime), **arrays},
        model=document_of(run.core, run.runtime.built, quiet=True),
        run=document,
        history=run.history.copy(),
    )


def _of_callbacks(run: Run) -> tuple[list[dict[str, Any]], dict[str, Array]]:
    """Return the states of the callbacks, copied, and the arrays in them."""
    rows: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}
    for index, (name, state) in enumerate(run.callbacks.state()):
        with named(f"the state of callback {name}"):
            plain, found = pack(state, f"{_CALLBACKS}/{index}/state")
        rows.append({"type": name, "state": plain})
        arrays |= found
    return rows, arrays


def checkpoints_in(directory: Path) -> list[Path]:
    """Return the checkpoints of a directory, oldest first."""
    return [directory / name for name in names_in(directory)]


def names_in(directory: Path) -> list[str]:
    """Return the names of the checkpoints of a directory, oldest first."""
    names = os.listdir(directory)  # noqa: PTH208  paths cost more, and this is done for every checkpoint
    found = [match for name in names if (match := _NAME.fullmatch(name))]
    return [match[0] for match in sorted(found, key=lambda match: (int(match[1]), int(match[2])))]


def read(path: Path) -> Stored:
    """Read a checkpoint; what is damaged, or is none, raises ValueError."""
    arrays, documents = _burnish.read_arrays(os.fspath(path))
    if DOCUMENT not in documents or KEY not in documents:
        raise ValueError(f"{str(path)!r} holds no checkpoint; for a model there is bn.load")
    try:
        run = json.loads(documents[DOCUMENT])
        if run["version"] != VERSION:
            raise ValueError(f"{str(path)!r} has version {run['version']}, this burnish reads {VERSION}")
        run["callbacks"] = unpack(run["callbacks"], arrays, _CALLBACKS)
        run["history"] = unpack(run["history"], arrays, _HISTORY)
        state, optimizer = split_arrays(arrays)
        return Stored(path, state, optimizer, json.loads(documents[KEY]), run)
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is damaged: {type(error).__name__}: {error}") from error
