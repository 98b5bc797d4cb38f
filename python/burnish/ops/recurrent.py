"""Recurrent layers as one operation over the sequence, and masks from lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import integer
from .._value import Operand, Value, apply, binary, cast, shape_of
from .shaping import reshape

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["gru", "lstm", "rnn", "sequence_mask"]


def rnn(
    x: Operand,
    kernel: Operand,
    recurrent_kernel: Operand,
    bias: Operand | None = None,
    *,
    initial_state: Sequence[Operand] = (),
    mask: Operand | None = None,
    recurrent_factors: Operand | None = None,
    activation: str = "tanh",
    returns: str = "last",
    go_backwards: bool = False,
) -> Value:
    """Return h after each step, h' = activation(x · kernel + bias + h · recurrent_kernel) (Elman 1990).

    Parameters
    ----------
    x, kernel, recurrent_kernel, bias
        `(batch, time, features)`, `(features, units)`, `(units, units)`, `(units,)`.
    initial_state : sequence of one value
        h before the first step, `(batch, units)`; zeros without.
    mask : value, optional
        `(batch, time)`, true (not 0) where there is something; elsewhere h passes the step unchanged.
    recurrent_factors : value, optional
        `(batch, units)`, what h is multiplied by before each product with the recurrent kernel (dropout).
    activation : {"tanh", "relu", "sigmoid", "hard_sigmoid", "none"}
        Of the sum.
    returns : {"last", "sequence", "states"}
        h after the last step, `(batch, units)`; after each step, at the place of its input, `(batch, time, units)`;
        the same.
    go_backwards : bool, default False
        Whether to begin at the last step.
    """
    options = {"activation": activation, "returns": returns, "go_backwards": go_backwards}
    return _emit("rnn", [x, kernel, recurrent_kernel], bias, initial_state, mask, recurrent_factors, options)


def gru(
    x: Operand,
    kernel: Operand,
    recurrent_kernel: Operand,
    bias: Operand | None = None,
    *,
    initial_state: Sequence[Operand] = (),
    mask: Operand | None = None,
    recurrent_factors: Operand | None = None,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    returns: str = "last",
    go_backwards: bool = False,
) -> Value:
    """Return h after each step of a gated recurrent unit (Cho et al. 2014) that resets after the product.

    With a = x · kernel + bias[0] and b = h · recurrent_kernel + bias[1], each in three blocks: z = s(a₁ + b₁),
    r = s(a₂ + b₂), n = activation(a₃ + r · b₃), h' = z · h + (1 - z) · n; s is the recurrent activation.

    Parameters
    ----------
    x, kernel, recurrent_kernel, bias
        `(batch, time, features)`, `(features, 3 · units)`, `(units, 3 · units)`, `(2, 3 · units)`.
    initial_state, mask, recurrent_factors, activation, returns, go_backwards
        As of `rnn`.
    recurrent_activation : {"sigmoid", "hard_sigmoid", "tanh", "relu", "none"}
        Of the gates z and r.
    """
    options = {"activation": activation, "recurrent_activation": recurrent_activation}
    options |= {"returns": returns, "go_backwards": go_backwards}
    return _emit("gru", [x, kernel, recurrent_kernel], bias, initial_state, mask, recurrent_factors, options)


def lstm(
    x: Operand,
    kernel: Operand,
    recurrent_kernel: Operand,
    bias: Operand | None = None,
    *,
    initial_state: Sequence[Operand] = (),
    mask: Operand | None = None,
    recurrent_factors: Operand | None = None,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    returns: str = "last",
    go_backwards: bool = False,
) -> Value:
    """Return h after each step of long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

    With z = x · kernel + bias + h · recurrent_kernel in four blocks: i = s(z₁), f = s(z₂), g = activation(z₃),
    o = s(z₄), c' = f · c + i · g, h' = o · activation(c'); s is the recurrent activation.

    Parameters
    ----------
    x, kernel, recurrent_kernel, bias
        `(batch, time, features)`, `(features, 4 · units)`, `(units, 4 · units)`, `(4 · units,)`.
    initial_state : sequence of two values
        h and c before the first step, `(batch, units)` each; zeros without.
    mask, recurrent_factors, activation, go_backwards
        As of `rnn`.
    recurrent_activation : {"sigmoid", "hard_sigmoid", "tanh", "relu", "none"}
        Of the gates i, f and o.
    returns : {"last", "sequence", "states"}
        As of `rnn`; "states": h and c side by side, `(batch, time, 2 · units)`.
    """
    options = {"activation": activation, "recurrent_activation": recurrent_activation}
    options |= {"returns": returns, "go_backwards": go_backwards}
    return _emit("lstm", [x, kernel, recurrent_kernel], bias, initial_state, mask, recurrent_factors, options)


def sequence_mask(lengths: Operand, steps: int) -> Value:
    """Return what is true in the first `lengths` of so many steps: `(batch,)` or `(batch, 1) -> (batch, steps)`."""
    shape = shape_of(lengths)
    if len(shape) not in {1, 2} or shape[1:] not in {(), (1,)}:
        raise ValueError(f"`lengths` must have shape (batch,) or (batch, 1), got {shape}")
    places = np.arange(integer("steps", steps, 1))
    return binary("less", places[None], reshape(lengths, (shape[0], 1)))


def _emit(  # noqa: PLR0917
    operation: str,
    inputs: Sequence[Operand],
    bias: Operand | None,
    initial_state: Sequence[Operand],
    mask: Operand | None,
    recurrent_factors: Operand | None,
    options: dict[str, Any],
) -> Value:
    """Emit an operation with those of the optional inputs that are there, in the engine's order."""
    x, *kernels = inputs
    optional = {
        "bias": [] if bias is None else [bias],
        "initial_state": list(initial_state),
        "mask": [] if mask is None else [cast(mask, "bool")],
        "recurrent_factors": [] if recurrent_factors is None else [recurrent_factors],
    }
    there = {name: bool(values) for name, values in optional.items()}
    more = [value for values in optional.values() for value in values]
    return apply(operation, cast(x, "float"), *kernels, *more, **options, **there)
