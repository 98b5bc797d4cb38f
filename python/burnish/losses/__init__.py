"""Losses: functions `(target, prediction) -> value per sample`, shape `(batch,)`.

A model takes them by name, as a class with arguments, or as any function of this form made of `bn.ops`; what has more
than one axis is averaged over the others. Predictions of the cross entropies are logits: no softmax or sigmoid before.
"""

from __future__ import annotations

from typing import Any, cast

from .._errors import nearest
from . import classification, regression, sequence, similarity
from .base import Loss as Loss
from .base import LossFunction as LossFunction
from .base import check_single as check_single
from .base import per_sample as per_sample
from .base import same_shape as same_shape
from .base import show as show
from .classification import *  # noqa: F403
from .regression import *  # noqa: F403
from .sequence import *  # noqa: F403
from .similarity import *  # noqa: F403

__all__ = ["Loss"]
__all__ += classification.__all__
__all__ += regression.__all__
__all__ += sequence.__all__
__all__ += similarity.__all__

BY_NAME: dict[str, LossFunction] = {
    name: getattr(family, name)
    for family in (classification, regression, sequence, similarity)
    for name in family.__all__
    if name.islower()
}


def resolve(loss: Any) -> LossFunction:
    """Return the function that is meant by a name, a class or a function."""
    if isinstance(loss, str):
        if loss not in BY_NAME:
            raise ValueError(f"`loss`: unknown name {loss!r}; {nearest(loss, BY_NAME)}")
        return BY_NAME[loss]
    if isinstance(loss, type) and not issubclass(loss, Loss):
        raise TypeError(f"`loss` must be a name or a function, got the class {loss.__name__}: give an object of it")
    given = cast("Any", loss() if isinstance(loss, type) else loss)
    if not callable(given):
        raise TypeError(f"`loss` must be a name or a function (target, prediction) -> value per sample, got {loss!r}")
    return cast("LossFunction", given)
