"""Arrays that lie in a file: their rows are read from it, so that the mapping's pages do not fill the memory."""

from __future__ import annotations

import mmap
import os
import weakref
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from .arrays import Array

__all__ = ["FileRows", "file_rows"]

_SPREAD = 4  # a row that lies over more than so many times its own bytes is not read as one run
_MOST = 1 << 30  # bytes of one read, which systems limit
_SAMPLES = 8  # rows that are compared with the file


class FileRows:
    """Rows of an array, read from the file that it maps; each is one run of `span` bytes."""

    def __init__(self, array: Array, path: str, offset: int) -> None:
        self._dtype, self._shape, self._strides = array.dtype, array.shape, array.strides
        low, high = _reach(array)
        self._low, self._span, self._offset = low, high - low, offset
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._close = weakref.finalize(self, os.close, self._file)

    def read(self, rows: Array) -> Array:
        """Return some rows, at least one, as an array of their own."""
        bytes_read = np.empty(len(rows) * self._span, np.uint8)
        target = bytes_read.data
        starts = self._offset + self._low + rows * self._strides[0]
        if (starts[1:] - starts[:-1] == self._span).all():
            self._fill(target, int(starts[0]))
        else:
            order = np.argsort(starts, kind="stable")  # the file's order, which is kinder to disks
            self._fill_each(target, order.tolist(), starts[order].tolist())
        shape, strides = (len(rows), *self._shape[1:]), (self._span, *self._strides[1:])
        return np.ndarray(shape, self._dtype, target, -self._low, strides)

    def agrees(self, array: Array) -> bool:
        """Say whether some rows of the array are those of the file, which may have been replaced."""
        rows = np.unique(np.linspace(0, len(array) - 1, _SAMPLES).astype(np.int64))
        try:
            return self.read(rows).tobytes() == np.ascontiguousarray(array[rows]).tobytes()
        except EOFError:
            return False

    def close(self) -> None:
        """Close the file."""
        self._close()

    def _fill_each(self, target: memoryview, places: list[int], starts: list[int]) -> None:
        file, span = self._file, self._span
        for place, start in zip(places, starts, strict=True):
            part = target[place * span : place * span + span]
            if _read_at(file, part, start) < span:
                self._fill(part, start)

    def _fill(self, target: memoryview, start: int) -> None:
        done = 0
        while done < len(target):
            count = _read_at(self._file, target[done : done + _MOST], start + done)
            if count == 0:
                raise EOFError("the file of a memory-mapped array has become shorter")
            done += count


if hasattr(os, "preadv"):

    def _read_at(file: int, target: memoryview, start: int) -> int:
        return os.preadv(file, (target,), start)

else:

    def _read_at(file: int, target: memoryview, start: int) -> int:
        os.lseek(file, start, os.SEEK_SET)
        content = os.read(file, len(target))
        target[: len(content)] = content
        return len(content)


def file_rows(array: Array) -> FileRows | None:
    """Return what reads an array's rows from the file that it maps; None if it maps none, or cannot be read so.

    That is so for arrays whose rows are scattered (Fortran order), whose changes stay private (mode "c"), and whose
    file was deleted or replaced.
    """
    root = _root(array)
    if root is None or root.mode == "c" or root.filename is None or not array.size:
        return None
    low, high = _reach(array)
    if high - low > _SPREAD * (array.nbytes // len(array)):
        return None
    try:
        found = FileRows(array, os.fspath(root.filename), root.offset + _address(array) - _address(root))
    except OSError:
        return None
    if found.agrees(array):
        return found
    found.close()
    return None


def _root(array: Array) -> np.memmap[Any, Any] | None:
    """Return the array that was made of the mapping itself."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and isinstance(base.base, mmap.mmap):
            return cast("np.memmap[Any, Any]", base)
        base = base.base
    return None


def _reach(array: Array) -> tuple[int, int]:
    """Return from which byte to before which one a row extends, counted from its first element."""
    ends = [(length - 1) * stride for length, stride in zip(array.shape[1:], array.strides[1:], strict=True)]
    return sum(end for end in ends if end < 0), sum(end for end in ends if end > 0) + array.itemsize


def _address(array: Array) -> int:
    return array.__array_interface__["data"][0]
