"""Sums of products over named axes."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from .._value import Operand, Shape, Value, binary, cast, shape_of
from .reduction import reduce
from .shaping import reshape, transpose

__all__ = ["einsum"]

_FORM = re.compile(r"([a-zA-Z]*)(?:,([a-zA-Z]*))?->([a-zA-Z]*)")


def einsum(equation: str, a: Operand, b: Operand | None = None) -> Value:
    """Return the sum of products that letters for axes describe (Einstein's notation), as NumPy's `einsum`.

    `"bij,bjk->bik"` multiplies matrices, `"bi,bj->bij"` is the outer product. Of NumPy's forms these are left out: a
    letter twice in one operand (`"bii->bi"`), a result that is not named (no `->`), `...`, more than two operands.

    Raises
    ------
    ValueError
        If the letters do not fit the axes, or one letter has two lengths.

    Examples
    --------
    >>> import numpy as np
    >>> import burnish as bn
    >>> bn.ops.einsum("bqd,bkd->bqk", np.ones((2, 3, 4)), np.ones((2, 5, 4))).shape
    (2, 3, 5)
    """
    left, right, result = _parsed(equation, two=b is not None)
    lengths = _lengths(equation, [(left, shape_of(a))] + ([] if b is None else [(right, shape_of(b))]))
    first = _summed(_Named(cast(a, "float"), left), right + result)
    if b is None:
        return _ordered(first, result)
    second = _summed(_Named(cast(b, "float"), right), left + result)
    return _ordered(_product(first, second, result, lengths), result)


class _Named(NamedTuple):
    """A value and a letter for each of its axes."""

    value: Value
    letters: str


def _parsed(equation: str, *, two: bool) -> tuple[str, str, str]:
    match = _FORM.fullmatch(equation.replace(" ", ""))
    if match is None or (match[2] is not None) != two:
        wanted = "'ab,bc->ac'" if two else "'ab->ba'"
        raise ValueError(f"`equation` must have the form {wanted}, letters for axes, got {equation!r}")
    left, right, result = match[1], match[2] or "", match[3]
    for letters in (left, right, result):
        if len(set(letters)) < len(letters):
            raise ValueError(f"`equation` {equation!r} has a letter twice in {letters!r}")
    unknown = set(result) - set(left + right)
    if unknown:
        raise ValueError(f"`equation` {equation!r}: no operand has the axis {min(unknown)!r} of the result")
    return left, right, result


def _lengths(equation: str, operands: list[tuple[str, Shape]]) -> dict[str, int | None]:
    lengths: dict[str, int | None] = {}
    for letters, shape in operands:
        if len(letters) != len(shape):
            raise ValueError(
                f"`equation` {equation!r} names {len(letters)} axes {letters!r} of a value of shape {shape}"
            )
        for letter, length in zip(letters, shape, strict=True):
            if lengths.setdefault(letter, length) != length:
                raise ValueError(f"`equation` {equation!r}: axis {letter!r} has lengths {lengths[letter]} and {length}")
    return lengths


def _summed(operand: _Named, kept: str) -> _Named:
    """Sum over the axes that nobody else names."""
    axes = [axis for axis, letter in enumerate(operand.letters) if letter not in kept]
    if not axes:
        return operand
    letters = "".join(letter for letter in operand.letters if letter in kept)
    return _Named(reduce("sum", operand.value, axes, keepdims=False), letters)


def _product(a: _Named, b: _Named, result: str, lengths: dict[str, int | None]) -> _Named:
    """Multiply as matrices: axes that both have and keep lead, those that are summed over are one axis."""
    both = "".join(letter for letter in a.letters if letter in b.letters and letter in result)
    inner = "".join(letter for letter in a.letters if letter in b.letters and letter not in result)
    rows, columns = ("".join(n for n in part.letters if n not in both + inner) for part in (a, b))
    left = _grouped(a, both, rows, inner, lengths)
    right = _grouped(b, both, inner, columns, lengths)
    product = binary("matmul", left, right)
    letters = both + rows + columns
    return _Named(reshape(product, [lengths[letter] for letter in letters]), letters)


def _grouped(operand: _Named, both: str, first: str, second: str, lengths: dict[str, int | None]) -> Value:
    """Return the value with shape (both…, first, second), each group of letters as one axis."""
    value = _ordered(operand, both + first + second)
    groups = [*([lengths[letter]] for letter in both), *([lengths[n] for n in group] for group in (first, second))]
    return reshape(value, [_together(group) for group in groups])


def _together(group: list[int | None]) -> int | None:
    known = [length for length in group if length is not None]
    return math.prod(known) if len(known) == len(group) else None


def _ordered(operand: _Named, letters: str) -> Value:
    if operand.letters == letters:
        return operand.value
    return transpose(operand.value, [operand.letters.index(letter) for letter in letters])
