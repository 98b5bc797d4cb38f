"""Recurrent layers: each one operation over the whole sequence."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypedDict, Unpack

from .. import initializers, ops, regularizers
from .._errors import boolean, choice, integer, number
from .._structure import is_sequence
from ..losses import show
from ._window import check_sequence
from .base import OneInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._value import Value

__all__ = ["GRU", "LSTM", "RNN", "Bidirectional"]

# Those whose slope is known from their value, by the engine's names.
_ACTIVATIONS = {
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "relu": "relu",
    "hard_sigmoid": "hard_sigmoid",
    "linear": "none",
}
_MERGES: dict[str, Callable[[Any, Any], Value]] = {
    "concat": lambda a, b: ops.concatenate([a, b]),
    "sum": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "ave": lambda a, b: (a + b) * 0.5,
}


class _Options(TypedDict, total=False):
    """What all cells take by name."""

    kernel_regularizer: Any
    recurrent_regularizer: Any
    bias_regularizer: Any
    dropout: float
    recurrent_dropout: float
    return_sequences: bool
    return_state: bool
    go_backwards: bool
    zero_output_for_mask: bool
    name: str | None


class _Recurrent(OneInput):
    """What the cells share: `(batch, time, features) -> (batch, units)` or `(batch, time, units)`."""

    gates: ClassVar[int]
    states: ClassVar[int] = 1

    def __init__(
        self,
        units: int,
        activation: str | None,
        kernel_initializer: Any,
        recurrent_initializer: Any,
        bias_initializer: Any,
        *,
        use_bias: bool,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        zero_output_for_mask: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.units = integer("units", units, 1)
        self.activation = _activation("activation", activation)
        self.use_bias = boolean("use_bias", use_bias)
        self.kernel_initializer = initializers.resolve(kernel_initializer)
        self.recurrent_initializer = initializers.resolve(recurrent_initializer)
        self.bias_initializer = initializers.resolve(bias_initializer)
        self.kernel_regularizer = regularizers.resolve("kernel_regularizer", kernel_regularizer)
        self.recurrent_regularizer = regularizers.resolve("recurrent_regularizer", recurrent_regularizer)
        self.bias_regularizer = regularizers.resolve("bias_regularizer", bias_regularizer)
        self.dropout = number("dropout", dropout, 0, 1, below=True)
        self.recurrent_dropout = number("recurrent_dropout", recurrent_dropout, 0, 1, below=True)
        self.return_sequences = boolean("return_sequences", return_sequences)
        self.return_state = boolean("return_state", return_state)
        self.go_backwards = boolean("go_backwards", go_backwards)
        self.zero_output_for_mask = boolean("zero_output_for_mask", zero_output_for_mask)
        self._in_order = False  # whether steps that were taken backwards come out in the order of the input

    def call(self, x: Any, *, mask: Any = None, initial_state: Any = None, training: bool = False) -> Any:
        """Compute the layer's value.

        Parameters
        ----------
        x
            `(batch, time, features)`.
        mask : value or array, optional
            `(batch, time)`, true (or not 0) where there is something: the state passes other steps unchanged, wherever
            they are, and each gives the state again. `bn.ops.sequence_mask` makes one from lengths.
        initial_state : value or sequence of values, optional
            `(batch, units)`, of an LSTM h and c; zeros without.
        training : bool
            Which form is written; what is dropped is dropped in training.
        """
        check_sequence(self.default_name, x.shape)
        batch, time, features = x.shape
        mask = None if mask is None else self._checked_mask(mask, (batch, time))
        options = {"mask": mask, "initial_state": self._checked_state(initial_state, batch)}
        if training and self.recurrent_dropout:
            one = ops.broadcast_to(x[:, 0, :1], (batch, self.units))
            options["recurrent_factors"] = ops.dropout(ops.ones_like(one), self.recurrent_dropout)
        if training and self.dropout:
            x = x * ops.dropout(ops.ones_like(x[:, :1]), self.dropout)
        returns = "states" if self.return_state else "sequence" if self.return_sequences else "last"
        parameters = self._parameters(features)
        y = self._run(x, *parameters, **options, returns=returns, go_backwards=self.go_backwards)
        if not self.return_state:
            return self._ordered(y, mask) if self.return_sequences else y
        place = 0 if self.go_backwards else time - 1
        final = [y[:, place, self.units * state : self.units * (state + 1)] for state in range(self.states)]
        output = self._ordered(y[:, :, : self.units], mask) if self.return_sequences else final[0]
        return (output, *final)

    def directed(self, direction: str, *, backwards: bool) -> Self:
        """Return a copy that is one half of a `Bidirectional`."""
        one = copy.copy(self)
        one.name = self.name and f"{direction}_{self.name}"
        one.go_backwards = backwards
        one.zero_output_for_mask = True
        one._in_order = True
        return one

    def _run(self, *inputs: Any, **options: Any) -> Value:
        """Emit the operation."""
        raise NotImplementedError

    def _bias_shape(self) -> tuple[int, ...]:
        return (self.gates * self.units,)

    def _parameters(self, features: int) -> list[Value]:
        width = self.gates * self.units
        initializer, penalty = self.kernel_initializer, self.kernel_regularizer
        kernel = self.parameter("kernel", (features, width), initializer, regularizer=penalty)
        initializer, penalty = self.recurrent_initializer, self.recurrent_regularizer
        recurrent = self.parameter("recurrent_kernel", (self.units, width), initializer, regularizer=penalty)
        if not self.use_bias:
            return [kernel, recurrent]
        shape = self._bias_shape()
        return [kernel, recurrent, self.parameter("bias", shape, self.bias_initializer, "bias", self.bias_regularizer)]

    def _ordered(self, y: Value, mask: Any) -> Value:
        """Return the outputs in the order in which the steps were taken, as Keras."""
        if self.zero_output_for_mask and mask is not None:
            y = ops.where(ops.expand_dims(mask, 2), y, 0.0)
        return ops.flip(y, 1) if self.go_backwards and not self._in_order else y

    def _checked_mask(self, mask: Any, wanted: tuple[int | None, ...]) -> Value:
        got = tuple(mask.shape)
        if got != wanted:
            raise ValueError(f"{self.default_name}: `mask` must have shape {show(wanted)}, got {show(got)}")
        return ops.cast(mask, "bool")

    def _checked_state(self, given: Any, batch: int | None) -> list[Any]:
        state = [] if given is None else list(given) if is_sequence(given) else [given]
        wanted = (batch, self.units)
        shapes = [tuple(one.shape) for one in state]
        if state and shapes != [wanted] * self.states:
            raise ValueError(
                f"{self.default_name}: `initial_state` must be {self.states} of shape {show(wanted)}, "
                f"got {', '.join(map(show, shapes))}"
            )
        return state


class RNN(_Recurrent):
    """h' = activation(x · kernel + h · recurrent_kernel + bias) along a sequence (Elman 1990): Keras's `SimpleRNN`.

    `(batch, time, features) -> (batch, units)`, the last state, or `(batch, time, units)`.

    Parameters
    ----------
    units : int
        The length of the state.
    activation : {"tanh", "relu", "sigmoid", "hard_sigmoid", "linear"}
        Of the sum.
    use_bias : bool, default True
        Whether a bias is added.
    kernel_initializer, recurrent_initializer, bias_initializer : str or Initializer
        How the parameters `kernel (features, units)`, `recurrent_kernel (units, units)` and `bias (units,)` start.
    kernel_regularizer, recurrent_regularizer, bias_regularizer : str or function, optional
        Penalties on their size, added to the loss; see `bn.regularizers`.
    dropout, recurrent_dropout : float in [0, 1), default 0
        In training, what part is set to 0 of the features, and of the state as it enters the product: the same at all
        steps of a sample (Gal and Ghahramani 2016).
    return_sequences : bool, default False
        Whether to return the state after each step.
    return_state : bool, default False
        Whether to return the last state too: `(output, h)`, of an LSTM `(output, h, c)`.
    go_backwards : bool, default False
        Whether to begin at the last step; sequences then come out in the order in which the steps were taken.
    zero_output_for_mask : bool, default False
        Whether masked steps of a returned sequence are 0 instead of the state that passes them.
    """

    gates = 1

    def __init__(  # noqa: PLR0917  Keras's order
        self,
        units: int,
        activation: str | None = "tanh",
        use_bias: bool = True,  # noqa: FBT001, FBT002
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        **options: Unpack[_Options],
    ) -> None:
        parameters = (kernel_initializer, recurrent_initializer, bias_initializer)
        super().__init__(units, activation, *parameters, use_bias=use_bias, **options)

    def _run(self, *inputs: Any, **options: Any) -> Value:
        return ops.rnn(*inputs, activation=self.activation, **options)


class _Gated(_Recurrent):
    """What cells share whose gates have an activation of their own."""

    def __init__(  # noqa: PLR0917  Keras's order
        self,
        units: int,
        activation: str | None = "tanh",
        recurrent_activation: str | None = "sigmoid",
        use_bias: bool = True,  # noqa: FBT001, FBT002
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        **options: Unpack[_Options],
    ) -> None:
        parameters = (kernel_initializer, recurrent_initializer, bias_initializer)
        super().__init__(units, activation, *parameters, use_bias=use_bias, **options)
        self.recurrent_activation = _activation("recurrent_activation", recurrent_activation)

    def _functions(self) -> dict[str, str]:
        return {"activation": self.activation, "recurrent_activation": self.recurrent_activation}


class GRU(_Gated):
    """A gated recurrent unit (Cho et al. 2014) along a sequence, as Keras's with `reset_after=True` and PyTorch's.

    z = s(x·Wz + h·Uz), r = s(x·Wr + h·Ur), n = activation(x·Wn + r · (h·Un)), h' = z · h + (1 - z) · n, and a bias for
    each product. `(batch, time, features) -> (batch, units)`, the last state, or `(batch, time, units)`.

    Parameters
    ----------
    units : int
        The length of the state.
    activation, recurrent_activation : {"tanh", "relu", "sigmoid", "hard_sigmoid", "linear"}
        Of n, and s.
    use_bias : bool, default True
        Whether biases are added.
    kernel_initializer, recurrent_initializer, bias_initializer : str or Initializer
        How the parameters `kernel (features, 3 · units)`, `recurrent_kernel (units, 3 · units)` and `bias
        (2, 3 · units)` start; blocks in the order z, r, n; the second row of the bias belongs to the recurrent kernel.
    **options
        `kernel_regularizer`, `recurrent_regularizer`, `bias_regularizer`, `dropout`, `recurrent_dropout`,
        `return_sequences`, `return_state`, `go_backwards`, `zero_output_for_mask` and `name` as of `RNN`.
    """

    gates = 3

    def _bias_shape(self) -> tuple[int, ...]:
        return (2, self.gates * self.units)

    def _run(self, *inputs: Any, **options: Any) -> Value:
        return ops.gru(*inputs, **self._functions(), **options)


class LSTM(_Gated):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000) along a sequence.

    With z = x · kernel + h · recurrent_kernel + bias: i, f, o = s of their blocks of z, g = activation(z_g),
    c' = f · c + i · g, h' = o · activation(c'). `(batch, time, features) -> (batch, units)`, the last h, or
    `(batch, time, units)`.

    Parameters
    ----------
    units : int
        The length of h and c.
    activation, recurrent_activation : {"tanh", "relu", "sigmoid", "hard_sigmoid", "linear"}
        Of g and c', and s.
    use_bias : bool, default True
        Whether a bias is added.
    kernel_initializer, recurrent_initializer, bias_initializer : str or Initializer
        How the parameters `kernel (features, 4 · units)`, `recurrent_kernel (units, 4 · units)` and `bias
        (4 · units,)` start; blocks in the order i, f, g, o.
    unit_forget_bias : bool, default True
        Whether the bias of f starts at 1 (Jozefowicz et al. 2015).
    **options
        `kernel_regularizer`, `recurrent_regularizer`, `bias_regularizer`, `dropout`, `recurrent_dropout`,
        `return_sequences`, `return_state`, `go_backwards`, `zero_output_for_mask` and `name` as of `RNN`.
    """

    gates = 4
    states = 2

    def __init__(  # noqa: PLR0917  Keras's order
        self,
        units: int,
        activation: str | None = "tanh",
        recurrent_activation: str | None = "sigmoid",
        use_bias: bool = True,  # noqa: FBT001, FBT002
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,  # noqa: FBT001, FBT002
        **options: Unpack[_Options],
    ) -> None:
        parameters = (kernel_initializer, recurrent_initializer, bias_initializer)
        super().__init__(units, activation, recurrent_activation, use_bias, *parameters, **options)
        if boolean("unit_forget_bias", unit_forget_bias):
            self.bias_initializer = initializers.with_open_forget_gates(self.bias_initializer)

    def _run(self, *inputs: Any, **options: Any) -> Value:
        return ops.lstm(*inputs, **self._functions(), **options)


