"""Checkpoint files: the copied state of a run, written to one safetensors file, and read back.

A checkpoint is a saved model (see `_storage`) with a second document, of the run, and its arrays below `run/`.
"""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _burnish
from ._errors import named
from ._storage import KEY, OPTIMIZER, RUN, document_of, json_of, split_arrays
from ._tree import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ._feed.arrays import Array
    from ._fit import Run
    from ._monitor import EpochMonitor
    from .history import History

__all__ = ["Snapshot", "Stored", "capture", "checkpoints_in", "in_order", "names_in", "read"]

DOCUMENT = "burnish.run"
VERSION = 1
SUFFIX = ".safetensors"
_HISTORY = f"{RUN}history"
_CALLBACKS = f"{RUN}callbacks"
_NAME = re.compile(r"epoch-(\d+)-step-(\d+)" + re.escape(SUFFIX))


class Snapshot(NamedTuple):
    """A copy of everything; nothing in it changes when training goes on."""

    name: str
    arrays: _burnish.Staged
    model: tuple[str, dict[str, Any]]
    run: dict[str, Any]
    figures: EpochMonitor
    history: History

    def write(self, folder: str, files: _burnish.Rotation | None = None, outdated: str | None = None) -> None:
        """Write it, whole or not at all; one that is outdated by it goes with that."""
        history, columns = pack(self.history.state(), _HISTORY)
        run = {**self.run, "figures": self.figures.state(), "history": history}
        documents = {KEY: json_of(*self.model), DOCUMENT: json.dumps(run)}
        path = os.path.join(folder, self.name)  # noqa: PTH118  paths cost more, and this is done for every checkpoint
        old = None if outdated is None else os.path.join(folder, outdated)  # noqa: PTH118
        (files or _burnish.Rotation()).write(path, self.arrays, columns, documents, old)


class Stored(NamedTuple):
    """A checkpoint that was read."""

    path: Path
    state: dict[str, Array]
    optimizer: dict[str, Array]
    model: dict[str, Any]
    run: dict[str, Any]


def capture(run: Run, files: _burnish.Rotation | None = None) -> Snapshot:
    """Copy the state of a run, between two pieces of its work; the files that it will be one of lend the memory."""
    runtime = run.runtime
    callbacks, arrays = _of_callbacks(run)
    document = {"version": VERSION, **run.state(), "callbacks": callbacks}
    epoch, step, _ = run.place()
    figures, history = run.figures()
    return Snapshot(
        name=f"epoch-{epoch:06d}-step-{step:010d}{SUFFIX}",
        arrays=(files or _burnish.Rotation()).copy(runtime.session, OPTIMIZER, arrays),
        model=document_of(run.core, runtime, quiet=True),
        run=document,
        figures=figures,
        history=history,
    )


def _of_callbacks(run: Run) -> tuple[list[dict[str, Any]], dict[str, Array]]:
    """Return the states of the callbacks, and the arrays in them."""
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
    return [directory / name for name in names_in(os.fspath(directory))]


def names_in(directory: str) -> list[str]:
    """Return the names of the checkpoints of a directory, oldest first."""
    return in_order(os.listdir(directory))  # noqa: PTH208  paths cost more, and this is done for every checkpoint


def in_order(names: Iterable[str]) -> list[str]:
    """Return those that are names of checkpoints, oldest first."""
    found = [(place, name) for name in names if (place := _place(name))]
    return [name for _, name in sorted(found)]


@lru_cache(maxsize=64)
def _place(name: str) -> tuple[int, int] | None:
    """Return epoch and step of the checkpoint with a name; None if it is no such name."""
    match = _NAME.fullmatch(name)
    return None if match is None else (int(match[1]), int(match[2]))


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
