"""Where the time of a training step goes: every operation timed, on a copy of the model."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _training
from ._copy import copied_session, untouched
from ._cost import costs, gradient_flops
from ._errors import choice, integer
from ._feed.sources import Piece
from ._optional import required
from ._runtime import train_whole
from ._text import aligned
from .model import core_of
from .tensor import Tensor

if TYPE_CHECKING:
    from ._build import Built
    from .model import Model

__all__ = ["Profile", "ProfileRow", "profile"]

_WARM_UP = 3
_HEAD = ("phase", "layer", "operation", "ms", "share", "MB", "GB/s", "GFLOP/s", "of peak")
_NAMES = 3  # columns before the numbers


class ProfileRow(NamedTuple):
    """One operation in one phase, in a step.

    `phase` is "gather" (rows are collected, converted and brought to the device), "forward", "backward" or "update".
    `bytes` are those of the tensors that it reads and writes, `flops` as `Model.summary` counts them; a product's
    gradient counts its forward FLOPs once for each operand that needs one.
    """

    phase: str
    layer: str
    operation: str
    seconds: float
    bytes: float
    flops: float


class Profile:
    """What the parts of a training step take.

    Attributes
    ----------
    rows : list of ProfileRow
        The parts, phase by phase, in the program's order.
    seconds : float
        The whole step, with what belongs to no part.
    peak : float
        The most FLOPs a second that a product of two large matrices reached on this device, in the same minute.
    device : str
        Where it ran.
    batch_size, steps : int
        Rows of a step, and over how many steps the figures are means.
    """

    def __init__(
        self, rows: list[ProfileRow], seconds: float, peak: float, *, device: str, batch_size: int, steps: int
    ) -> None:
        self.rows = rows
        self.seconds = seconds
        self.peak = peak
        self.device = device
        self.batch_size = batch_size
        self.steps = steps

    @property
    def of_peak(self) -> float:
        """The share of the device's peak that the whole step reaches."""
        return sum(row.flops for row in self.rows) / self.seconds / self.peak

    def by(self, column: str) -> list[ProfileRow]:
        """Return sums over what has the same "phase", "layer" or "operation", the longest first."""
        choice("column", column, ("phase", "layer", "operation"))
        sums: dict[str, ProfileRow] = {}
        for row in self.rows:
            key: str = getattr(row, column)
            total = sums.get(key, ProfileRow("", "", "", 0.0, 0.0, 0.0)._replace(**{column: key}))
            seconds, moved, flops = total.seconds + row.seconds, total.bytes + row.bytes, total.flops + row.flops
            sums[key] = total._replace(seconds=seconds, bytes=moved, flops=flops)
        return sorted(sums.values(), key=lambda row: -row.seconds)

    def to_pandas(self) -> Any:
        """Return the rows as a data frame of pandas."""
        return required("pandas", "pandas").DataFrame(self.rows)

    def __str__(self) -> str:
        known = sum(row.seconds for row in self.rows)
        rest = ProfileRow("", "", "(the rest)", max(self.seconds - known, 0.0), 0.0, 0.0)
        moved, flops = sum(row.bytes for row in self.rows), sum(row.flops for row in self.rows)
        total = ProfileRow("", "", "step", self.seconds, moved, flops)
        lines = [self._cells(row) for row in [*sorted(self.rows, key=lambda row: -row.seconds), rest, total]]
        head = f"{self.steps} steps of {self.batch_size} rows on {self.device}, peak {self.peak / 1e9:,.0f} GFLOP/s"
        return "\n".join([head, *aligned([_HEAD, *lines], _NAMES)])

    def __repr__(self) -> str:
        return f"<profile: {1e3 * self.seconds:.3f} ms a step, {self.of_peak:.0%} of peak, {len(self.rows)} parts>"

    def _cells(self, row: ProfileRow) -> tuple[str, ...]:
        rate, speed = row.bytes / row.seconds if row.seconds else 0.0, row.flops / row.seconds if row.seconds else 0.0
        numbers = (
            f"{1e3 * row.seconds:.3f}",
            f"{row.seconds / self.seconds:.0%}",
            f"{row.bytes / 1e6:.2f}",
            f"{rate / 1e9:.1f}",
            f"{speed / 1e9:.1f}",
            f"{speed / self.peak:.0%}",
        )
        return (row.phase, row.layer, row.operation, *numbers)


