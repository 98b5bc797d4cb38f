"""The callbacks of one fit."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from .base import Callback, Logs

if TYPE_CHECKING:
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
        self.callbacks: list[Callback] = several
        self._begun: list[Callback] = []

    def __call__(self, hook: str, *arguments: Any) -> None:
        """Call a hook of each."""
        for call in map(operator.attrgetter(hook), self.callbacks):
            call(*arguments)

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

    def begin(self) -> None:
        """Tell each that the fit begins."""
        for callback in self.callbacks:
            callback.on_train_begin({})
            self._begun.append(callback)

    def end(self, logs: Logs) -> None:
        """Tell each that has begun that the fit ends, even if one of them raises; then raise the first such error."""
        errors: list[BaseException] = []
        for callback in self._begun:
            try:
                callback.on_train_end(logs)
            except BaseException as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def wants(self, *hooks: str) -> bool:
        """Say whether any callback has its own version of one of these hooks."""
        return any(callback.overrides(hook) for callback in self.callbacks for hook in hooks)

    def progress(self, done: int, logs: Logs) -> None:
        """Tell the progress bar how many batches are done, whatever the size of the chunks."""
        for callback in self.callbacks:
            show = getattr(callback, "on_progress", None)
            if show is not None:
                show(done, logs)
