"""Rows that are read while the engine trains on those before: memory-mapped arrays and datasets."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .._checks import check_values
from .._errors import named
from ..data.augmentation import augmented
from ..data.base import Dataset
from .arrays import Array, Data, apply_class_weight, prepare
from .mapped import FileRows, file_rows
from .prefetch import prefetched
from .sources import ArraySource, Pacer, Piece, check_data_signature, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from concurrent.futures import Executor

    from .._build import Built
    from ..data.augmentation import Augmentation

__all__ = ["ArrayRows", "StreamSource", "array_source", "check_parts", "mapped", "parts"]

MAPPED_BYTES = 1 << 26  # from which on a memory-mapped array is read from its file
BLOCK_BYTES = 1 << 23  # read at once, at least one batch
AHEAD = 2  # blocks that wait to be used
_CHUNK = 16  # rows that a worker reads at once
_SAMPLE = 4096  # rows that stand for all


class ArrayRows(Dataset):
    """Rows of arrays, of which some are read from their files."""

    def __init__(self, data: Data, files: dict[str, FileRows]) -> None:
        self._data, self._files = data, files

    def __len__(self) -> int:
        return self._data.rows

    def read(self, rows: Array) -> Data:
        """Return some rows, as arrays of their own."""
        data = self._data

        def taken(arrays: dict[str, Array]) -> dict[str, Array]:
            return {name: self._taken(name, array, rows) for name, array in arrays.items()}

        weight = None if data.weight is None else data.weight[rows]
        return data._replace(x=taken(data.x), y=taken(data.y), weight=weight, rows=len(rows))

    def _taken(self, name: str, array: Array, rows: Array) -> Array:
        return self._files[name].read(rows) if name in self._files else array[rows]


def mapped(data: Data) -> ArrayRows | None:
    """Return what reads rows of arrays of which some are large and memory-mapped; None if none is."""
    large = {name: array for name, array in data.inputs.items() if array.nbytes >= MAPPED_BYTES}
    files = {name: file for name, array in large.items() if (file := file_rows(array)) is not None}
    return ArrayRows(data, files) if files else None


def parts(data: Data, batch_size: int) -> Iterable[Data]:
    """Return arrays as what one call of the engine takes: all at once, or blocks of whole batches as they are read."""
    rows = mapped(data)
    return [data] if rows is None else StreamSource(rows, batch_size).parts(batch_size)


def check_parts(data: Data, built: Built) -> None:
    """Check the values of arrays, block by block where they are read from files."""
    rows = mapped(data)
    if rows is None:
        check_values(data, built)
        return
    source = StreamSource(rows, 1)
    source.expect(built, check=lambda part, numbers: check_values(part, built, numbers))
    for _ in source.parts(1):
        pass


def array_source(
    data: Data, batch_size: int, seed: int, *, shuffle: bool, augment: Sequence[Augmentation] = ()
) -> ArraySource | StreamSource:
    """Return the source of training batches for arrays, checked already."""
    rows = mapped(data)
    if rows is None and not augment:
        return ArraySource(data, batch_size, seed, shuffle=shuffle)
    rows = ArrayRows(data, {}) if rows is None else rows
    return StreamSource(rows, batch_size, seed, shuffle=shuffle, augment=augment)


class StreamSource:
    """Rows of a dataset; the order of an epoch is a function of the seed and the epoch."""

    def __init__(  # noqa: PLR0917
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int = 0,
        arrange: Callable[[Any], Any] = lambda x: x,
        augment: Sequence[Augmentation] = (),
        class_weight: Any = None,
        *,
        shuffle: bool = False,
        by_runs: bool = False,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self._seed, self._shuffle = seed, shuffle
        self._arrange, self._augment, self._class_weight = arrange, augment, class_weight
        self._built: Built | None = None
        self._check: Callable[[Data, Array], None] | None = None
        if len(dataset) == 0:
            raise ValueError("`x` must have at least one row, got none")
        self._by_runs = by_runs and shuffle and not dataset.uniform
        self.steps: int | None = sum(-(-len(run) // batch_size) for run in self._runs(0))
        self.first = self._load(dataset.rows()[:batch_size], None)

    def expect(self, built: Built, check: Callable[[Data, Array], None] | None) -> None:
        """Check the form of all rows from now on, and, in the first whole pass, their values."""
        self._built, self._check = built, check
        if self._augment:
            self._load(self.dataset.rows()[:1], 0)

    def forms(self) -> Iterator[Data]:
        """Return a row of each form that batches may have beside that of the first rows."""
        for row in self.dataset.examples() if self._by_runs else ():
            yield self._load(np.array([row]), 0)

    def sample(self) -> Data:
        """Return some rows, of arrays evenly spread ones, to look at."""
        if not isinstance(self.dataset, ArrayRows):
            return self.first
        rows = self.dataset.rows()
        return self.dataset.read(rows[:: max(1, len(rows) // _SAMPLE)])

    def description(self) -> dict[str, Any]:
        """Return what decides which rows a batch has."""
        known = {"batch_size": self.batch_size, "rows": len(self.dataset), "shuffle": self._shuffle}
        augment = {"augment": [each.name for each in self._augment]} if self._augment else {}
        return {**known, **self.dataset.description(), **augment}

    def pieces(self, epoch: int, pacer: Pacer, start: int = 0) -> Generator[Piece]:
        """Return the pieces of an epoch from a batch on."""
        for data in self._read(self._runs(epoch), self.batch_size, epoch, start):
            batches, done = -(-data.rows // self.batch_size), 0
            while done < batches:
                count = pacer.next(batches - done)
                part = data.slice(done * self.batch_size, (done + count) * self.batch_size)
                yield Piece(part.inputs, None, part.weight, self.batch_size, count)
                done += count
        if start == 0:
            self._check = None

    def parts(self, batch_size: int) -> Generator[Data]:
        """Return all rows in order, in blocks of whole batches."""
        yield from self._read([self.dataset.rows()], batch_size, None)
        self._check = None

    def _runs(self, epoch: int) -> list[Array]:
        """Return the rows of an epoch; batches do not reach from one run into the next."""
        if not self._shuffle:
            return [self.dataset.rows()]
        order = self.dataset.order(self._seed, epoch)
        return self.dataset.runs(order, self.batch_size) if self._by_runs else [order]

    def _read(self, runs: list[Array], batch_size: int, epoch: int | None, start: int = 0) -> Generator[Data]:
        """Read rows from a batch on in a thread, in blocks of whole batches."""
        batch_bytes = batch_size * self.first.nbytes // self.first.rows
        block = batch_size * max(1, BLOCK_BYTES // max(1, batch_bytes))
        blocks: list[Array] = []
        for run in runs:
            skipped = min(start, -(-len(run) // batch_size))
            blocks += [run[at : at + block] for at in range(skipped * batch_size, len(run), block)]
            start -= skipped
        return prefetched(lambda: self._blocks(blocks, epoch), max(AHEAD, -(-self.dataset.ahead_rows // block)))

    def _blocks(self, blocks: Sequence[Array], epoch: int | None) -> Iterator[Data]:
        if self.dataset.workers <= 1:
            yield from (self._load(rows, epoch) for rows in blocks)
            return
        from concurrent.futures import ThreadPoolExecutor

        pool = ThreadPoolExecutor(self.dataset.workers, "burnish-worker")
        try:
            yield from (self._together(pool, rows, epoch) for rows in blocks)
        finally:
            pool.shutdown(cancel_futures=True)

    def _together(self, pool: Executor, rows: Array, epoch: int | None) -> Data:
        chunks = [rows[at : at + _CHUNK] for at in range(0, len(rows), _CHUNK)]
        return _joined(list(pool.map(partial(self._load, epoch=epoch), chunks)))

    def _load(self, rows: Array, epoch: int | None) -> Data:
        """Read some rows, and change them at random if they are to be trained on."""
        by_run = self._by_runs and epoch is not None
        data = self._data(rows, by_run=by_run)
        if epoch is not None and self._augment:
            data = augmented(data, rows, self._augment, self._seed, epoch)
        if self._built is not None and not by_run:
            check_data_signature(data, self._built)
        if self._check is not None:
            self._check(data, rows)
        return apply_class_weight(data, self._class_weight, part=True)

    def _data(self, rows: Array, *, by_run: bool) -> Data:
        if isinstance(self.dataset, ArrayRows):
            return self.dataset.read(rows)
        with named(f"`x`, rows {rows[0]} to {rows[-1]}"):
            read = self.dataset.read_run if by_run else self.dataset.read
            x, y, weight = unpack(read(rows), "`read`")
            data = prepare(x, y, weight, self._arrange, part=True)
            if data.rows != len(rows):
                raise ValueError(f"`read` must give the {len(rows)} rows that it was asked for, got {data.rows}")
        return data


def _joined(several: list[Data]) -> Data:
    """Put the rows of several parts one behind the other."""

    def together(arrays: list[dict[str, Array]]) -> dict[str, Array]:
        return {name: np.concatenate([each[name] for each in arrays]) for name in arrays[0]}

    first = several[0]
    weights = [np.ones(data.rows) if data.weight is None else data.weight for data in several]
    weight = None if all(data.weight is None for data in several) else np.concatenate(weights)
    x, y = together([data.x for data in several]), together([data.y for data in several])
    return first._replace(x=x, y=y, weight=weight, rows=sum(data.rows for data in several))
