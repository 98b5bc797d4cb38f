"""What is read during a fit gives the bits of the same data in memory, takes little memory, and leaves no thread."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import Raise, X, Y, digest, lives, train

import burnish as bn
from burnish import layers
from burnish._feed import prefetch, stream
from burnish._feed.mapped import file_rows
from burnish._feed.prefetch import prefetched

RNG = np.random.default_rng(4)
METRICS = ["accuracy", "auc", "f1", "confusion_matrix"]
pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.fixture
def streamed(monkeypatch):
    """Read even small arrays from their files, a few rows at once."""
    monkeypatch.setattr(stream, "MAPPED_BYTES", 0)
    monkeypatch.setattr(stream, "BLOCK_BYTES", 2000)


def stored(folder, array, name="x", mode="r"):
    np.save(folder / f"{name}.npy", array)
    return np.load(folder / f"{name}.npy", mmap_mode=mode)


def network(**options):
    model = bn.Sequential([layers.Dense(8, "relu"), layers.BatchNorm(), layers.Dropout(0.2), layers.Dense(3)])
    model.compile("cross_entropy", "adam", 0.01, **{"metrics": METRICS, **options})
    return model


def outcome(x, y, *, validation_data=None, **options):
    """Everything that a fit, an evaluation and a prediction give."""
    model = network()
    history = model.fit(
        x, y, batch_size=16, epochs=3, validation_data=validation_data, verbose=0, **{"shuffle": True, **options}
    )
    weight = options.get("sample_weight")
    evaluated = model.evaluate(x, y, batch_size=7, sample_weight=weight)
    arrays = {**model.parameters(buffers=True), "predicted": model.predict(x, batch_size=11), **history.steps}
    matrix = evaluated.pop("confusion_matrix")
    return {name: array.tolist() for name, array in arrays.items()} | history.history | evaluated, matrix.tolist()


def same(one, two):
    np.testing.assert_equal(one, two)  # NaN is equal to itself: losses of one class have no area under the curve


WEIGHT = RNG.uniform(size=len(X)) * (RNG.uniform(size=len(X)) > 0.2)
OPTIONS = {
    "plain": {},
    "in order": {"shuffle": False},
    "split": {"validation_split": 0.3},
    "weights": {"sample_weight": WEIGHT, "validation_split": 0.2},
    "class weights": {"class_weight": {0: 2.0, 2: 0.5}},
    "unchecked": {"check_data": False},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_memory_mapped_array_gives_the_bits_of_one_in_memory(streamed, tmp_path, name):
    x, y = stored(tmp_path, X), stored(tmp_path, Y, "y")
    same(outcome(x, y, **OPTIONS[name]), outcome(X, Y, **OPTIONS[name]))


def test_validation_data_from_a_file(streamed, tmp_path):
    x = stored(tmp_path, X)
    given = (x[:50], Y[:50], WEIGHT[:50])
    same(outcome(X, Y, validation_data=given), outcome(X, Y, validation_data=(X[:50], Y[:50], WEIGHT[:50])))


def test_several_inputs_of_which_some_are_mapped(streamed, tmp_path):
    def trained(a, b):
        one, two = bn.Input((12,)), bn.Input((12,))
        model = bn.Model({"a": one, "b": two}, layers.Dense(3)(layers.Concatenate()([one, two])))
        model.compile("cross_entropy", "adam")
        return model.fit({"a": a, "b": b}, Y, epochs=2, verbose=0).steps["loss"].tolist()

    assert trained(stored(tmp_path, X), X) == trained(X, X)


def wide(folder):
    held = np.zeros((2 * len(X), 20), np.float32)
    held[::2, 3:15] = X
    return stored(folder, held)[::2, 3:15]


def structured(folder):
    held = np.zeros(len(X), [("pad", "u1"), ("x", "<f4", (12,))])
    held["x"] = X
    return stored(folder, held)["x"]


LAYOUTS = {
    "whole": lambda folder: stored(folder, X),
    "writable": lambda folder: stored(folder, X, mode="r+"),
    "float64": lambda folder: stored(folder, X.astype(np.float64)),
    "big-endian": lambda folder: stored(folder, X.astype(">f4")),
    "columns and every second row": wide,
    "a field": structured,
    "backwards": lambda folder: stored(folder, np.ascontiguousarray(X[::-1, ::-1]))[::-1, ::-1],
    "as an array": lambda folder: np.asarray(stored(folder, X)),
    "reshaped": lambda folder: stored(folder, X.reshape(-1)).reshape(X.shape),
    "raw with an offset": lambda folder: raw(folder, 4 * 12 * 5),
}


def raw(folder, offset):
    (folder / "raw").write_bytes(bytes(offset) + X.tobytes())
    return np.memmap(folder / "raw", np.float32, "r", offset, X.shape)


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_files(streamed, tmp_path, name):
    x = LAYOUTS[name](tmp_path)
    assert file_rows(x) is not None
    rows = RNG.integers(0, len(x), 50)
    np.testing.assert_array_equal(file_rows(x).read(rows), x[rows])
    same(outcome(x, Y), outcome(X, Y))


def changed(folder):
    x = stored(folder, X + 1, mode="c")
    x -= x - X
    return x


def deleted(folder):
    x = stored(folder, X)
    (folder / "x.npy").unlink()
    return x


def replaced(folder):
    x = stored(folder, X)
    np.save(folder / "other.npy", X + 1)
    (folder / "other.npy").replace(folder / "x.npy")
    return x


IN_PLACE = {
    "Fortran order": lambda folder: stored(folder, np.asfortranarray(X)),
    "private changes": changed,
    "deleted": deleted,
    "replaced": replaced,
    "one column": lambda folder: stored(folder, np.repeat(X, 8, axis=1))[:, ::8],
}


@pytest.mark.skipif(sys.platform == "win32", reason="a mapped file cannot be deleted there")
@pytest.mark.parametrize("name", IN_PLACE)
def test_what_the_file_does_not_tell_is_read_in_place(streamed, tmp_path, name):
    x = IN_PLACE[name](tmp_path)
    assert file_rows(x) is None
    same(outcome(x, Y), outcome(np.array(x), Y))


@settings(max_examples=60)
@given(data=st.data())
def test_rows_of_any_view(tmp_path_factory, data):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple))
    dtype = data.draw(st.sampled_from(["u1", "<i2", ">f4", "<f8"]))
    folder = tmp_path_factory.mktemp("view")
    x = stored(folder, np.arange(np.prod(shape)).reshape(shape).astype(dtype))
    steps = st.sampled_from([None, 1, 2, -1, -2])
    view = x[tuple(slice(None, None, data.draw(steps)) for _ in shape)]
    found = file_rows(view)
    if found is None:
        assert view.ndim > 1  # the rows lie too far apart
        return
    rows = np.array(data.draw(st.lists(st.integers(0, len(view) - 1), min_size=1, max_size=8)), np.int64)
    np.testing.assert_array_equal(found.read(rows), view[rows])


def test_a_file_that_becomes_shorter(streamed, tmp_path):
    x = raw(tmp_path, 0)
    rows = file_rows(x)
    with (tmp_path / "raw").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(EOFError, match="has become shorter"):
        rows.read(np.arange(10))


def test_values_are_checked_before_the_first_step(streamed, tmp_path):
    bad = X.copy()
    bad[150, 3] = np.nan
    model = network()
    for split in (0.0, 0.5):
        with pytest.raises(ValueError, match=r"`x` holds nan at row (150|48), column 3; check_data=False"):
            model.fit(stored(tmp_path, bad), Y, validation_split=split, verbose=0)
    labels = np.where(np.arange(len(Y)) == 99, 7, Y)
    with pytest.raises(ValueError, match="`y` must hold labels from 0 to 2, got 7 at row 99"):
        model.fit(stored(tmp_path, X), stored(tmp_path, labels, "y"), verbose=0)
    with pytest.raises(ValueError, match="`x` holds nan at row 150"):
        model.predict(stored(tmp_path, bad))
    with pytest.raises(ValueError, match="not known yet"):
        model.parameters()


def test_lives_over_a_file_end_in_the_bits_of_one_in_memory(streamed, tmp_path):
    for name in ("file", "memory"):
        (tmp_path / name).mkdir()
    x = stored(tmp_path, X)
    model = lives(lambda: train(tmp_path / "file", [Raise(17)], x=x), most=20)
    assert digest(model, tmp_path / "file") == digest(train(tmp_path / "memory"), tmp_path / "memory")


MEMORY = """
import sys
import numpy as np
import burnish as bn

