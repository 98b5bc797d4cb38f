"""Fixtures that several files share. `BURNISH_TEST_DEVICES=wgpu` says which accelerators must be there."""

import os
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from killing import digest, train

import burnish as bn
from burnish._feed import stream

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

DEMANDED = [name for name in os.environ.get("BURNISH_TEST_DEVICES", "").split(",") if name]
PRESENT = [device["name"].partition(":")[0] for device in bn.devices()]


def _accelerator(name):
    absent = name not in PRESENT and name not in DEMANDED
    return pytest.param(
        name,
        marks=[getattr(pytest.mark, name), pytest.mark.skipif(absent, reason=f"no {name} in this build or machine")],
    )


@pytest.fixture(params=["cpu", "ndarray", _accelerator("wgpu"), _accelerator("cuda")])
def device(request):
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def digits():
    """Three classes in the plane, 96 rows."""
    generator = np.random.default_rng(3)
    y = np.arange(96) % 3
    x = generator.normal(size=(96, 4)) + 2.0 * np.eye(3, 4)[y]
    return x.astype(np.float32), y


@pytest.fixture
def no_thread_is_left():
    yield
    assert [thread for thread in threading.enumerate() if thread.name.startswith("burnish")] == []


@pytest.fixture
def small_blocks(monkeypatch):
    """A few rows are read at once."""
    monkeypatch.setattr(stream, "BLOCK_BYTES", 2000)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The digest of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    model = train(folder)
    assert len(model.history.epoch) == 7
    assert len(set(model.history.steps["learning_rate"])) > 10
    assert len(set(model.history.history["learning_rate"])) > 3
    assert len(set(model.history.steps["loss_scale"])) > 3
    return digest(model, folder)
