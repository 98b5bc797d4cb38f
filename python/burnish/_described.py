"""Values that stand for what will be computed: what needs their numbers raises, and says what to write instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import _hints
from ._value import Value

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

__all__ = ["Described"]

_QUESTIONS = (np.shape, np.ndim)


class Described(Value):
    """The base of the values that a model is described with."""

    __slots__ = ()
    __hash__ = object.__hash__

    def numpy(self) -> npt.NDArray[Any]:
        """Raise: there are no numbers yet."""
        raise TypeError(_hints.ARRAY)

    def __bool__(self) -> bool:
        raise TypeError(_hints.TRUTH)

    def __float__(self) -> float:
        raise TypeError(_hints.NUMBER)

    def __int__(self) -> int:
        raise TypeError(_hints.NUMBER)

    def __complex__(self) -> complex:
        raise TypeError(_hints.NUMBER)

    def __index__(self) -> int:
        raise TypeError(_hints.PLACE)

    def __round__(self, digits: int | None = None) -> Value:
        raise TypeError(_hints.NUMBER)

    def __format__(self, specification: str) -> str:
        if specification:
            raise TypeError(_hints.NUMBER)
        return repr(self)

    def __len__(self) -> int:
        if not self.shape or self.shape[0] is None:
            raise TypeError(_hints.length(self.shape))
        return self.shape[0]

    def __contains__(self, element: Any) -> bool:
        raise TypeError(_hints.MEMBERSHIP)

    def __array_function__(self, function: Callable[..., Any], *_: Any) -> Any:
        """Refuse the functions of NumPy, but for questions about the shape."""
        if function in _QUESTIONS:
            return self.shape if function is np.shape else self.ndim
        raise TypeError(_hints.numpy_function(function.__name__))
