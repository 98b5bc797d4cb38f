"""Functions of two values with NumPy's broadcasting, comparisons and choices."""

from __future__ import annotations

from .._errors import choice
from .._value import Operand, Value, apply, binary, kind_of
from .._value import cast as _cast

__all__ = [
    "add",
    "cast",
    "divide",
    "equal",
    "floor_divide",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "logaddexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "mod",
    "multiply",
    "not_equal",
    "power",
    "subtract",
    "where",
]


def add(a: Operand, b: Operand) -> Value:
    """Return a + b."""
    return binary("add", a, b)


def subtract(a: Operand, b: Operand) -> Value:
    """Return a - b."""
    return binary("subtract", a, b)


def multiply(a: Operand, b: Operand) -> Value:
    """Return a · b."""
    return binary("multiply", a, b)


def divide(a: Operand, b: Operand) -> Value:
    """Return a / b as a float."""
    return binary("divide", a, b, floating=True)


def floor_divide(a: Operand, b: Operand) -> Value:
    """Return the greatest whole number not above a / b, also written `a // b`; integers (up to 2^24) give integers.

    Of floats it is exact while |a / b| is below 2^24 (in float32), and fits `mod`.
    """
    return _divided(a, b)[0]


def mod(a: Operand, b: Operand) -> Value:
    """Return a - b · floor(a / b), also written `a % b`: what is left, with the sign of b.

    The quotient is exact while |a / b| is below 2^24 (in float32). Of an infinite b it is a, or b where the signs
    differ. The slope of a is 1 and that of b -floor(a / b).
    """
    return _divided(a, b)[1]


def _divided(a: Operand, b: Operand) -> tuple[Value, Value]:
    """Return floor(a / b) and what is left."""
    quotient = apply("floor", divide(a, b))
    if "float" not in {kind_of(a), kind_of(b)}:
        quotient = _cast(quotient, "int")
        return quotient, subtract(a, multiply(b, quotient))
    a, b = _cast(a, "float"), _cast(b, "float")
    product = where(equal(quotient, 0.0), quotient, multiply(b, quotient))  # an infinite b times 0 is NaN
    rest = subtract(a, product)
    # a / b is rounded before its floor is taken, so that the quotient can be one too large or too small.
    over = logical_and(not_equal(rest, 0.0), not_equal(less(rest, 0.0), less(b, 0.0)))
    under = greater_equal(apply("abs", rest), apply("abs", b))
    quotient = where(over, subtract(quotient, 1.0), where(under, add(quotient, 1.0), quotient))
    return quotient, where(over, add(rest, b), where(under, subtract(rest, b), rest))


def power(a: Operand, b: Operand) -> Value:
    """Return a^b as a float."""
    return binary("power", a, b, floating=True)


def maximum(a: Operand, b: Operand) -> Value:
    """Return the larger of a and b, element by element."""
    return binary("maximum", a, b)


def minimum(a: Operand, b: Operand) -> Value:
    """Return the smaller of a and b, element by element."""
    return binary("minimum", a, b)


def logaddexp(a: Operand, b: Operand) -> Value:
    """Return log(e^a + e^b) without overflow, of finite numbers."""
    apart = apply("neg", apply("abs", binary("subtract", a, b, floating=True)))
    return binary("add", maximum(a, b), apply("softplus", apart))


def equal(a: Operand, b: Operand) -> Value:
    """Return whether a = b, element by element."""
    return binary("equal", a, b)


def not_equal(a: Operand, b: Operand) -> Value:
    """Return whether a differs from b, element by element."""
    return binary("not_equal", a, b)


def greater(a: Operand, b: Operand) -> Value:
    """Return whether a > b, element by element."""
    return binary("greater", a, b)


def greater_equal(a: Operand, b: Operand) -> Value:
    """Return whether a ≥ b, element by element."""
    return binary("greater_equal", a, b)


def less(a: Operand, b: Operand) -> Value:
    """Return whether a < b, element by element."""
    return binary("less", a, b)


def less_equal(a: Operand, b: Operand) -> Value:
    """Return whether a ≤ b, element by element."""
    return binary("less_equal", a, b)


def logical_and(a: Operand, b: Operand) -> Value:
    """Return whether both hold, element by element."""
    return apply("logical_and", _cast(a, "bool"), _cast(b, "bool"))


def logical_or(a: Operand, b: Operand) -> Value:
    """Return whether either holds, element by element."""
    return apply("logical_or", _cast(a, "bool"), _cast(b, "bool"))


def logical_xor(a: Operand, b: Operand) -> Value:
    """Return whether one of both holds and the other does not, element by element."""
    return binary("not_equal", _cast(a, "bool"), _cast(b, "bool"))


def logical_not(x: Operand) -> Value:
    """Return whether x does not hold, element by element."""
    return apply("logical_not", _cast(x, "bool"))


def where(condition: Operand, a: Operand, b: Operand) -> Value:
    """Return a where the condition holds and b elsewhere."""
    kind = "float" if "float" in (kind_of(a), kind_of(b)) else "int"
    return apply("where", _cast(condition, "bool"), _cast(a, kind), _cast(b, kind))


def cast(x: Operand, kind: str) -> Value:
    """Return x as "float" (the model's precision), "int" (32 bits, cut towards zero) or "bool" (not zero)."""
    return apply("cast", x, kind=choice("kind", kind, ("float", "int", "bool")))
