"""Messages and argument checks: every error says the argument, what was expected and what came."""

from __future__ import annotations

import functools
import math
import numbers
import operator
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

__all__ = ["boolean", "choice", "hinted", "integer", "named", "nearest", "number", "path", "unknown"]

P = ParamSpec("P")
R = TypeVar("R")


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name is meant, or list them all."""
    import difflib

    known = sorted(known)
    short = [one for one in known if "_" in one and _initials(one) == name]
    plain = {_plain(one): one for one in known}
    given, initials = _plain(name), _initials(name)
    parts = sorted(
        (one for one in plain if given and (one in given or given in one)), key=lambda one: abs(len(one) - len(given))
    )
    close = parts or [initials] * (initials in plain) or difflib.get_close_matches(given, plain, n=1)
    meant = short or [plain[one] for one in close]
    return f"did you mean {meant[0]!r}?" if meant else f"known: {', '.join(known) or 'none'}"


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _initials(name: str) -> str:
    """Return the first letters of a name's words: "mse" for "mean_squared_error" and "MeanSquaredError"."""
    return "".join(re.findall(r"(?:^|(?<=_))[a-z]|[A-Z]", name)).lower()


def hinted(method: Callable[P, R]) -> Callable[P, R]:
    """Return a method that says of a keyword argument it does not have which one may be meant."""
    code: Any = method.__code__  # type: ignore[attr-defined]
    known: tuple[str, ...] = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]

    @functools.wraps(method)
    def checked(*arguments: P.args, **options: P.kwargs) -> R:
        for name in options:
            if name not in known:
                place = f"{method.__qualname__}() got an unexpected keyword argument {name!r}"
                raise TypeError(f"{place}; {nearest(name, known)}")
        return method(*arguments, **options)

    return checked


def unknown(argument: str, name: str, known: Iterable[str]) -> ValueError:
    """Build the error for a name that is not in the list."""
    return ValueError(f"`{argument}`: unknown name {name!r}; {nearest(name, known)}")


def choice(argument: str, value: object, known: Iterable[str]) -> str:
    """Return `value` if it is one of the known names."""
    if not isinstance(value, str):
        raise TypeError(f"`{argument}` must be a name ({', '.join(known)}), got {_shown(value)}")
    if value not in known:
        raise unknown(argument, value, known)
    return value


def boolean(argument: str, value: object) -> bool:
    """Return `value` if it is True or False."""
    if type(value) not in {bool, np.bool_}:
        raise TypeError(f"`{argument}` must be True or False, got {_shown(value)}")
    return bool(value)


def integer(argument: str, value: object, least: int, most: int = 2**63 - 1) -> int:
    """Return `value` as an int if it is a whole number in [least, most]."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"`{argument}` must be an integer of at least {least}, got {_shown(value)}")
    result = operator.index(value)
    if result < least:
        raise ValueError(f"`{argument}` must be an integer of at least {least}, got {_digits(result)}")
    if result > most:
        raise ValueError(f"`{argument}` must be an integer of at most {most}, got {_digits(result)}")
    return result


def path(argument: str, value: Any) -> str:
    """Return a path as text."""
    try:
        return os.fsdecode(value)
    except TypeError:
        raise TypeError(f"`{argument}` must be a path, got {_shown(value)}") from None


def number(
    argument: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
) -> float:
    """Return `value` as a float if it is finite and in [low, high]; `above`, `below` leave the end out."""
    wanted = _interval(low, high, above=above, below=below)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{argument}` must be a number{wanted}, got {_shown(value)}")
    try:
        result = float(value)
    except OverflowError:
        raise ValueError(f"`{argument}` must be a finite number{wanted}, got one that no float holds") from None
    inside = (low < result if above else low <= result) and (result < high if below else result <= high)
    if not math.isfinite(result) or not inside:
        raise ValueError(f"`{argument}` must be a finite number{wanted}, got {result}")
    return result


@contextmanager
def named(place: str) -> Generator[None]:
    """Say which argument or batch an error is about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{place}: {error}") from error


def _interval(low: float, high: float, *, above: bool, below: bool) -> str:
    if low == -math.inf and high == math.inf:
        return ""
    if high == math.inf:
        return f" {'greater than' if above else 'of at least'} {low:g}"
    return f" in {'(' if above else '['}{low:g}, {high:g}{')' if below else ']'}"


def _digits(value: int) -> str:
    return str(value) if value.bit_length() <= 128 else f"one of {value.bit_length()} bits"


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
