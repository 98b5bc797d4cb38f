"""The functional form: `Input`, and the model between inputs and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._build import Signature
from ._node import Call, Node, replay
from ._runtime import weak
from ._shapes import sample_shape
from ._structure import Structure, by_name, flatten, is_dict, is_sequence, mapped, skeleton, unflatten
from .layers.base import Layer, unique_names
from .model import Model, core_of

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Functional", "Input"]


def Input(shape: int | tuple[int, ...], name: str | None = None) -> Node:  # noqa: N802  Keras's name
    """Return the value that a functional model begins with.

    Parameters
    ----------
    shape : tuple of int
        The shape of one sample, without the batch.
    name : str, optional
        The key of its array when a model has several inputs.

    Examples
    --------
    >>> import burnish as bn
    >>> x = bn.Input((8,))
    >>> h = bn.layers.Dense(8, activation="tanh")(x)
    >>> model = bn.Model(x, bn.layers.Dense(1)(x + h))
    """
    return Node((None, *sample_shape("shape", shape)), "float", None, name=name)


class Functional(Model):
    """A model between values of `Input` and values made from them; made by `bn.Model(inputs, outputs)`."""

    def __init__(self, inputs: Any, outputs: Any, *, name: str | None = None) -> None:
        super().__init__(name)
        core = core_of(self)
        core.arrange, core.known_inputs = weak(self._arrange), weak(self._known_inputs)
        self._inputs = _named_inputs(inputs)
        self._outputs = _structure("outputs", outputs)
        self._calls = _ordered(flatten("", self._outputs).values(), self._inputs)
        self._several = not isinstance(inputs, Node)
        self._layers = [call.function for call in self._calls if isinstance(call.function, Layer)]
        unique_names(self._layers)

    @property
    def layers(self) -> list[Layer]:
        """The layers in the order of their first use."""
        return list(self.children().values())

    def children(self) -> dict[str, Layer]:
        """Return the layers by name."""
        return unique_names(self._layers)

    def call(self, *x: Any) -> Any:
        """Compute the model's value."""
        values = self._arrange(x[0] if len(x) == 1 else x)
        named = values if self._several else dict.fromkeys(self._inputs, values)
        inputs = {node: named[name] for name, node in self._inputs.items()}
        results = replay(self._calls, inputs, list(flatten("", self._outputs).values()))
        names = skeleton("", self._outputs)
        return unflatten(names, dict(zip(flatten("", names).values(), results, strict=True)))

    def _arrange(self, x: Any) -> Any:
        """Return several inputs as a dict in the order of the model's inputs."""
        return by_name(list(self._inputs), x) if self._several else x

    def _known_inputs(self) -> Signature | None:
        if not self._several:
            return Signature("x", {"x": next(iter(self._inputs.values())).shape})
        names: Structure[str] = {name: f"x.{name}" for name in self._inputs}
        return Signature(names, {f"x.{name}": node.shape for name, node in self._inputs.items()})


def _structure(argument: str, value: Any) -> Structure[Node]:
    structure: Structure[Any] = tuple(value) if is_sequence(value) else value
    return mapped(lambda leaf: _checked(argument, leaf), structure)


def _checked(argument: str, leaf: Any) -> Node:
    if not isinstance(leaf, Node):
        raise TypeError(f"`{argument}` must be made from bn.Input, got {type(leaf).__name__}")
    return leaf


def _named_inputs(inputs: Any) -> dict[str, Node]:
    """Name the inputs by the dict's keys, by their own names, or as input, input_1 and so on."""
    structure = _structure("inputs", inputs)
    if any(node.call is not None for node in flatten("", structure).values()):
        raise ValueError("`inputs` must be values of bn.Input itself")
    if is_dict(structure):
        return {str(key): node for key, node in structure.items()}
    named: dict[str, Node] = {}
    for index, node in enumerate(flatten("", structure).values()):
        name = node.name or (f"input_{index}" if index else "input")
        if name in named:
            raise ValueError(f"`inputs`: two inputs are named {name!r}")
        named[name] = node
    return named


def _ordered(outputs: Iterable[Node], inputs: dict[str, Node]) -> list[Call]:
    """Return the calls that lead to the outputs, each after those it needs."""
    known = {id(node) for node in inputs.values()}
    done: dict[Call, None] = {}
    pending: list[tuple[Node, bool]] = [(node, False) for node in reversed(list(outputs))]
    while pending:
        node, ready = pending.pop()
        if node.call is None:
            if id(node) not in known:
                raise ValueError(f"the outputs depend on an Input of shape {node.shape} that is not among `inputs`")
        elif ready:
            done[node.call] = None
        elif node.call not in done:
            pending.append((node, True))
            pending.extend((argument, False) for argument in reversed(node.call.nodes()))
    return list(done)
