"""
The engine of burnish.
"""

from _typeshed import SupportsGetItem
from collections.abc import Mapping, Sequence
from numpy import float64, int64
from numpy.typing import NDArray
from os import PathLike
from typing import Any, SupportsFloat, SupportsIndex, final

__all__ = ["Program", "Records", "Rotation", "Session", "Staged", "Tensor", "add_finite", "add_weighted", "check_finite", "check_labels", "check_precision", "devices", "operations", "optimizers", "permutation", "read_arrays", "write_arrays"]

@final
class Program:
    """
    A network with its losses and metrics: built value by value, each checked at once.

    Values are numbers of places. A shape's None is the batch; negative lengths never come out, but a multiple of the
    batch does as None too.
    """
    def __new__(cls, /) -> Program: ...
    def apply(self, /, operation: str, inputs: SupportsGetItem[int, SupportsIndex], attributes: str = "{}") -> int:
        """
        Applies an operation of the table; attributes are JSON.
        """
    def assign(self, /, path: str, value: SupportsIndex) -> None:
        """
        Lets a training step store a value in a buffer.
        """
    def buffer(self, /, path: str, shape: Sequence[SupportsIndex], initializer: str) -> int:
        """
        Declares a buffer, or finds the one of this path.
        """
    def buffers(self, /) -> list[tuple[str, tuple[int, ...]]]:
        """
        Path and shape of each buffer, in order.
        """
    def constant(self, /, array: NDArray[Any]) -> int:
        """
        Adds fixed numbers.
        """
    @staticmethod
    def from_json(text: str) -> Program:
        """
        The program that a JSON text describes, wholly checked.
        """
    def input(self, /, name: str, shape: Sequence[SupportsIndex | None], kind: str) -> int:
        """
        Declares data of a kind ("float", "int" or "bool"); the shape starts with None, the batch.
        """
    def inputs(self, /) -> list[tuple[str, tuple[int | None, ...], str]]:
        """
        Name, shape and kind of each input, in order.
        """
    def kind(self, /, value: SupportsIndex) -> str:
        """
        The kind of a value: "float", "int" or "bool".
        """
    def nodes(self, /) -> list[tuple[str, str, tuple[int | None, ...]]]:
        """
        Scope, operation and output shape of each node, in order.
        """
    def output(self, /, name: str, value: SupportsIndex) -> None:
        """
        Names an output.
        """
    def outputs(self, /) -> list[str]:
        """
        The names of the outputs.
        """
    def parameter(self, /, path: str, shape: Sequence[SupportsIndex], role: str, initializer: str) -> int:
        """
        Declares a parameter, or finds the one of this path; role: "kernel", "embedding", "bias" or "scale".
        """
    def parameters(self, /) -> list[tuple[str, tuple[int, ...], str]]:
        """
        Path, shape and role of each parameter, in order.
        """
    def scope(self, /, name: str) -> None:
        """
        Names the layer whose operations come next.
        """
    def shape(self, /, value: SupportsIndex) -> tuple[int | None, ...]:
        """
        The shape of a value.
        """
    def to_json(self, /) -> str:
        """
        The program as JSON.
        """

@final
class Records:
    """
    What training on some micro-batches left behind.
    """
    @property
    def columns(self, /) -> tuple[str, ...]:
        """
        What `rows` tells: "weight", "loss", "metric.<name>" of each metric, "epoch", "step", "learning_rate",
        "gradient_norm", "update_ratio", "finite", and "loss_scale" where the loss is scaled; the same tuple as long as it is.
        """
    @property
    def movements(self, /) -> NDArray[float64]:
        """
        A row for each micro-batch: gradient norm and update ratio of each parameter of `Session.trained`, NaN where no update
        was due.
        """
    @property
    def rows(self, /) -> NDArray[float64]:
        """
        A row for each micro-batch.
        """
    @property
    def skipped(self, /) -> int:
        """
        How many updates were skipped, because their gradient was not finite.
        """
    @property
    def updates(self, /) -> int:
        """
        How many updates were made.
        """
    @property
    def zeros(self, /) -> NDArray[float64]:
        """
        A row for each micro-batch whose zero activations were counted: zeros and dead units of each layer of
        `Session.rectified`.
        """

