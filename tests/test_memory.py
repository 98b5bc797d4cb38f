"""Models leave nothing behind."""

import gc
import resource
import sys
import weakref
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

    # Allocators fill their pools at first; what leaks grows in every round.
    assert any(grown(500) < 500 * 1024 for _ in range(6))


def test_tensors_are_freed():
    x = bn.Tensor(np.ones((1000, 1000), np.float32), requires_grad=True)
    before = resident() if sys.platform == "linux" else 0
    for _ in range(200):
        (x * x).sum().backward()
        x.zero_grad()
    if sys.platform == "linux":
        assert resident() - before < 40e6


def test_a_model_dies_with_its_last_reference(digits, tmp_path):
    x, y = digits
    gc.collect()
    gc.disable()
    try:
        node = bn.Input((4,))
        models = [
            bn.Sequential([bn.Input((4,)), bn.layers.Dense(3)]),
            bn.Model(node, bn.layers.Dense(3)(node)),
            bn.Sequential([bn.Sequential([bn.layers.Dense(3)])]),
        ]
        for model in models:
            model.compile("cross_entropy")
            model.fit(x, y, verbose=0)
            model.save(tmp_path / "model")
        models.append(bn.load(tmp_path / "model"))
        references = [weakref.ref(model) for model in models]
        del model, models
        assert [reference() for reference in references] == [None] * 4
    finally:
        gc.enable()
