"""Datasets and random changes of samples: the same bits whatever the batches, threads and lives of a run."""

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import Raise, X, Y, digest, lives, train
from reading import Rows

import burnish as bn
from burnish import data, layers
from burnish._feed import stream
from burnish._feed.sources import Pacer

WEIGHT = np.linspace(0, 2, len(X))
pytestmark = pytest.mark.usefixtures("no_thread_is_left", "small_blocks")


def trained(x, y=None, *, evaluated=None, **options):
    model = bn.Sequential([layers.Dense(8, "relu"), layers.Dropout(0.2), layers.Dense(3)])
    model.compile("cross_entropy", "adam", 0.01, metrics=["accuracy", "auc"])
    history = model.fit(x, y, epochs=3, **{"batch_size": 16, "verbose": 0, **options})
    found = {name: array.tolist() for name, array in model.parameters().items()}
    return found, history.history, history.steps["loss"].tolist(), model.evaluate(*(evaluated or (x, y)))


@pytest.mark.parametrize("workers", [1, 3])
def test_a_dataset_gives_the_bits_of_arrays(workers):
    rows = Rows(X, Y, workers=workers)
    np.testing.assert_equal(trained(rows), trained(X, Y))
    np.testing.assert_equal(trained(rows, shuffle=False), trained(X, Y, shuffle=False))
    np.testing.assert_equal(trained(rows, validation_data=rows), trained(X, Y, validation_data=(X, Y)))
    weights = {0: 2.0, 1: 0.5}
    np.testing.assert_equal(trained(rows, class_weight=weights), trained(X, Y, class_weight=weights))
    weighted = trained(Rows(X, Y, WEIGHT, workers=workers), evaluated=(X, Y))
    np.testing.assert_equal(weighted, trained(X, Y, sample_weight=WEIGHT, evaluated=(X, Y)))


def test_predictions_come_in_order():
    model = bn.Sequential([layers.Dense(3)])
    np.testing.assert_array_equal(model.predict(Rows(X, Y), batch_size=7), model.predict(X, batch_size=7))


def test_parts_hold_every_row_once():
    rows = Rows(X, Y)
    for one, two in (rows.split(0.25, seed=3), rows.held_out(0.25), rows.split(0.5)[0].split(0.5)):
        both = np.concatenate([one.rows(), two.rows()])
        assert len(set(both.tolist())) == len(both) == len(one) + len(two)
        assert sorted(one.order(5, 1).tolist()) == sorted(one.rows().tolist())
        assert one.order(5, 1).tolist() != one.order(5, 2).tolist()
    first, _ = rows.split(0.25, seed=3)
    assert first.rows().tolist() != rows.split(0.25, seed=4)[0].rows().tolist()
    nested = rows.split(0.2)[0].held_out(0.5)
    assert sorted(np.concatenate([part.rows() for part in nested]).tolist()) == rows.split(0.2)[0].rows().tolist()
    with pytest.raises(ValueError, match=r"`fraction` 0.999 of 205 rows leaves an empty part"):
        rows.split(0.999)


def test_the_last_rows_are_held_out():
    one = trained(Rows(X, Y), validation_split=0.2, shuffle=False)
    two = trained(X, Y, validation_split=0.2, shuffle=False)
    np.testing.assert_equal(one, two)
    assert trained(Rows(X, Y), validation_split=0.2)[1]["val_loss"] != two[1]["val_loss"]


def jitter(sample, generator):
    return sample + 0.1 * generator.normal(size=sample.shape)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_lives_with_a_dataset_end_in_the_same_bits(tmp_path, error):
    found = set()
    for name, batches, x in (("a", 1000, Rows(X, Y)), ("b", 9, Rows(X, Y, workers=2)), ("c", 13, Rows(X, Y))):
        folder = tmp_path / name
        folder.mkdir()

        def live(folder=folder, batches=batches, x=x):
            return train(folder, [Raise(batches, error)], x=x, y=None, augment=jitter)

        found.add(digest(lives(live, error, most=40), folder))
    assert len(found) == 1


def test_a_checkpoint_tells_another_dataset(tmp_path):
    with pytest.raises(RuntimeError):
        train(tmp_path, [Raise(6)], x=Rows(X, Y), y=None)
    with pytest.raises(ValueError, match="`rows` was 164, is 160"):
        train(tmp_path, x=Rows(X[:200], Y[:200]), y=None)
    with pytest.raises(ValueError, match=r"`augment` was None, is \['jitter'\]"):
        train(tmp_path, x=Rows(X, Y), y=None, augment=jitter)


