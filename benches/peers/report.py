"""Results as a Markdown table and as JSON."""

import os
import platform
from pathlib import Path
from typing import Any

from measure import Result

OURS = "burnish"


def table(name: str, results: list[Result]) -> str:
    """One workload, a row a library; ratio > 1: slower than burnish."""
    ours = next((result for result in results if result.peer == OURS), None)
    rows = [
        f"| {result.peer} | {result.threads} | {result.median:.3f} | {min(result.milliseconds):.3f} "
        f"| {f'{result.ratio(ours):.2f}' if ours else '-'} | {result.loss:.4f} |"
        for result in results
    ]
    head = [
        f"| {name} | threads | ms/step (median) | ms/step (best) | time / {OURS} | loss |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    return "\n".join(head + rows)


def document(versions: dict[str, str], results: dict[str, list[Result]]) -> dict[str, Any]:
    """Everything that was measured, with what it was measured on."""
    return {
        "machine": {"processor": processor(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": versions,
        "workloads": {name: [vars(result) for result in measured] for name, measured in results.items()},
    }


def processor() -> str:
    """The processor's name where the system tells it."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