@final
class Rotation:
    """
    Files of which new ones come and old ones go: the next takes the place on the disk of one that was removed.
    """
    def __new__(cls, /) -> Rotation:
        """
        Nothing is kept on the disk when it is gone.
        """
    def copy(self, /, session: Session, prefix: str, arrays: Mapping[str, NDArray[Any]], others: Any) -> Staged:
        """
        Copies parameters, buffers, the optimizer's arrays (their names after a prefix) and others, to be written later.

        Meanwhile `others` is called: what it returns, arrays that do not change any more and texts, is in the file too.
        """
    def remove(self, /, path: str | PathLike[str]) -> None:
        """
        Removes a file if it is there.
        """
    def write(self, /, path: str | PathLike[str], staged: Staged, outdated: str | PathLike[str] | None = None) -> None:
        """
        Writes a file of what was copied as `write_arrays` does, and removes one that is not needed any more: before the new one
        is known to be on the disk.
        """

@final
class Session:
    """
    A program on a device with its parameters, buffers and optimizer.
    """
    def __new__(cls, /, program: Program, device: str = "cpu", precision: str = "float32", seed: SupportsIndex = 0, state: Mapping[str, NDArray[Any]] | None = None) -> Session:
        """
        Parameters start from their initializers, or from `state` where it has their path.
        """
    def average(self, /, decay: SupportsFloat | SupportsIndex | None) -> None:
        """
        Begins, goes on or (None) ends to average the weights: what part of the average each update keeps.
        """
    def averages(self, /) -> dict[str, NDArray[Any]]:
        """
        Averages of the parameters by path, copied; none before the first update.
        """
    @property
    def device(self, /) -> str:
        """
        The device's name.
        """
    def evaluate(self, /, inputs: Mapping[str, NDArray[Any]], *, batch_size: SupportsIndex, sample_weight: NDArray[Any] | None = None) -> dict[str, float]:
        """
        Weighted means of the loss and the metrics over all rows.
        """
    def flush(self, /, learning_rate: SupportsFloat | SupportsIndex) -> tuple[float, float, bool, NDArray[float64]] | None:
        """
        Closes an open accumulation group with an update and returns its gradient norm, its update ratio, whether it was made, and
        a row as of `Records.movements`; None if there is none.
        """
    def gradients(self, /, inputs: Mapping[str, NDArray[Any]], *, method: str = "autodiff", sample_weight: NDArray[Any] | None = None) -> dict[str, NDArray[Any]]:
        """
        Gradients of the weighted mean training loss over all rows, by path.
        """
    def hold(self, /, inputs: Mapping[str, NDArray[Any]]) -> list[str]:
        """
        Keeps copies of training arrays on the device, of those that fit, until `release`; returns their names. On "cpu" none.

        The arrays must stay where they are meanwhile; what is written to them is not seen.
        """
    def load_optimizer_state(self, /, arrays: Mapping[str, NDArray[Any]]) -> None:
        """
        Replaces the optimizer's arrays by those that `optimizer_state` gave.
        """
    def load_state(self, /, arrays: Mapping[str, NDArray[Any]]) -> None:
        """
        Replaces parameters and buffers; nothing changes if one does not fit.
        """
    def losses_along(self, /, inputs: Mapping[str, NDArray[Any]], direction: Mapping[str, NDArray[Any]], steps: NDArray[float64], *, sample_weight: NDArray[Any] | None = None) -> list[float]:
        """
        The weighted mean training loss over all rows, with the parameters moved by each of `steps` times `direction`.
        """
    def optimizer(self, /, config: str) -> None:
        """
        Sets the optimizer from JSON; its state starts anew.
        """
    def optimizer_state(self, /) -> dict[str, NDArray[Any]]:
        """
        The optimizer's arrays by name and path, copied.
        """
    @property
    def precision(self, /) -> str:
        """
        "float32", "float64", "mixed_float16" or "mixed_bfloat16".
        """
    def predict(self, /, inputs: Mapping[str, NDArray[Any]], *, batch_size: SupportsIndex, outputs: SupportsGetItem[int, str]) -> list[NDArray[Any]]:
        """
        The named outputs for all rows.
        """
    def profile(self, /, inputs: Mapping[str, NDArray[Any]], order: NDArray[int64] | None, *, batch_size: SupportsIndex, learning_rates: NDArray[float64], sample_weight: NDArray[Any] | None = None) -> tuple[float, list[tuple[str, int | None, str, str, int, float, float]]]:
        """
        Trains like `train`, once over the rows, and tells how long the whole took and of each operation: phase, place in the
        program (None for a whole phase), name, layer, how often it ran, seconds, bytes read and written.
        """
    def rectified(self, /) -> list[str]:
        """
        The layers whose zero activations are counted: columns of "activations.zeros" and "activations.dead".
        """
    def release(self, /) -> None:
        """
        Drops what `hold` keeps.
        """
    def signalled(self, /) -> None:
        """
        Raises the exception of the signal that came while `train` last ran, if one did, once.
        """
    def state(self, /) -> dict[str, NDArray[Any]]:
        """
        Parameters and buffers by path, copied.
        """
    def take_diagnosis(self, /) -> tuple[int, int, str, str, str, int, int, int | None] | None:
        """
        Where the first number that is not finite came from, since the last call and in training with `diagnose`: epoch, step,
        "input", "parameter", "activation", "loss" or "gradient", name, layer, how many of how many elements, row.
        """
    def train(self, /, inputs: Mapping[str, NDArray[Any]], order: NDArray[int64] | None, *, batch_size: SupportsIndex, learning_rates: NDArray[float64], sample_weight: NDArray[Any] | None = None, epoch: SupportsIndex = 0, first_step: SupportsIndex = 0, diagnose: bool = False) -> Records:
        """
        Trains on micro-batches of the rows in `order` (all in sequence if None); returns a record of each that was done: of
        some if a signal came, whose exception `signalled` raises.
        """
    def trained(self, /) -> list[str]:
        """
        The paths of the parameters that are trained: columns of "parameters.gradient_norm" and "parameters.update_ratio".
        """