def profile(
    model: Model, x: Any, y: Any = None, *, batch_size: int = 32, steps: int = 50, sample_weight: Any = None
) -> Profile:
    """Time every operation of training steps: gathering, forward and backward pass, update.

    Runs on a copy; the model stays as it is. On a GPU every operation is waited for, which takes longer than a step
    that nobody watches.

    Parameters
    ----------
    model : Model
        A compiled model.
    x, y, sample_weight : array_like
        As for `Model.fit`.
    batch_size : int, default 32
        Rows of a step.
    steps : int, default 50
        Over how many steps the figures are means, after some that are not counted; rows are used again as needed.

    Raises
    ------
    ValueError, TypeError
        If the data does not fit, or the model has no loss yet.

    Examples
    --------
    >>> import numpy as np
    >>> import burnish as bn
    >>> x = np.random.default_rng(0).normal(size=(256, 8))
    >>> model = bn.Sequential([bn.layers.Dense(64, activation="relu"), bn.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> profile = bn.profile(model, x, x[:, :1])
    >>> {row.phase for row in profile.rows} == {"gather", "forward", "backward", "update"}
    True
    """
    batch_size, steps = integer("batch_size", batch_size, 1), integer("steps", steps, 1)
    core = core_of(model)
    with untouched(core):
        runtime, data = _training.ready(core, x, y, sample_weight)
        session = copied_session(runtime)
        rows = np.resize(np.arange(data.rows), (steps + _WARM_UP) * batch_size)
        warm_up, timed = np.split(rows, [_WARM_UP * batch_size])
        # With a rate of 0 the same work is done and nothing diverges.
        train_whole(session, Piece(data.inputs, warm_up, data.weight, batch_size, _WARM_UP), np.zeros(_WARM_UP))
        seconds, parts = session.profile(
            data.inputs, timed, batch_size=batch_size, learning_rates=np.zeros(steps), sample_weight=data.weight
        )
        flops = _flops(runtime.built, batch_size)
    found = [
        ProfileRow(phase, layer, name or phase, taken / steps, moved / steps, flops.get((phase, node), 0.0))
        for phase, node, name, layer, _, taken, moved in parts
    ]
    return Profile(
        found, seconds / steps, _peak(session.device), device=session.device, batch_size=batch_size, steps=steps
    )


def _flops(built: Built, batch_size: int) -> dict[tuple[str, int | None], float]:
    """Return the FLOPs of a step by phase and place in the program."""
    items: list[dict[str, Any]] = json.loads(built.program.to_json())["values"]
    frozen = set(built.frozen())
    reached = {i for i, item in enumerate(items) if "parameter" in item and item["parameter"]["path"] not in frozen}
    found: dict[tuple[str, int | None], float] = {}
    for cost in costs(built.program, ["training.loss"], 4):
        wanted = [operand in reached for operand in cost.operands]
        if any(wanted) and cost.operation != "stop_gradient":
            reached.add(cost.node)
        found["forward", cost.node] = batch_size * cost.flops
        found["backward", cost.node] = batch_size * gradient_flops(cost, wanted)
    return found


def _peak(device: str) -> float:
    """Return the most FLOPs a second of products of large square float32 matrices, each size tried for 0.1 s."""
    best = 0.0
    for size in (512, 1024, 2048) if device in ("cpu", "ndarray") else (4096,):
        matrix = Tensor(np.random.default_rng(0).random((size, size), np.float32), device=device)
        _product_seconds(matrix)  # some devices compile, or choose a kernel, at the first
        end = time.perf_counter() + 0.1
        while True:
            best = max(best, 2 * size**3 / _product_seconds(matrix))
            if time.perf_counter() > end:
                break
    return best


def _product_seconds(matrix: Tensor) -> float:
    began = time.perf_counter()
    (matrix @ matrix)[:1, :1].numpy()  # a read waits until it is done
    return time.perf_counter() - began
