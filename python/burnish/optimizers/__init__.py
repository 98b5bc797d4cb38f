"""Optimizers: which rule, with which numbers. The engine holds the rules; numbers mean what they mean in PyTorch.

A model takes a name ("sgd", "adam", "lbfgs", …: the class's in small letters), which stands for the defaults, or one of
these objects. In the formulas p is a parameter, g its gradient, t = 1, 2, … the count of its updates, b1 and b2 are
`betas`. `weight_decay` applies to kernels and embeddings only (see `decay_roles` of `compile`); coupled decay adds
weight_decay · p to g before anything else.
"""

from __future__ import annotations

from typing import Any

from .._errors import nearest
from .adam import LAMB, Adam, Adamax, AdamW, NAdam, RAdam
from .adaptive import Adadelta, Adafactor, Adagrad, RMSprop
from .base import Optimizer
from .descent import ASGD, LARS, SGD, Lion, Muon, Rprop
from .lbfgs import LBFGS

__all__ = [
    "ASGD",
    "LAMB",
    "LARS",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
]

BY_NAME: dict[str, type[Any]] = {
    cls.name: cls
    for cls in (
        SGD,
        Adam,
        AdamW,
        RMSprop,
        Adagrad,
        Adadelta,
        NAdam,
        RAdam,
        Adamax,
        Lion,
        LAMB,
        LARS,
        Adafactor,
        Muon,
        Rprop,
        ASGD,
        LBFGS,
    )
}


def resolve(optimizer: Any) -> Optimizer:
    """Return the optimizer that is meant by a name, a class or an object."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, str):
        if optimizer not in BY_NAME:
            raise ValueError(f"`optimizer`: unknown name {optimizer!r}; {nearest(optimizer, BY_NAME)}")
        return BY_NAME[optimizer]()
    if isinstance(optimizer, type) and optimizer in BY_NAME.values():
        return optimizer()
    raise TypeError(f"`optimizer` must be a name or one of bn.optimizers, got {optimizer!r}")
