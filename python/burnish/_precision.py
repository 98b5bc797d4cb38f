"""Mixed precision: which types a device has, and how the loss is scaled so that small gradients survive 16 bits."""

from __future__ import annotations

from typing import Any

from . import _burnish
from ._errors import choice, integer, number

__all__ = ["PRECISIONS", "LossScale", "resolve_loss_scale", "resolve_precision"]

PRECISIONS = ("float32", "float64", "mixed_float16", "mixed_bfloat16")


class LossScale:
    """A factor of the loss that moves by itself, undone before clipping and update (Micikevicius et al. 2018).

    Gradients below 6e-8 are 0 in float16; multiplied, they are not. A gradient that is not finite skips its update,
    which then moves nothing, and lowers the factor; a row of good updates raises it.

    Parameters
    ----------
    initial : float > 0, default 2 ** 16
        The first factor.
    growth : float >= 1, default 2
        What it is multiplied by after `interval` good updates in a row.
    backoff : float in (0, 1], default 0.5
        What it is multiplied by when an update is skipped.
    interval : int >= 1, default 2000
        Good updates in a row that let it grow.
    minimum : float > 0, default 1
        What it does not fall below. A gradient that is not finite even there is no matter of the scale: `fit` warns.

    Notes
    -----
    The numbers are those of the paper; PyTorch's `GradScaler` has the same ones and no minimum. Powers of two multiply
    without rounding.

    Examples
    --------
    >>> import burnish as bn
    >>> bn.LossScale(initial=1024, interval=500)
    LossScale(initial=1024.0, growth=2.0, backoff=0.5, interval=500, minimum=1.0)
    """

    def __init__(
        self,
        initial: float = 2.0**16,
        growth: float = 2.0,
        backoff: float = 0.5,
        interval: int = 2000,
        minimum: float = 1.0,
    ) -> None:
        self.initial = number("initial", initial, 0, above=True)
        self.growth = number("growth", growth, 1)
        self.backoff = number("backoff", backoff, 0, 1, above=True)
        self.interval = integer("interval", interval, 1)
        self.minimum = number("minimum", minimum, 0, above=True)
        if self.minimum > self.initial:
            raise ValueError(f"`minimum` must be at most `initial` ({self.initial:g}), got {self.minimum:g}")

    def config(self) -> dict[str, Any]:
        """Return the numbers as the engine reads them."""
        return dict(vars(self))

    def __repr__(self) -> str:
        return f"LossScale({', '.join(f'{name}={value}' for name, value in vars(self).items())})"


def resolve_precision(precision: Any, device: str, gradient_method: str) -> str:
    """Return the precision if the device has it and gradients can be found in it."""
    name = choice("precision", precision, PRECISIONS)
    if name.startswith("mixed_") and gradient_method != "autodiff":
        raise ValueError(
            f"`grad_method` {gradient_method!r} does not go with `precision` {name!r}: "
            "the difference of two losses in half precision has no digits; use 'float32' or 'float64'"
        )
    _burnish.check_precision(device, name)
    return name


def resolve_loss_scale(loss_scale: Any, precision: str) -> dict[str, Any] | None:
    """Return the engine's description of a loss scale, or None where the loss is not scaled."""
    if loss_scale is None or isinstance(loss_scale, LossScale):
        return None if loss_scale is None else loss_scale.config()
    if isinstance(loss_scale, str):
        choice("loss_scale", loss_scale, ("dynamic",))
        return LossScale().config() if precision == "mixed_float16" else None
    factor = number("loss_scale", loss_scale, 0, above=True)
    return None if factor == 1 else LossScale(factor, 1, 1, 1, factor).config()
