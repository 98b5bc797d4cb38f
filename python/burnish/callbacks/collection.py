"""The callbacks of one fit."""

from __future__ import annotations

import math
import operator
import time
from typing import TYPE_CHECKING, Any

from .base import Callback, Logs
from .checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model import Model

__all__ = ["CallbackList"]


class CallbackList:
    """The callbacks of one fit, called in order."""

    def __init__(self, callbacks: Any, model: Model, params: dict[str, Any]) -> None:
        several: list[Any] = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or ())
        for callback in several:
            if not isinstance(callback, Callback):
                raise TypeError(f"`callbacks` must hold bn.callbacks.Callback objects, got {callback!r}")
            callback.set_model(model)
            callback.set_params(params)
        self.params = params
        self.callbacks: list[Callback] = several
        self.checkpoints = [callback for callback in several if isinstance(callback, Checkpoint)]
        self._by_rank = _by_rank(several)
        self._stopping = [callback for callback in several if callback.overrides("next_stop")]
        self._showing: list[_Shown] = []  # from `begin` on
        self._begun: list[Callback] = []

    def __call__(self, hook: str, *arguments: Any) -> None:
        """Call a hook of each."""
        callbacks = self._by_rank if hook == "on_epoch_end" else self.callbacks
        for call in map(operator.attrgetter(hook), callbacks):
            call(*arguments)

    def next_stop(self, step: int) -> int | None:
        """Return after how many batches of the run the engine must pause next, if it must."""
        stops = [stop for callback in self._stopping if (stop := callback.next_stop(step)) is not None and stop > step]
        return min(stops, default=None)

    def state(self) -> list[tuple[str, dict[str, Any]]]:
        """Return what callbacks want to be kept, after the names of their classes."""
        states = [(_type_name(callback), callback.state()) for callback in self.callbacks]
        return [(name, state) for name, state in states if state]

    def load_state(self, kept: list[dict[str, Any]]) -> list[str]:
        """Give each its own again; return which have none or are not there any more."""
        left: dict[str, list[dict[str, Any]]] = {}
        for row in kept:
            left.setdefault(row["type"], []).append(row["state"])
        notes: list[str] = []
        for callback in self.callbacks:
            states = left.get(_type_name(callback))
            if states:
                callback.load_state(states.pop(0))
            elif callback.state():
                notes.append(f"{type(callback).__name__} starts anew: the checkpoint does not hold it")
        gone = [name for name, states in left.items() for _ in states]
        return [*notes, *(f"{name} of the checkpoint is not among the callbacks" for name in gone)]

    def check_monitors(self, names: list[str]) -> None:
        """Raise for a name that the logs will not hold, where it is known what they will hold."""
        if any(callback.adds is None and callback.overrides("on_epoch_end") for callback in self.callbacks):
            return
        known = {*names, *(name for callback in self.callbacks for name in callback.adds or ())}
        for callback in self.callbacks:
            for argument, name in callback.needed():
                if name not in known:
                    raise ValueError(
                        f"{type(callback).__name__}: `{argument}` {name!r} is not in the logs; "
                        f"there are {', '.join([*names, *sorted(known - set(names))])}"
                    )

    def check_figures(self, names: list[str]) -> None:
        """Have each look at the names of what the fit logs by itself."""
        for callback in self.callbacks:
            callback.check_figures(names)

    def begin(self) -> None:
        """Tell each that the fit begins."""
        for callback in self.callbacks:
            callback.on_train_begin({})
            self._begun.append(callback)
        self._showing = [_Shown(callback) for callback in self.callbacks if hasattr(callback, "on_progress")]

    def end(self, logs: Logs, after: BaseException | None = None) -> None:
        """Tell each that has begun that the fit ends, even if one of them raises; then raise the first such error.

        If the fit ends by an exception, that is the one to be raised, and gets the others as notes.
        """
        errors: list[BaseException] = []
        for callback in self._begun:
            try:
                callback.on_train_end(logs)
            except BaseException as error:
                errors.append(error)
        if after is not None:
            for error in errors:
                after.add_note(f"and when the fit was ended: {type(error).__name__}: {error}")
        elif errors:
            raise errors[0]

    def wants(self, *hooks: str) -> bool:
        """Say whether any callback has its own version of one of these hooks."""
        return any(callback.overrides(hook) for callback in self.callbacks for hook in hooks)

    def progress(self, done: int, samples: int, logs: Callable[[], Logs]) -> None:
        """Tell those who follow, if it is time, how many batches of the epoch are done and how many rows that added."""
        for each in self._showing:
            each.add(done, samples, logs)

    def end_progress(self) -> None:
        """Tell those who follow what they were not told, for the epoch's batches are done."""
        for each in self._showing:
            each.end()


class _Shown:
    """A callback with `on_progress`, and what it was not told yet."""

    def __init__(self, callback: Any) -> None:
        self._show: Callable[[int, Logs, int], None] = callback.on_progress
        self._period: float = getattr(callback, "progress_period", 0.0)
        self._told = 0.0  # long ago, on the clock's scale
        self._samples = 0
        self._state: tuple[int, Callable[[], Logs]] | None = None

    def add(self, done: int, samples: int, logs: Callable[[], Logs]) -> None:
        self._samples += samples
        self._state = done, logs
        now = time.perf_counter()
        if now - self._told >= self._period:
            self._told = now
            self._tell()

    def end(self) -> None:
        self._tell()
        self._told = 0.0

    def _tell(self) -> None:
        if self._state is not None:
            (done, logs), samples, self._state, self._samples = self._state, self._samples, None, 0
            self._show(done, logs(), samples)


def _type_name(callback: Callback) -> str:
    """Return the name by which a checkpoint knows a callback's class."""
    return f"{type(callback).__module__}.{type(callback).__qualname__}"


def _by_rank(callbacks: list[Callback]) -> list[Callback]:
    """Return the callbacks with each that has a rank after all of lower rank; none is called earlier than it stands."""
    ordered: list[Callback] = []
    waiting: list[Callback] = []
    for index, callback in enumerate(callbacks):
        (ordered if callback.rank is None else waiting).append(callback)
        lowest = min((later.rank for later in callbacks[index + 1 :] if later.rank is not None), default=math.inf)
        ready = sorted((one for one in waiting if one.rank is not None and one.rank <= lowest), key=_rank)
        ordered += ready
        waiting = [one for one in waiting if one not in ready]
    return ordered


def _rank(callback: Callback) -> int:
    return callback.rank or 0