class Bidirectional(OneInput):
    """A recurrent layer along the sequence and another, of its own parameters, against it (Schuster and Paliwal 1997).

    Outputs of the same step are merged: `(batch, time, features) -> (batch, 2 · units)` or `(batch, time, 2 · units)`.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
        What to run; its copies are `forward_layer` and `backward_layer`. Masked steps of sequences come out as 0.
    merge_mode : {"concat", "sum", "mul", "ave"} or None
        How the two outputs become one; None returns both.
    """

    def __init__(self, layer: Any, merge_mode: str | None = "concat", *, name: str | None = None) -> None:
        super().__init__(name)
        if not isinstance(layer, _Recurrent):
            raise TypeError(f"`layer` must be an RNN, a GRU or an LSTM, got {layer!r}")
        self.merge_mode = merge_mode if merge_mode is None else choice("merge_mode", merge_mode, _MERGES)
        self.forward_layer = layer.directed("forward", backwards=layer.go_backwards)
        self.backward_layer = layer.directed("backward", backwards=not layer.go_backwards)

    def call(self, x: Any, *, mask: Any = None, initial_state: Any = None, training: bool = False) -> Any:
        """Compute the layer's value; an initial state is that of the one layer, then that of the other."""
        both = (self.forward_layer, self.backward_layer)
        states = _halves(self.default_name, initial_state)
        found = [
            layer(x, mask=mask, initial_state=state, training=training)
            for layer, state in zip(both, states, strict=True)
        ]
        outputs = self._merged([output[0] for output in found] if self.forward_layer.return_state else found)
        if self.forward_layer.return_state:
            return (*outputs, *found[0][1:], *found[1][1:])
        return outputs if self.merge_mode is None else outputs[0]

    def _merged(self, outputs: list[Any]) -> tuple[Any, ...]:
        return tuple(outputs) if self.merge_mode is None else (_MERGES[self.merge_mode](*outputs),)


def _halves(name: str, state: Any) -> tuple[Any, Any]:
    if state is None:
        return None, None
    if not is_sequence(state) or len(state) % 2:
        raise ValueError(f"{name}: `initial_state` must hold the states of both layers, got {state!r}")
    half = len(state) // 2
    return state[:half], state[half:]


def _activation(argument: str, name: str | None) -> str:
    return _ACTIVATIONS["linear" if name is None else choice(argument, name, _ACTIVATIONS)]
