"""Adam and what grew out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._errors import boolean, number
from .base import Optimizer, pair

if TYPE_CHECKING:
    from .base import LearningRate

__all__ = ["LAMB", "Adam", "AdamW", "Adamax", "NAdam", "RAdam"]


class Adam(Optimizer):
    """Adam: steps along the mean gradient, divided by the root of the mean square.

    p -= learning_rate / (1 - b1^t) · m / (sqrt(v) / sqrt(1 - b2^t) + eps),
    m = b1 · m + (1 - b1) · g, v = b2 · v + (1 - b2) · g².

    Parameters
    ----------
    learning_rate : float or function, default 1e-3
        At least 0.
    betas : pair of float in [0, 1), default (0.9, 0.999)
        What the running means keep.
    eps : float, default 1e-8
        Keeps the quotient finite. Keras adds it before the correction of the root, where it counts for more.
    weight_decay : float, default 0
        Coupled: enters g. Keras decouples it.
    amsgrad : bool, default False
        Divide by the largest v so far, corrected by the t of now (Optax: the largest corrected v).

    Notes
    -----
    Kingma and Ba 2015 (Algorithm 1), Reddi et al. 2018 (AMSGrad); defaults are the paper's.
    """

    name = "adam"

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(
            learning_rate,
            betas=pair("betas", betas),
            eps=number("eps", eps, 0),
            weight_decay=number("weight_decay", weight_decay, 0),
            amsgrad=boolean("amsgrad", amsgrad),
        )


class AdamW(Adam):
    """Adam with decoupled weight decay: p *= 1 - learning_rate · weight_decay first.

    Parameters
    ----------
    learning_rate, betas, eps, amsgrad
        As in `Adam`.
    weight_decay : float, default 0.01
        How much of a weight an update at learning rate 1 takes away; it does not enter the moments.

    Notes
    -----
    Loshchilov and Hutter 2019 in PyTorch's form (the paper's decay does not depend on the learning rate itself, only on
    its schedule), defaults PyTorch's.
    """

    name = "adamw"

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(learning_rate, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)


class NAdam(Optimizer):
    """Adam with Nesterov's momentum, the momentum growing from b1/2 to b1.

    p -= learning_rate · [(1 - mu_t) · g / (1 - Πmu) + mu_{t+1} · m / (1 - Πmu · mu_{t+1})] / (sqrt(v_hat) + eps)
    with Adam's m and v, v_hat = v / (1 - b2^t), mu_t = b1 · (1 - 0.5 · 0.96^(t · momentum_decay)),
    Πmu = mu_1 ··· mu_t.

    Parameters
    ----------
    learning_rate : float or function, default 2e-3
        At least 0.
    betas : pair of float in [0, 1), default (0.9, 0.999)
        What the running means keep.
    eps : float, default 1e-8
        Keeps the quotient finite.
    weight_decay : float, default 0
        Coupled, or as in `AdamW` if `decoupled_weight_decay`.
    momentum_decay : float, default 0.004
        How fast mu grows (Keras: 1).
    decoupled_weight_decay : bool, default False
        See `weight_decay`.

    Notes
    -----
    Dozat 2016, defaults PyTorch's.
    """

    name = "nadam"

    def __init__(
        self,
        learning_rate: LearningRate = 2e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
    ) -> None:
        super().__init__(
            learning_rate,
            betas=pair("betas", betas),
            eps=number("eps", eps, 0),
            weight_decay=number("weight_decay", weight_decay, 0),
            momentum_decay=number("momentum_decay", momentum_decay, 0),
            decoupled_weight_decay=boolean("decoupled_weight_decay", decoupled_weight_decay),
        )


class RAdam(Optimizer):
    """Adam that steps by its mean gradient alone until the mean square is known well enough: a built-in warm-up.

    p -= learning_rate · m_hat · r · sqrt(1 - b2^t) / (sqrt(v) + eps) where rho_t > 5, else p -= learning_rate · m_hat,
    with Adam's m and v, m_hat = m / (1 - b1^t), rho_inf = 2 / (1 - b2) - 1, rho_t = rho_inf - 2t · b2^t / (1 - b2^t),
    r² = (rho_t - 4)(rho_t - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho_t).

    Parameters
    ----------
    learning_rate : float or function, default 1e-3
        At least 0.
    betas : pair of float in [0, 1), default (0.9, 0.999)
        What the running means keep.
    eps : float, default 1e-8
        Keeps the quotient finite.
    weight_decay : float, default 0
        Coupled, or as in `AdamW` if `decoupled_weight_decay`.
    decoupled_weight_decay : bool, default False
        See `weight_decay`.

    Notes
    -----
    Liu et al. 2020, defaults PyTorch's.
    """

    name = "radam"

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
    ) -> None:
        super().__init__(
            learning_rate,
            betas=pair("betas", betas),
            eps=number("eps", eps, 0),
            weight_decay=number("weight_decay", weight_decay, 0),
            decoupled_weight_decay=boolean("decoupled_weight_decay", decoupled_weight_decay),
        )


class Adamax(Optimizer):
    """Adam that divides by the greatest recent gradient instead of the root of a mean.

    u = max(b2 · u, |g| + eps); p -= learning_rate / (1 - b1^t) · m / u with Adam's m.

    Parameters
    ----------
    learning_rate : float or function, default 2e-3
        At least 0.
    betas : pair of float in [0, 1), default (0.9, 0.999)
        What the running mean and the maximum keep.
    eps : float, default 1e-8
        Keeps the quotient finite.
    weight_decay : float, default 0
        Coupled.

    Notes
    -----
    Kingma and Ba 2015 (Algorithm 2), defaults PyTorch's, which are the paper's.
    """

    name = "adamax"

    def __init__(
        self,
        learning_rate: LearningRate = 2e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            learning_rate,
            betas=pair("betas", betas),
            eps=number("eps", eps, 0),
            weight_decay=number("weight_decay", weight_decay, 0),
        )


class LAMB(Optimizer):
    """Adam whose step is as long as the parameter times the learning rate: for very large batches.

    r = m_hat / (sqrt(v_hat) + eps) + weight_decay · p; p -= learning_rate · (‖p‖ / ‖r‖) · r with Adam's corrected
    moments; norms are those of one parameter, and the ratio is 1 if either is 0.

    Parameters
    ----------
    learning_rate : float or function, default 1e-3
        At least 0: roughly the relative change of each parameter in an update.
    betas : pair of float in [0, 1), default (0.9, 0.999)
        What the running means keep.
    eps : float, default 1e-6
        Keeps the quotient finite.
    weight_decay : float, default 0
        Enters r, and so the ratio (Keras decouples it).

    Notes
    -----
    You et al. 2020 (Algorithm 2). The paper tunes the learning rate and the weight decay for each batch size; the
    default learning rate is Keras's. PyTorch has no LAMB.
    """

    name = "lamb"

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            learning_rate,
            betas=pair("betas", betas),
            eps=number("eps", eps, 0),
            weight_decay=number("weight_decay", weight_decay, 0),
        )
