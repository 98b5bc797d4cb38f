"""Gradients divided by the root of what was seen of their squares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._errors import boolean, number
from .._structure import is_sequence
from .base import Optimizer

if TYPE_CHECKING:
    from .base import LearningRate

__all__ = ["Adadelta", "Adafactor", "Adagrad", "RMSprop"]


class RMSprop(Optimizer):
    """Gradients divided by the root of a running mean of their squares.

    v = alpha · v + (1 - alpha) · g²; p -= learning_rate · g / (sqrt(v) + eps).

    Parameters
    ----------
    learning_rate : float or function, default 0.01
        At least 0.
    alpha : float in [0, 1), default 0.99
        What the running means keep.
    eps : float, default 1e-8
        Added to the root (Keras and Optax: inside it).
    centered : bool, default False
        Subtract the square of the running mean of g from v under the root (Graves 2013).
    momentum : float, default 0
        At least 0: buf = momentum · buf + the quotient, p -= learning_rate · buf.
    weight_decay : float, default 0
        Coupled.

    Notes
    -----
    Tieleman and Hinton 2012 (lecture 6e), defaults PyTorch's.
    """

    name = "rmsprop"

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        centered: bool = False,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            learning_rate,
            alpha=number("alpha", alpha, 0, 1, below=True),
            eps=number("eps", eps, 0),
            centered=boolean("centered", centered),
            momentum=number("momentum", momentum, 0),
            weight_decay=number("weight_decay", weight_decay, 0),
        )


class Adagrad(Optimizer):
    """Gradients divided by the root of the sum of all their squares: for sparse features, steps only get shorter.

    acc += g²; p -= learning_rate / (1 + (t - 1) · lr_decay) · g / (sqrt(acc) + eps).

    Parameters
    ----------
    learning_rate : float or function, default 0.01
        At least 0.
    lr_decay : float, default 0
        How fast the learning rate falls besides.
    initial_accumulator_value : float, default 0
        Where acc starts (Keras and Optax: 0.1).
    eps : float, default 1e-10
        Added to the root (Keras and Optax: inside it).
    weight_decay : float, default 0
        Coupled.

    Notes
    -----
    Duchi et al. 2011, defaults PyTorch's.
    """

    name = "adagrad"

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        *,
        lr_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            learning_rate,
            lr_decay=number("lr_decay", lr_decay, 0),
            initial_accumulator_value=number("initial_accumulator_value", initial_accumulator_value, 0),
            eps=number("eps", eps, 0),
            weight_decay=number("weight_decay", weight_decay, 0),
        )


class Adadelta(Optimizer):
    """Steps in proportion to recent steps over recent gradients: needs no learning rate, starts slowly.

    v = rho · v + (1 - rho) · g²; d = sqrt(acc + eps) / sqrt(v + eps) · g; p -= learning_rate · d;
    acc = rho · acc + (1 - rho) · d².

    Parameters
    ----------
    learning_rate : float or function, default 1
        At least 0.
    rho : float in [0, 1), default 0.9
        What the running means keep.
    eps : float, default 1e-6
        Also what the first steps live on.
    weight_decay : float, default 0
        Coupled.

    Notes
    -----
    Zeiler 2012 (Algorithm 1), defaults PyTorch's.
    """

    name = "adadelta"

    def __init__(
        self, learning_rate: LearningRate = 1.0, *, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0.0
    ) -> None:
        super().__init__(
            learning_rate,
            rho=number("rho", rho, 0, 1, below=True),
            eps=number("eps", eps, 0, above=True),
            weight_decay=number("weight_decay", weight_decay, 0),
        )


class Adafactor(Optimizer):
    """Adam's second moment kept as one number per row and per column of a matrix: almost no state.

    v = (1 - w) · v + w · g², w = t^beta2_decay; u = g / sqrt(max(v, eps1²));
    p *= 1 - learning_rate · weight_decay; p -= alpha · u / max(1, RMS(u) / clipping_threshold),
    alpha = max(eps2, RMS(p)) · min(learning_rate, 1 / sqrt(t)), RMS the root of the mean square.

    From rank 2 on, v is the outer product of the running means of g² over the rows and over the columns of the last two
    axes, divided by the mean of either. Vectors keep v itself.

    Parameters
    ----------
    learning_rate : float or function, default 0.01
        At least 0: the relative change of each parameter in an update.
    beta2_decay : float of at most 0, default -0.8
        How the memory of v grows with t.
    eps : pair of (float or None) and float, default (None, 0.001)
        eps1, None for the machine epsilon of the type, and eps2, below which no parameter counts as smaller.
    clipping_threshold : float of at least 1, default 1
        PyTorch's `d`.
    weight_decay : float, default 0
        Decoupled.

    Notes
    -----
    Shazeer and Stern 2018 (Algorithm 4), form and defaults PyTorch's.
    """

    name = "adafactor"

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        *,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        clipping_threshold: float = 1.0,
        weight_decay: float = 0.0,
    ) -> None:
        if not is_sequence(eps) or len(eps) != 2:
            raise TypeError(f"`eps` must be a pair of a number (or None) and a number, got {eps!r}")
        super().__init__(
            learning_rate,
            beta2_decay=number("beta2_decay", beta2_decay, high=0),
            eps=(None if eps[0] is None else number("eps[0]", eps[0], 0, above=True), number("eps[1]", eps[1], 0)),
            clipping_threshold=number("clipping_threshold", clipping_threshold, 1),
            weight_decay=number("weight_decay", weight_decay, 0),
        )
