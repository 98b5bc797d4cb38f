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

__all__ = ["Folder", "Snapshot", "Stored", "checkpoints_in", "read"]

DOCUMENT = "burnish.run"
VERSION = 2
SUFFIX = ".safetensors"
_CALLBACKS = f"{RUN}callbacks"
_NAME = re.compile(r"epoch-(\d+)-step-(\d+)" + re.escape(SUFFIX))


class Snapshot(NamedTuple):
    """A copy of everything; nothing in it changes when training goes on."""

    name: str
    contents: _burnish.Staged


class Folder:
    """The checkpoints of a directory, of which some stay, and memory for copies."""

    def __init__(self, path: str, keep: int | None) -> None:
        self._path = path
        self._keep = keep
        self._files = _burnish.Rotation()
        self._texts: dict[str, tuple[Any, str, dict[str, Array]]] = {}
        self._seen: tuple[int, list[str]] = -1, []  # what the directory held when we last changed it

    def capture(self, run: Run) -> Snapshot:
        """Copy the state of a run, between two pieces of its work."""
        runtime = run.runtime
        callbacks, arrays = _of_callbacks(run)

        def others() -> tuple[dict[str, Array], dict[str, str]]:
            """Return the arrays that need no copy, and the documents: made while another thread copies."""
            kept: dict[str, Array] = {}
            parts = [f'{{"version": {VERSION}, "callbacks": {json.dumps(callbacks)}']
            for name, state in run.state().items():
                text, found = self._text_of(name, state)
                parts.append(f'"{name}": {text}')
                kept |= found
            return kept, {KEY: json_of(*document_of(run.core, runtime, quiet=True)), DOCUMENT: ", ".join(parts) + "}"}

        epoch, step, _ = run.place()
        name = f"epoch-{epoch:06d}-step-{step:010d}{SUFFIX}"
        return Snapshot(name, self._files.copy(runtime.session, OPTIMIZER, arrays, others))

    def _text_of(self, name: str, state: Any) -> tuple[str, dict[str, Array]]:
        """Return a part of a run's state as JSON and arrays, made anew if it is another object than last time."""
        of, text, arrays = self._texts.get(name, (None, "", {}))
        if of is not state:
            plain, arrays = pack(state, f"{RUN}{name}")
            text = json.dumps(plain)
            self._texts[name] = state, text, arrays
        return text, arrays

    def write(self, snapshot: Snapshot) -> None:
        """Write a copy, whole or not at all, and remove what need not stay."""
        present = self._with(snapshot.name)
        here = present.index(snapshot.name)
        # Later ones are damaged, or of a run that was gone back from.
        gone = present[here + 1 :]
        gone += [] if self._keep is None else present[: max(here + 1 - self._keep, 0)]
        left = [name for name in present if name not in gone]
        # Where others remain, the last one goes before the new one is safe, so that the disk is waited for once.
        outdated = self._file(gone.pop()) if self._keep is not None and 1 < self._keep <= here else None
        self._files.write(self._file(snapshot.name), snapshot.contents, outdated)
        for name in gone:
            self._files.remove(self._file(name))
        self._seen = self._changed(), left

    def _with(self, name: str) -> list[str]:
        """Return the names of the checkpoints and this one; the directory is read if somebody else has changed it."""
        names = self._seen[1] if self._seen[0] == self._changed() else names_in(self._path)
        newest = name not in names and in_order((*names[-1:], name))[-1] == name
        return [*names, name] if newest else in_order({*names, name})

    def _changed(self) -> int:
        """Return when the directory was last changed."""
        return os.stat(self._path).st_mtime_ns  # noqa: PTH116  paths cost more, and this is done for every checkpoint

    def _file(self, name: str) -> str:
        return f"{self._path}{os.sep}{name}"


class Stored(NamedTuple):
    """A checkpoint that was read."""

    path: Path
    state: dict[str, Array]
    optimizer: dict[str, Array]
    model: dict[str, Any]
    run: dict[str, Any]


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
        run = unpack(run, arrays, RUN[:-1])
        state, optimizer = split_arrays(arrays)
        return Stored(path, state, optimizer, json.loads(documents[KEY]), run)
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is damaged: {type(error).__name__}: {error}") from error
