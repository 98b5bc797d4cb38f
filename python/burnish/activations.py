"""The activations that layers take by name: every function of `ops.activations`, softmax and the identity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from . import ops
from ._errors import nearest

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._value import Value

__all__ = ["Activation", "known", "resolve"]

Activation: TypeAlias = "str | Callable[[Any], Value] | None"

_BY_NAME: dict[str, Callable[[Any], Value]] = {
    **{name: getattr(ops, name) for name in ops.activations.__all__},
    "exponential": ops.exp,
    "hard_swish": ops.hard_silu,
    "log_softmax": ops.log_softmax,
    "softmax": ops.softmax,
    "swish": ops.silu,
}
_IDENTITY = (None, "linear")
# What `linear` and `conv2d` apply themselves, in the same pass.
_FUSED = frozenset({"relu", "sigmoid", "tanh"})


def known() -> list[str]:
    """Return the names of all activations."""
    return sorted([*_BY_NAME, "linear"])


def resolve(activation: Activation) -> Callable[[Any], Value]:
    """Return the function that is meant by a name, a function or None."""
    if activation in _IDENTITY:
        return _identity
    if isinstance(activation, type):
        raise TypeError(f"`activation` must be a name, a function or None, got the class {activation.__name__}")
    if callable(activation):
        return activation
    if not isinstance(activation, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"`activation` must be a name, a function or None, got {activation!r}")
    if activation not in _BY_NAME:
        raise ValueError(f"`activation`: unknown name {activation!r}; {nearest(activation, known())}")
    return _BY_NAME[activation]


def fused(activation: Activation) -> str | None:
    """Return what to pass to `linear` or `conv2d`, or None if they cannot apply this activation themselves."""
    if activation in _IDENTITY:
        return "none"
    return activation if isinstance(activation, str) and activation in _FUSED else None


def _identity(x: Value) -> Value:
    return x
