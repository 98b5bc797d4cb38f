"""Packages that burnish can use but does not need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["required"]


def required(module: str, extra: str) -> Any:
    """Import a package; where it is absent, say which extra of burnish brings it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ModuleNotFoundError(f"{module} is not installed: pip install burnish[{extra}]", name=module) from error
