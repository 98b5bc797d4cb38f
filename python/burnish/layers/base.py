"""The base of every layer, ours and the user's."""

from __future__ import annotations

import numbers
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from .. import initializers, regularizers
from .._errors import choice, integer
from .._node import has_nodes, record
from .._structure import is_dict, is_sequence
from .._symbol import LayerRow, Symbol, current_trace
from .._value import Value
from ..losses import per_sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._symbol import Trace

__all__ = ["ROLES", "Layer", "OneInput", "layer_paths", "layers_and_paths", "snake_case", "unique_names"]

ROLES = ("kernel", "embedding", "bias", "scale")
_NAME = re.compile(r"[A-Za-z0-9_-]+")


class Layer:
    """A function with parameters. Write your own by declaring the parameters where `call` uses them.

    Parameters
    ----------
    name : str, optional
        The layer's part of its parameters' paths. By default the name of the attribute that holds it, or, in a
        `Sequential` and in a functional model, its class in snake case, numbered from the second one on.

    Notes
    -----
    `call` is run while the model is described, not while it is trained: what runs then is the program that `call`
    wrote, so a user's own layer is as fast as ours. It may take `training`, which says which form is being written.
    Layers that are attributes (also inside lists, tuples and dicts) are found by themselves.

    Examples
    --------
    >>> import burnish as bn
    >>> class Scale(bn.layers.Layer):
    ...     def call(self, x):
    ...         factor = self.parameter("factor", (x.shape[-1],), "ones", role="scale")
    ...         return x * factor
    >>> model = bn.Sequential([bn.Input((3,)), Scale()])
    >>> sorted(model.parameters())
    ['scale.factor']
    """

    name: str | None = None

    def __init__(self, name: str | None = None) -> None:
        if name is not None and (not isinstance(name, str) or not _NAME.fullmatch(name)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"`name` must be made of letters, digits, `_` and `-`, got {name!r}")
        self.name = name

    def call(self, *inputs: Any, **options: Any) -> Any:
        """Compute the layer's value from its inputs; every layer defines this."""
        raise NotImplementedError(f"{type(self).__name__} must define call(self, x)")

    def __call__(self, *inputs: Any, training: bool | None = None, **options: Any) -> Any:
        """Apply the layer to values of a model, to `bn.Input`, or, if it has no parameters, to arrays.

        `options` go to `call`; they may hold values too.
        """
        if has_nodes((inputs, options)):
            return record(self, inputs, options if training is None else {**options, "training": training})
        trace = current_trace()
        options = {**options, **self._options(trace, training=training)}
        if trace is None:
            return self.call(*inputs, **options)
        with trace.scope(self._path(trace)):
            result = self.call(*inputs, **options)
            if result is None:
                raise TypeError(
                    f"{self.default_name}: `call` (or a function that it uses) returned None; return a value"
                )
            if isinstance(result, numbers.Number):
                raise TypeError(
                    f"{self.default_name}: `call` must return a value made of its inputs, got {type(result).__name__}"
                )
            self._note(trace, result)
        return result

    def parameter(
        self,
        name: str,
        shape: Sequence[int],
        initializer: Any = "glorot_uniform",
        role: str = "kernel",
        regularizer: Any = None,
    ) -> Value:
        """Declare a trainable parameter, inside `call`; asked for again, it is the same one.

        Parameters
        ----------
        name : str
            Its name within the layer.
        shape : sequence of int
            Its shape; usually from the shape of the input.
        initializer : str, Initializer or function
            How it starts: a name or object of `bn.initializers`, or `(shape, rng) -> array`.
        role : {"kernel", "embedding", "bias", "scale"}
            Weight decay applies to kernels and embeddings only.
        regularizer : str or function, optional
            A penalty on its size, added to the loss; see `bn.regularizers`.
        """
        trace = self._tracing(f"parameter {name!r}")
        start = initializers.resolve(initializer)
        lengths = _lengths(name, shape)
        parameter = trace.parameter(_checked(name), lengths, start, choice("role", role, ROLES))
        penalty = regularizers.resolve("regularizer", regularizer)
        if penalty is not None:
            trace.penalise(self._checked_loss(penalty(parameter)), name)
        return parameter

    def buffer(self, name: str, shape: Sequence[int], initializer: Any = "zeros") -> Value:
        """Declare an array that is kept with the model but not trained, such as a running mean."""
        trace = self._tracing(f"buffer {name!r}")
        return trace.buffer(_checked(name), _lengths(name, shape), initializers.resolve(initializer))

    def assign(self, name: str, value: Value) -> None:
        """Let every training step end by setting the buffer `name` to this value."""
        trace = self._tracing(f"assignment to {name!r}")
        if not isinstance(value, Symbol):
            raise TypeError(f"buffer {name!r} must be set to a value of the model, got {type(value).__name__}")
        trace.assign(name, value)

    def add_loss(self, value: Value) -> None:
        """Add a value to the loss, inside `call`: one without axes, or one per sample (averaged over its other axes).

        >>> import burnish as bn
        >>> class Sparse(bn.layers.Layer):
        ...     def call(self, x):
        ...         self.add_loss(0.01 * bn.ops.abs(x))
        ...         return x
        """
        self._tracing("add_loss").penalise(self._checked_loss(value))

    def is_frozen(self, *names: str) -> bool:
        """Say whether all of these parameters of this layer are frozen."""
        trace = self._tracing("is_frozen")
        return all(trace.is_frozen(trace.absolute(name)) for name in names)

    def children(self) -> dict[str, Layer]:
        """Return the layers inside this one by name."""
        return dict(_attributes(vars(self)))

    def initial_arrays(self) -> dict[str, Any]:
        """Return the arrays by name that parameters and buffers of this layer start with, instead of by initializer."""
        return {}

    @property
    def default_name(self) -> str:
        """Return the given name, or the class in snake case."""
        return self.name or snake_case(type(self).__name__)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.default_name!r}>"

    def _options(self, trace: Trace | None, *, training: bool | None) -> dict[str, bool]:
        if not _takes_training(type(self)):
            return {}
        return {"training": training if training is not None else trace is not None and trace.training}

    def _path(self, trace: Trace) -> str:
        try:
            return trace.paths[id(self)]
        except KeyError:
            raise ValueError(
                f"`call` uses a {type(self).__name__} that no attribute holds; make it in __init__ and keep it on self"
            ) from None

    def _note(self, trace: Trace, result: Any) -> None:
        shape = result.shape if isinstance(result, Value) else None
        trace.note(LayerRow(trace.path, type(self).__name__, shape, 1))

    def _checked_loss(self, value: Any) -> Value:
        if not isinstance(value, Symbol):
            raise TypeError(f"{self.default_name}: a penalty must be made of bn.ops, got {type(value).__name__}")
        if value.shape and (value.shape[0] is not None or None in value.shape[1:]):
            raise ValueError(
                f"{self.default_name}: a penalty must have no axis or one value per sample, got {value.shape}"
            )
        return per_sample(value) if value.shape else value

    def _tracing(self, what: str) -> Trace:
        trace = current_trace()
        if trace is None:
            raise RuntimeError(f"{type(self).__name__}: {what} exists only inside a model; use the layer in one")
        return trace


