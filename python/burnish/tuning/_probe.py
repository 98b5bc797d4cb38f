"""The child process of the batch-size finder: tries one size after another, and may die of it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..loaded import load
from ..model import core_of

__all__ = ["main"]


def main(folder: Path) -> None:
    """Run every size that the settings name, a line of JSON before and after each."""
    settings: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    _die_first()
    runtime = core_of(load(folder / "model.safetensors", device=settings["device"])).ready()
    with np.load(folder / "rows.npz") as file:
        arrays = {name: file[name] for name in file.files}
    weight = arrays.pop("sample_weight", None)
    _limit(settings["memory"])
    _used()
    before = _used()
    for rows in settings["sizes"]:
        _say({"begun": rows})
        seconds = _step(runtime.session, arrays, weight, rows)
        most = _used()
        memory = None if most is None or before is None else max(0, most - before)
        if memory is not None and settings["memory"] is not None and memory > settings["memory"]:
            raise MemoryError(f"it took {memory / 1e6:.0f} MB of {settings['memory'] / 1e6:.0f} MB")
        _say({"rows": rows, "seconds": seconds, "memory": memory})


def _step(session: Any, arrays: dict[str, Any], weight: Any, rows: int) -> float:
    """Train on so many rows, twice, and return how long the faster one took."""
    order = np.arange(rows, dtype=np.int64) % len(next(iter(arrays.values())))
    taken: list[float] = []
    for _ in range(2):
        since = time.perf_counter()
        session.train(arrays, order, batch_size=rows, learning_rates=np.zeros(1), sample_weight=weight)
        session.flush(0.0)
        taken.append(time.perf_counter() - since)
    return min(taken)


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _die_first() -> None:
    """Ask Linux to end this process rather than another one when memory runs out."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:
        return


def _limit(memory: int | None) -> None:
    """Bear no more than so many bytes beyond those that are mapped now."""
    if memory is None:
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _used() -> int | None:
    """Return the most memory since the last call, in bytes, where the system tells; elsewhere the most so far."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    except OSError:
        return _peak()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def _peak() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main(Path(sys.argv[1]))
