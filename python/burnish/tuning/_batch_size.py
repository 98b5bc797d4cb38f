"""The batch-size finder: sizes tried in a child process, so that running out of memory ends nothing else."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _storage, _training
from .._copy import untouched
from .._errors import integer, number
from .._optional import required
from ..model import core_of

if TYPE_CHECKING:
    from .._feed.arrays import Data
    from .._runtime import Core, Runtime
    from ..model import Model

__all__ = ["BatchSizeSearch", "BatchTrial", "find_batch_size"]

_KEPT_ROWS = 256  # written to the child's file; larger batches use them again


class BatchTrial(NamedTuple):
    """What one size used: `seconds` a step and bytes of `memory` (None where the system does not tell), or why not."""

    rows: int
    fits: bool
    seconds: float | None = None
    memory: int | None = None
    error: str = ""

    @property
    def rows_per_second(self) -> float:
        """How fast it is; NaN if it does not fit."""
        return self.rows / self.seconds if self.seconds else float("nan")


class BatchSizeSearch(NamedTuple):
    """What was tried and what it used.

    Attributes
    ----------
    trials : list of BatchTrial
        Every size, in the order of trial.
    batch_size : int
        The largest that fits; it has been run.
    efficient : int
        The smallest that does at least 90 % of the most rows a second.
    reason : str
        Why no larger one was tried.
    """

    trials: list[BatchTrial]
    batch_size: int
    efficient: int
    reason: str

    def accumulate(self, target: int) -> tuple[int, int]:
        """Return a size that fits and divides `target`, and how many such batches to accumulate for it."""
        target = integer("target", target, 1)
        size = max(trial.rows for trial in self.trials if trial.fits and target % trial.rows == 0)
        return size, target // size

    def plot(self, *, axes: Any = None) -> Any:
        """Draw rows a second over the sizes with matplotlib, and return the figure."""
        if axes is None:
            plt: Any = required("matplotlib.pyplot", "plot")
            _, axes = plt.subplots(figsize=(6, 4))
        fitting = sorted(trial for trial in self.trials if trial.fits)
        axes.plot([trial.rows for trial in fitting], [trial.rows_per_second for trial in fitting], marker="o")
        axes.axvline(self.batch_size, linestyle="--", color="0.4", label=f"largest {self.batch_size}")
        axes.axvline(self.efficient, linestyle=":", color="0.4", label=f"efficient {self.efficient}")
        axes.set(xscale="log", yscale="log", xlabel="batch size", ylabel="rows a second")
        axes.legend()
        return axes.figure

    def __repr__(self) -> str:
        return (
            f"<batch size {self.batch_size} ({self.reason}); {self.efficient} is efficient; tried {len(self.trials)}>"
        )

    def __str__(self) -> str:
        lines = [repr(self), f"{'rows':>8} {'ms a step':>10} {'rows/s':>12} {'MB':>8}"]
        for trial in sorted(self.trials):
            if trial.fits:
                memory = "-" if trial.memory is None else f"{trial.memory / 1e6:.1f}"
                seconds = 1e3 * (trial.seconds or 0.0)
                lines.append(f"{trial.rows:>8} {seconds:>10.3f} {trial.rows_per_second:>12,.0f} {memory:>8}")
            else:
                lines.append(f"{trial.rows:>8} does not fit: {trial.error}")
        return "\n".join(lines)


def find_batch_size(
    model: Model,
    x: Any,
    y: Any = None,
    *,
    limit: int | None = None,
    memory: int | None = None,
    time_limit: float = 120.0,
    sample_weight: Any = None,
) -> BatchSizeSearch:
    """Find the largest batch that the machine can train on, by training on it: forward, backward and update.

    Sizes are doubled from 1 on until one does not fit, then halved in between three times; all in a child process, on a
    copy of the model read from a file. Nothing of the model changes, and running out of memory ends the child alone.

    Parameters
    ----------
    model : Model
        A compiled model.
    x, y, sample_weight : array_like
        As for `Model.fit`; the number of rows is the greatest size.
    limit : int, optional
        A smaller greatest size.
    memory : int, optional
        The bytes that the child may take for batches; by default, on Linux, nine tenths of what is free.
    time_limit : float, default 120
        Seconds after which no further size is begun, and a size that is not done has not fitted.

    Raises
    ------
    MemoryError
        If not even one row fits.
    """
    import tempfile

    core = core_of(model)
    limit = None if limit is None else integer("limit", limit, 1)
    time_limit = number("time_limit", time_limit, 0, above=True)
    memory = _free_memory() if memory is None else integer("memory", memory, 1)
    if memory is not None and not sys.platform.startswith("linux"):
        raise ValueError("`memory` can be limited on Linux only, leave it out")
    with untouched(core), tempfile.TemporaryDirectory(prefix="burnish-") as name:
        runtime, data = _training.ready(core, x, y, sample_weight)
        most = data.rows if limit is None else min(data.rows, limit)
        prober = _Prober(Path(name), memory, time_limit)
        prober.write(core, runtime, data)
        return _searched(prober, most, "the limit" if limit is not None and limit <= data.rows else "all rows")


class _Prober:
    """Runs sizes in child processes."""

    def __init__(self, folder: Path, memory: int | None, time_limit: float) -> None:
        self.folder = folder
        self.memory = memory
        self.time_limit = time_limit
        self.device = "cpu"

    def write(self, core: Core, runtime: Runtime, data: Data) -> None:
        """Write the model and some rows."""
        compiled = runtime.built.compiled
        self.device = "cpu" if compiled is None else compiled.device
        core.runtime = runtime
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a schedule is not saved: here no rate matters
            _storage.save(core, runtime, self.folder / "model.safetensors")
        rows = data.slice(0, min(data.rows, _KEPT_ROWS))
        weight = {} if rows.weight is None else {"sample_weight": rows.weight}
        np.savez(self.folder / "rows.npz", allow_pickle=False, **rows.inputs, **weight)

    def run(self, sizes: list[int]) -> list[BatchTrial]:
        """Return what became of the sizes, up to the first that did not fit."""
        import subprocess

        settings = {"sizes": sizes, "memory": self.memory, "device": self.device}
        (self.folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        package = Path(__file__).parents[2]
        path = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "burnish.tuning._probe", str(self.folder)]
        with (self.folder / "errors").open("w+b") as errors:
            try:
                done = subprocess.run(  # noqa: S603  our own module
                    command,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env={**os.environ, "PYTHONPATH": path},
                    timeout=self.time_limit,
                    check=False,
                )
                output, code = done.stdout, done.returncode
            except subprocess.TimeoutExpired as late:
                output, code = late.stdout or b"", None
            errors.seek(0)
            told = errors.read().decode("utf-8", "replace").strip()
        return _read(output.decode("utf-8"), code, told)


def _read(output: str, code: int | None, told: str) -> list[BatchTrial]:
    trials: list[BatchTrial] = []
    begun: int | None = None
    for line in output.splitlines():
        entry = json.loads(line)
        if "begun" in entry:
            begun = int(entry["begun"])
        else:
            trials.append(BatchTrial(entry["rows"], fits=True, seconds=entry["seconds"], memory=entry["memory"]))
            begun = None
    if code == 0:
        return trials
    reason = "it took too long" if code is None else _reason(code, told)
    if begun is None and (not trials or code is not None):
        raise RuntimeError(f"the child process that tries batch sizes failed: {reason}")
    return trials if begun is None else [*trials, BatchTrial(begun, fits=False, error=reason)]


def _reason(code: int, told: str) -> str:
    last = told.splitlines()[-1] if told else ""
    return last or (f"ended by signal {-code}" if code < 0 else f"ended with code {code}")


def _searched(prober: _Prober, most: int, capped: str) -> BatchSizeSearch:
    doubled = [1 << power for power in range(most.bit_length()) if 1 << power <= most]
    trials = prober.run(doubled if doubled[-1] == most else [*doubled, most])
    for _ in range(3):
        fitting, failing = _bounds(trials)
        if failing is None or failing - fitting < 2 or fitting == 0:
            break
        trials += prober.run([(fitting + failing) // 2])
    fitting, failing = _bounds(trials)
    if fitting == 0:
        raise MemoryError(f"not even a batch of 1 row fits: {trials[0].error}")
    reason = f"{capped}, which fits" if failing is None else f"{failing} did not fit"
    best = max(trial.rows_per_second for trial in trials if trial.fits)
    efficient = min(trial.rows for trial in trials if trial.fits and trial.rows_per_second >= 0.9 * best)
    return BatchSizeSearch(trials, fitting, efficient, reason)


def _bounds(trials: list[BatchTrial]) -> tuple[int, int | None]:
    """Return the largest size that fits (0 if none does) and the smallest that does not."""
    fitting = max((trial.rows for trial in trials if trial.fits), default=0)
    return fitting, min((trial.rows for trial in trials if not trial.fits), default=None)


def _free_memory() -> int | None:
    """Return nine tenths of the memory that is free, where Linux and the control group tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    group = Path("/sys/fs/cgroup")
    try:
        most = int((group / "memory.max").read_text(encoding="ascii"))
        free = min(free, most - int((group / "memory.current").read_text(encoding="ascii")))
    except (OSError, ValueError):
        pass  # no such limit
    return free * 9 // 10
