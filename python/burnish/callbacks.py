"""Callbacks: hooks into a fit, with Keras's names and order.

Epochs and batches are counted from 0. A fit whose callbacks use batch hooks goes to the engine one batch at a time,
otherwise in chunks of about a tenth of a second. The result is the same to the bit.
"""

from __future__ import annotations

import math
import operator
import os
from typing import IO, TYPE_CHECKING, Any, ClassVar

from ._errors import boolean, choice, integer, number, unknown

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from .model import Model

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "TerminateOnNaN",
]

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


class _Watcher(Callback):
    """What watches one number of the logs for improvement."""

    adds: ClassVar[tuple[str, ...] | None] = ()
    relative = False

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0, best: float | None = None) -> None:
        if not isinstance(monitor, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"`monitor` must be a name of the logs, got {monitor!r}")
        self.monitor = monitor
        self.min_delta = number("min_delta", min_delta, 0)
        self.mode = choice("mode", mode, ("auto", "max", "min"))
        self._start = best
        self._reset()

    def _reset(self) -> None:
        largest = self.mode == "max" or (self.mode == "auto" and "acc" in self.monitor)
        self._sign = 1.0 if largest else -1.0
        self.best = (-self._sign * math.inf) if self._start is None else self._start

    def _watched(self, logs: Logs | None) -> float:
        logs = logs or {}
        if self.monitor not in logs:
            raise ValueError(
                f"{type(self).__name__}: `monitor` {self.monitor!r} is not in the logs; there are {', '.join(logs)}"
            )
        return float(logs[self.monitor])

    def _improves(self, value: float) -> bool:
        """Say whether a value is strictly better than the best by more than min_delta; NaN never is."""
        if math.isinf(self.best) or math.isinf(value):
            return self._sign * value > self._sign * self.best
        delta = self.min_delta * abs(self.best) if self.relative else self.min_delta
        return self._sign * (value - self.best) > delta