def test_a_random_change_depends_on_seed_epoch_and_row_only():
    seen = {}

    def watch(sample, generator):
        key = int(sample[0])
        seen.setdefault(key, []).append(generator.random())
        return sample

    numbered = np.repeat(np.arange(50.0)[:, None], 3, axis=1)
    y = np.zeros(50, int)
    runs = []
    for options in ({"batch_size": 7}, {"batch_size": 50}, {"shuffle": False}, {"batch_size": 7, "workers": 3}):
        seen.clear()
        workers = options.pop("workers", None)
        x = (numbered, y) if workers is None else (Rows(numbered, y, workers=workers),)
        model = bn.Sequential([layers.Dense(2)])
        model.compile("cross_entropy", seed=5)
        model.fit(*x, epochs=2, augment=watch, verbose=0, **options)
        seen[0].pop(0)  # the trial before the first step, whose generator is the first epoch's
        runs.append({key: tuple(values) for key, values in seen.items()})
    assert all(run == runs[0] for run in runs)
    assert len({value for values in runs[0].values() for value in values}) == 100
    batches = [(numbered[at : at + 9], y[at : at + 9]) for at in range(0, 50, 9)]
    seen.clear()
    model.fit(batches, augment=watch, verbose=0)
    assert len({value for values in seen.values() for value in values}) == 50


def oracle(x, augment, seed, epoch):
    """Change all samples as the documentation says."""
    rows = [np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, row, 0])) for row in range(len(x))]
    return np.stack([augment(sample, generator) for sample, generator in zip(x, rows, strict=True)])


IMAGES = np.random.default_rng(2).normal(size=(30, 6, 5, 2)).astype(np.float32)
CHANGES = [data.random_flip(), data.random_flip(0, 0.9), data.random_crop(2), data.random_noise(0.3), jitter]


@pytest.mark.parametrize("augment", CHANGES, ids=lambda augment: getattr(augment, "__name__", str(augment)))
def test_fit_trains_on_the_changed_samples(augment):
    def losses(x, **options):
        model = bn.Sequential([layers.Flatten(), layers.Dense(1)])
        model.compile("mse", "sgd", 0.01, seed=3)
        return model.fit(x, IMAGES[:, 0, 0, :1], shuffle=False, verbose=0, **options).steps["loss"].tolist()

    changed = losses(oracle(IMAGES, augment, 3, 0))
    assert losses(IMAGES, augment=augment) == changed
    assert losses(IMAGES) != changed


def test_what_the_changes_do():
    generator = np.random.default_rng(0)
    image = IMAGES[0]
    for axis in (0, 1):
        flips = [data.random_flip(axis)(image, generator) for _ in range(400)]
        turned = sum(np.array_equal(flip, np.flip(image, axis)) for flip in flips)
        assert all(np.array_equal(flip, image) or np.array_equal(flip, np.flip(image, axis)) for flip in flips)
        assert 140 < turned < 260
    crops = {data.random_crop(1)(image, generator).tobytes() for _ in range(200)}
    padded = np.pad(image, [(1, 1), (1, 1), (0, 0)])
    assert crops == {padded[i : i + 6, j : j + 5].tobytes() for i in range(3) for j in range(3)}
    noise = data.random_noise(0.5)(np.zeros((100, 100), np.uint8), generator)
    assert noise.dtype == np.float32
    assert noise.std() == pytest.approx(0.5, rel=0.05)


def test_targets_change_with_their_samples():
    def mirror(x, y, generator):
        return (-x, -y) if generator.random() < 0.5 else (x, y)

    y = X[:, :1].copy()
    model = bn.Sequential([layers.Dense(1, use_bias=False)])
    model.compile("mse", "adam", 0.05)
    history = model.fit(X, y, epochs=30, augment=data.with_target(mirror), verbose=0)
    assert history.history["loss"][-1] < 1e-3
    model.fit(X, y, augment=mirror_x, epochs=3, verbose=0)
    assert model.history.history["loss"][-1] > 0.1


def mirror_x(x, generator):
    return -x if generator.random() < 0.5 else x


def test_a_change_in_place_leaves_the_data_alone():
    def erase(sample, generator):
        sample[:] = 0
        return sample

    x, y = X.copy(), Y.copy()
    for arguments in ((x, y), ([(x[:100], y[:100])],), (Rows(x, y),)):
        model = bn.Sequential([layers.Dense(3)])
        model.compile("cross_entropy", seed=2**64 - 1)
        model.fit(*arguments, augment=erase, verbose=0)
        np.testing.assert_array_equal(x, X)


def test_several_inputs_are_changed_together():
    one, two = bn.Input((12,)), bn.Input((12,))
    model = bn.Model({"a": one, "b": two}, layers.Dense(3)(layers.Add()([one, two])))
    model.compile("cross_entropy")

    def swap(x, generator):
        return {"a": x["b"], "b": x["a"]} if generator.random() < 0.5 else x

    x = {"a": X, "b": 2 * X}
    both = model.fit(x, Y, augment=[swap, swap], shuffle=False, verbose=0)
    assert len(both.steps["loss"]) == 7
    with pytest.raises(ValueError, match=r"`augment` must return samples of x\.a, x\.b, got x\.a"):
        model.fit(x, Y, augment=lambda x, generator: {"a": x["a"]}, verbose=0)


