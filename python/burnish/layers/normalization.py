"""Normalisation layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import ops
from .._errors import boolean, integer, number
from ..losses import show
from .base import OneInput

if TYPE_CHECKING:
    import numpy.typing as npt

    from .._value import Value

__all__ = ["BatchNorm", "GroupNorm", "LayerNorm", "Normalization", "RMSNorm"]


class BatchNorm(OneInput):
    """(x - mean) / sqrt(variance + epsilon) · scale + offset, per feature of the last axis (Ioffe and Szegedy 2015).

    In training, mean and biased variance are those of the micro-batch; the buffers `moving_mean` and `moving_variance`
    then move to momentum · old + (1 - momentum) · new, with the unbiased variance. Otherwise, and when the layer is
    frozen, the buffers are used.

    Parameters
    ----------
    momentum : float in [0, 1], default 0.9
        The part of the old statistics that is kept. (PyTorch's momentum is 1 minus this; Keras's default is 0.99.)
    epsilon : float, default 1e-5
        Added to the variance. (Keras: 1e-3.)
    center, scale : bool, default True
        Whether there is an `offset`, a `scale`.
    """

    def __init__(
        self,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.momentum = number("momentum", momentum, 0, 1)
        self.epsilon = number("epsilon", epsilon, 0)
        self.center = boolean("center", center)
        self.scale = boolean("scale", scale)

    def call(self, x: Any, *, training: bool = False) -> Value:
        """Compute the layer's value."""
        shape = (x.shape[-1],)
        moving_mean = self.buffer("moving_mean", shape, "zeros")
        moving_variance = self.buffer("moving_variance", shape, "ones")
        factor = self.parameter("scale", shape, "ones", role="scale") if self.scale else np.ones(shape)
        offset = self.parameter("offset", shape, "zeros", role="bias") if self.center else np.zeros(shape)
        of_batch = training and not self._frozen()
        mean, variance = self._observed(x, moving_mean, moving_variance) if of_batch else (moving_mean, moving_variance)
        return ops.batch_norm(x, mean, variance, factor, offset, eps=self.epsilon, of_batch=of_batch)

    def _frozen(self) -> bool:
        names = [name for name, there in (("scale", self.scale), ("offset", self.center)) if there]
        return self.is_frozen(*(names or ["moving_mean"]))

    def _observed(self, x: Any, moving_mean: Value, moving_variance: Value) -> tuple[Value, Value]:
        """Return the batch's mean and variance, and let the buffers move to them."""
        moments, keep = ops.moments(x), self.momentum
        mean, variance, unbiased = moments[0], moments[1], moments[2]
        self.assign("moving_mean", keep * moving_mean + (1 - keep) * mean)
        self.assign("moving_variance", keep * moving_variance + (1 - keep) * unbiased)
        return mean, variance


class LayerNorm(OneInput):
    """(x - mean) / sqrt(variance + epsilon) · scale + offset, statistics over the last axis (Ba et al. 2016).

    Parameters
    ----------
    epsilon : float, default 1e-5
        Added to the variance. (Keras: 1e-3.)
    """

    def __init__(self, *, epsilon: float = 1e-5, name: str | None = None) -> None:
        super().__init__(name)
        self.epsilon = number("epsilon", epsilon, 0)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        shape = (x.shape[-1],)
        factor = self.parameter("scale", shape, "ones", role="scale")
        offset = self.parameter("offset", shape, "zeros", role="bias")
        return ops.layer_norm(x, factor, offset, self.epsilon)


class RMSNorm(OneInput):
    """x / sqrt(mean of x² + epsilon) · scale, the mean over the last axis (Zhang and Sennrich 2019).

    Parameters
    ----------
    epsilon : float, default 1e-5
        Added to the mean square. (Keras: 1e-6.)
    """

    def __init__(self, *, epsilon: float = 1e-5, name: str | None = None) -> None:
        super().__init__(name)
        self.epsilon = number("epsilon", epsilon, 0)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        factor = self.parameter("scale", (x.shape[-1],), "ones", role="scale")
        return x * ops.rsqrt(ops.mean(ops.square(x), -1, keepdims=True) + self.epsilon) * factor


