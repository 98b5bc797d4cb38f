"""What a library costs before it is warm: a script's time from its start, the import, memory and an installation."""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import numpy as np

from peer import PEERS
from report import OURS, machine, markdown
from script import ARRAYS, WORKLOAD
from worker import cores, environment
from workloads import WORKLOADS, Training

LIMIT_SECONDS = 120
COLUMNS = {"epoch": "s to the end of the first epoch", "import": "s to import", "memory": "MB at most"}
NOT_CPU = ("nvidia", "cuda", "triton")  # what PyTorch installs for a GPU alone


def cold(peers: list[str], *, rounds: int, file: Path | None) -> None:
    """Measure and print; one start of each that does not count writes bytecode and what a library keeps on disk."""
    with TemporaryDirectory() as folder:
        save_arrays(Path(folder))
        able = [peer for peer in peers if start(peer, folder)]
        starts: dict[str, list[dict[str, float]]] = {peer: [] for peer in able}
        for _ in range(rounds):
            for peer, found in starts.items():
                found.append(start(peer, folder))
    sizes = {peer: installed(peer) for peer in able}
    print(table(starts, sizes))
    if file:
        file.write_text(json.dumps({"machine": machine(), "starts": starts, "installed": sizes}, indent=1) + "\n")


def save_arrays(folder: Path) -> None:
    """Write what the scripts read."""
    workload = WORKLOADS[WORKLOAD]
    assert isinstance(workload, Training)
    for name, array in zip(ARRAYS, workload.arrays(), strict=True):
        np.save(folder / name, array)


def start(peer: str, folder: str) -> dict[str, float]:
    """Run a script to its end; empty where the library is missing."""
    threads = cores()
    variables = environment(threads) | {"PYTHONPYCACHEPREFIX": str(Path(folder, "bytecode"))}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, str(Path(__file__).with_name("script.py")), PEERS[peer].module, peer, str(threads)]
    command += [folder, str(monotonic())]
    done = subprocess.run(command, env=variables, check=False, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    if done.returncode:
        print(f"{peer}: left out ({done.stderr.strip().splitlines()[-1]})", flush=True)
        return {}
    return json.loads(done.stdout.splitlines()[-1])


def installed(peer: str) -> dict[str, float]:
    """Return the MB on disk of a library and all that it needs but NumPy, and of these what only a GPU needs."""
    found: dict[str, float] = {}
    left = list(PEERS[peer].distributions)
    while left:
        name = left.pop()
        if name in found or name == "numpy":
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of another platform, say
            continue
        found[name] = size(distribution)
        needs = [need for need in distribution.requires or () if "extra ==" not in need]
        left += [re.split(r"[^\w.-]", need)[0].lower() for need in needs]
    gpu = sum(value for name, value in found.items() if name.startswith(NOT_CPU))
    return {"all": sum(found.values()), "gpu": gpu}


def size(distribution: metadata.Distribution) -> float:
    """Return the MB of a distribution's files without bytecode."""
    files = [Path(str(distribution.locate_file(path))) for path in distribution.files or ()]
    return sum(file.stat().st_size for file in files if file.suffix != ".pyc" and file.is_file()) / 1e6


def table(starts: dict[str, list[dict[str, float]]], sizes: dict[str, dict[str, float]]) -> str:
    """A row a library, each median beside its ratio to burnish's."""
    head = ["library", *(cell for title in (*COLUMNS.values(), "MB installed") for cell in (title, f"/ {OURS}"))]
    return markdown([*head, "of these for a GPU"], [line(peer, starts, sizes) for peer in starts])


def line(peer: str, starts: dict[str, list[dict[str, float]]], sizes: dict[str, dict[str, float]]) -> list[str]:
    """Return the cells of a row."""

    def ratio(column: str) -> str:
        pairs: Any = zip(starts[peer], starts.get(OURS, ()), strict=False)
        ratios = [mine[column] / ours[column] for mine, ours in pairs]
        return f"{median(ratios):.2f}" if ratios else "-"

    cells = [peer]
    for column in COLUMNS:
        cells += [f"{median(found[column] for found in starts[peer]):.3g}", ratio(column)]
    ours = sizes.get(OURS)
    of_ours = f"{sizes[peer]['all'] / ours['all']:.2f}" if ours else "-"
    return [*cells, f"{sizes[peer]['all']:.0f}", of_ours, f"{sizes[peer]['gpu']:.0f}"]