@final
class Staged:
    """
    What is to be in a file.
    """

@final
class Tensor:
    """
    A value on a device, computed at once, with gradients on request.
    """
    def __new__(cls, /, array: NDArray[Any], requires_grad: bool = False, device: str = "cpu") -> Tensor:
        """
        Copies an array to a device: float64 stays, other floats become float32, integers int32.
        """
    @staticmethod
    def apply(operation: str, inputs: SupportsGetItem[int, Tensor], attributes: str = "{}") -> Tensor:
        """
        Applies an operation of the table; attributes are JSON.
        """
    def backward(self, /) -> None:
        """
        Adds the gradient of this scalar to every leaf with requires_grad that it was made from.
        """
    def detach(self, /) -> Tensor:
        """
        The same values without gradients.
        """
    @property
    def device(self, /) -> str:
        """
        The device's name.
        """
    @property
    def dtype(self, /) -> str:
        """
        NumPy's name of the element type.
        """
    def free(self, /) -> None:
        """
        Gives the memory back now; the tensor holds nothing any more.
        """
    @property
    def grad(self, /) -> Tensor | None:
        """
        The gradient that `backward` left here, or None.
        """
    def numpy(self, /) -> NDArray[Any]:
        """
        The values as an array of its own.
        """
    @property
    def requires_grad(self, /) -> bool:
        """
        Whether gradients reach it.
        """
    @property
    def shape(self, /) -> tuple[int, ...]:
        """
        The lengths of the axes.
        """
    def zero_grad(self, /) -> None:
        """
        Forgets the gradient.
        """

def add_finite(totals: NDArray[float64], rows: NDArray[float64]) -> NDArray[float64]:
    """
    Sums of each column and then counts of each, with what is finite in more rows added one by one.
    """

def add_weighted(sums: NDArray[float64], rows: NDArray[float64]) -> NDArray[float64]:
    """
    Sums with more rows added one by one, so that it does not matter how they were cut into pieces: of the first column, the
    weights; of as many others as there are sums, the products with them. What has no weight counts for nothing, whatever it is.
    """

def check_finite(array: NDArray[Any]) -> tuple[int, ...] | None:
    """
    The index of the first NaN or infinity, or None.
    """

def check_labels(array: NDArray[Any], classes: SupportsIndex) -> tuple[int, float, str] | None:
    """
    The first row whose label is not a whole number in `0..classes`: row, label, "range" or "fraction"; or None.
    """

def check_precision(device: str, precision: str) -> None:
    """
    Raises ValueError unless a device has the types of a precision.
    """

def devices() -> list[dict[str, str]]:
    """
    The devices that this machine really has: dicts with name and description.
    """

def operations() -> list[tuple[str, int, int | None]]:
    """
    Name, least and greatest number of inputs (None: any) of every operation.
    """

def optimizers() -> dict[str, dict[str, Any]]:
    """
    Hyperparameters of every optimizer with their defaults, `learning_rate` among them.
    """

def permutation(seed: SupportsIndex, epoch: SupportsIndex, rows: SupportsIndex) -> NDArray[int64]:
    """
    The order of the samples in an epoch.
    """

def read_arrays(path: str | PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """
    Reads a safetensors file: arrays and metadata. A checksum that disagrees raises ValueError.
    """

def write_arrays(path: str | PathLike[str], arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """
    Writes a safetensors file, a checksum per tensor, whole or absent whatever happens.
    """
