"""Threads do not survive a fork; training in a child works all the same."""

import multiprocessing
import sys

import numpy as np
import pytest

import burnish as bn


def _losses(width):
    x = np.random.default_rng(0).normal(size=(256, 128)).astype(np.float32)
    model = bn.Sequential([bn.layers.Dense(width, activation="relu"), bn.layers.Dense(1)])
    model.compile("mse", "sgd", 0.01)
    (bn.Tensor(np.ones((400, 400), np.float32)) + 1.0).numpy()
    return model.fit(x, x[:, :1], epochs=2, verbose=0).history["loss"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks by habit")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_trains():
    expected = _losses(256)
    with multiprocessing.get_context("fork").Pool(1) as child:
        assert child.apply_async(_losses, (256,)).get(timeout=60) == expected
