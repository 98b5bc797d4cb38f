"""What all values share: operators and methods that emit operations, whatever kind of value they meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from . import _hints

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

__all__ = ["Operand", "Shape", "Value", "apply", "binary", "cast", "kind_of", "plain", "shape_of"]

Shape: TypeAlias = tuple[int | None, ...]
_KINDS = {"b": "bool", "i": "int", "u": "int", "f": "float"}
_ORDER = ("bool", "int", "float")
# NumPy's functions behind its operators, and the methods of what stands on the right.
_OPERATORS = {
    "add": "add",
    "bitwise_and": "and",
    "bitwise_or": "or",
    "divide": "truediv",
    "floor_divide": "floordiv",
    "matmul": "matmul",
    "multiply": "mul",
    "power": "pow",
    "remainder": "mod",
    "subtract": "sub",
}
_COMPARISONS = frozenset({"equal", "greater", "greater_equal", "less", "less_equal", "not_equal"})


class Value:
    """A value that operations apply to: `bn.Tensor` holds numbers, a model's values stand for what will be computed.

    Operators follow NumPy: `+ - * / ** @`, comparisons (element by element), `& | ~` of booleans, `x[..., 1:]`.
    Everything in `bn.ops` takes such values, arrays and Python numbers alike.
    """

    __slots__ = ()
    precedence: ClassVar[int] = 0  # of two kinds of value in one operation, the higher one emits

    @property
    def shape(self) -> Shape:
        """The length of each axis; None where it is that of the batch."""
        raise NotImplementedError

    @property
    def kind(self) -> str:
        """What the elements are: "float", "int" or "bool"."""
        raise NotImplementedError

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def T(self) -> Value:  # noqa: N802  NumPy's name
        """The value with its axes in reverse order."""
        return self.transpose()

    def emit(self, operation: str, values: Sequence[Value | npt.NDArray[Any]], attributes: dict[str, Any]) -> Value:
        """Apply an operation to values of which this one has the highest rank."""
        raise NotImplementedError

    def as_kind(self, kind: str) -> Value:
        """Return the value as "float", "int" or "bool"."""
        return self if self.kind == kind else apply("cast", self, kind=kind)

    def numpy(self) -> npt.NDArray[Any]:
        """Return the numbers as an array; only a `bn.Tensor` has them."""
        raise NotImplementedError

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:  # noqa: FBT001
        if copy is False:
            raise ValueError("the numbers of a value can only be given as a copy")
        array = self.numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    def reshape(self, *shape: int | Sequence[int | None] | None) -> Value:
        """Return the value in another shape; one -1 (or None) is worked out."""
        first = shape[0] if len(shape) == 1 else None
        wanted = list(first) if isinstance(first, (tuple, list)) else list(shape)
        return apply("reshape", self, shape=[-1 if n is None else n for n in wanted])

    def transpose(self, *axes: int) -> Value:
        """Return the value with its axes in this order (default: reversed)."""
        order = [axis % self.ndim for axis in axes] if axes else list(reversed(range(self.ndim)))
        return apply("transpose", self, axes=order)

    def sum(self, axis: int | Sequence[int] | None = None, *, keepdims: bool = False) -> Value:
        """Return the sum over axes."""
        return _reduce("sum", self, axis, keepdims=keepdims)

    def mean(self, axis: int | Sequence[int] | None = None, *, keepdims: bool = False) -> Value:
        """Return the mean over axes."""
        return _reduce("mean", self, axis, keepdims=keepdims)

    def max(self, axis: int | Sequence[int] | None = None, *, keepdims: bool = False) -> Value:
        """Return the largest element over axes."""
        return _reduce("max", self, axis, keepdims=keepdims)

    def min(self, axis: int | Sequence[int] | None = None, *, keepdims: bool = False) -> Value:
        """Return the smallest element over axes."""
        return _reduce("min", self, axis, keepdims=keepdims)

    def __getitem__(self, key: Any) -> Value:
        from . import _indexing

        return _indexing.getitem(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError(_hints.ASSIGNMENT)

    def __iter__(self) -> Any:
        if not self.shape or self.shape[0] is None:
            raise TypeError(_hints.iteration(self.shape))
        return (self[index] for index in range(self.shape[0]))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Take the operators of arrays, `array * value`; what else NumPy computes, `bn.ops` does for values."""
        if method == "__call__" and not options and not isinstance(inputs[0], Value):
            if ufunc.__name__ in _OPERATORS:
                return getattr(inputs[1], f"__r{_OPERATORS[ufunc.__name__]}__")(inputs[0])
            if ufunc.__name__ in _COMPARISONS:
                return binary(ufunc.__name__, *inputs)
        raise TypeError(_hints.numpy_function(ufunc.__name__))

    if not TYPE_CHECKING:  # so that what is not there stays an error of types

        def __getattr__(self, name):
            raise AttributeError(_hints.attribute(type(self).__name__, name), name=name, obj=self)

    def __add__(self, other: Operand) -> Value:
        return binary("add", self, other)

    def __radd__(self, other: Operand) -> Value:
        return binary("add", other, self)

    def __sub__(self, other: Operand) -> Value:
        return binary("subtract", self, other)

    def __rsub__(self, other: Operand) -> Value:
        return binary("subtract", other, self)

    def __mul__(self, other: Operand) -> Value:
        return binary("multiply", self, other)

    def __rmul__(self, other: Operand) -> Value:
        return binary("multiply", other, self)

    def __truediv__(self, other: Operand) -> Value:
        return binary("divide", self, other, floating=True)

    def __rtruediv__(self, other: Operand) -> Value:
        return binary("divide", other, self, floating=True)

    def __mod__(self, other: Operand) -> Value:
        return _ops().mod(self, other)

    def __rmod__(self, other: Operand) -> Value:
        return _ops().mod(other, self)

    def __floordiv__(self, other: Operand) -> Value:
        return _ops().floor_divide(self, other)

    def __rfloordiv__(self, other: Operand) -> Value:
        return _ops().floor_divide(other, self)

    def __pow__(self, other: Operand) -> Value:
        return binary("power", self, other, floating=True)

    def __rpow__(self, other: Operand) -> Value:
        return binary("power", other, self, floating=True)

    def __matmul__(self, other: Operand) -> Value:
        return binary("matmul", self, other, floating=True)

    def __rmatmul__(self, other: Operand) -> Value:
        return binary("matmul", other, self, floating=True)

    def __neg__(self) -> Value:
        return apply("neg", self) if self.kind == "float" else binary("subtract", 0, self)

    def __abs__(self) -> Value:
        return apply("abs", self) if self.kind == "float" else binary("maximum", self, -self)

    def __lt__(self, other: Operand) -> Value:
        return binary("less", self, other)

    def __le__(self, other: Operand) -> Value:
        return binary("less_equal", self, other)

    def __gt__(self, other: Operand) -> Value:
        return binary("greater", self, other)

    def __ge__(self, other: Operand) -> Value:
        return binary("greater_equal", self, other)

    def __eq__(self, other: object) -> Value:  # type: ignore[override]
        return binary("equal", self, other)  # type: ignore[arg-type]

    def __ne__(self, other: object) -> Value:  # type: ignore[override]
        return binary("not_equal", self, other)  # type: ignore[arg-type]

    __hash__ = object.__hash__

    def __and__(self, other: Operand) -> Value:
        return apply("logical_and", self, other)

    def __rand__(self, other: Operand) -> Value:
        return apply("logical_and", other, self)

    def __or__(self, other: Operand) -> Value:
        return apply("logical_or", self, other)

    def __ror__(self, other: Operand) -> Value:
        return apply("logical_or", other, self)

    def __invert__(self) -> Value:
        return apply("logical_not", self)


