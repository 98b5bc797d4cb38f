"""Along the gradient, its mean, its sign or its direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._errors import boolean, integer, number
from .base import Optimizer, pair

if TYPE_CHECKING:
    from .base import LearningRate

__all__ = ["ASGD", "LARS", "SGD", "Lion", "Muon", "Rprop"]


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

    buf = momentum · buf + (1 - dampening) · g, in the first update buf = g; p -= learning_rate · buf, with Nesterov's
    momentum p -= learning_rate · (g + momentum · buf).

    Parameters
    ----------
    learning_rate : float or function, default 0.01
        At least 0.
    momentum : float, default 0
        At least 0.
    nesterov : bool, default False
        Needs momentum, and no dampening.
    dampening : float, default 0
        What of g does not enter buf.
    weight_decay : float, default 0
        Coupled.

    Notes
    -----
    Sutskever et al. 2013, form and defaults PyTorch's (Keras: the learning rate enters the buffer).
    """

    name = "sgd"

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        momentum, dampening = number("momentum", momentum, 0), number("dampening", dampening)
        if boolean("nesterov", nesterov) and (momentum <= 0 or dampening != 0):
            raise ValueError(
                f"`nesterov` needs momentum above 0 and dampening 0, got momentum={momentum}, dampening={dampening}"
            )
        super().__init__(
            learning_rate,
            momentum=momentum,
            nesterov=boolean("nesterov", nesterov),
            dampening=dampening,
            weight_decay=number("weight_decay", weight_decay, 0),
        )


class ASGD(Optimizer):
    """Stochastic gradient descent with a falling learning rate, and the average of where it has been.

    eta = learning_rate / (1 + lambd · learning_rate · (t - 1))^alpha; p = (1 - lambd · eta) · p - eta · g;
    averaged += (p - averaged) / max(1, t - 1 - t0).

    Parameters
    ----------
    learning_rate : float or function, default 0.01
        At least 0.
    lambd : float, default 1e-4
        Decay of learning rate and parameter.
    alpha : float, default 0.75
        The power of the decay.
    t0 : float, default 1e6
        Updates after which averaging begins; until then the average is a copy.
    weight_decay : float, default 0
        Coupled.

    Notes
    -----
    Polyak and Juditsky 1992 in PyTorch's form and with its defaults. As there, the model goes on with p itself, and the
    average is kept with the optimizer's state; to predict with averaged weights use `ema` of `compile`. Under a
    schedule eta is of this update's learning rate (PyTorch: of the one before).
    """

    name = "asgd"

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        *,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            learning_rate,
            lambd=number("lambd", lambd, 0),
            alpha=number("alpha", alpha),
            t0=number("t0", t0, 0),
            weight_decay=number("weight_decay", weight_decay, 0),
        )


class LARS(Optimizer):
    """Momentum with a learning rate for each parameter in proportion to its norm: for very large batches.

    local = trust_coefficient · ‖p‖ / (‖g‖ + weight_decay · ‖p‖), 1 if ‖p‖ or the divisor is 0;
    buf = momentum · buf + local · (g + weight_decay · p); p -= learning_rate · buf. Norms are those of one parameter.

    Parameters
    ----------
    learning_rate : float or function, default 0.1
        At least 0. The change of a parameter relative to its norm is about trust_coefficient times this, so that good
        values lie above those of `SGD`.
    momentum : float, default 0.9
        At least 0.
    trust_coefficient : float, default 0.001
        At least 0.
    weight_decay : float, default 0
        Enters the local learning rate.

    Notes
    -----
    You et al. 2017 (Algorithm 1) with PyTorch's momentum: the paper has the learning rate in the buffer, which is the
    same while it is constant. The paper tunes learning rate and weight decay for each network; PyTorch has no LARS.
    """

    name = "lars"

    def __init__(
        self,
        learning_rate: LearningRate = 0.1,
        *,
        momentum: float = 0.9,
        trust_coefficient: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            learning_rate,
            momentum=number("momentum", momentum, 0),
            trust_coefficient=number("trust_coefficient", trust_coefficient, 0),
            weight_decay=number("weight_decay", weight_decay, 0),
        )


