"""What a program costs: floating-point operations and bytes of each operation, for a batch of one sample.

A multiply-add counts as two operations. What works element by element counts one for each element of its output,
whatever the function (an exponential is one, as a sum is); moving, choosing and looking up count nothing.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ._document import batches_in, needed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ._burnish import Program

__all__ = ["FLOPS", "Cost", "costs", "gradient_flops"]

Lengths: TypeAlias = tuple[int, ...]
Formula: TypeAlias = "Callable[[list[Lengths], Lengths, dict[str, Any]], int]"

_BYTES = {"int": 4, "bool": 1}


class Cost(NamedTuple):
    """One operation of a program."""

    node: int  # its place in the program
    operands: list[int]  # theirs
    lengths: list[Lengths]  # of the operands
    scope: str
    operation: str
    flops: int
    bytes: int  # of what it makes; 0 if that is the same for every sample, or its input's elements in another order


def _moved(_inputs: list[Lengths], _output: Lengths, _attributes: dict[str, Any]) -> int:
    return 0


def _each_output(_inputs: list[Lengths], output: Lengths, _attributes: dict[str, Any]) -> int:
    return math.prod(output)


def _each_input(times: int) -> Formula:
    return lambda inputs, _output, _attributes: times * math.prod(inputs[0])


def _matmul(inputs: list[Lengths], output: Lengths, _attributes: dict[str, Any]) -> int:
    return 2 * inputs[0][-1] * math.prod(output)


def _affine(inputs: list[Lengths], output: Lengths, attributes: dict[str, Any]) -> int:
    """Return 2 · terms of each sum, + 1 for the bias, + 1 for the activation, for each element of the output."""
    bias, activation = len(inputs) == 3, attributes.get("activation", "none") != "none"
    return (2 * math.prod(inputs[1][:-1]) + bias + activation) * math.prod(output)


def _scores(inputs: list[Lengths], _output: Lengths, attributes: dict[str, Any]) -> int:
    """Return the number of attention's weights: of each query and each place in each head."""
    query, key = inputs[:2]
    return attributes["heads"] * query[0] * query[1] * key[1]


def _attention(inputs: list[Lengths], output: Lengths, attributes: dict[str, Any]) -> int:
    """Return what its two products cost, and six operations for each score: it is scaled, and softmax."""
    scores = _scores(inputs, output, attributes)
    return 2 * scores // attributes["heads"] * (inputs[0][2] + output[2]) + 6 * scores


def _ctc(inputs: list[Lengths], _output: Lengths, _attributes: dict[str, Any]) -> int:
    """Return what softmax costs, and each step of each state: the logarithm of three ways' sum, and an output."""
    (batch, steps, _), (_, places) = inputs[:2]
    return 5 * math.prod(inputs[0]) + 14 * batch * steps * (2 * places + 1)


def _recurrent(of_a_unit: int) -> Formula:
    """Return, for each step, the products with both kernels, their sum, the bias, and what each unit does with that."""

    def formula(inputs: list[Lengths], _output: Lengths, _attributes: dict[str, Any]) -> int:
        (rows, steps, features), (units, width) = inputs[0], inputs[2]
        return rows * steps * (width * (2 * features + 2 * units + 2) + of_a_unit * units)

    return formula


def _gates(blocks: int) -> Formula:
    """Return the elements of gates and states that a recurrent layer keeps, so many blocks of its units a step."""
    return lambda inputs, _output, _attributes: blocks * inputs[0][0] * inputs[0][1] * inputs[2][0]


def _pooling(_inputs: list[Lengths], output: Lengths, attributes: dict[str, Any]) -> int:
    return math.prod(attributes["size"]) * math.prod(output)


_MOVES = "broadcast_to cast concatenate flip one_hot pad reshape slice stop_gradient take take_along_axis transpose"
_ELEMENTWISE = (
    "abs add ceil cos divide dropout elu equal erf exp expm1 floor gelu greater greater_equal leaky_relu less "
    "less_equal log log1p logical_and logical_not logical_or maximum minimum multiply neg not_equal power "
    "random_normal_like random_uniform_like reciprocal relu round rsqrt sigmoid sign silu sin softplus sqrt square "
    "subtract tanh where"
)
_REDUCTIONS = "argmax argmin max mean min sum"