def memory(which):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))

def network():
    model = bn.Sequential([bn.layers.Dense(8, "relu"), bn.layers.Dense(1)])
    model.compile("mse", "sgd", 1e-3)
    return model

rows = 100_000
np.memmap(sys.argv[1], np.float32, "w+", shape=(rows, 1024))
x, y = np.memmap(sys.argv[1], np.float32, "r", shape=(rows, 1024)), np.zeros((rows, 1))
warm = network()
warm.fit(np.zeros((4096, 1024), np.float32), y[:4096], batch_size=512, verbose=0)
before = memory("VmRSS")
model = network()
model.fit(x, y, batch_size=512, validation_split=0.2, verbose=0)
model.fit(x[:20000], y[:20000], batch_size=512, validation_data=(x, y), verbose=0)
model.evaluate(x, y)
model.predict(x)
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_400_mb_in_a_file_take_little_memory(tmp_path):
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "x")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert int(result.stdout) < 150e6


def test_callbacks_of_evaluations_see_every_batch(streamed, tmp_path):
    seen = []

    class Sees(bn.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            seen.append((batch, logs["loss"]))

    model, x = network(), stored(tmp_path, X)
    model.fit(X, Y, verbose=0)
    plain = model.evaluate(x, Y, batch_size=20)
    hooked = model.evaluate(x, Y, batch_size=20, callbacks=[Sees()])
    assert [batch for batch, _ in seen] == list(range(11))
    assert plain["loss"] == hooked["loss"]
    assert seen[0][1] == pytest.approx(model.evaluate(X[:20], Y[:20])["loss"], rel=1e-6)


def test_items_come_in_order_and_what_is_raised_at_its_place():
    def items():
        yield from range(5)
        raise OSError("the disk is gone")

    iterator = prefetched(items, 2)
    assert [next(iterator) for _ in range(5)] == list(range(5))
    with pytest.raises(OSError, match="the disk is gone"):
        next(iterator)


def test_a_reader_is_no_further_ahead_than_asked_and_is_closed_in_its_thread():
    made, closed = [], []

    def items():
        try:
            for index in range(1000):
                made.append(index)
                yield index
        finally:
            closed.append(threading.current_thread().name)

    iterator = prefetched(items, 2)
    assert next(iterator) == 0
    time.sleep(0.1)
    assert len(made) <= 5
    iterator.close()
    assert closed == [prefetch.NAME]
