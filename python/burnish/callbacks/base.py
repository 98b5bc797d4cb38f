"""What every callback is, and callbacks made of functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from .._errors import unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..model import Model

__all__ = ["Callback", "LambdaCallback", "Logs"]

Logs = dict[str, float]


class Callback:
    """The base of every callback: override the hooks you need.

    `self.model` is the model, `self.params` says "epochs", "steps" (an epoch; None if not known) and "verbose".
    Set `self.model.stop_training = True` to end the fit. `logs` holds the running means of loss and metrics, at an
    epoch's end also `val_…`; what a hook adds to it at an epoch's end, later callbacks and the history see.
    """

    model: Model
    params: dict[str, Any]
    adds: ClassVar[tuple[str, ...] | None] = None
    """Which names `on_epoch_end` adds to the logs, if that is known."""
    rank: ClassVar[int | None] = None
    """At an epoch's end, a callback with a rank waits for those of lower rank, wherever they stand in the list."""

    def set_model(self, model: Model) -> None:
        """Take the model."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Take the fit's parameters."""
        self.params = params

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Run before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Run after the last epoch, and also when the fit ends by an exception."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Run before an epoch."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Run after an epoch and its validation."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Run before a training batch."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Run after a training batch."""
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Run before a training batch: the shorter name that Keras knows too."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Run after a training batch: the shorter name that Keras knows too."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Run before an evaluation or a validation."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Run after an evaluation or a validation."""

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Run before a batch of an evaluation or a validation."""

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Run after a batch of an evaluation or a validation; `logs` holds the means of this batch."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Run before a prediction."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Run after a prediction."""

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Run before a batch of a prediction."""

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Run after a batch of a prediction."""

    def overrides(self, hook: str) -> bool:
        """Say whether this callback has its own version of a hook."""
        names = (hook, hook.replace("_train_batch_", "_batch_"))
        return any(getattr(getattr(self, name), "__func__", None) is not getattr(Callback, name) for name in names)

    def next_stop(self, step: int) -> int | None:  # noqa: ARG002
        """Return after how many batches of the run, more than `step`, the engine must pause for this callback.

        The engine gets as many batches at once as take a tenth of a second; `on_progress(done, logs, samples)`, if a
        callback has it, runs in between: batches done in this epoch, running means, and rows since the last time. With
        an attribute `progress_period`, known when the fit begins, it runs at most once in so many seconds, and when the
        epoch's batches are done. None: wherever it suits the engine.
        """
        return None

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint has to keep of this callback: plain data that JSON can hold, and arrays.

        A fit that is resumed calls `load_state` with it after `on_train_begin`, and in the middle of an epoch again
        after `on_epoch_begin`. Callbacks are matched by their class, several of one class by their order in the list.
        """
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned; lists have taken the place of tuples."""

    def check_figures(self, names: Sequence[str]) -> None:
        """Raise, before the fit, for what does not go with the figures that it logs itself, which are floats."""

    def needed(self) -> list[tuple[str, str]]:
        """Return the names that must be in the logs at an epoch's end, each after the argument that asks for it."""
        return []


class LambdaCallback(Callback):
    """A callback made of functions, each given by the name of its hook."""

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        for name, function in hooks.items():
            if not name.startswith("on_") or not hasattr(Callback, name):
                raise unknown("hooks", name, [known for known in dir(Callback) if known.startswith("on_")])
            if not callable(function):
                raise TypeError(f"`{name}` must be a function, got {function!r}")
            setattr(self, name, function)
