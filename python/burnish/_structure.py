"""Several arrays in one argument: a leaf, a tuple of leaves, or a dict of leaves, with a name for each leaf."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "Structure",
    "by_name",
    "flatten",
    "from_plain",
    "is_dict",
    "is_sequence",
    "mapped",
    "skeleton",
    "suffix",
    "to_plain",
    "unflatten",
]

T = TypeVar("T")
U = TypeVar("U")

Structure: TypeAlias = T | tuple[T, ...] | dict[str, T]


def is_dict(value: object) -> TypeGuard[dict[Any, Any]]:
    """Say whether a value is a dict."""
    return isinstance(value, dict)


def is_sequence(value: object) -> TypeGuard[tuple[Any, ...] | list[Any]]:
    """Say whether a value is a tuple or a list."""
    return isinstance(value, (tuple, list))


def flatten(name: str, structure: Structure[T]) -> dict[str, T]:
    """Name the leaves: `x`, or `x.0`, `x.1`, or `x.<key>`."""
    value: Any = structure
    if is_dict(value):
        return {f"{name}.{key}": leaf for key, leaf in value.items()}
    if isinstance(value, tuple):
        return {f"{name}.{index}": leaf for index, leaf in enumerate(_items(value))}
    return {name: value}


def skeleton(name: str, structure: Structure[Any]) -> Structure[str]:
    """Return the same structure with the leaves' names as leaves."""
    names = list(flatten(name, structure))
    value: Any = structure
    if is_dict(value):
        return dict(zip(value, names, strict=True))
    return tuple(names) if isinstance(value, tuple) else name


def unflatten(names: Structure[str], leaves: Mapping[str, T]) -> Structure[T]:
    """Put named leaves back into the structure of their names."""
    return mapped(lambda name: leaves[name], names)


def mapped(function: Callable[[T], U], structure: Structure[T]) -> Structure[U]:
    """Apply a function to every leaf."""
    value: Any = structure
    if is_dict(value):
        return {key: function(leaf) for key, leaf in value.items()}
    if isinstance(value, tuple):
        return tuple(function(leaf) for leaf in _items(value))
    return function(value)


def _items(value: Any) -> tuple[Any, ...]:
    return value


def by_name(names: list[str], x: Any) -> dict[str, Any]:
    """Return the values of several inputs as a dict in their order, from a dict or by position."""
    if is_dict(x):
        if set(x) != set(names):
            raise ValueError(f"`x` must hold the inputs {', '.join(names)}, got {', '.join(map(str, x))}")
        return {name: x[name] for name in names}
    if not is_sequence(x) or len(x) != len(names):
        got = f"{len(x)} of them" if is_sequence(x) else type(x).__name__
        raise ValueError(f"`x` must be a tuple or dict of {len(names)} arrays ({', '.join(names)}), got {got}")
    return dict(zip(names, x, strict=True))


def suffix(name: str) -> str:
    """Return what follows the argument's name: `x.age` -> `age`, `x` -> ``."""
    return name.partition(".")[2]


def to_plain(names: Structure[str]) -> Any:
    """Return the structure of names as JSON can hold it: a string, a list or an object."""
    return list(names) if isinstance(names, tuple) else names


def from_plain(plain: Any) -> Structure[str]:
    """Undo `to_plain`, checking what came."""
    structure: Structure[Any] = tuple(plain) if is_sequence(plain) else plain
    if not all(isinstance(leaf, str) for leaf in flatten("", structure).values()):
        raise ValueError("the file is damaged: a name is not a string")
    return structure
