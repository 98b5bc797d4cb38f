"""Sequences of different lengths, padded batch by batch."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import choice, integer
from .._feed.arrays import as_array, prepare
from .._structure import mapped
from .base import Dataset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._feed.arrays import Array

__all__ = ["Ragged"]

_IN_A_ROW = 8  # batches of one bucket behind each other, so that numbers need not move for each


class Ragged(Dataset):
    """Sequences of different lengths, filled up to one length when they are read.

    `x` is `(values, mask)`, where `values` is `(rows, length, …)` and `mask` `(rows, length)` is true where there is
    something: for a model of two inputs, whose layers take it as `mask` or `key_mask`.

    Parameters
    ----------
    sequences : sequence of array_like
        One of shape `(steps, …)` each; all but the steps must agree.
    y : array_like, or dict or tuple of them, optional
        The targets, a row a sequence; none for a prediction.
    sample_weight : array_like, optional
        The weights.
    length : int, optional
        What all are brought to (default: the longest one); of a longer one, the first so many steps are read. Give
        validation data the `length` of the training data.
    with_mask : {"mask", "lengths", "none"}
        What comes beside the values: the mask, or the numbers of steps `(rows,)`, or nothing, and then `x` is the
        values alone.
    padding : float, default 0
        What fills up.
    buckets : int, default 1
        Above 1, a batch of a shuffled fit has sequences of about one length, and is filled up to that of its bucket
        only: as many lengths, which split the sequences evenly. The model is traced and planned once for each, and its
        numbers pass from one to the other every few batches: worth it where a step takes much longer than copying the
        parameters does. What depends on the length (as the parameters of a `Dense` behind a `Flatten`) must not
        be in the model. Validation, `evaluate` and `predict` fill up to `length`.

    Examples
    --------
    >>> import burnish as bn
    >>> words = bn.data.Ragged([[3, 1], [4, 1, 5, 9], [2]], y=[0, 1, 0])
    >>> (values, mask), y, _ = words.read(words.rows())
    >>> values.tolist()
    [[3, 1, 0, 0], [4, 1, 5, 9], [2, 0, 0, 0]]
    >>> mask.sum(axis=1).tolist()
    [2, 4, 1]
    """

    def __init__(
        self,
        sequences: Sequence[Any],
        y: Any = None,
        *,
        sample_weight: Any = None,
        length: int | None = None,
        with_mask: str = "mask",
        padding: float = 0.0,
        buckets: int = 1,
    ) -> None:
        self._sequences = [as_array(sequence, f"sequences[{index}]") for index, sequence in enumerate(sequences)]
        if not self._sequences:
            raise ValueError("`sequences` must hold at least one, got none")
        self._check_shapes()
        self.lengths = np.array([len(sequence) for sequence in self._sequences])
        self.length = int(self.lengths.max()) if length is None else integer("length", length, 1)
        self.with_mask = choice("with_mask", with_mask, ("mask", "lengths", "none"))
        self._dtype = np.result_type(*{sequence.dtype for sequence in self._sequences})
        self._padding = padding
        self.bounds = _bounds(np.minimum(self.lengths, self.length), integer("buckets", buckets, 1), self.length)
        self.uniform = len(self.bounds) == 1
        self._data = prepare(np.empty((len(self._sequences), 1)), y, sample_weight, lambda x: x)

    def __len__(self) -> int:
        return len(self._sequences)

    def read(self, rows: Array) -> Any:
        """Return some sequences, filled up to `length`."""
        return self._filled(rows, self.length)

    def runs(self, order: Array, batch_size: int) -> list[Array]:
        """Return a few batches of one bucket behind each other, in the order of the first row of each run."""
        buckets = np.searchsorted(self.bounds, np.minimum(self.lengths[order], self.length))
        found: list[tuple[int, Array]] = []
        for bucket in range(len(self.bounds)):
            places = np.flatnonzero(buckets == bucket)
            size = _IN_A_ROW * batch_size
            runs = [places[at : at + size] for at in range(0, len(places), size)]
            found += [(int(run[0]), order[run]) for run in runs]
        return [run for _, run in sorted(found, key=itemgetter(0))]

    def examples(self) -> Array:
        """Return the first row of each bucket."""
        buckets = np.searchsorted(self.bounds, np.minimum(self.lengths, self.length))
        return np.unique(buckets, return_index=True)[1]

    def read_run(self, rows: Array) -> Any:
        """Return some sequences of one bucket, filled up to its length."""
        longest = min(int(self.lengths[rows].max()), self.length)
        return self._filled(rows, int(self.bounds[np.searchsorted(self.bounds, longest)]))

    def _filled(self, rows: Array, length: int) -> Any:
        x = np.full((len(rows), length, *self._sequences[0].shape[1:]), self._padding, self._dtype)
        steps = np.minimum(self.lengths[rows], length)
        for place, row in enumerate(rows.tolist()):
            x[place, : steps[place]] = self._sequences[row][:length]
        data = self._data
        y = None if data.y_names is None else mapped(lambda name: data.y[name][rows], data.y_names)
        return self._beside(x, steps), y, None if data.weight is None else data.weight[rows]

    def description(self) -> dict[str, Any]:
        """Return to what the sequences are filled up."""
        return {"length": self.length, "bounds": self.bounds.tolist()}

    def _beside(self, values: Array, steps: Array) -> Any:
        if self.with_mask == "none":
            return values
        return values, steps if self.with_mask == "lengths" else np.arange(values.shape[1]) < steps[:, None]

    def _check_shapes(self) -> None:
        first = self._sequences[0].shape[1:]
        for index, sequence in enumerate(self._sequences):
            if sequence.shape[1:] != first:
                raise ValueError(
                    f"`sequences[{index}]` must have shape (steps, {', '.join(map(str, first))}) like the first one, "
                    f"got {sequence.shape}"
                )


def _bounds(lengths: Array, buckets: int, length: int) -> Array:
    """Return the lengths of the buckets, which split the sequences evenly, ascending; the last one is `length`."""
    quantiles = np.quantile(lengths, np.arange(1, buckets) / buckets, method="higher")
    return np.unique(np.append(quantiles, length).astype(np.int64))
