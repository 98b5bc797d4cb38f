"""Iterables of batches that are read ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._errors import integer
from .._feed.prefetch import prefetched

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["prefetch"]

_PATIENCE = 1.0  # seconds for a batch that is being read when nobody wants it any more


def prefetch(batches: Any, ahead: int = 2) -> Any:
    """Return an iterable of batches that a thread reads ahead while the model trains.

    `fit` reads an iterable batch by batch, in its own thread, as it is needed. This moves the reading to another thread
    and some batches ahead, which the iterable has to bear: it must not depend on its thread, nor on what callbacks do
    between two batches. What it raises is raised at its batch. Of an iterator, which can be read only once, more are
    taken than are used if the fit ends early.

    Parameters
    ----------
    batches : iterable
        As `fit`, `evaluate` and `predict` take it.
    ahead : int, default 2
        How many batches wait to be used at most.

    Examples
    --------
    >>> import numpy as np
    >>> import burnish as bn
    >>> class Batches:
    ...     def __iter__(self):
    ...         for seed in range(5):
    ...             x = np.random.default_rng(seed).normal(size=(32, 2))
    ...             yield x, x[:, :1] * x[:, 1:]
    >>> model = bn.Sequential([bn.layers.Dense(8, "tanh"), bn.layers.Dense(1)])
    >>> model.compile("mse")
    >>> len(model.fit(bn.data.prefetch(Batches()), epochs=3, verbose=0).steps["loss"])
    15
    """
    if not hasattr(batches, "__iter__"):
        raise TypeError(f"`batches` must be an iterable of batches, got {type(batches).__name__}")
    ahead = integer("ahead", ahead, 1)
    if iter(batches) is batches:
        return prefetched(lambda: batches, ahead, patience=_PATIENCE)
    return (_Sized if hasattr(batches, "__len__") else _Prefetched)(batches, ahead)


class _Prefetched:
    """What is read anew, and ahead, each time it is iterated over."""

    def __init__(self, batches: Any, ahead: int) -> None:
        self._batches, self._ahead = batches, ahead

    def __iter__(self) -> Generator[Any]:
        return prefetched(lambda: iter(self._batches), self._ahead, patience=_PATIENCE)


class _Sized(_Prefetched):
    def __len__(self) -> int:
        return len(self._batches)