class GroupNorm(OneInput):
    """(x - mean) / sqrt(variance + epsilon) · scale + offset, statistics over groups of a sample's channels.

    `(batch, …, channels)`: over all places and the channels of a group; scale and offset are per channel (Wu and He
    2018).

    Parameters
    ----------
    groups : int, default 32
        How many groups of neighbours the channels are split into; -1: each channel alone (instance normalisation).
    epsilon : float, default 1e-5
        Added to the variance. (Keras: 1e-3.)
    center, scale : bool, default True
        Whether there is an `offset`, a `scale`.
    """

    def __init__(
        self,
        groups: int = 32,
        *,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.groups = integer("groups", groups, -1)
        if groups == 0:
            raise ValueError("`groups` must be at least 1, or -1 for a group for each channel, got 0")
        self.epsilon = number("epsilon", epsilon, 0)
        self.center = boolean("center", center)
        self.scale = boolean("scale", scale)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        batch, *places, channels = x.shape
        groups = channels if self.groups == -1 else self.groups
        if not places and groups == channels:
            raise ValueError(f"{self.default_name}: a group of {show(x.shape)} would be a single number")
        if channels % groups:
            raise ValueError(f"{self.default_name}: expected channels divisible by groups={groups}, got {channels}")
        whole = ops.reshape(x, (batch, math.prod(places), channels))
        centred = whole - _group_means(whole, groups)
        variance = _group_means(ops.square(centred), groups)
        y = ops.reshape(centred * ops.rsqrt(variance + self.epsilon), x.shape)
        if self.scale:
            y = y * self.parameter("scale", (channels,), "ones", role="scale")
        return y + self.parameter("offset", (channels,), "zeros", role="bias") if self.center else y


def _group_means(x: Value, groups: int) -> Value:
    """Return for each channel the mean of its group: `(batch, places, channels) -> (batch, 1, channels)`.

    Over the places first, which is an order of magnitude faster than over places and channels at once.
    """
    batch, _, channels = x.shape
    apart = batch, groups, (channels or 0) // groups
    means = ops.mean(ops.reshape(ops.mean(x, 1), apart), -1, keepdims=True)
    return ops.reshape(ops.broadcast_to(means, apart), (batch, 1, channels))


class Normalization(OneInput):
    """(x - mean) / max(sqrt(variance), epsilon), per feature of the last axis, with fixed statistics of the data.

    The statistics are buffers: saved with the model, never trained. So a model takes data as it comes, in its own
    units, and with `invert` as the last layer gives targets back in theirs.

    Parameters
    ----------
    mean, variance : array_like of shape (features,) or (), optional
        The statistics; or call `adapt` before the model is built.
    invert : bool, default False
        Compute mean + x · max(sqrt(variance), epsilon) instead.
    epsilon : float, default 1e-7
        The least standard deviation, so that a constant feature becomes 0. (Keras's value.)

    Examples
    --------
    >>> import numpy as np, burnish as bn
    >>> x = np.array([[1.0, 100.0], [3.0, 300.0]])
    >>> normalize = bn.layers.Normalization()
    >>> normalize.adapt(x)
    >>> bn.Sequential([normalize]).predict(x).round(3).tolist()
    [[-1.0, -1.0], [1.0, 1.0]]
    """

    def __init__(
        self,
        *,
        mean: npt.ArrayLike | None = None,
        variance: npt.ArrayLike | None = None,
        invert: bool = False,
        epsilon: float = 1e-7,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        if (mean is None) != (variance is None):
            raise ValueError("`mean` and `variance` must be given together")
        self._statistics = None if mean is None else (_statistic("mean", mean), _statistic("variance", variance))
        if self._statistics is not None and (self._statistics[1] < 0).any():
            raise ValueError("`variance` must not be negative")
        self.invert = boolean("invert", invert)
        self.epsilon = number("epsilon", epsilon, 0, above=True)
        self._width: int | None = None

    def adapt(self, data: npt.ArrayLike) -> None:
        """Take mean and (biased) variance of `data (…, features)`, in float64; before the model is built."""
        if self._width is not None:
            raise ValueError(f"{self.default_name}: adapt must be called before the model is built")
        values = _statistic("data", data)
        axes = tuple(range(values.ndim - 1))
        self._statistics = values.mean(axes), values.var(axes)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        if self._statistics is None:
            raise ValueError(f"{self.default_name}: give `mean` and `variance`, or call adapt(data) first")
        self._width = x.shape[-1]
        for statistic in self._statistics:
            if statistic.shape not in {(), (self._width,)}:
                raise ValueError(
                    f"{self.default_name}: the statistics are of {statistic.shape} features, got {self._width}"
                )
        mean, variance = (self.buffer(name, (x.shape[-1],)) for name in ("mean", "variance"))
        deviation = ops.maximum(ops.sqrt(variance), self.epsilon)
        return mean + x * deviation if self.invert else (x - mean) / deviation

    def initial_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the statistics."""
        if self._statistics is None or self._width is None:
            return {}
        mean, variance = (np.broadcast_to(statistic, (self._width,)).copy() for statistic in self._statistics)
        return {"mean": mean, "variance": variance}


def _statistic(argument: str, given: Any) -> npt.NDArray[np.float64]:
    array = np.asarray(given, np.float64)
    if not array.size or not np.isfinite(array).all():
        raise ValueError(f"`{argument}` must hold finite numbers, got {'NaN or infinity' if array.size else 'none'}")
    return array
