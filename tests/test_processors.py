"""The engine's threads begin each on a processor of its own, are awake while there is work, and rest afterwards."""

import contextlib
import os
import re
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import burnish as bn


def threads_of_this_process():
    """Names by number, the oldest first."""
    names: dict[int, str] = {}
    for thread in sorted(int(task.name) for task in Path("/proc/self/task").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # some end meanwhile
            names[thread] = Path(f"/proc/self/task/{thread}/comm").read_text().strip()
    return names


def engine_threads():
    """Numbers of the engine's threads; those born from one later have its name."""
    first: dict[str, int] = {}
    for thread, name in threads_of_this_process().items():
        first.setdefault(name, thread)
    return [thread for name, thread in first.items() if name.startswith("burnish ")]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone says where threads may run")
@pytest.mark.skipif("RAYON_NUM_THREADS" in os.environ, reason="there may be fewer threads than processors")
def test_threads_begin_on_processors_of_their_own_and_are_free_afterwards():
    allowed = os.sched_getaffinity(0)
    model = bn.Sequential([bn.layers.Dense(256, "relu"), bn.layers.Dense(10)])
    model.compile("mse", "adam")
    x, y = np.ones((4096, 256), np.float32), np.ones((4096, 10), np.float32)
    model.fit(x[:32], y[:32], verbose=0)
    threads = engine_threads()
    if len(threads) != len(allowed):
        pytest.skip("the system gives this process a share of its processors")
    apart, done = set(), threading.Event()

    def look():
        while not done.is_set():
            places = tuple(frozenset(os.sched_getaffinity(thread)) for thread in threads)
            if all(len(place) == 1 for place in places):
                apart.add(places)

    watcher = threading.Thread(target=look)
    watcher.start()
    end = time.monotonic() + 10
    while not apart and time.monotonic() < end:  # who looks may have to wait for a processor
        model.fit(x, y, epochs=5, verbose=0)
    done.set()
    watcher.join()
    assert apart
    assert all(frozenset().union(*places) == allowed for places in apart)
    assert all(os.sched_getaffinity(thread) == allowed for thread in threads_of_this_process())


def sleeps(threads):
    """How often any of the threads has gone to sleep."""
    status = [Path(f"/proc/self/task/{thread}/status").read_text() for thread in threads]
    return sum(int(re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.MULTILINE)[0]) for text in status)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone counts how often threads sleep")
def test_threads_stay_awake_for_the_pieces_of_a_step():
    model = bn.Sequential([bn.layers.Dense(256, "relu"), bn.layers.Dense(128, "relu"), bn.layers.Dense(10)])
    model.compile("mse", "adam")
    steps = 200
    x, y = np.ones((128 * steps, 256), np.float32), np.ones((128 * steps, 10), np.float32)
    model.fit(x[:128], y[:128], verbose=0)
    threads = engine_threads()
    found, end = [], time.monotonic() + 10
    while min(found, default=steps) >= steps / 2 and time.monotonic() < end:  # others may want the processors
        before = sleeps(threads)
        model.fit(x, y, batch_size=128, verbose=0)
        found.append(sleeps(threads) - before)
    assert min(found) < steps / 2


def test_threads_rest_when_nothing_is_left_to_do():
    model = bn.Sequential([bn.layers.Dense(256, "relu"), bn.layers.Dense(10)])
    model.compile("mse", "adam")
    model.fit(np.ones((512, 256), np.float32), np.ones((512, 10), np.float32), verbose=0)
    time.sleep(0.1)
    before = time.process_time()
    time.sleep(0.4)
    assert time.process_time() - before < 0.1
