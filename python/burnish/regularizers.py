"""Penalties on the size of parameters, added to the loss: names such as "l2", or objects where a number is to be given.

A layer takes one as `kernel_regularizer` and so on, a layer of your own as `regularizer` of `parameter`, and any other
penalty by `add_loss`. Unlike weight decay, which an optimizer may apply past its moments, a penalty is part of the
loss: of its value in `fit` and `evaluate`, and of its gradient, exactly as if written into the loss function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

from . import ops
from ._errors import nearest, number

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._value import Value

__all__ = ["L1", "L1L2", "L2", "Regularizer"]


class L1L2:
    """l1 · Σ|p| + l2 · Σp² (both: the elastic net, Zou and Hastie 2005).

    Parameters
    ----------
    l1, l2 : float, default 0
        The factors. (Keras's name "l1_l2" has 0.01 for both.)
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1 = number("l1", l1, 0)
        self.l2 = number("l2", l2, 0)

    def __call__(self, parameter: Value) -> Value:
        """Return the penalty, a value without axes."""
        parts = [
            factor * ops.sum(function(parameter))
            for factor, function in ((self.l1, ops.abs), (self.l2, ops.square))
            if factor
        ]
        return sum(parts[1:], parts[0]) if parts else 0.0 * ops.sum(parameter)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(l1={self.l1}, l2={self.l2})"


class L1(L1L2):
    """l1 · Σ|p|, which drives parameters to exactly 0 (Tibshirani 1996); default 0.01, as in Keras."""

    def __init__(self, l1: float = 0.01) -> None:
        super().__init__(l1=l1)


class L2(L1L2):
    """l2 · Σp² (not halved), which keeps parameters small; default 0.01, as in Keras."""

    def __init__(self, l2: float = 0.01) -> None:
        super().__init__(l2=l2)


Regularizer: TypeAlias = "L1L2 | Callable[[Value], Value]"

BY_NAME: dict[str, Callable[[], Regularizer]] = {"l1": L1, "l2": L2, "l1_l2": lambda: L1L2(0.01, 0.01)}


def resolve(argument: str, regularizer: Any) -> Regularizer | None:
    """Return the penalty that is meant by a name or a function of a parameter."""
    if regularizer is None:
        return None
    if isinstance(regularizer, str):
        if regularizer not in BY_NAME:
            raise ValueError(f"`{argument}`: unknown name {regularizer!r}; {nearest(regularizer, BY_NAME)}")
        return BY_NAME[regularizer]()
    if callable(regularizer) and not isinstance(regularizer, type):
        return cast("Regularizer", regularizer)
    raise TypeError(f"`{argument}` must be a name or one of bn.regularizers, got {regularizer!r}")
