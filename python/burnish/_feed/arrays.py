"""Arrays as they come from the user: named, checked for form, never copied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from .._build import Signature
from .._errors import number
from .._structure import Structure, flatten, is_dict, is_sequence, skeleton
from ..losses import show
from .frames import column_array, column_names, frame_array, is_arrow, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt


__all__ = [
    "Array",
    "Data",
    "apply_class_weight",
    "as_array",
    "check_signature",
    "is_batches",
    "prepare",
    "signature_of",
    "split",
    "split_point",
]

Array: TypeAlias = "npt.NDArray[Any]"


class Data(NamedTuple):
    """Arrays by name (`x`, `y`, or `x.<key>`), of one length, with the weight of each row."""

    x: dict[str, Array]
    x_names: Structure[str]
    y: dict[str, Array]
    y_names: Structure[str] | None
    weight: Array | None
    rows: int

    @property
    def inputs(self) -> dict[str, Array]:
        """All arrays that the program reads."""
        return {**self.x, **self.y}

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return sum(array.nbytes for array in self.inputs.values())

    def slice(self, start: int, stop: int) -> Data:
        """Return some of the rows, as views."""

        def cut(arrays: dict[str, Array]) -> dict[str, Array]:
            return {name: array[start:stop] for name, array in arrays.items()}

        weight = None if self.weight is None else self.weight[start:stop]
        stop = min(stop, self.rows)
        return self._replace(x=cut(self.x), y=cut(self.y), weight=weight, rows=stop - start)


def as_array(value: Any, name: str) -> Array:
    """Return a view of the numbers; raise for what does not hold numbers."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"`{name}` must be a plain array, got a masked one; fill it, or give `sample_weight`")
    value = opened(value, name)
    names = column_names(value)
    array = _viewed(value, name) if names is None else frame_array(value, names, name)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(
            f"`{name}` must hold numbers (float16 to float64, integers or booleans), got dtype {array.dtype}"
        )
    if array.ndim == 0:
        raise ValueError(f"`{name}` must have an axis of rows, got a single number")
    return array


def _viewed(value: Any, name: str) -> Array:
    try:
        dlpack = not hasattr(value, "__array__") and hasattr(value, "__dlpack__")
        array = np.from_dlpack(value) if dlpack else np.asarray(value)
    except (ValueError, TypeError, BufferError, RuntimeError) as error:
        raise TypeError(f"`{name}` must be an array of numbers, got {type(value).__name__}: {error}") from error
    if array.dtype == object and array.ndim == 0:
        raise TypeError(f"`{name}` must be an array of numbers, got {type(value).__name__}")
    return column_array(value, name) if array.dtype == object and hasattr(value, "to_numpy") else array


def named(value: Any, name: str) -> tuple[dict[str, Array], Structure[str]]:
    """Return the arrays of an argument by name, and the structure of the names."""
    structure: Structure[Any] = {str(key): leaf for key, leaf in value.items()} if is_dict(value) else value
    leaves = {leaf: as_array(array, leaf) for leaf, array in flatten(name, structure).items()}
    if not leaves:
        raise ValueError(f"`{name}` must hold at least one array, got none")
    return leaves, skeleton(name, structure)


def prepare(x: Any, y: Any, weight: Any, arrange: Callable[[Any], Any], *, part: bool = False) -> Data:
    """Name the arrays and check that they have the same, positive number of rows; of a part, all weights may be 0."""
    x_arrays, x_names = named(arrange(x), "x")
    y_arrays, y_names = ({}, None) if y is None else named(y, "y")
    first, rows = next((name, len(array)) for name, array in x_arrays.items())
    if rows == 0:
        raise ValueError(f"`{first}` must have at least one row, got none")
    for name, array in {**x_arrays, **y_arrays}.items():
        if len(array) != rows:
            raise ValueError(f"`{name}` must have {rows} rows like `{first}`, got {len(array)}")
        if array.size == 0:
            raise ValueError(f"`{name}` must hold at least one number a row, got shape {array.shape}")
    return Data(x_arrays, x_names, y_arrays, y_names, _weight(weight, rows, part=part), rows)


def signature_of(arrays: Mapping[str, Array], names: Structure[str]) -> Signature:
    """Return names and shapes, the batch's length left open."""
    return Signature(names, {name: (None, *array.shape[1:]) for name, array in arrays.items()})


