"""What rows are read from when they are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _burnish
from .._errors import integer, number
from .._feed.arrays import split_point

if TYPE_CHECKING:
    from .._feed.arrays import Array

__all__ = ["Dataset", "Subset"]


class Dataset:
    """Rows that are read when they are needed: subclass it with `__len__` and `read`, and give it to `fit` as `x`.

    Rows are read in a background thread while the model trains, some megabytes ahead. Which rows a batch has is a
    function of the seed and the epoch, so that a run can be resumed anywhere.

    Attributes
    ----------
    workers : int
        How many threads call `read` at once, each for some of the rows (class attribute, 1).
    ahead_rows : int
        How many rows are read ahead at least, for data that come in large pieces (class attribute, 0).

    Examples
    --------
    >>> import numpy as np
    >>> import burnish as bn
    >>> class Squares(bn.data.Dataset):
    ...     def __len__(self):
    ...         return 1000
    ...     def read(self, rows):
    ...         x = rows[:, None] / 1000
    ...         return x, x**2
    >>> model = bn.Sequential([bn.layers.Dense(1)])
    >>> model.compile("mse")
    >>> len(model.fit(Squares(), batch_size=50, verbose=0).steps["loss"])
    20
    """

    workers = 1
    ahead_rows = 0
    uniform = True  # whether every batch has rows of the same form

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__(self)")

    def read(self, rows: Array) -> Any:
        """Return `(x, y)` or `(x, y, sample_weight)` of some rows, given by their numbers, in that order.

        May be called from several threads at once, if `workers` is above 1.
        """
        raise NotImplementedError(f"{type(self).__name__} must define read(self, rows)")

    def order(self, seed: int, epoch: int) -> Array:
        """Return the numbers of all rows in the order of a shuffled epoch, a function of seed and epoch."""
        return _burnish.permutation(seed, epoch, len(self))

    def runs(self, order: Array, batch_size: int) -> list[Array]:  # noqa: ARG002  not of one run
        """Return the rows of a shuffled epoch in runs that are cut into batches each."""
        return [order]

    def read_run(self, rows: Array) -> Any:
        """Return some rows of a run, as `read` does, whose form may be one of several."""
        return self.read(rows)

    def examples(self) -> Array:
        """Return one row of each form that `read_run` may give."""
        return self.rows()[:0]

    def description(self) -> dict[str, Any]:
        """Return what a checkpoint says of the data, as JSON values; within an epoch, a run goes on with no other."""
        return {}

    def held_out(self, fraction: float) -> tuple[Dataset, Dataset]:
        """Split off the last rows, as `validation_split` does."""
        at = split_point("validation_split", fraction, len(self))
        rows = np.arange(len(self))
        return Subset(self, rows[:at]), Subset(self, rows[at:])

    def split(self, fraction: float, *, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Return two parts of the rows, drawn at random: the second one has `fraction` of them.

        Parameters
        ----------
        fraction : float in (0, 1)
            The part of the rows that the second dataset has.
        seed : int, default 0
            Decides which ones.
        """
        fraction = number("fraction", fraction, 0, 1, above=True, below=True)
        order = _burnish.permutation(integer("seed", seed, 0), 0, len(self))
        at = split_point("fraction", fraction, len(self))
        return Subset(self, np.sort(order[:at])), Subset(self, np.sort(order[at:]))

    def rows(self) -> Array:
        """Return the numbers of all rows, in order."""
        return np.arange(len(self), dtype=np.int64)


class Subset(Dataset):
    """Some rows of a dataset, which keep their numbers."""

    def __init__(self, dataset: Dataset, rows: Array) -> None:
        self._dataset, self._rows = dataset, rows
        self.workers, self.ahead_rows, self.uniform = dataset.workers, dataset.ahead_rows, dataset.uniform

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, rows: Array) -> Any:
        """Return those of the whole dataset."""
        return self._dataset.read(rows)

    def order(self, seed: int, epoch: int) -> Array:
        """Return the order of the whole dataset, less what is left out."""
        order = self._dataset.order(seed, epoch)
        kept = np.zeros(order.max() + 1, bool)
        kept[self._rows] = True
        return order[kept[order]]

    def runs(self, order: Array, batch_size: int) -> list[Array]:
        """Return those of the whole dataset."""
        return self._dataset.runs(order, batch_size)

    def read_run(self, rows: Array) -> Any:
        """Return those of the whole dataset."""
        return self._dataset.read_run(rows)

    def examples(self) -> Array:
        """Return those of the whole dataset."""
        return self._dataset.examples()

    def description(self) -> dict[str, Any]:
        """Return that of the whole dataset."""
        return self._dataset.description()

    def held_out(self, fraction: float) -> tuple[Dataset, Dataset]:
        """Split off the last rows."""
        first, second = super().held_out(fraction)
        return Subset(self._dataset, self._rows[: len(first)]), Subset(self._dataset, self._rows[-len(second) :])

    def split(self, fraction: float, *, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Return two parts of the rows, drawn at random."""
        first, second = (self._rows[part.rows()] for part in super().split(fraction, seed=seed))
        return Subset(self._dataset, first), Subset(self._dataset, second)

    def rows(self) -> Array:
        """Return the numbers of all rows, in order."""
        return self._rows
