"""Where the time of an epoch goes."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Clock"]

T = TypeVar("T")


class Clock:
    """Adds up the seconds of one epoch by what they were spent on: "data", "engine", "validation"; "total" is all."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._spent = {"data": 0.0, "engine": 0.0, "validation": 0.0}

    def add(self, what: str, since: float) -> float:
        """Add the seconds since a moment, and return them."""
        seconds = time.perf_counter() - since
        self._spent[what] += seconds
        return seconds

    def waiting(self, pieces: Generator[T]) -> Generator[T]:
        """Give the pieces on, adding up how long they took to come as "data"; closing this closes them."""
        with closing(pieces):
            while True:
                since = time.perf_counter()
                piece = next(pieces, None)
                self.add("data", since)
                if piece is None:
                    return
                yield piece

    def seconds(self) -> dict[str, float]:
        """Return the seconds so far."""
        return {**self._spent, "total": time.perf_counter() - self._began}