def check_signature(argument: str, expected: Signature, got: Signature) -> None:
    """Raise unless arrays have the names and shapes that the model was built for."""
    if set(expected.shapes) != set(got.shapes):
        wanted, came = ", ".join(expected.shapes), ", ".join(got.shapes)
        raise ValueError(f"`{argument}` must hold the arrays {wanted}, got {came}")
    for name, shape in expected.shapes.items():
        if got.shapes[name] != shape:
            raise ValueError(f"`{name}` must have shape {show(shape)}, got {show(got.shapes[name])}")


def split(data: Data, fraction: float) -> tuple[Data, Data]:
    """Split off the last rows for validation, as Keras does, before any shuffling."""
    at = split_point("validation_split", fraction, data.rows)
    parts = data.slice(0, at), data.slice(at, data.rows)
    for place, part in zip(("training", "validation"), parts, strict=True):
        if part.weight is not None and not part.weight.any():
            raise ValueError(f"`sample_weight` must not be all zero in the {place} part of `validation_split`")
    return parts


def split_point(argument: str, fraction: float, rows: int) -> int:
    """Return where the last `fraction` of so many rows begins; raise where that leaves a part without rows."""
    at = int(rows * (1.0 - fraction))
    if at in (0, rows):
        raise ValueError(f"`{argument}` {fraction:g} of {rows} rows leaves an empty part")
    return at


def is_batches(x: Any) -> bool:
    """Say whether `x` is an iterable of batches rather than arrays."""
    if isinstance(x, (dict, tuple, np.ndarray)) or hasattr(x, "__array__") or hasattr(x, "__dlpack__"):
        return False
    if is_arrow(x) or column_names(x) is not None:
        return False
    if is_sequence(x):
        return bool(x) and all(is_sequence(batch) and bool(batch) and all(map(_holds_arrays, batch)) for batch in x)
    return hasattr(x, "__iter__") and not isinstance(x, (str, bytes))


def _holds_arrays(part: Any) -> bool:
    """Say whether this is an array with axes, or a tuple or dict of such; lists of numbers are not."""
    if is_dict(part) or is_sequence(part):
        return bool(part) and all(map(_holds_arrays, part.values() if is_dict(part) else part))
    return len(getattr(part, "shape", ())) > 0 or is_arrow(part)


def apply_class_weight(data: Data, class_weight: Any, *, part: bool = False) -> Data:
    """Multiply the weight of each row by that of its class; classes that are not named keep 1."""
    if class_weight is None:
        return data
    if not is_dict(class_weight):
        raise TypeError(f"`class_weight` must be a dict of class -> weight, got {type(class_weight).__name__}")
    labels = _labels(data)
    weight = np.ones(data.rows)
    for label, factor in class_weight.items():
        if isinstance(label, bool) or not isinstance(label, (int, np.integer)) or label < 0:
            raise ValueError(f"`class_weight`: a class must be an integer of at least 0, got {label!r}")
        weight[labels == label] = number(f"class_weight[{label}]", factor, 0)
    weight = weight if data.weight is None else weight * data.weight
    if not part and not weight.any():
        raise ValueError("`class_weight` leaves no row with a weight above 0")
    return data._replace(weight=weight)


def _labels(data: Data) -> Array:
    """Return the class of each row; raise for targets that are no classes."""
    if list(data.y) != ["y"]:
        raise ValueError("`class_weight` needs a single array of labels as `y`")
    y = data.y["y"]
    if y.ndim > 2:
        raise ValueError(f"`class_weight` needs one label a row, got `y` of shape {y.shape}")
    several = y.ndim == 2 and y.shape[1] > 1
    rows = y.reshape(len(y), -1)
    shares = (rows.min(1) >= 0) & (np.abs(rows.sum(1) - 1) < 1e-3)
    right = shares if several else rows[:, 0] == np.floor(rows[:, 0])
    wrong = np.flatnonzero(~right & np.isfinite(rows.sum(1)))  # what is not finite is told by the check of the data
    if wrong.size:
        got = "neither" if several else rows[wrong[0], 0]
        raise ValueError(f"`class_weight` needs labels or rows of shares that add up to 1, got {got} at row {wrong[0]}")
    return rows.argmax(axis=1) if several else rows[:, 0]


def _weight(weight: Any, rows: int, *, part: bool) -> Array | None:
    if weight is None:
        return None
    array = as_array(weight, "sample_weight")
    if array.shape != (rows,):
        raise ValueError(f"`sample_weight` must have shape ({rows},), one number a row of `x`, got {array.shape}")
    wrong = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if wrong.size:
        raise ValueError(f"`sample_weight` must be finite and not negative, got {array[wrong[0]]} at row {wrong[0]}")
    if not part and not array.any():
        raise ValueError("`sample_weight` must not be all zero")
    return array
