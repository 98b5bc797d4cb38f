"""Which layers compute their activations again in the backward pass instead of keeping them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ._errors import nearest
from ._structure import is_sequence
from .layers.base import layer_paths

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._burnish import Program
    from ._runtime import Core

__all__ = ["chosen_layers", "resolve"]


def resolve(checkpoint_activations: Any, core: Core) -> bool | list[str]:
    """Return True, False or the globs, each of which names a layer of the model."""
    if isinstance(checkpoint_activations, bool):
        return checkpoint_activations
    several = list(checkpoint_activations) if is_sequence(checkpoint_activations) else [checkpoint_activations]
    known = _known_layers(core)
    for pattern in several:
        if not isinstance(pattern, str):
            raise TypeError(
                f"`checkpoint_activations` must be True, False, or globs over layers' paths, got {pattern!r}"
            )
        if not any(fnmatchcase(path, pattern) for path in known):
            raise ValueError(f"`checkpoint_activations`: {pattern!r} matches no layer; {nearest(pattern, known)}")
    return several


def chosen_layers(program: Program, globs: list[str]) -> list[str]:
    """Return the paths of the outermost layers that the globs match."""
    chosen: list[str] = []
    for path in sorted(_scopes(program)):
        if any(fnmatchcase(path, pattern) for pattern in globs) and not _inside(path, chosen):
            chosen.append(path)
    return chosen


def _known_layers(core: Core) -> set[str]:
    known = {path for path in layer_paths(core.model).values() if path}
    return known if core.runtime is None else known | _scopes(core.runtime.built.program)


def _scopes(program: Program) -> set[str]:
    """Return the paths of the layers that emit nodes and of those around them."""
    parts = [scope.split(".") for scope in {scope for scope, *_ in program.nodes()} if scope]
    return {".".join(names[:end]) for names in parts for end in range(1, len(names) + 1)}


def _inside(path: str, layers: Iterable[str]) -> bool:
    return any(path.startswith(f"{layer}.") for layer in layers)
