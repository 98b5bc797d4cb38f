"""What to say where Python or NumPy ask a value for what only numbers have: why it cannot be, and what to write."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._value import Shape

__all__ = [
    "ARRAY",
    "ASSIGNMENT",
    "INDEX",
    "MASK",
    "MEMBERSHIP",
    "NUMBER",
    "PLACE",
    "TRUTH",
    "attribute",
    "iteration",
    "length",
    "numpy_function",
]

_WHY = "a value inside a model has no numbers while the model is described"

TRUTH = (
    f"{_WHY}, so it is neither true nor false yet: `if`, `while`, `and`, `or`, `not`, `max()` and `a < b < c` cannot "
    "ask it. Write bn.ops.where(condition, a, b) to choose, & | ~ to join conditions, bn.ops.maximum or minimum"
)
NUMBER = (
    f"{_WHY}, so float(), int(), round(), `math` and formats find none: go on with the value itself, x / 2 or "
    "bn.ops.exp(x), and round with bn.ops.round or floor. x.shape holds the lengths that are known"
)
PLACE = (
    f"{_WHY}, so it is no index and no end of a range(): bn.ops.take(table, x) looks up in an array or a list, "
    "and loops run over lengths, range(x.shape[1])"
)
ARRAY = f"{_WHY}; use bn.ops (take(array, x) for array[x]), and predict for numbers"
MEMBERSHIP = f"{_WHY}, so `in` cannot look into it: write bn.ops.any(x == element, axis)"
ASSIGNMENT = (
    "a value is not changed in place: make a new one with bn.ops.where(mask, new, x), "
    "or bn.ops.concatenate of the parts around the change"
)
INDEX = (
    "a value cannot be an index beside others: bn.ops.take(x, indices, axis) looks up along one axis, "
    "bn.ops.take_along_axis one element for each index"
)
MASK = (
    "how many elements a mask leaves is not known beforehand: keep the shape with bn.ops.where(mask, x, 0), "
    "and divide a sum by that of the mask for a mean"
)

# What other libraries call a function or method of ours.
_ELSEWHERE = {
    "absolute": "abs",
    "amax": "max",
    "amin": "min",
    "astype": "cast",
    "cat": "concatenate",
    "clamp": "clip",
    "detach": "stop_gradient",
    "dot": "matmul",
    "eq": "equal",
    "expand": "broadcast_to",
    "float": "cast",
    "gather": "take_along_axis",
    "ge": "greater_equal",
    "gt": "greater",
    "hstack": "concatenate",
    "int": "cast",
    "invert": "logical_not",
    "le": "less_equal",
    "lt": "less",
    "masked_fill": "where",
    "mm": "matmul",
    "ne": "not_equal",
    "outer": "einsum",
    "permute": "transpose",
    "pow": "power",
    "remainder": "mod",
    "std": "standard_deviation",
    "tensordot": "einsum",
    "true_divide": "divide",
    "unsqueeze": "expand_dims",
    "var": "variance",
    "view": "reshape",
    "vstack": "concatenate",
}
_NUMBERS = frozenset({"cpu", "item", "tolist", "to_numpy"})


def _operation(name: str) -> str | None:
    """Return the function of `bn.ops` that does what one of this name does elsewhere, if there is one."""
    from . import ops

    known = _ELSEWHERE.get(name, name)
    return f"bn.ops.{known}" if known in ops.__all__ else None


def numpy_function(name: str) -> str:
    """Say what to use instead of a function of NumPy."""
    use = _operation(name) or "the functions of bn.ops"
    return f"np.{name} computes numbers, and a value stands for those to come: use {use}"


def attribute(kind: str, name: str) -> str:
    """Say what to use instead of an attribute that values do not have."""
    text = f"{kind!r} object has no attribute {name!r}"
    if name in _NUMBERS:
        return f"{text}: {ARRAY}"
    use = None if name.startswith("_") else _operation(name)
    return f"{text}; use {use}(x, …)" if use else text


def length(shape: Shape) -> str:
    """Say why a value has no length."""
    if not shape:
        return "a value without axes has no length"
    return (
        "the first axis is the batch, whose length is not fixed, so len() has none to give: bn.ops.mean(x, 0) and sum "
        f"count its rows; the other lengths are {shape[1:]}"
    )


def iteration(shape: Shape) -> str:
    """Say why a value cannot be walked through."""
    if not shape:
        return "a value without axes cannot be iterated"
    return (
        "the batch cannot be iterated: operations apply to all of its rows at once; along another axis: "
        "for i in range(x.shape[1]): x[:, i]"
    )
