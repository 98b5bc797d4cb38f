"""Trackers: figures handed to another program, which may fail or hang without the fit taking notice."""

from __future__ import annotations

import atexit
import sys
import time
import warnings
from collections import deque
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._errors import number
from .base import Callback, Logs
from .json_lines import JSONLogger

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

__all__ = ["Tracker"]

_WAITING = 1000  # calls that may wait
_PERIOD = 0.05  # seconds between two looks for calls
_HANGS = 5.0  # seconds after which a call is said to hang
_PART = 0.01  # of the fit's time that its end may wait
_LEAST = 0.1  # seconds that the end of a short fit may wait, unless a call hangs already


class Tracker(Callback):
    """The base of what hands figures to another program: override `start`, `log` and `finish`.

    These three run in a thread of their own, one after another, so that a slow program slows nothing. What they raise
    is told once, as a RuntimeWarning, and the fit goes on; so it does when they hang. Each epoch's figures are also
    written to a file of JSON lines before they are handed over, so that they are there whatever happens.

    The end of a fit waits for them a hundredth of the fit's time (of a short fit up to 0.1 s). What is not handed over
    by then is while the process lives: `wait()` waits for it, and so does the end of the process, up to `timeout`.

    Parameters
    ----------
    backup : path
        The file of JSON lines, continued if it exists; see `JSONLogger`.
    timeout : float, default 5
        Seconds that the end of the process may wait.

    Examples
    --------
    >>> import burnish as bn
    >>> class Mail(bn.callbacks.Tracker):
    ...     def log(self, epoch, figures):
    ...         send(f"epoch {epoch}: loss {figures['loss']:.3f}")
    >>> tracker = Mail("figures.jsonl")
    """

    adds: ClassVar[tuple[str, ...] | None] = ()

    def __init__(self, backup: str | PathLike[str], *, timeout: float = 5.0) -> None:
        self.backup = JSONLogger(backup, append=True)
        self.timeout = number("timeout", timeout, 0)
        self._worker: _Worker | None = None

    def start(self, parameters: dict[str, Any]) -> None:
        """Begin a run; `parameters` says how it trains: "optimizer", "learning_rate", "epochs" and so on."""

    def log(self, epoch: int, figures: Logs) -> None:
        """Take an epoch's figures: the logs, "learning_rate", and the means of "gradient_norm" and "update_ratio"."""

    def finish(self, status: str) -> None:
        """End the run: "finished", "failed" (an exception) or "interrupted" (Ctrl-C)."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until everything is handed over, at most `timeout` seconds; say whether it is."""
        return self._worker is None or self._worker.wait(timeout)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begin anew."""
        self.backup.on_train_begin(logs)
        self._worker = None
        self._told: set[str] = set()
        self._began = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Begin the run, now that it is known whether it is resumed."""
        if self._worker is None:
            self._worker = _Worker(type(self).__name__, self.timeout)
            self.hand_over(self.start, run_parameters(self))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write the figures down and hand them over."""
        figures = {**(logs or {}), **self._of_steps(epoch)}
        self.backup.write(epoch, figures)
        self.hand_over(self.log, epoch, figures)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """End the run."""
        self.backup.on_train_end(logs)
        if self._worker is None:
            return
        self.hand_over(self.finish, _status())
        self._worker.close()
        seconds = time.perf_counter() - self._began
        hangs = self._worker.busy() > _LEAST / 2
        self._worker.wait(_PART * seconds if hangs else max(_PART * seconds, _LEAST))
        self._tell()

    def state(self) -> dict[str, Any]:
        """Return how much of the file belongs to the run."""
        return self.backup.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on in the same file."""
        self.backup.load_state(state)

    def hand_over(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have a method called by the thread, soon; what it raises is told once."""
        if self._worker is not None:
            self._worker.put(function, *arguments)
            self._tell()

    def _tell(self) -> None:
        """Say once of each kind what goes wrong."""
        for kind, trouble in (self._worker.troubles() if self._worker else {}).items():
            if kind not in self._told:
                self._told.add(kind)
                text = f"{type(self).__name__} {trouble}; the fit goes on, the figures are in {self.backup.filename!r}"
                warnings.warn(text, RuntimeWarning, stacklevel=2)

    def _of_steps(self, epoch: int) -> Logs:
        history = self.model.history
        steps = {} if history is None else history.steps_of(epoch)
        if not len(steps.get("learning_rate", ())):
            return {}
        means = {name: _mean(steps[name]) for name in ("gradient_norm", "update_ratio")}
        return {"learning_rate": float(steps["learning_rate"][-1]), **means}


class _Worker:
    """A thread that makes calls in order. It is a daemon: one that hangs does not keep the process alive."""

    def __init__(self, name: str, timeout: float) -> None:
        self._name = name
        self._timeout = timeout
        self._calls: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._closed = Event()
        self._thread = Thread(target=self._run, name=f"burnish {name}", daemon=True)
        self._done = Event()
        self._since: float | None = None
        self._error: str | None = None
        self._lost = 0
        self._thread.start()
        atexit.register(self._at_exit)

    def put(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have a function called; a call too many is left out."""
        if len(self._calls) < _WAITING:
            self._calls.append((function, arguments))
        else:
            self._lost += 1

    def close(self) -> None:
        """Take no more calls."""
        self._closed.set()

    def busy(self) -> float:
        """Return how long the call of now has lasted, in seconds."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def wait(self, timeout: float | None) -> bool:
        """Wait until all calls are made; say whether they are."""
        end = None if timeout is None else time.monotonic() + timeout
        # A thread that a fork left behind never ends.
        while not self._done.is_set() and self._thread.is_alive():
            left = 0.1 if end is None else min(end - time.monotonic(), 0.1)
            if left <= 0:
                return False
            self._done.wait(left)
        return self._done.is_set()

    def troubles(self) -> dict[str, str]:
        """Return what has gone wrong so far, by kind."""
        found = {"error": f"failed ({self._error})"} if self._error else {}
        if self._lost:
            found["lost"] = "is so far behind that it misses figures"
        if self.busy() > _HANGS:
            found["hangs"] = f"has not answered for {_HANGS:.0f} s"
        return found

    def _run(self) -> None:
        # It looks now and then: to be woken by each call would take the processor from the training thread.
        closed = False
        while not closed:
            closed = self._closed.wait(_PERIOD)
            while self._calls:
                self._make(*self._calls.popleft())
        self._done.set()
        atexit.unregister(self._at_exit)

    def _make(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._since = time.monotonic()
        try:
            function(*arguments)
        except BaseException as error:
            self._error = self._error or f"{type(error).__name__}: {error}"
        finally:
            self._since = None

    def _at_exit(self) -> None:
        self.close()
        if not self.wait(self._timeout):
            print(f"{self._name}: not everything was handed over before the process ended", file=sys.stderr)


def run_parameters(callback: Callback) -> dict[str, Any]:
    """Return how a run trains: of the model what `compile` was told, of the fit its epochs and steps."""
    from ..model import core_of

    core = core_of(callback.model)
    runtime, compiled = core.ready(), core.compiled
    known: dict[str, Any] = {} if compiled is None else {**compiled.optimizer}
    rule = {"optimizer": known.pop("name", None), **known.pop("hyperparameters", {})}
    settings = {name: value for name, value in known.items() if isinstance(value, (int, float, str, bool))}
    of_compile = {} if compiled is None else {name: getattr(compiled, name) for name in ("precision", "device", "seed")}
    counts = [int(np.prod(shape)) for _, shape, *_ in runtime.built.program.parameters()]
    of_fit = {"epochs": callback.params.get("epochs"), "steps": callback.params.get("steps")}
    rate = {"learning_rate": callback.model.learning_rate}
    return {**rule, **rate, **settings, **of_compile, **of_fit, "parameters": sum(counts)}


def _status() -> str:
    """Say how the fit ends; an exception that ends it is still being handled."""
    kind = sys.exc_info()[0]
    if kind is None:
        return "finished"
    return "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"


def _mean(values: Any) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")
