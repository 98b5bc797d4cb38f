"""Models leave nothing behind."""

import gc
import resource
import sys
from pathlib import Path

import numpy as np
import pytest

import burnish as bn


def resident():
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_thousand_models_leave_less_than_a_kibibyte_each(digits):
    x, y = digits

    def life():
        model = bn.Sequential(
            [bn.layers.Dense(16, "relu"), bn.layers.BatchNorm(), bn.layers.Dropout(0.2), bn.layers.Dense(3)]
        )
        model.compile("cross_entropy", metrics=["accuracy"])
        model.fit(x, y, validation_split=0.2, verbose=0)
        model.predict(x)

    def grown(count):
        gc.collect()
        before = resident()
        for _ in range(count):
            life()
        gc.collect()
        return resident() - before

    grown(800)  # allocators fill their pools
    assert grown(1000) < 1000 * 1024


def test_tensors_are_freed():
    x = bn.Tensor(np.ones((1000, 1000), np.float32), requires_grad=True)
    before = resident() if sys.platform == "linux" else 0
    for _ in range(200):
        (x * x).sum().backward()
        x.zero_grad()
    if sys.platform == "linux":
        assert resident() - before < 40e6
