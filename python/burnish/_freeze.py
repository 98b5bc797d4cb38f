"""Which paths are frozen: globs in the order they were given, the last match decides."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeAlias

from ._errors import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Rules", "check", "is_frozen"]

Rules: TypeAlias = tuple[tuple[str, bool], ...]


def is_frozen(rules: Rules, path: str) -> bool:
    """Say whether a parameter or buffer is frozen."""
    return next((frozen for pattern, frozen in reversed(rules) if matches(pattern, path)), False)


def matches(pattern: str, path: str) -> bool:
    """Say whether a glob names this path or a layer above it."""
    parts = path.split(".")
    return any(fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))


def check(pattern: object, paths: Iterable[str]) -> None:
    """Raise unless the glob names something."""
    if not isinstance(pattern, str):
        raise TypeError(f"`pattern` must be a glob over paths, got {pattern!r}")
    paths = list(paths)
    if not any(matches(pattern, path) for path in paths):
        raise ValueError(f"`pattern` {pattern!r} matches no parameter; {nearest(pattern, paths)}")
