"""Eager values: the same operations, computed at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from . import _burnish
from ._value import Shape, Value, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

__all__ = ["Tensor", "from_dlpack"]


class Tensor(Value):
    """Numbers on a device, with operations that are computed at once and gradients on request.

    Parameters
    ----------
    array : array_like
        The numbers: float32 and float64 stay what they are, shorter floats become float32, longer ones float64,
        integers int32.
    requires_grad : bool, default False
        Whether `backward` fills `grad`.
    device : str, default "cpu"
        Where the numbers are kept; see `bn.devices()`.

    Examples
    --------
    >>> import burnish as bn
    >>> x = bn.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad.numpy().tolist()
    [2.0, 4.0, 6.0]
    """

    __slots__ = ("_handle", "_loose")  # loose: of arrays and numbers alone, it takes type and device as they do
    precedence: ClassVar[int] = 1
    __hash__ = object.__hash__

    def __init__(self, array: Any, requires_grad: bool = False, device: str = "cpu") -> None:  # noqa: FBT001, FBT002
        numbers = plain(array)
        if numbers.dtype.kind == "f" and numbers.dtype.itemsize > 8:
            numbers = numbers.astype(np.float64)
        self._handle = _burnish.Tensor(numbers, requires_grad, device)
        self._loose = False

    def __reduce__(self) -> Any:
        return Tensor, (self.numpy(), self.requires_grad, self.device)

    @property
    def shape(self) -> Shape:
        """The length of each axis."""
        return tuple(self._handle.shape)

    @property
    def dtype(self) -> str:
        """The elements' type: "float32", "float64", "int32" or "bool"."""
        return self._handle.dtype

    @property
    def kind(self) -> str:
        """What the elements are: "float", "int" or "bool"."""
        return self.dtype.rstrip("0123456789")

    @property
    def device(self) -> str:
        """Where the numbers are kept."""
        return self._handle.device

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to this value."""
        return self._handle.requires_grad

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` has left here."""
        handle = self._handle.grad
        return None if handle is None else Tensor._of(handle)

    @staticmethod
    def _of(handle: _burnish.Tensor, *, loose: bool = False) -> Tensor:
        tensor = Tensor.__new__(Tensor)
        tensor._handle, tensor._loose = handle, loose
        return tensor

    def numpy(self) -> npt.NDArray[Any]:
        """Return a copy of the numbers as an array."""
        return self._handle.numpy()

    def item(self) -> float:
        """Return the only element as a Python number."""
        return self.numpy().item()

    def backward(self) -> None:
        """Compute the gradient of this single number with respect to every tensor that requires it."""
        self._handle.backward()

    def zero_grad(self) -> None:
        """Forget the gradient; `backward` adds to what is there."""
        self._handle.zero_grad()

    def detach(self) -> Tensor:
        """Return the same numbers as a constant to gradients."""
        return Tensor._of(self._handle.detach(), loose=self._loose)

    def free(self) -> None:
        """Give the device's memory back now; the tensor cannot be used afterwards."""
        self._handle.free()

    def emit(self, operation: str, values: Sequence[Value | npt.NDArray[Any]], attributes: dict[str, Any]) -> Tensor:
        """Compute an operation."""
        bound = next((value for value in values if isinstance(value, Tensor) and not value._loose), None)
        device, dtype = (self if bound is None else bound).device, self._common(values)
        handles = [self._lifted(value, dtype, device)._handle for value in values]
        applied = _burnish.Tensor.apply(operation, handles, json.dumps(attributes))
        return Tensor._of(applied, loose=bound is None)

    @staticmethod
    def _common(values: Sequence[Value | npt.NDArray[Any]]) -> str | None:
        """Return the type that floats meet in: of tensors with gradients, or the widest of tensors, or of arrays."""
        tensors = [v for v in values if isinstance(v, Tensor) and v.kind == "float" and not v._loose]
        if tensors:
            return max(tensor.dtype for tensor in [t for t in tensors if t.requires_grad] or tensors)
        given = [(np.dtype(v.dtype), len(v.shape)) for v in values if isinstance(v, (Tensor, np.ndarray))]
        floats = [(dtype, ndim) for dtype, ndim in given if dtype.kind == "f"]
        arrays = [each for each in floats if each[1]] or floats  # numbers take the type of arrays
        return max(("float64" if dtype.itemsize > 4 else "float32" for dtype, _ in arrays), default=None)

    @staticmethod
    def _lifted(value: Value | npt.NDArray[Any], dtype: str | None, device: str) -> Tensor:
        """Return a value as a tensor; floats that need no gradient take the type of those they meet."""
        if isinstance(value, Tensor):
            device = device if value._loose else value.device
            fits = value.kind != "float" or value.dtype == dtype
            if value.requires_grad or (fits and value.device == device):
                return value
        array = value.numpy() if isinstance(value, Value) else value
        if array.dtype.kind == "f" and dtype is not None:
            array = array.astype(dtype, copy=False)
        return Tensor(array, device=device)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a tensor without axes has no length")
        return self.shape[0] or 0

    def __bool__(self) -> bool:
        return bool(self.numpy())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __dlpack__(self, **options: Any) -> Any:
        return self.numpy().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # `numpy` has brought the numbers to the host

    def __repr__(self) -> str:
        return f"Tensor({np.array2string(self.numpy(), separator=', ')}, dtype={self.dtype}, device={self.device!r})"


def from_dlpack(source: Any) -> Tensor:
    """Make a tensor of anything on the host that speaks DLPack: an array of PyTorch, JAX or NumPy."""
    if not hasattr(source, "__dlpack__"):
        raise TypeError(f"`source` must speak DLPack, got {type(source).__name__}; bn.Tensor takes other arrays")
    return Tensor(np.from_dlpack(source))


def loose(array: npt.NDArray[Any]) -> Tensor:
    """Return an array as a tensor that takes the type and the device of the tensors it meets."""
    return Tensor._of(Tensor(array)._handle, loose=True)  # pyright: ignore[reportPrivateUsage]
