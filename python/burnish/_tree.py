"""Nested plain data with arrays in it: JSON for the one, arrays by name for the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from ._feed.arrays import as_array
from ._structure import is_dict, is_sequence

if TYPE_CHECKING:
    from ._feed.arrays import Array

    _Way: TypeAlias = "tuple[str] | tuple[_Way, str | int]"  # a place: where one came from, and the key there

__all__ = ["pack", "unpack"]

_PLAIN = (str, bool, int, float, type(None))
_PLAIN_TYPES = frozenset(_PLAIN)


def pack(tree: Any, name: str) -> tuple[Any, dict[str, Array]]:
    """Return the tree with None for arrays, and these by where they stood: `<name>/key/0` (RFC 6901).

    Dicts have strings for keys; tuples become lists and NumPy's numbers Python's.

    Raises
    ------
    TypeError
        For anything else, naming its place.
    """
    arrays: dict[str, Array] = {}
    return _packed(tree, (name,), arrays), arrays


def unpack(tree: Any, arrays: dict[str, Array], name: str) -> Any:
    """Put arrays back where they stood."""
    for place, array in arrays.items():
        if place == name:
            return array
        if place.startswith(f"{name}/"):
            *way, last = (_unescaped(key) for key in place.removeprefix(f"{name}/").split("/"))
            parent = tree
            for key in way:
                parent = parent[_key(parent, key)]
            parent[_key(parent, last)] = array
    return tree


def _packed(value: Any, way: _Way, arrays: dict[str, Array]) -> Any:
    if type(value) in _PLAIN_TYPES:
        return value  # most are such, and a checkpoint has many
    if isinstance(value, np.ndarray):
        name = _name(way)
        arrays[name] = _numbers(cast("Array", value), name)
        return None
    if isinstance(value, np.generic):
        return _packed(cast("Any", value).item(), way, arrays)
    if is_dict(value) and all(isinstance(key, str) for key in value):
        return {key: _packed(item, (way, key), arrays) for key, item in value.items()}
    if is_sequence(value):
        plain = _PLAIN_TYPES.issuperset(map(type, value))  # likewise
        return [*value] if plain else [_packed(item, (way, at), arrays) for at, item in enumerate(value)]
    if isinstance(value, _PLAIN):
        return value
    raise TypeError(
        f"{_name(way)} must hold numbers, strings, None, arrays of numbers, and lists or dicts (by strings) of these, "
        f"got {type(value).__name__}"
    )


def _name(way: _Way) -> str:
    return way[0] if len(way) == 1 else f"{_name(way[0])}/{_escaped(str(way[1]))}"


def _numbers(array: Array, name: str) -> Array:
    if type(array) is np.ndarray and array.dtype.kind in "biuf" and array.dtype.itemsize <= 8:
        return array  # most are such, and a checkpoint has many
    return as_array(array, name) if array.ndim else as_array(array[None], name)[0, ...]


def _key(parent: Any, key: str) -> str | int:
    return int(key) if isinstance(parent, list) else key


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _unescaped(key: str) -> str:
    return key.replace("~1", "/").replace("~0", "~")
