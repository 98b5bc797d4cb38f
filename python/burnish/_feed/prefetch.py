"""One thread that reads ahead while others compute."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

__all__ = ["NAME", "prefetched"]

T = TypeVar("T")

NAME = "burnish-reader"
_BEAT = 0.2  # seconds after which a wait looks around: elsewhere than on POSIX, Ctrl-C does not end one


class _End(NamedTuple):
    """What the thread hands over last: what it raised, or None after the last item."""

    error: BaseException | None


def prefetched(items: Callable[[], Iterator[T]], depth: int, *, patience: float | None = None) -> Generator[T]:
    """Give the items on while a thread reads up to `depth` of them ahead.

    What the thread raises is raised at its place among the items. When this generator ends or is closed, the thread
    closes the iterator and ends; it is waited for, at most `patience` seconds if that is not None.
    """
    handed: queue.Queue[Any] = queue.Queue(depth)
    stop = threading.Event()
    thread = threading.Thread(target=_work, args=(items, handed, stop), name=NAME, daemon=True)
    thread.start()
    try:
        while True:
            item = _next(handed, thread)
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
            del item  # while the next one is waited for
    finally:
        item = None  # no cycle of the exception and this frame
        stop.set()
        _drain(handed)
        thread.join(patience)


def _work(items: Callable[[], Iterator[Any]], handed: queue.Queue[Any], stop: threading.Event) -> None:
    error: BaseException | None = None
    iterator: Any = None
    try:
        iterator = items()
        for item in iterator:
            if not _hand(handed, item, stop):
                break
    except BaseException as raised:
        error = raised
    try:
        if hasattr(iterator, "close"):
            iterator.close()
    except BaseException as raised:
        error = error or raised
    del iterator
    _hand(handed, _End(error), stop)


def _hand(handed: queue.Queue[Any], item: Any, stop: threading.Event) -> bool:
    """Hand an item over when there is room; say whether anybody still wants it."""
    while not stop.is_set():
        with suppress(queue.Full):
            handed.put(item, timeout=_BEAT)
            return True
    return False


def _next(handed: queue.Queue[Any], thread: threading.Thread) -> Any:
    while True:
        with suppress(queue.Empty):
            return handed.get(timeout=_BEAT)
        if not thread.is_alive() and handed.empty():
            raise RuntimeError("the thread that reads the data is gone: a fork of the process does not have it")


def _drain(handed: queue.Queue[Any]) -> None:
    """Make room, so that a thread that waits to hand over wakes up at once."""
    with suppress(queue.Empty):
        while True:
            handed.get_nowait()