@given(end=st.integers(1, 5000), batches=st.integers(1, 300), paused=st.booleans())
def test_pieces_up_to_a_pause_are_alike(end, batches, paused):
    pacer, sizes, left = Pacer(single=False), [], end
    pacer.batches = batches
    while left:
        pacer.room = left if paused else None
        sizes.append(pacer.next(5000 if paused else left))
        left -= sizes[-1]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= 1.5 * batches + 1
    assert len(sizes) == 1 or min(sizes) >= 0.75 * batches - 1


@settings(max_examples=20)
@given(rows=st.integers(1, 60), batch_size=st.integers(1, 70), workers=st.integers(1, 3), shuffle=st.booleans())
def test_every_row_is_read_once_an_epoch(rows, batch_size, workers, shuffle):
    x = np.arange(float(rows))[:, None]
    source = stream.StreamSource(Rows(x, x, workers=workers), batch_size, 3, shuffle=shuffle)
    pacer = Pacer(single=False)
    read, start = [], min(2, source.steps)
    for piece in source.pieces(1, pacer):
        assert piece.rows <= piece.batches * batch_size
        read += piece.inputs["x"][:, 0].tolist()
        pacer.note(1, 1e-3)
    assert sorted(read) == list(range(rows))
    rest = [row for piece in source.pieces(1, pacer, start) for row in piece.inputs["x"][:, 0].tolist()]
    assert rest == read[start * batch_size :]


class Short(Rows):
    def read(self, rows):
        return super().read(rows[:-1])


class Breaks(Rows):
    def read(self, rows):
        if 170 in rows:
            raise OSError("row 170 is gone")
        return super().read(rows)


class Alone(Rows):
    def read(self, rows):
        return self.arrays[0][rows]


BAD = X.copy()
BAD[170, 2] = np.inf
ERRORS = {
    "short": (lambda: Short(X, Y), {}, ValueError, "rows 0 to 15: `read` must give the 16 rows.* got 15"),
    "no target": (lambda: Alone(X), {}, TypeError, r"`read` must give \(x, y\)"),
    "breaks": (lambda: Breaks(X, Y), {}, OSError, "row 170 is gone"),
    "infinite": (lambda: Rows(BAD, Y), {}, ValueError, "`x` holds inf at row 170, column 2"),
    "y beside": (lambda: Rows(X, Y), {"y": Y}, ValueError, "`y` must be left out when `x` is a dataset"),
    "weight beside": (lambda: Rows(X, Y), {"sample_weight": WEIGHT}, ValueError, "`sample_weight` must be left out"),
    "nothing": (lambda: Rows(X[:0], Y[:0]), {}, ValueError, "`x` must have at least one row"),
    "negative weight": (lambda: Rows(X, Y, -WEIGHT), {}, ValueError, "`sample_weight` must be finite and not negative"),
    "split": (lambda: Rows(X[:1], Y[:1]), {"validation_split": 0.1}, ValueError, "leaves an empty part"),
    "augment": (lambda: Rows(X, Y), {"augment": 3}, TypeError, "`augment` must be a function"),
    "shape": (lambda: Rows(X, Y), {"augment": lambda x, g: x[:3]}, ValueError, r"`x` must have shape \(batch, 12\)"),
    "nothing returned": (lambda: Rows(X, Y), {"augment": lambda x, g: None}, TypeError, "`augment`.* row 0.* got None"),
    "raises": (lambda: Rows(X, Y), {"augment": lambda x, g: x[99]}, IndexError, "out of bounds"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    make, options, kind, message = ERRORS[name]
    with pytest.raises(kind, match=message):
        trained(make(), options.pop("y", None), **options)


class Slow(Rows):
    def read(self, rows):
        time.sleep(0.05)
        return super().read(rows)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise")
def test_control_c_while_rows_are_waited_for():
    model = bn.Sequential([layers.Dense(3)])
    model.compile("cross_entropy")
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
    try:
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        begins = bn.callbacks.LambdaCallback(on_train_begin=lambda logs: timer.start())
        with pytest.raises(KeyboardInterrupt):
            model.fit(Slow(X, Y), batch_size=16, epochs=1000, callbacks=begins, verbose=0)
        timer.join()
    finally:
        signal.signal(signal.SIGINT, handler)
    assert np.isfinite(model.predict(X)).all()


def test_a_dataset_where_arrays_are_needed():
    model = bn.Sequential([layers.Dense(3)])
    model.compile("cross_entropy")
    with pytest.raises(TypeError, match="`x` must be an array of numbers, got Rows"):
        bn.gradients(model, Rows(X, Y), Y)


def test_methods_that_are_missing_are_told():
    with pytest.raises(NotImplementedError, match="Dataset must define __len__"):
        trained(data.Dataset())


def test_the_learning_rate_finder_and_the_doctor_take_a_dataset(capsys):
    model = bn.Sequential([layers.Dense(3)])
    model.compile("cross_entropy")
    found = bn.tuning.find_learning_rate(model, Rows(X, Y), steps=20)
    assert found.losses.tolist() == bn.tuning.find_learning_rate(model, X, Y, steps=20).losses.tolist()
    model.fit(Rows(X, Y), callbacks=[bn.Doctor()], verbose=0)