class OneInput(Layer):
    """The base of our layers of a single value."""

    def __call__(self, *inputs: Any, training: bool | None = None, **options: Any) -> Any:
        """Apply the layer to one value."""
        several = inputs if len(inputs) != 1 else inputs[0]
        if is_dict(several) or (is_sequence(several) and (len(inputs) != 1 or any(map(_is_value, several)))):
            raise ValueError(
                f"{self.default_name}: expected a single value, got a {type(several).__name__} of {len(several)}"
            )
        return super().__call__(*inputs, training=training, **options)


def _is_value(leaf: object) -> bool:
    return isinstance(leaf, Value)


def snake_case(name: str) -> str:
    """Return `BatchNorm` as `batch_norm`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def unique_names(layers: Sequence[Layer]) -> dict[str, Layer]:
    """Name layers by their given names and classes: dense, dense_1, dense_2."""
    taken: dict[str, Layer] = {}
    numbers: dict[str, int] = {}
    for layer in {id(layer): layer for layer in layers}.values():
        if layer.name is not None and layer.name in taken:
            raise ValueError(f"two layers are named {layer.name!r}")
        taken[_free(layer.default_name, taken, numbers)] = layer
    return taken


def layer_paths(root: Layer, prefix: str = "") -> dict[int, str]:
    """Return the path of every layer below (and of) `root` by the layer's identity."""
    return {id(layer): path for layer, path in layers_and_paths(root, prefix)}


def layers_and_paths(root: Layer, prefix: str = "") -> list[tuple[Layer, str]]:
    """Return every layer below (and) `root` with its path; one that is held twice has the path nearest to the root."""
    found = [(root, prefix)]
    known, taken = {id(root)}, {prefix}
    for layer, path in found:
        for name, child in layer.children().items():
            if id(child) in known:
                continue
            place = f"{path}.{name}".lstrip(".")
            if place in taken:
                raise ValueError(f"two layers have the path {place!r}; give them different names")
            known.add(id(child))
            taken.add(place)
            found.append((child, place))
    return found


def _attributes(attributes: dict[str, Any]) -> Iterator[tuple[str, Layer]]:
    for name, value in attributes.items():
        if isinstance(value, Layer):
            yield value.name or name, value
        elif is_sequence(value):
            yield from ((f"{name}.{child}", layer) for child, layer in _attributes(_numbered(value)))
        elif is_dict(value):
            strings = {str(key): item for key, item in value.items()}
            yield from ((f"{name}.{child}", layer) for child, layer in _attributes(strings))


def _numbered(values: Any) -> dict[str, Any]:
    return {str(index): value for index, value in enumerate(values)}


def _free(name: str, taken: dict[str, Layer], numbers: dict[str, int]) -> str:
    """Return the name, numbered from where the last one like it stopped."""
    free = name
    while free in taken:
        numbers[name] = numbers.get(name, 0) + 1
        free = f"{name}_{numbers[name]}"
    return free


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"a parameter's name must be made of letters, digits, `_` and `-`, got {name!r}")
    return name


def _lengths(name: str, shape: Sequence[int | None]) -> tuple[int, ...]:
    """Return a parameter's shape, which must not depend on the batch."""
    if not is_sequence(shape):
        raise TypeError(f"the shape of {name!r} must be a tuple of lengths, got {shape!r}")
    if None in shape:
        raise ValueError(f"the shape of {name!r} must not hold the batch's length, which is free: got {tuple(shape)}")
    return tuple(integer(f"shape of {name}", length, 0) for length in shape)


@cache
def _takes_training(layer: type[Layer]) -> bool:
    import inspect

    return "training" in inspect.signature(layer.call).parameters