class Lion(Optimizer):
    """By the sign of a mean gradient: half of Adam's state.

    p *= 1 - learning_rate · weight_decay; p -= learning_rate · sign(b1 · m + (1 - b1) · g); m = b2 · m + (1 - b2) · g.

    Parameters
    ----------
    learning_rate : float or function, default 1e-4
        At least 0; about a tenth to a third of what suits `AdamW`.
    betas : pair of float in [0, 1), default (0.9, 0.99)
        What the direction and the running mean keep.
    weight_decay : float, default 0
        Decoupled (Optax: 0.001); three to ten times what suits `AdamW`.

    Notes
    -----
    Chen et al. 2023 (Algorithm 2), defaults the paper's. PyTorch has no Lion.
    """

    name = "lion"

    def __init__(
        self, learning_rate: LearningRate = 1e-4, *, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(
            learning_rate, betas=pair("betas", betas), weight_decay=number("weight_decay", weight_decay, 0)
        )


class Muon(Optimizer):
    """Momentum made orthogonal, for hidden matrices; AdamW for everything else.

    buf = momentum · buf + g; u = g + momentum · buf (`nesterov`) or buf; O = X after `newton_schulz_steps` steps
    X = 3.4445 · X + (-4.775 · A + 2.0315 · A²) · X, A = X · Xᵀ, from X = u / ‖u‖;
    p *= 1 - learning_rate · weight_decay; p -= learning_rate · sqrt(max(1, outputs / inputs)) · O.

    It is for parameters of role kernel and rank 2 (stored (inputs, outputs)) with another kernel behind them: not for
    the output layer, embeddings, biases, scales, convolutions.

    Parameters
    ----------
    learning_rate : float or function, default 0.02
        At least 0; Muon's.
    momentum : float, default 0.95
        At least 0.
    nesterov : bool, default True
        Whether the step looks ahead.
    newton_schulz_steps : int, default 5
        At least 1.
    weight_decay : float, default 0
        Decoupled, for both rules (PyTorch: 0.1 at a learning rate of 0.001).
    adamw_ratio : float, default 0.015
        AdamW's learning rate over Muon's, in every update: 0.0003 at 0.02, and schedules scale both.
    adamw_betas, adamw_eps
        AdamW's.

    Notes
    -----
    Jordan et al. 2024, whose learning rates and momentum are the defaults. PyTorch's buffer is smaller by 1 - momentum,
    a factor that dividing by the norm takes out; it iterates in bfloat16, here the parameter's own type is used.
    """

    name = "muon"

    def __init__(
        self,
        learning_rate: LearningRate = 0.02,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        newton_schulz_steps: int = 5,
        weight_decay: float = 0.0,
        adamw_ratio: float = 0.015,
        adamw_betas: tuple[float, float] = (0.9, 0.999),
        adamw_eps: float = 1e-8,
    ) -> None:
        super().__init__(
            learning_rate,
            momentum=number("momentum", momentum, 0),
            nesterov=boolean("nesterov", nesterov),
            newton_schulz_steps=integer("newton_schulz_steps", newton_schulz_steps, 1, 100),
            weight_decay=number("weight_decay", weight_decay, 0),
            adamw_ratio=number("adamw_ratio", adamw_ratio, 0),
            adamw_betas=pair("adamw_betas", adamw_betas),
            adamw_eps=number("adamw_eps", adamw_eps, 0),
        )


class Rprop(Optimizer):
    """By the signs of gradients, with a step size for each element: for gradients of the whole set.

    s *= etas[1] where g has the sign of before, s *= etas[0] (and g counts as 0) where it has the other;
    p -= s · sign(g).

    Parameters
    ----------
    learning_rate : float or function, default 0.01
        At least 0: the first s. Later learning rates change nothing, but an update at 0 moves nothing.
    etas : pair of float, default (0.5, 1.2)
        In (0, 1) and above 1.
    step_sizes : pair of float, default (1e-6, 50)
        The least and the greatest s.
    weight_decay : float, default 0
        Coupled (PyTorch has none here).

    Notes
    -----
    Riedmiller and Braun 1993 without backtracking, form and defaults PyTorch's.
    """

    name = "rprop"

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        *,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        weight_decay: float = 0.0,
    ) -> None:
        shorter, longer = pair("etas", etas, high=float("inf"), below=False)
        least, most = pair("step_sizes", step_sizes, high=float("inf"), below=False)
        if not 0 < shorter < 1 < longer:
            raise ValueError(f"`etas` must lie in (0, 1) and above 1, got {(shorter, longer)}")
        if least > most:
            raise ValueError(f"`step_sizes` must be the least and the greatest, got {(least, most)}")
        super().__init__(
            learning_rate,
            etas=(shorter, longer),
            step_sizes=(least, most),
            weight_decay=number("weight_decay", weight_decay, 0),
        )
