"""What a fit shows while it runs: a bar on a terminal or in a notebook, otherwise a line an epoch."""

from __future__ import annotations

import math
import sys
import time
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from .._errors import choice, number
from .base import Callback

if TYPE_CHECKING:
    from .base import Logs

__all__ = ["ProgressBar", "progress"]

_WIDTH = 24
_STYLES = ("auto", "bar", "lines", "notebook")
_KEPT = 12  # lines of past epochs in a notebook


def progress(verbose: Any, callbacks: list[Any]) -> list[Callback]:
    """Return what prints: nothing for 0 or beside a ProgressBar of the caller's, a bar for 1, lines for 2."""
    if isinstance(verbose, float) or verbose not in (0, 1, 2, "auto"):
        raise ValueError(f"`verbose` must be 0, 1, 2 or 'auto', got {verbose!r}")
    if verbose == 0 or any(isinstance(callback, ProgressBar) for callback in callbacks):
        return []
    return [ProgressBar("lines" if verbose == 2 else "auto")]


class ProgressBar(Callback):
    """Show epochs, loss, metrics, learning rate, samples a second and the time left of the fit.

    `fit` adds one by itself (see its `verbose`) unless its callbacks hold one. It needs no batch hook, so the engine
    keeps its large pieces. "samples/s" counts training only; "left" is for all epochs, an early stop not foreseen.

    Parameters
    ----------
    style : {"auto", "bar", "lines", "notebook"}
        "bar": one line that is drawn again and again, by tqdm where it is installed, so that it gets along with other
        tqdm bars. "notebook": HTML that changes in place (IPython). "lines": a line an epoch, for logs.
        "auto" is "notebook" in a notebook, "bar" on a terminal and "lines" otherwise.
    period : float, default 0.1
        Seconds between two drawings of a bar, of which each epoch's first and last come at once.
    """

    adds: ClassVar[tuple[str, ...] | None] = ()

    def __init__(self, style: str = "auto", *, period: float = 0.1) -> None:
        self.style = choice("style", style, _STYLES)
        self.period = number("period", period, 0)

    @property
    def progress_period(self) -> float:
        """Seconds between two calls of `on_progress`: lines are printed at an epoch's end only."""
        return self.period if self._display.live else math.inf

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Find out where the output goes."""
        self._display = _display(self.style)
        self._began = time.perf_counter()
        self._first: int | None = None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Start the epoch's clock."""
        self._epoch = epoch
        self._started = self._trained = time.perf_counter()
        self._first = epoch if self._first is None else self._first
        self._samples = 0
        self._rate: float | None = None

    def on_progress(self, done: int, logs: Logs, samples: int) -> None:
        """Draw again: `done` batches of the epoch, of which `samples` rows are new."""
        self._trained, self._samples = time.perf_counter(), self._samples + samples
        self._rate = logs.get("learning_rate")
        if self._display.live:
            self._display.show(self._state(done, logs))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Print the epoch's line."""
        rate = {} if self._rate is None else {"learning_rate": self._rate}
        seconds = f"{time.perf_counter() - self._started:.1f} s"
        # Figures of single parameters, as Monitor adds them, would fill the screen.
        figures = {name: value for name, value in (logs or {}).items() if "/" not in name}
        parts = [self._head(), *_numbers({**figures, **rate}), seconds, *self._speed(), *self._left(1.0)]
        self._display.finish("  ".join(parts))

    def on_train_end(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Leave a half-drawn bar on its own line."""
        self._display.close()

    def _state(self, done: int, logs: Logs) -> State:
        total = self.params["steps"]
        left = self._left(done / total if total else 0.0)
        return State(self._head(), done, total, [*left, *_numbers(logs), *self._speed()])

    def _head(self) -> str:
        epochs = str(self.params["epochs"])
        return f"epoch {self._epoch + 1:>{len(epochs)}}/{epochs}"

    def _speed(self) -> list[str]:
        seconds = self._trained - self._started
        return [f"{self._samples / seconds:,.0f} samples/s"] if seconds > 0 and self._samples else []

    def _left(self, part: float) -> list[str]:
        """Return the time left for all epochs when a part of this one is done, if that can be told."""
        done = self._epoch - (self._first or 0) + part
        ahead = self.params["epochs"] - self._epoch - part
        left = (time.perf_counter() - self._began) / done * ahead if done else 0.0
        return [f"{_clock(left)} left"] if left >= 1 else []


class State(NamedTuple):
    """What a bar shows."""

    head: str
    done: int
    total: int | None
    parts: list[str]

    @property
    def share(self) -> float:
        """The part of the epoch that is done; 0 if the epoch's length is not known."""
        return self.done / self.total if self.total else 0.0

    @property
    def batches(self) -> str:
        """How many batches are done."""
        return f"{self.done}/{self.total}" if self.total else f"{self.done} batches"


class Display(Protocol):
    """A place that shows a state of the epoch now and then, and a line at its end."""

    live: bool
    """Whether it shows states at all."""

    def show(self, state: State) -> None:
        """Draw a state over the one before."""
        ...

    def finish(self, line: str) -> None:
        """Put a line that stays where the state was."""
        ...

    def close(self) -> None:
        """Leave the output tidy."""
        ...


class _Lines:
    """A line an epoch."""

    live = False

    def show(self, state: State) -> None:
        pass

    def finish(self, line: str) -> None:
        print(line, flush=True)

    def close(self) -> None:
        pass


class _Bar:
    """A line of a terminal, written over itself; cut where the terminal ends, as what wraps cannot be written over."""

    live = True

    def __init__(self) -> None:
        self._length = 0

    def show(self, state: State) -> None:
        filled = round(_WIDTH * state.share)
        bar = f" {'━' * filled}{'╌' * (_WIDTH - filled)}" if state.total else ""
        self._write("  ".join([f"{state.head}{bar} {state.batches}", *state.parts])[: _columns() - 1], end="")

    def finish(self, line: str) -> None:
        self._write(line, end="\n")

    def close(self) -> None:
        if self._length:
            self._write("", end="\n")

    def _write(self, text: str, end: str) -> None:
        print(f"\r{text}{' ' * (self._length - len(text))}", end=end, flush=True)
        self._length = 0 if end else len(text)


class _TqdmBar:
    """A bar of tqdm's, which moves out of the way of other bars of tqdm's."""

    live = True

    def __init__(self, tqdm: Any) -> None:
        self._tqdm = tqdm
        self._bar: Any = None

    def show(self, state: State) -> None:
        if self._bar is None:
            self._bar = self._new(state)
            return
        self._bar.n, self._bar.ncols, self._bar.bar_format = state.done, _columns() - 1, _tqdm_format(state)
        self._bar.refresh()

    def finish(self, line: str) -> None:
        self.close()
        self._tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _new(self, state: State) -> Any:
        return self._tqdm(
            initial=state.done,
            total=state.total,
            bar_format=_tqdm_format(state),
            ascii="╌━",
            file=sys.stdout,
            leave=False,
            ncols=_columns() - 1,
        )


def _tqdm_format(state: State) -> str:
    texts = (text.replace("{", "{{").replace("}", "}}") for text in [state.batches, *state.parts])
    return f"{state.head}{f' {{bar:{_WIDTH}}}' if state.total else ''} {'  '.join(texts)}"


class _Notebook:
    """HTML that changes in place: the last epochs' lines and a bar; where there is no HTML, the same as text."""

    live = True

    def __init__(self, display: Any) -> None:
        self._display = display
        self._handle: Any = None
        self._lines: list[str] = []
        self._state: State | None = None

    def show(self, state: State) -> None:
        self._state = state
        self._update()

    def finish(self, line: str) -> None:
        self._lines, self._state = [*self._lines, line][-_KEPT:], None
        self._update()

    def close(self) -> None:
        if self._state is not None:
            self._state = None
            self._update()

    def _update(self) -> None:
        if self._handle is None:
            self._handle = self._display(self, display_id=True)
        else:
            self._handle.update(self)

    def __repr__(self) -> str:
        state = [] if self._state is None else ["  ".join([self._state.head, self._state.batches, *self._state.parts])]
        return "\n".join([*self._lines, *state])

    def _repr_html_(self) -> str:
        from html import escape

        past = f"<pre>{escape(chr(10).join(self._lines))}</pre>" if self._lines else ""
        if self._state is None:
            return past
        state = self._state
        value = f' value="{state.share:.4f}"' if state.total else ""
        text = escape("  ".join([state.batches, *state.parts]))
        return f"{past}<code>{escape(state.head)}</code> <progress max=1{value}></progress> <code>{text}</code>"


def _display(style: str) -> Display:
    """Return what the style means here; a bar whose characters the output lacks becomes lines."""
    if style == "auto":
        style = "notebook" if _in_notebook() else "bar" if _is_terminal() else "lines"
    if style == "notebook":
        from importlib import import_module

        return _Notebook(import_module("IPython.display").display)
    return _bar() if style == "bar" else _Lines()


def _bar() -> Display:
    """Return a bar of tqdm's if that is installed."""
    try:
        from tqdm import tqdm  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        return _Bar()
    # A monitor thread, which tqdm starts for bars that nobody updates, would outlive the fit.
    return _TqdmBar(type("tqdm", (tqdm,), {"monitor_interval": 0}))


def _in_notebook() -> bool:
    """Say whether this runs in a Jupyter kernel, without importing anything."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def _is_terminal() -> bool:
    """Say whether the output is a terminal that can show the bar; it may be any object, or None."""
    try:
        "━╌".encode(sys.stdout.encoding or "ascii")
        return sys.stdout.isatty()
    except (AttributeError, LookupError, TypeError, UnicodeEncodeError):
        return False


def _columns() -> int:
    import shutil

    return max(shutil.get_terminal_size().columns, 20)


def _numbers(logs: Logs) -> list[str]:
    return [f"{name} {_number(name, value)}" for name, value in logs.items()]


def _number(name: str, value: Any) -> str:
    if not isinstance(value, Real):
        return str(value)  # what a callback noted in words
    if name == "learning_rate":
        return f"{value:.3g}"
    return f"{value:.4f}" if 1e-3 <= abs(float(value)) < 1e4 else f"{value:.3g}"


def _clock(seconds: float) -> str:
    """Return seconds as 0:07, 12:05 or 3:20:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