Operand: TypeAlias = "Value | npt.ArrayLike"


def apply(operation: str, *inputs: Operand, **attributes: Any) -> Value:
    """Emit one operation of the engine's table; arrays and numbers become constants of it."""
    values = [_as_value(value) for value in inputs]
    attributes = {name: each.item() if isinstance(each, np.generic) else each for name, each in attributes.items()}
    leader = max((v for v in values if isinstance(v, Value)), key=lambda v: v.precedence, default=None)
    return (leader if leader is not None else _eager(values[0])).emit(operation, values, attributes)


def binary(operation: str, a: Operand, b: Operand, *, floating: bool = False) -> Value:
    """Emit an operation of two numbers after bringing both to the same kind, as NumPy does."""
    a, b = _as_value(a), _as_value(b)
    kinds = ["int", kind_of(a), kind_of(b), *(["float"] if floating else [])]
    kind = max(kinds, key=_ORDER.index)
    return apply(operation, cast(a, kind), cast(b, kind))


def cast(value: Operand, kind: str) -> Any:
    """Bring a value to a kind; what has it already stays as it is."""
    value = _as_value(value)
    if isinstance(value, Value):
        return value.as_kind(kind)
    if kind_of(value) == kind:
        return value
    return value.astype({"float": np.float64, "int": np.int64, "bool": np.bool_}[kind])


def kind_of(value: Operand) -> str:
    """Return "float", "int" or "bool"."""
    value = _as_value(value)
    return value.kind if isinstance(value, Value) else _KINDS[value.dtype.kind]


def shape_of(value: Operand) -> Shape:
    """Return the length of each axis."""
    return _as_value(value).shape


def _as_value(value: Operand) -> Value | npt.NDArray[Any]:
    if isinstance(value, Value):
        return value
    array = plain(value)
    if array.dtype.kind not in _KINDS:
        raise TypeError(f"an operand must be a value, an array of numbers or a number, got {array.dtype}")
    return array


def plain(array: Any) -> npt.NDArray[Any]:
    """Return numbers as an array; raise for a masked one, whose mask nothing would see."""
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError("`array` must be a plain array, got a masked one; fill it first")
    return np.asarray(array)


def _eager(array: Any) -> Value:
    from .tensor import loose

    return loose(array)


def _ops() -> Any:
    from . import ops

    return ops


def _reduce(operation: str, x: Value, axis: int | Sequence[int] | None, *, keepdims: bool) -> Value:
    return _ops().reduction.reduce(operation, x, axis, keepdims=keepdims)
