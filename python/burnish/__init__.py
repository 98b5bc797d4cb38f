"""burnish trains neural networks from NumPy arrays: `compile`, `fit`, done.

>>> import numpy as np
>>> import burnish as bn
>>> x = np.random.default_rng(0).normal(size=(256, 2))
>>> model = bn.Sequential([bn.layers.Dense(8, activation="tanh"), bn.layers.Dense(1)])
>>> model.compile(loss="mse", optimizer="adam", learning_rate=0.05)
>>> history = model.fit(x, x[:, :1] * x[:, 1:], epochs=50, verbose=0)
>>> history.history["loss"][-1] < 0.05
True
"""

from . import (
    callbacks,
    data,
    initializers,
    layers,
    losses,
    metrics,
    ops,
    optimizers,
    regularizers,
    schedules,
    tuning,
)
from ._device import devices
from ._precision import LossScale
from ._profile import profile
from .doctor import Doctor
from .functional import Input
from .gradients import check_gradients, gradients
from .history import History
from .loaded import load
from .model import Model
from .param_groups import ParamGroup
from .sequential import Sequential
from .tensor import Tensor, from_dlpack
from .tuning import Ensemble

__all__ = [
    "Doctor",
    "Ensemble",
    "History",
    "Input",
    "LossScale",
    "Model",
    "ParamGroup",
    "Sequential",
    "Tensor",
    "callbacks",
    "check_gradients",
    "data",
    "devices",
    "from_dlpack",
    "gradients",
    "initializers",
    "layers",
    "load",
    "losses",
    "metrics",
    "ops",
    "optimizers",
    "profile",
    "regularizers",
    "schedules",
    "tuning",
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("burnish")
    raise AttributeError(f"module 'burnish' has no attribute {name!r}")
