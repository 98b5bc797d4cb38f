"""Where training batches come from: arrays, in the order of the epoch's shuffle, or an iterable of batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from .. import _burnish
from .._errors import named
from .._structure import is_sequence
from ..data.augmentation import augmented
from .arrays import Array, Data, apply_class_weight, check_signature, prepare, signature_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from .._build import Built
    from ..data.augmentation import Augmentation

__all__ = ["ArraySource", "BatchSource", "Pacer", "Piece", "Source", "check_data_signature", "unpack"]


class Piece(NamedTuple):
    """Some micro-batches for one call of the engine."""

    inputs: dict[str, Array]
    order: Array | None
    weight: Array | None
    batch_size: int
    batches: int

    @property
    def rows(self) -> int:
        """How many rows are trained on."""
        return len(next(iter(self.inputs.values()))) if self.order is None else len(self.order)


class Pacer:
    """How many micro-batches go to the engine at once: as many as take about a tenth of a second, or always one."""

    seconds = 0.1

    def __init__(self, *, single: bool) -> None:
        self._single = single
        self.batches = 1
        self.room: int | None = None
        """How many at most, if a callback has the engine pause then."""

    def next(self, left: int) -> int:
        """Return how many of the micro-batches that are left go to the engine now: pieces up to a pause are alike."""
        end = left if self.room is None else min(left, self.room)
        pieces = max(1, round(end / self.batches))
        return -(-end // pieces)

    def note(self, batches: int, seconds: float) -> None:
        """Learn from how long a piece took; grow by no more than four times at once."""
        if not self._single:
            fitting = int(self.seconds * batches / max(seconds, 1e-9))
            self.batches = max(1, min(fitting, 4 * self.batches))


class Source(Protocol):
    """What a fit reads its batches from."""

    steps: int | None

    def pieces(self, epoch: int, pacer: Pacer, start: int = 0) -> Generator[Piece]:
        """Return the pieces of an epoch from a batch on."""
        ...

    def description(self) -> dict[str, Any]:
        """Return what decides which rows a batch has."""
        ...


class ArraySource:
    """Rows of arrays; the order of an epoch is a function of the seed and the epoch."""

    def __init__(self, data: Data, batch_size: int, seed: int, *, shuffle: bool) -> None:
        self.data = data
        self.batch_size = batch_size
        self._batches = -(-data.rows // batch_size)
        self.steps: int | None = self._batches
        self._seed = seed if shuffle else None

    def description(self) -> dict[str, Any]:
        """Return what decides which rows a batch has."""
        return {"batch_size": self.batch_size, "rows": self.data.rows, "shuffle": self._seed is not None}

    def pieces(self, epoch: int, pacer: Pacer, start: int = 0) -> Generator[Piece]:
        """Return the pieces of an epoch from a batch on."""
        order, size, done = self._order(epoch), self.batch_size, start
        while done < self._batches:
            count = pacer.next(self._batches - done)
            rows = order[done * size : (done + count) * size]
            yield Piece(self.data.inputs, rows, self.data.weight, size, count)
            done += count

    def _order(self, epoch: int) -> Array:
        if self._seed is None:
            return np.arange(self.data.rows, dtype=np.int64)
        return _burnish.permutation(self._seed, epoch, self.data.rows)


class BatchSource:
    """An iterable of `(x, y)` or `(x, y, sample_weight)`, read once an epoch; each is one batch."""

    def __init__(
        self,
        batches: Any,
        arrange: Callable[[Any], Any],
        class_weight: Any = None,
        augment: Sequence[Augmentation] = (),
        seed: int = 0,
    ) -> None:
        self._batches = batches
        self._arrange = arrange
        self._class_weight = class_weight
        self._augment, self._seed = augment, seed
        self._built: Built | None = None
        self._check: Callable[[Data], None] | None = None
        self._iterator = iter(batches)
        self._read = 0
        self.steps = len(batches) if hasattr(batches, "__len__") else None
        self.once = self._iterator is batches
        try:
            batch = next(self._iterator)
        except StopIteration:
            raise ValueError("`x` must give at least one batch, got none") from None
        self.first = self._prepared(0, batch)

    def expect(self, built: Built, check: Callable[[Data], None]) -> None:
        """Check the form of every batch from now on, and its values in the first pass; of a list, all of it now."""
        self._built, self._check = built, check
        if is_sequence(self._batches):
            for index, batch in enumerate(self._batches):
                self._prepared(index, batch)
            self._check = None

    def data(self) -> Generator[Data]:
        """Return the batches; the first pass goes on from the batch that was looked at."""
        if self._iterator is None:
            self._iterator = iter(self._batches)
        else:
            yield self.first
            self._read += 1
        iterator, self._iterator = self._iterator, None
        for batch in iterator:
            yield self._prepared(self._read, batch)
            self._read += 1
        if self._read == 0:
            raise ValueError("`x` gave no batch when it was read again")
        self._read, self._check = 0, None

    def description(self) -> dict[str, Any]:
        """Return what decides which rows a batch has, as far as it is known."""
        augment = {"augment": [each.name for each in self._augment]} if self._augment else {}
        return {"batch_size": None, "rows": None, "shuffle": None, **augment}

    def pieces(self, epoch: int, pacer: Pacer, start: int = 0) -> Generator[Piece]:  # noqa: ARG002  its own order
        """Return the pieces of an epoch from a batch on; those before it are read and left out."""
        read = rows = 0
        for batch in self.data():
            read += 1
            if read > start:
                data = self._augmented(batch, rows, epoch)
                yield Piece(data.inputs, None, data.weight, data.rows, 1)
            rows += batch.rows
        if read < start:
            raise ValueError(f"`x` gave {read} batches, but {start} of this epoch were done before the checkpoint")

    def _augmented(self, data: Data, first: int, epoch: int) -> Data:
        if not self._augment:
            return data
        changed = augmented(data, np.arange(first, first + data.rows), self._augment, self._seed, epoch)
        if self._built is not None:
            check_data_signature(changed, self._built)
        return changed

    def _prepared(self, index: int, batch: Any) -> Data:
        with named(f"batch {index}"):
            x, y, weight = unpack(batch, "`x`")
            data = apply_class_weight(prepare(x, y, weight, self._arrange), self._class_weight)
            if self._built is not None:
                check_data_signature(data, self._built)
            if self._check is not None:
                self._check(data)
        return data


def check_data_signature(data: Data, built: Built) -> None:
    """Raise unless the arrays (targets only if there are any) fit the model that was built."""
    check_signature("x", built.inputs, signature_of(data.x, data.x_names))
    if built.targets is not None and data.y_names is not None:
        check_signature("y", built.targets, signature_of(data.y, data.y_names))


def unpack(batch: Any, argument: str) -> tuple[Any, Any, Any]:
    """Return x, y and the weights (or None) of a tuple."""
    if not is_sequence(batch) or len(batch) not in (2, 3):
        got = f"{len(batch)} items" if is_sequence(batch) else type(batch).__name__
        raise TypeError(f"{argument} must give (x, y) or (x, y, sample_weight), got {got}")
    x, y, *weight = batch
    return x, y, weight[0] if weight else None
