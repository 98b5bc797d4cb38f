"""Results as Markdown tables and as JSON."""

import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from measure import Result
from workloads import Training, Workload

OURS = "burnish"
LISTED = 6  # parts of a step


@dataclass
class Row:
    """All that was measured on a workload."""

    workload: Workload
    results: list[Result]
    left_out: dict[str, str]
    profile: dict[str, Any] | None = None  # of burnish
    load: tuple[float, ...] = field(default_factory=os.getloadavg)

    @property
    def ours(self) -> Result | None:
        """Times of burnish."""
        return next((result for result in self.results if result.peer == OURS), None)

    @property
    def ratios(self) -> dict[str, float]:
        """Each peer's time by burnish's."""
        ours = self.ours
        return {result.peer: result.ratio(ours) for result in self.results if result.peer != OURS} if ours else {}

    @property
    def risen(self) -> list[str]:
        """The libraries whose loss did not fall."""
        return [each.peer for each in self.results if isinstance(self.workload, Training) and not each.fell]

    def share(self, peak: float) -> float | None:
        """What share of the machine's peak burnish reaches."""
        if not (self.profile and self.ours):
            return None
        return self.profile["flops"] / (1e-3 * self.ours.median) / peak


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; the first column has words."""
    head = list(head)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *map(list, rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(value: float | None, form: str) -> str:
    """Return a number as text, or a dash."""
    return "-" if value is None else format(value, form)


def details(row: Row) -> str:
    """One workload, a row a library; ratio > 1: slower than burnish."""
    what = "loss, first to last" if isinstance(row.workload, Training) else "result"
    head = (row.workload.name, "threads", "ms/step (median)", "ms/step (best)", f"time / {OURS}", what, "others' share")
    lines = [
        (
            result.peer,
            str(result.threads),
            f"{result.median:.3f}",
            f"{min(result.milliseconds):.3f}",
            number(1.0 if result.peer == OURS else row.ratios.get(result.peer), ".2f"),
            f"{number(result.first, '.4f')} to {number(result.last, '.4f')}",
            f"{median(result.others):.0%}",
        )
        for result in row.results
    ]
    return markdown(head, lines)


def peaks(rows: list[Row]) -> dict[int, float]:
    """Return the most FLOPs a second that a product of matrices reached in the run, by number of threads."""
    found: dict[int, float] = {}
    for row in rows:
        if row.profile and row.ours:
            found[row.ours.threads] = max(found.get(row.ours.threads, 0.0), row.profile["peak"])
    return found


def best(row: Row) -> float | None:
    """Return the smallest ratio."""
    return min(row.ratios.values(), default=None)


def overview(rows: list[Row], peers: list[str]) -> str:
    """A row a workload, a column a library, and the geometric means over the rows that each is in."""
    peak = peaks(rows)
    others = [peer for peer in peers if peer != OURS]

    def line(row: Row) -> list[str]:
        ours, ratios = row.ours, row.ratios
        share = row.share(peak[ours.threads]) if ours and ours.threads in peak else None
        times = [number(ours and ours.median, ".3f"), number(share, ".0%")]
        return [
            row.workload.name,
            *times,
            *(number(ratios.get(peer), ".2f") for peer in others),
            number(best(row), ".2f"),
        ]

    head = ("workload", f"{OURS}, ms/step", "of peak", *others, "best peer")
    return markdown(head, [*map(line, rows), ["geometric mean", "", "", *means(rows, others)]])


def means(rows: list[Row], others: list[str]) -> list[str]:
    """Return the geometric means of each peer's ratios and of the best ones."""
    columns = [[row.ratios[peer] for row in rows if peer in row.ratios] for peer in others]
    columns.append([ratio for row in rows if (ratio := best(row))])
    return [f"{geometric_mean(column):.2f}" if column else "-" for column in columns]


def parts(rows: list[Row]) -> str:
    """Where burnish's time goes: the operations of each phase, the longest first, in shares of a step."""
    lines: list[tuple[str, str]] = []
    for row in rows:
        if row.profile:
            sums: dict[str, float] = {}
            for phase, _, operation, seconds, _ in row.profile["rows"]:
                name = phase if operation == phase else f"{phase} {operation}"
                sums[name] = sums.get(name, 0.0) + seconds / row.profile["seconds"]
            longest = sorted(sums.items(), key=lambda item: -item[1])[:LISTED]
            lines.append((row.workload.name, ", ".join(f"{name} {share:.0%}" for name, share in longest)))
    return markdown(("workload", f"where the time of {OURS} goes"), lines)


def document(versions: dict[str, str], rows: list[Row]) -> dict[str, Any]:
    """Everything that was measured, with what it was measured on."""
    return {
        "machine": machine(),
        "versions": versions,
        "peak": {str(threads): peak for threads, peak in peaks(rows).items()},
        "workloads": {
            row.workload.name: {
                "results": [asdict(result) for result in row.results],
                "ratios": row.ratios,
                "best": best(row),
                "left_out": row.left_out,
                "profile": row.profile,
                "load": row.load,
            }
            for row in rows
        },
    }


def machine() -> dict[str, Any]:
    """What it ran on."""
    return {"processor": processor(), "cores": os.cpu_count(), "python": platform.python_version()}


def processor() -> str:
    """The processor's name where the system tells it."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
