"""L-BFGS: few, long steps for small problems whose whole set fits in one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._errors import choice, integer, number
from .base import Optimizer

if TYPE_CHECKING:
    from .base import LearningRate

__all__ = ["LBFGS"]


class LBFGS(Optimizer):
    """Quasi-Newton steps from the curvature along the last steps, with a line search.

    d = -H · g, H from the last `history_size` steps and changes of the gradient; p += t · d, t found by the line
    search; this up to `max_iter` times in one update.

    Parameters
    ----------
    learning_rate : float or function, default 1
        At least 0: the first t that is tried (of the very first step the part min(1, 1 / Σ|g|)).
    max_iter : int, default 20
        Steps in one update.
    max_eval : int, optional
        Evaluations of loss and gradient in one update, about; 5/4 of `max_iter` if not given.
    tolerance_grad : float, default 1e-7
        An update ends where max |g| is at most this.
    tolerance_change : float, default 1e-9
        It ends as well where the loss or every parameter changes by less than this.
    history_size : int, default 100
        Pairs that are kept: twice as many numbers per parameter.
    line_search_fn : {"strong_wolfe", None}, default "strong_wolfe"
        None takes t as it is (PyTorch's default).
    weight_decay : float, default 0
        Part of the loss: weight_decay / 2 · ‖p‖².

    Raises
    ------
    ValueError
        From `compile`, with `accumulate_gradients`, clipping, a loss scale or groups with a learning rate of their own:
        a line search needs loss and gradient of one and the same function. From `fit`, if `batch_size` is smaller than
        the number of rows.

    Notes
    -----
    Nocedal 1980, Liu and Nocedal 1989; line search: Nocedal and Wright 2006 (Algorithms 3.5 and 3.6). Form and other
    defaults PyTorch's. Random layers (Dropout) draw the same numbers in all evaluations of one update. Where loss or
    gradient are not finite, the search turns back; the model never moves there.
    """

    name = "lbfgs"
    full_batch = True

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        *,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = "strong_wolfe",
        weight_decay: float = 0.0,
    ) -> None:
        searching = None if line_search_fn is None else choice("line_search_fn", line_search_fn, ("strong_wolfe",))
        super().__init__(
            learning_rate,
            max_iter=integer("max_iter", max_iter, 1),
            max_eval=None if max_eval is None else integer("max_eval", max_eval, 1),
            tolerance_grad=number("tolerance_grad", tolerance_grad, 0),
            tolerance_change=number("tolerance_change", tolerance_change, 0),
            history_size=integer("history_size", history_size, 1),
            line_search_fn=searching,
            weight_decay=number("weight_decay", weight_decay, 0),
        )
