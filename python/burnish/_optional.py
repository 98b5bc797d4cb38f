"""Packages that burnish can use but does not need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["required"]


def required(module: str, extra: str) -> Any:
    """Import a package, or a module of one; where it is absent, say which extra of burnish brings it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name not in (package, module):
            raise  # it is there, and misses something itself
        raise ModuleNotFoundError(
            f"{package} is not installed: pip install 'burnish[{extra}]'", name=package
        ) from error
