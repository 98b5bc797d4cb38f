"""Fixtures that several files share. `BURNISH_TEST_DEVICES=wgpu` says which accelerators must be there."""

import os

import numpy as np
import pytest

import burnish as bn

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
