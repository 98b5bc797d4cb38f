"""Importing costs NumPy and little more, and touches nothing."""

import json
import os
import subprocess
import sys

import pytest

MEASURE = """
import json, sys, threading, time
start = time.process_time()
import numpy
before, modules = time.process_time(), set(sys.modules)
import burnish
cost, of_numpy = time.process_time() - before, before - start
threads = threading.active_count()
try:
    threads = len(__import__("os").listdir("/proc/self/task"))
except OSError:
    pass
found = {"cost": cost, "of_numpy": of_numpy, "threads": threads}
print(json.dumps({**found, "modules": sorted(set(sys.modules) - modules)}))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The cheapest of some runs, of which the first compiles what it reads."""
    cache = tmp_path_factory.mktemp("cache")
    threads = dict.fromkeys(["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"], "1")
    environment = {**os.environ, **threads, "PYTHONPYCACHEPREFIX": str(cache), "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-c", MEASURE]
    runs = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
        for _ in range(5)
    ]
    return {**min(runs, key=lambda run: run["cost"]), "of_numpy": min(run["of_numpy"] for run in runs)}


def test_importing_is_cheap(measured):
    assert measured["cost"] < measured["of_numpy"], measured


def test_importing_starts_no_thread(measured):
    assert measured["threads"] == 1


def test_importing_brings_nothing_heavy(measured):
    heavy = {
        "pandas",
        "matplotlib",
        "tqdm",
        "rich",
        "torch",
        "asyncio",
        "concurrent.futures",
        "multiprocessing",
        "inspect",
        "importlib.metadata",
    }
    assert not heavy & set(measured["modules"])


def test_every_public_name_exists_and_is_documented():
    import burnish as bn

    parts = (
        bn.ops,
        bn.layers,
        bn.losses,
        bn.metrics,
        bn.optimizers,
        bn.callbacks,
        bn.data,
        bn.initializers,
        bn.schedules,
        bn.tuning,
    )
    for module in (bn, *parts):
        assert module.__doc__
        assert len(set(module.__all__)) == len(module.__all__)
        for name in module.__all__:
            assert getattr(module, name).__doc__, f"{module.__name__}.{name}"


def test_the_version_is_that_of_the_installation():
    import burnish as bn

    with pytest.raises(AttributeError, match="no attribute 'versoin'"):
        _ = bn.versoin
