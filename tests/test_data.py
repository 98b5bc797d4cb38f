"""Arrays of every kind give the same result and are not copied."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest

import burnish as bn
from burnish import layers

RNG = np.random.default_rng(11)
X = RNG.integers(-8, 8, size=(60, 6)).astype(np.float64)  # small whole numbers: exact in every type
Y = RNG.integers(0, 3, size=60)


def trained(x, y=Y, **options):
    model = bn.Sequential([layers.Dense(4, "tanh"), layers.Dense(3)])
    model.compile("cross_entropy", "sgd", 0.1)
    history = model.fit(x, y, batch_size=16, epochs=2, verbose=0, **options)
    return history.history["loss"], model.predict(x)


EXPECTED = trained(X)
WIDE = np.zeros((120, 12))
WIDE[::2, 1::2] = X
READ_ONLY = X.copy()
READ_ONLY.setflags(write=False)
PACKED = np.zeros(60, dtype=[("pad", "u1"), ("x", "<f8", (6,))])
PACKED["x"] = X

LAYOUTS = {
    "fortran": np.asfortranarray(X),
    "strided": WIDE[::2, 1::2],
    "reversed": X[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": READ_ONLY,
    "unaligned": PACKED["x"],
    "list": X.tolist(),
    "frame": pd.DataFrame(X),
    "tensor": bn.Tensor(X),
    "matrix": X.view(np.matrix),
}
TYPES = [*"bhilqefd", ">i2", ">i8", ">f4", ">f8", ">f2"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name):
    losses, predicted = trained(LAYOUTS[name])
    assert losses == EXPECTED[0]
    np.testing.assert_array_equal(predicted, EXPECTED[1])


@pytest.mark.parametrize("dtype", TYPES)
def test_types(dtype):
    losses, predicted = trained(X.astype(dtype), Y.astype(dtype))
    assert losses == EXPECTED[0]
    np.testing.assert_array_equal(predicted, EXPECTED[1])


@pytest.mark.parametrize("dtype", ["?", "B", "H", "I", "L"])
def test_unsigned_and_boolean(dtype):
    x = np.abs(X) > 3 if dtype == "?" else np.abs(X)
    assert trained(x.astype(dtype))[0] == trained(x.astype(float))[0]


def test_memory_mapped(tmp_path):
    for name, writable in (("x", "r"), ("z", "r+")):
        np.save(tmp_path / f"{name}.npy", X)
        assert trained(np.load(tmp_path / f"{name}.npy", mmap_mode=writable))[0] == EXPECTED[0]


def test_anything_with_array_or_dlpack():
    class WithArray:
        def __array__(self, dtype=None, copy=None):
            return X

    class WithDLPack:
        def __dlpack__(self, **options):
            return X.__dlpack__(**options)

        def __dlpack_device__(self):
            return X.__dlpack_device__()

    assert trained(WithArray())[0] == EXPECTED[0]
    assert trained(WithDLPack())[0] == EXPECTED[0]


def test_the_arrays_are_not_copied():
    x = np.zeros((100_000, 64), dtype=np.float64)  # 51 MB
    y = np.zeros(100_000, dtype=np.int64)
    model = bn.Sequential([layers.Dense(2)])
    model.compile("cross_entropy", "sgd", 0.1)
    model.fit(x[:64], y[:64], verbose=0)
    tracemalloc.start()
    model.fit(x[:, ::2][:, :32].repeat(2, axis=1)[:64], y[:64], verbose=0)
    tracemalloc.reset_peak()
    model.fit(x, y, batch_size=1024, validation_split=0.1, verbose=0)
    model.evaluate(x, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < x.nbytes / 5  # the order of the rows, the weights, the predictions: numbers a row, not rows


def test_images_and_scalars():
    images = RNG.normal(size=(20, 8, 8, 3))
    model = bn.Sequential([layers.Conv2D(2, 3), layers.GlobalAvgPool(), layers.Dense(1)])
    model.compile("mse")
    transposed = np.ascontiguousarray(images.transpose(3, 1, 2, 0)).transpose(3, 1, 2, 0)
    np.testing.assert_array_equal(model.predict(transposed), model.predict(images))
    flat = bn.Sequential([layers.Lambda(lambda x: bn.ops.expand_dims(x, -1)), layers.Dense(1), layers.Reshape(())])
    flat.compile("mse")
    flat.fit(np.arange(10.0), np.arange(10.0), verbose=0)
    assert flat.predict(np.arange(10.0)).shape == (10,)


def test_dict_and_tuple_inputs_of_a_subclass():
    class Sum(bn.Model):
        def __init__(self, keys):
            super().__init__()
            self.keys, self.dense = keys, layers.Dense(3)

        def call(self, x):
            return self.dense(x[self.keys[0]] + x[self.keys[1]])

    results = []
    for keys, x in ((("a", "b"), {"a": X, "b": X}), ((0, 1), (X, X))):
        model = Sum(keys)
        model.compile("cross_entropy", "sgd", 0.1)
        results.append(model.fit(x, Y, verbose=0).history["loss"])
        with pytest.raises(ValueError, match=r"`x` must hold the arrays (x\.a, x\.b|x\.0, x\.1), got x"):
            model.predict(X)
    assert results[0] == results[1]


def test_targets_may_be_a_dict_for_a_users_loss():
    def censored(target, prediction):
        return bn.ops.where(bn.ops.greater(target["seen"], 0.5), bn.ops.abs(target["time"] - prediction), 0.0)

    model = bn.Sequential([layers.Dense(1), layers.Reshape(())])
    model.compile(censored)
    seen = Y > 0
    result = model.evaluate(X, {"time": X[:, 0], "seen": seen})
    expected = np.where(seen, np.abs(X[:, 0] - model.predict(X)), 0).mean()
    np.testing.assert_allclose(result["loss"], expected, rtol=1e-6)


def test_permuting_rows_does_not_change_an_evaluation():
    model = bn.Sequential([layers.Dense(3)])
    model.compile("cross_entropy", metrics=["accuracy"], precision="float64")
    order = RNG.permutation(60)
    weight = RNG.uniform(size=60)
    one = model.evaluate(X, Y, sample_weight=weight)
    two = model.evaluate(X[order], Y[order], sample_weight=weight[order], batch_size=7)
    assert one == pytest.approx(two, rel=1e-12)