FLOPS: dict[str, Formula] = {
    **dict.fromkeys(_MOVES.split(), _moved),
    **dict.fromkeys(_ELEMENTWISE.split(), _each_output),
    **dict.fromkeys(_REDUCTIONS.split(), _each_input(1)),
    "attention": _attention,
    "avg_pool2d": _pooling,
    "batch_norm": _each_input(3),  # difference, factor, offset
    "conv2d": _affine,
    "cross_entropy": _each_input(5),  # as log_softmax
    "ctc": _ctc,
    "gru": _recurrent(8),  # three activations, the reset, and four for the new state
    "layer_norm": _each_input(7),  # mean, difference, square, mean, quotient, scale, offset
    "linear": _affine,
    "log_softmax": _each_input(5),  # maximum, difference, exponential, sum, difference
    "logsumexp": _each_input(4),  # maximum, difference, exponential, sum
    "lstm": _recurrent(9),  # five activations, and four for the two states
    "matmul": _matmul,
    "max_pool2d": _pooling,
    "moments": _each_input(4),  # sum, difference, square, sum
    "rnn": _recurrent(1),  # an activation
    "softmax": _each_input(5),  # maximum, difference, exponential, sum, quotient
}
# Elements that an operation makes beside its output, for its gradient.
_BESIDE: dict[str, Formula] = {
    "attention": _scores,
    "dropout": _each_input(1),  # the mask
    "gru": _gates(5),  # three gates, what the reset is multiplied with, h
    "lstm": _gates(7),  # four gates, the activation of c, h and c
    "rnn": _gates(2),  # the sum, h
}
_PRODUCTS = frozenset({"conv2d", "linear", "matmul"})
_RECURRENT = frozenset({"gru", "lstm", "rnn"})
# What shows the elements of its input, without a copy.
_VIEWS = frozenset({"broadcast_to", "reshape", "slice", "stop_gradient", "transpose"})


def costs(program: Program, outputs: Iterable[str], float_bytes: int) -> list[Cost]:
    """Return the cost of every operation that these outputs need, in order."""
    document = json.loads(program.to_json())
    items: list[dict[str, Any]] = document["values"]
    shapes = _Shapes(program)
    found: list[Cost] = []
    for index in needed(items, [document["outputs"][name] for name in outputs]):
        fields = items[index].get("apply")
        shapes.note(index, fields)
        if fields is not None:
            inputs = [shapes.lengths[operand] for operand in fields["inputs"]]
            flops = FLOPS[fields["operation"]](inputs, shapes.lengths[index], fields["attributes"])
            kept = index in shapes.multiples and fields["operation"] not in _VIEWS
            beside = _BESIDE.get(fields["operation"], _moved)(inputs, shapes.lengths[index], fields["attributes"])
            size = (math.prod(shapes.lengths[index]) + beside) * _BYTES.get(program.kind(index), float_bytes)
            own = (fields["scope"], fields["operation"], flops, size if kept else 0)
            found.append(Cost(index, fields["inputs"], inputs, *own))
    return found


def gradient_flops(cost: Cost, wanted: Sequence[bool]) -> int:
    """Return what the gradients of an operation cost, given which operands need one.

    That is the forward pass once more; of a product, once for each factor that needs a gradient.
    """
    if not any(wanted) or cost.operation == "stop_gradient":
        return 0
    if cost.operation in _PRODUCTS:
        return cost.flops * sum(wanted[:2])
    if cost.operation == "attention":  # its four factors get theirs together
        return 2 * cost.flops
    if cost.operation in _RECURRENT:
        of_input = 2 * math.prod(cost.lengths[0]) * cost.lengths[1][-1]
        return of_input * sum(wanted[:2]) + (cost.flops - of_input) * (
            1 + wanted[2]
        )  # h, by every step, and its kernel
    return cost.flops


class _Shapes:
    """The lengths of a program's values for a batch of one, and how often the batch goes into their open axes."""

    def __init__(self, program: Program) -> None:
        self.lengths: dict[int, Lengths] = {}
        self.multiples: dict[int, int] = {}
        self._shape = program.shape

    def note(self, index: int, fields: dict[str, Any] | None) -> None:
        """Note a value whose inputs are noted; `fields` describe the operation that makes it, if one does."""
        shape = self._shape(index)
        if None in shape:
            inputs: list[int] = [] if fields is None else fields["inputs"]
            operands = [(self._shape(operand), self.multiples.get(operand, 1)) for operand in inputs]
            self.multiples[index] = 1 if fields is None else batches_in(shape, fields, operands)
        self.lengths[index] = tuple(self.multiples[index] if n is None else n for n in shape)