class EarlyStopping(_Watcher):
    """End the fit when a number has not improved for `patience` epochs in a row.

    Parameters
    ----------
    monitor : str, default "val_loss"
        The number in the logs.
    min_delta : float, default 0
        How much better than the best it must be.
    patience : int, default 0
        How many epochs without improvement are borne; NaN counts as none.
    verbose : int, default 0
        1: say when the fit is stopped.
    mode : {"auto", "min", "max"}
        Which way is better; "auto" is "max" for accuracies and "min" otherwise.
    baseline : float, optional
        The value to be better than at first.
    restore_best_weights : bool, default False
        Whether the model ends with its best weights, however the fit ends, if there was a best epoch.
    start_from_epoch : int, default 0
        Epochs before this one are ignored.
    relative : bool, default False
        Whether `min_delta` is a part of the best value's size.
    """

    def __init__(  # noqa: PLR0917  Keras's order
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,  # noqa: FBT001, FBT002
        start_from_epoch: int = 0,
        *,
        relative: bool = False,
    ) -> None:
        super().__init__(monitor, mode, min_delta, None if baseline is None else number("baseline", baseline))
        self.relative = boolean("relative", relative)
        self.patience = integer("patience", patience, 0)
        self.verbose = verbose
        self.restore_best_weights = boolean("restore_best_weights", restore_best_weights)
        self.start_from_epoch = integer("start_from_epoch", start_from_epoch, 0)
        self.stopped_epoch: int | None = None

    def needed(self) -> list[tuple[str, str]]:
        """Return what is monitored."""
        return [("monitor", self.monitor)]

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Forget an earlier fit."""
        self._reset()
        self.wait, self.best_epoch, self.stopped_epoch = 0, None, None
        self._weights: dict[str, Any] | None = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Compare, and stop when patience is at its end."""
        value = self._watched(logs)
        if epoch < self.start_from_epoch:
            return
        if self._improves(value):
            self.best, self.best_epoch, self.wait = value, epoch, 0
            if self.restore_best_weights:
                self._weights = self.model.parameters(buffers=True)
            return
        self.wait += 1
        if self.wait >= max(self.patience, 1):
            self.stopped_epoch, self.model.stop_training = epoch, True

    def on_train_end(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Bring the best weights back."""
        if self.stopped_epoch is not None and self.verbose:
            print(f"early stopping after epoch {self.stopped_epoch + 1}: {self.monitor} was best with {self.best:.6g}")
        if self._weights is not None:
            self.model.set_parameters(self._weights)
            self._weights = None


class ModelCheckpoint(_Watcher):
    """Save the model after epochs.

    Parameters
    ----------
    filepath : path
        Where to; may hold `{epoch}` (from 1) and names of the logs: "model-{epoch:02d}-{val_loss:.3f}.safetensors".
    monitor : str, default "val_loss"
        The number in the logs that decides what is best.
    verbose : int, default 0
        1: say when a file is written.
    save_best_only : bool, default False
        Whether only improvements are saved.
    save_weights_only : bool, default False
        Whether `save_weights` is used instead of `save`.
    mode : {"auto", "min", "max"}
        Which way is better; see `EarlyStopping`.
    initial_value_threshold : float, optional
        The value to be better than at first.
    """

    def __init__(  # noqa: PLR0917  Keras's order
        self,
        filepath: str | PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,  # noqa: FBT001, FBT002
        save_weights_only: bool = False,  # noqa: FBT001, FBT002
        mode: str = "auto",
        *,
        initial_value_threshold: float | None = None,
    ) -> None:
        threshold = initial_value_threshold
        super().__init__(
            monitor, mode, best=None if threshold is None else number("initial_value_threshold", threshold)
        )
        self.filepath = os.fsdecode(filepath)
        self.verbose = verbose
        self.save_best_only = boolean("save_best_only", save_best_only)
        self.save_weights_only = boolean("save_weights_only", save_weights_only)

    def needed(self) -> list[tuple[str, str]]:
        """Return the names in the path, and what is monitored if that matters."""
        from string import Formatter

        fields = [name for _, name, _, _ in Formatter().parse(self.filepath) if name is not None]
        watched = [("monitor", self.monitor)] if self.save_best_only else []
        return [*watched, *(("filepath", name) for name in fields if name != "epoch")]

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Save if it is due."""
        if self.save_best_only:
            value = self._watched(logs)
            if not self._improves(value):
                return
            self.best = value
        path = self.filepath.format(epoch=epoch + 1, **(logs or {}))
        (self.model.save_weights if self.save_weights_only else self.model.save)(path)
        if self.verbose:
            print(f"saved {path}")


class LearningRateScheduler(Callback):
    """Set the learning rate at the start of each epoch from `schedule(epoch, learning_rate)` or `schedule(epoch)`.

    For a learning rate that changes with every update, give `compile` a function of the update's index instead.
    """

    adds: ClassVar[tuple[str, ...] | None] = ("learning_rate",)

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        if not callable(schedule):
            raise TypeError(f"`schedule` must be a function (epoch, learning_rate) -> learning_rate, got {schedule!r}")
        self.schedule = schedule
        self._takes_both = _accepts_two(schedule)
        self.verbose = verbose

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Set the learning rate of this epoch."""
        current = [self.model.learning_rate] if self._takes_both else []
        self.model.learning_rate = self.schedule(epoch, *current)
        if self.verbose:
            print(f"epoch {epoch + 1}: learning rate {self.model.learning_rate:.6g}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Note the learning rate."""
        if logs is not None:
            logs["learning_rate"] = self.model.learning_rate


def _accepts_two(function: Callable[..., Any]) -> bool:
    """Say whether a function can be called with two arguments; those that do not tell are taken to be."""
    import inspect

    try:
        inspect.signature(function).bind(0, 0.0)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


class TerminateOnNaN(Callback):
    """End the fit at the first batch after which the loss is not finite."""

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Look at the loss."""
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            print(f"batch {batch}: the loss is not finite, training stops")
            self.model.stop_training = True


class CSVLogger(Callback):
    """Write a row of the logs to a CSV file after each epoch.

    Parameters
    ----------
    filename : path
        Where to.
    separator : str, default ","
        What stands between numbers.
    append : bool, default False
        Whether an existing file is continued.
    """

    adds: ClassVar[tuple[str, ...] | None] = ()

    def __init__(self, filename: str | PathLike[str], separator: str = ",", append: bool = False) -> None:  # noqa: FBT001, FBT002
        self.filename = os.fspath(filename)
        self.separator = separator
        self.append = boolean("append", append)
        self._file: IO[str] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Open the file."""
        self._file = open(self.filename, "a" if self.append else "w", newline="", encoding="utf-8")  # noqa: PTH123, SIM115
        self._header = self._file.tell() == 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write a row."""
        if self._file is None:
            return
        import csv

        row = {"epoch": epoch, **(logs or {})}
        writer = csv.writer(self._file, delimiter=self.separator)
        if self._header:
            writer.writerow(row)
            self._header = False
        writer.writerow(row.values())
        self._file.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


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
