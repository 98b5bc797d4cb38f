"""A run that was interrupted, however and wherever, ends with the bits of one that was not."""

import json
import re
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from killing import Raise, X, Y, digest, lives, names, network, train

import burnish as bn
from burnish import _snapshot
from burnish._resume import find
from burnish._tree import pack, unpack
from burnish.callbacks import Callback, Checkpoint
from burnish.callbacks.checkpoint import Writer


@pytest.mark.parametrize("batches", [6, 10, 11, 22, 40])
def test_lives_of_some_batches_end_in_the_same_bits(whole, tmp_path, batches):
    assert digest(lives(lambda: train(tmp_path, [Raise(batches)])), tmp_path) == whole
    assert names(tmp_path)[-1] == "epoch-000007-step-0000000077.safetensors"


def test_the_state_of_a_history_does_not_change():
    history = bn.History()
    for length in (1, 1, 3, 2):
        unknown = dict.fromkeys(("gradient_norm", "update_ratio", "finite"), np.full(length, np.nan))
        history.add_steps({"step": np.arange(length), **unknown})
    steps = history.state()["steps"]
    history.close_group(2.0, 0.5, 1.0)
    history.add_steps({name: np.ones(1) for name in steps["names"]})
    assert steps["names"] == ("step", "gradient_norm", "update_ratio", "finite")
    assert steps["rows"][:, 0].tolist() == [0, 0, 0, 1, 2, 0, 1]
    assert np.isnan(steps["rows"][:, 1:]).all()
    assert [column[-2:].tolist() for column in history.steps.values()] == [[1, 1], [2.0, 1.0], [0.5, 1.0], [True, True]]


def test_what_no_file_can_hold_ends_the_fit_and_the_next_one_is_whole(tmp_path):
    class Spoil(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.history.history["strange"] = [object()] * (epoch == 1)

    model = bn.Sequential([bn.layers.Dense(2)])
    model.compile("mse", "adam")
    x, y = np.ones((8, 3)), np.ones((8, 2))
    checkpoint = Checkpoint.every(1, tmp_path, "epoch")
    with pytest.raises(TypeError, match="run/epochs/history/values/0/0 must hold numbers, strings"):
        model.fit(x, y, epochs=3, callbacks=[Spoil(), checkpoint], verbose=0)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000001-step-0000000001.safetensors"]
    again = tmp_path / "again"
    model.fit(x, y, epochs=1, callbacks=[Checkpoint.every(1, again, "epoch")], verbose=0)
    assert _snapshot.read(next(again.iterdir())).run["now"]["step"] == 1


def test_a_checkpoint_after_any_batch_serves(whole, tmp_path, monkeypatch):
    taken = {}

    def keep(self, run):
        taken[run.place()] = _snapshot.Folder(str(tmp_path), 3).capture(run)

    monkeypatch.setattr(Checkpoint, "save", keep)
    train(tmp_path, every=1)
    monkeypatch.undo()
    assert len(taken) == 7 * 11 + 1  # the last one after the run's end
    log = (tmp_path / "log.csv").read_bytes()
    for place, snapshot in list(taken.items())[::7]:
        folder = tmp_path / str(place)
        (folder / "run").mkdir(parents=True)
        (folder / "log.csv").write_bytes(log)
        _snapshot.Folder(str(folder / "run"), 3).write(snapshot)
        assert digest(train(folder), folder) == whole, place


class Batches:
    """Batches that can be read again and again."""

    def __init__(self, count=11, length=True):
        self.count = count
        if length:
            self.__class__ = type("Sized", (Batches,), {"__len__": lambda self: self.count})

    def __iter__(self):
        return ((X[start : start + 16], Y[start : start + 16]) for start in range(0, 16 * self.count, 16))


@pytest.mark.parametrize("x", [list(Batches()), Batches(), Batches(length=False)], ids=["list", "sized", "plain"])
def test_iterables_of_batches(x, tmp_path):
    validation = [(X[176:190], Y[176:190]), (X[190:], Y[190:])]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    expected = digest(train(tmp_path / "a", x=x, y=None, validation_data=validation))
    found = lives(lambda: train(tmp_path / "b", [Raise(9)], x=x, y=None, validation_data=validation))
    assert digest(found) == expected


def test_an_iterable_that_gives_fewer_batches_than_were_done_is_told(tmp_path):
    with pytest.raises(RuntimeError):
        train(tmp_path, [Raise(9)], x=Batches(), y=None, validation_data=(X, Y))
    with pytest.raises(ValueError, match="`x` gave 3 batches, but 8 of this epoch were done before"):
        train(tmp_path, x=Batches(3), y=None, validation_data=(X, Y))


@pytest.fixture
def stopped(tmp_path):
    """A folder with a run that stands in the middle of its second epoch, and one at the end of its first."""
    for name, batches in (("middle", 17), ("boundary", 12)):
        (tmp_path / name).mkdir()
        with pytest.raises(RuntimeError):
            train(tmp_path / name, [Raise(batches), Checkpoint(tmp_path / name / "second", keep=None)], every=16)
    for path in (tmp_path / "boundary" / "run").iterdir():
        path.unlink()
    for path in (tmp_path / "boundary" / "second").iterdir():
        path.rename(tmp_path / "boundary" / "run" / path.name)
    return tmp_path


REFUSED = {
    "optimizer": ({"clip_norm": None}, "`optimizer.clip_norm` was 1.0, is None"),
    "seed": ({"seed": 3}, "`seed` was 11, is 3"),
    "precision": ({"precision": "float64"}, "`precision` was 'mixed_float16', is 'float64'"),
    "accumulation": ({"accumulate_gradients": 2}, "`optimizer.accumulate_gradients` was 3, is 2"),
    "metrics": ({"metrics": []}, "the program differs"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("where", ["middle", "boundary"])
def test_another_run_is_refused(stopped, name, where):
    options, words = REFUSED[name]
    model = network(**options).build((None, 12))
    before = model.parameters(buffers=True)
    files = names(stopped / where)
    with pytest.raises(ValueError, match=re.escape(words)):
        train(stopped / where, model=model)
    assert all(np.array_equal(before[path], array) for path, array in model.parameters(buffers=True).items())
    assert names(stopped / where) == files
    assert model.history is None


def test_another_program_is_refused_with_its_paths(stopped):
    stack = [bn.layers.Dense(25, "relu"), bn.layers.LayerNorm(), bn.layers.Dense(3)]
    model = bn.Sequential(stack)
    model.compile("cross_entropy", "adamw", metrics=["accuracy", "f1"], accumulate_gradients=3, clip_norm=1.0, seed=11)
    with pytest.raises(ValueError, match="is of another run") as told:
        train(stopped / "middle", model=model)
    for words in (
        "'dense.kernel' has shape (12, 24) in it, (12, 25) in the model",
        "'layernorm.scale' is missing in it",
        "'batchnorm.scale' is extra in it",
    ):
        assert words in str(told.value).replace("layer_norm", "layernorm").replace("batch_norm", "batchnorm")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 8}, "`batch_size` was 16, is 8, which may change between two epochs only"),
        ({"x": X[:100], "y": Y[:100]}, "`rows` was 164, is 80"),
        ({"shuffle": False}, "`shuffle` was True, is False"),
        ({"x": Batches(), "y": None, "validation_data": (X, Y)}, "`batch_size` was 16, is None"),
    ],
)
def test_other_batches_only_between_epochs(stopped, options, words, capsys):
    with pytest.raises(ValueError, match=re.escape(words)):
        train(stopped / "middle", **options)
    model = train(stopped / "boundary", **options, epochs=3, verbose=2)
    assert words.partition(",")[0] in capsys.readouterr().out
    assert model.history.epoch == [0, 1, 2]


def test_initial_epoch_is_the_run_s(stopped):
    with pytest.raises(ValueError, match="`initial_epoch` was 0, is 1"):
        train(stopped / "middle", initial_epoch=1)


def test_initial_epoch_is_counted_from(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    expected = digest(train(tmp_path / "a", initial_epoch=4))
    found = lives(lambda: train(tmp_path / "b", [Raise(9)], initial_epoch=4))
    assert digest(found) == expected
    assert found.history.epoch == [4, 5, 6]


def test_more_epochs_go_on_as_if_they_had_been_asked_for(whole, tmp_path):
    train(tmp_path, epochs=2)
    train(tmp_path, epochs=5)
    assert digest(train(tmp_path, epochs=7), tmp_path) == whole
    assert digest(train(tmp_path, epochs=7), tmp_path) == whole
    assert digest(train(tmp_path, epochs=3), tmp_path) == whole


def test_a_run_that_stopped_stays_stopped(tmp_path, capsys):
    stop = [bn.callbacks.EarlyStopping("loss", mode="max", patience=2)]
    first = digest(train(tmp_path, stop, epochs=9))
    again = train(tmp_path, stop, epochs=9, verbose=2)
    assert digest(again) == first
    assert len(again.history.epoch) < 9
    assert "nothing is left to do" in capsys.readouterr().out


def test_an_empty_directory_is_a_beginning(tmp_path, capsys):
    train(tmp_path, epochs=1, verbose=2)
    assert f"no checkpoint in {str(tmp_path / 'run')!r} yet: starting" in capsys.readouterr().out
    train(tmp_path, epochs=2, verbose=2)
    assert "resuming from epoch-000001-step-0000000011.safetensors: epoch 2, batch 0" in capsys.readouterr().out
    model = network()
    with pytest.raises(OSError, match="epoch-9"):
        model.fit(X, Y, resume_from=tmp_path / "run" / "epoch-9.safetensors", verbose=0)
    with pytest.raises(TypeError, match="`resume_from` must be a path, got 5"):
        model.fit(X, Y, resume_from=5, verbose=0)
    model.build((None, 12)).save(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="holds no checkpoint"):
        model.fit(X, Y, resume_from=tmp_path / "model.safetensors", verbose=0)


def test_a_directory_of_another_run_is_refused(tmp_path):
    train(tmp_path, epochs=1)
    before = names(tmp_path)
    for resume_from in (None, tmp_path / "nothing"):
        with pytest.raises(ValueError, match="holds checkpoints of another run"):
            network().fit(X, Y, callbacks=Checkpoint(tmp_path / "run"), resume_from=resume_from, verbose=0)
    assert names(tmp_path) == before


def test_going_back_to_an_older_file_replaces_the_later_ones(tmp_path):
    def fit(epochs, **options):
        several = Checkpoint(tmp_path, 1, keep=None)
        network().fit(X, Y, epochs=epochs, callbacks=several, verbose=0, **options)
        return [path.name[:12] for path in _snapshot.checkpoints_in(tmp_path)]

    assert len(fit(5)) == 5
    third = _snapshot.checkpoints_in(tmp_path)[2]
    assert fit(4, resume_from=third) == ["epoch-000001", "epoch-000002", "epoch-000003", "epoch-000004"]


def test_a_damaged_newest_checkpoint_falls_back(whole, tmp_path):
    with pytest.raises(RuntimeError):
        train(tmp_path, [Raise(40)], every=5)
    first, second = names(tmp_path)[-2:]
    path = tmp_path / "run" / second
    content = bytearray(path.read_bytes())
    content[-30] ^= 4
    path.write_bytes(content)
    with pytest.warns(RuntimeWarning, match=rf"{second} cannot be used .*: going on from {first}"):
        model = train(tmp_path)
    assert digest(model, tmp_path) == whole
    for path in (tmp_path / "run").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"no checkpoint in .* is whole"):
        train(tmp_path)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("file")
    with pytest.raises(RuntimeError):
        train(folder, [Raise(18)], every=17)
    return next((folder / "run").iterdir())


@settings(max_examples=60)
@given(data=st.data())
def test_a_flipped_bit_is_found(file, data):
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, 8 * len(content) - 1))
    content[place // 8] ^= 1 << place % 8
    damaged = file.parent.parent / "damaged.safetensors"
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged"):
        find(damaged)


def test_a_checkpoint_is_a_model_too(file):
    loaded = bn.load(file)
    stored = _snapshot.read(file)
    for path, array in loaded.parameters(buffers=True).items():
        np.testing.assert_array_equal(array, stored.state[path])
    model = network().build((None, 12))
    assert model.load_weights(file) == ([], [], [])


def test_what_is_in_a_file_lies_aligned_and_fills_blocks(file):
    length = int.from_bytes(file.read_bytes()[:8], "little")
    header = json.loads(file.read_bytes()[8 : 8 + length])
    del header["__metadata__"]
    widths = {"F64": 8, "I64": 8, "F32": 4}
    assert {array["dtype"] for array in header.values()} <= set(widths)
    assert all((8 + length + array["data_offsets"][0]) % widths[array["dtype"]] == 0 for array in header.values())
    elements = max(array["data_offsets"][1] for array in header.values())
    assert -(8 + length + elements) % 4096 < 8


SHAPES = hnp.array_shapes(min_dims=0, max_dims=2, max_side=3)
NUMBERS = hnp.arrays(st.sampled_from(["f8", "f4", "i8", "u1", "?"]), SHAPES)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | NUMBERS,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text("ab/~0é", max_size=3), parts, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200)
@given(TREES)
def test_trees_come_back(tree):
    plain, arrays = pack(tree, "run/x")
    again = unpack(json.loads(json.dumps(plain)), arrays, "run/x")
    assert repr(again) == repr(tree)


@pytest.mark.parametrize("bad", [object(), {1: 2}, [3j], np.array([None]), {"a": {1, 2}}, np.float64])
def test_what_cannot_be_kept_is_told_with_its_place(bad, tmp_path):
    class Mine(Callback):
        def state(self):
            return {"part": [bad]}

    with pytest.raises(TypeError, match=r"the state of callback .*Mine: `?run/callbacks/\d/state/part/0"):
        train(tmp_path, [Mine()])


class Counts(Callback):
    """A user's callback with a state, and an effect on the run."""

    def __init__(self):
        self.seen = np.zeros(3)

    def state(self):
        return {"seen": self.seen, "pair": (1, None)}

    def load_state(self, state):
        assert state["pair"] == [1, None]
        self.seen = state["seen"]

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1

    def on_epoch_end(self, epoch, logs=None):
        logs["seen"] = float(self.seen.sum())
        if epoch == 2:
            self.model.freeze("dense")


def test_a_user_s_callback_goes_on(tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    model = train(tmp_path / "a", [Counts(), Counts()])
    epochs = len(model.history.epoch)
    assert epochs > 3
    assert model.history.history["seen"][-1] == epochs * 11 * 3
    expected = digest(model)
    assert digest(lives(lambda: train(tmp_path / "b", [Counts(), Counts(), Raise(9)]))) == expected
    train(tmp_path / "b", [Counts()], epochs=8, verbose=2)
    assert "Counts of the checkpoint is not among the callbacks" in capsys.readouterr().out
    train(tmp_path / "b", [bn.callbacks.SWA(0)], epochs=8, verbose=2)
    assert "SWA starts anew: the checkpoint does not hold it" in capsys.readouterr().out


class Names(Callback):
    """Begins something of its own unless it goes on with it, as a tracker does."""

    def __init__(self):
        self.seen = []

    def on_train_begin(self, logs=None):
        self.identity = None

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append(self.identity)
        self.identity = "begun" if self.identity is None else self.identity + "!"

    def state(self):
        return {"identity": self.identity}

    def load_state(self, state):
        self.identity = state["identity"]


# After 11 batches the first epoch's are done, but not its end.
@pytest.mark.parametrize(("batches", "seen"), [(16, ["begun!"]), (12, ["begun", "begun"])])
def test_hooks_see_what_their_callback_had_and_change_nothing(tmp_path, batches, seen):
    with pytest.raises(RuntimeError):
        train(tmp_path, [Names(), Raise(batches)], every=11 if batches == 12 else 4)
    again = Names()
    train(tmp_path, [again], epochs=2)
    assert again.seen == seen
    assert again.identity == "begun!"


def test_averages_go_on(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    expected = digest(train(tmp_path / "a", [bn.callbacks.SWA(2)]))
    assert digest(lives(lambda: train(tmp_path / "b", [bn.callbacks.SWA(2), Raise(10)]))) == expected
    with pytest.raises(ValueError, match="give the callback EMA again"):
        network().fit(X, Y, epochs=9, batch_size=16, validation_split=0.2, resume_from=tmp_path / "b/run", verbose=0)


@pytest.mark.parametrize(("keep", "left"), [(1, 1), (2, 2), (None, 8)])
def test_older_files_go_when_the_new_one_is_safe(tmp_path, keep, left):
    network().fit(X, Y, epochs=8, callbacks=Checkpoint(tmp_path, 1, keep=keep), verbose=0)
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == [f"epoch-{epoch:06d}-step-{7 * epoch:010d}.safetensors" for epoch in range(9 - left, 9)]


def test_what_others_do_in_the_directory_is_seen(tmp_path):
    later = "epoch-000099-step-0000000099.safetensors"

    class Other(Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch in {2, 4}:
                checkpoint._writer.finish()
                seen.append([path.name[:12] for path in _snapshot.checkpoints_in(tmp_path)])
            if epoch == 2:
                (tmp_path / later).write_bytes(b"of a run that was gone back from")
                _snapshot.checkpoints_in(tmp_path)[0].unlink()

    seen, checkpoint = [], Checkpoint(tmp_path, 1, keep=2)
    network().fit(X, Y, epochs=6, callbacks=[Other(), checkpoint], verbose=0)
    assert seen == [["epoch-000001", "epoch-000002"], ["epoch-000003", "epoch-000004"]]
    assert [path.name[:12] for path in _snapshot.checkpoints_in(tmp_path)] == ["epoch-000005", "epoch-000006"]


def test_every_few_epochs_and_seconds(tmp_path, monkeypatch):
    network().fit(X, Y, epochs=5, callbacks=Checkpoint.every(2, tmp_path / "a", "epoch"), verbose=0)
    assert [path.name[:12] for path in _snapshot.checkpoints_in(tmp_path / "a")] == [
        "epoch-000002", "epoch-000004", "epoch-000005"
    ]  # fmt: skip
    now = iter(range(10**6))
    monkeypatch.setattr("burnish.callbacks.checkpoint.time.monotonic", lambda: next(now))
    single = bn.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    several = [single, Checkpoint.every(4, tmp_path / "b", "seconds", keep=None)]
    network().fit(X, Y, epochs=5, callbacks=several, verbose=0)
    assert len(list((tmp_path / "b").iterdir())) >= 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, "d"), "`n` must be an integer of at least 1"),
        ((0, "d", "seconds"), "`n` must be a finite number greater than 0"),
        ((1, "d", "hours"), "`unit`: unknown name 'hours'"),
        ((1, "d", "step", 0), "`keep` must be an integer of at least 1"),
    ],
)
def test_arguments(arguments, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Checkpoint.every(*arguments)


def test_pieces_end_where_a_checkpoint_is_due_and_only_there(tmp_path, monkeypatch):
    sizes = []

    class Sees(Callback):
        def on_progress(self, done, logs, samples):
            sizes.append(done)

    monkeypatch.setattr(
        "burnish._feed.sources.Pacer.note", lambda self, batches, seconds: setattr(self, "batches", 1000)
    )
    several = [Checkpoint.every(40, tmp_path), Sees()]
    network().fit(X, Y, epochs=2, batch_size=3, callbacks=several, verbose=0)
    assert sizes == [1, 40, 69, 11, 51, 69]


def test_a_failed_write_ends_the_fit_and_leaves_the_files(tmp_path, monkeypatch):
    original, count = _snapshot.Folder.write, []

    def write(self, snapshot):
        count.append(snapshot.name)
        if len(count) > 2:
            raise OSError(28, "No space left on device")
        original(self, snapshot)

    monkeypatch.setattr(_snapshot.Folder, "write", write)
    model = network()
    with pytest.raises(OSError, match="No space left"):
        model.fit(X, Y, epochs=9, callbacks=Checkpoint(tmp_path, 1), verbose=0)
    assert [path.name for path in _snapshot.checkpoints_in(tmp_path)] == count[:2]
    assert 3 <= len(model.history.epoch) <= 5
    assert np.isfinite(model.predict(X)).all()


def test_a_copy_that_fails_leaves_the_history_of_all_that_was_trained(tmp_path, monkeypatch):
    def capture(self, run):
        raise MemoryError("no room")

    monkeypatch.setattr(_snapshot.Folder, "capture", capture)
    model = network()
    with pytest.raises(MemoryError, match="no room"):
        model.fit(X, Y, batch_size=3, callbacks=Checkpoint.every(5, tmp_path), verbose=0)
    assert model.history.steps["step"].tolist() == [0, 1, 2, 3, 4]


def test_a_disk_that_is_slow_does_not_hold_training_up(tmp_path, monkeypatch):
    original, trained, came_first = _snapshot.Folder.write, threading.Event(), []

    def write(self, snapshot):
        came_first.append(trained.wait(30))
        original(self, snapshot)

    monkeypatch.setattr(_snapshot.Folder, "write", write)
    ends = bn.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: trained.set() if epoch == 3 else None)
    network().fit(X, Y, epochs=4, batch_size=16, callbacks=[Checkpoint.every(1, tmp_path), ends], verbose=0)
    assert len(came_first) >= 2
    assert all(came_first)
    assert "epoch-000004-step-0000000052.safetensors" in [path.name for path in tmp_path.iterdir()]


def test_the_writing_thread_and_the_spare_file_end_with_the_fit(tmp_path):
    seen = set()

    class Look(Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.update(thread.name for thread in threading.enumerate())

    checkpoint = Checkpoint.every(2, tmp_path, keep=2)
    network().fit(X, Y, epochs=3, batch_size=16, callbacks=[checkpoint, Look()], verbose=0)
    assert "burnish checkpoint" in seen
    assert "burnish checkpoint" not in {thread.name for thread in threading.enumerate()}
    left = sorted(path.name[:12] for path in tmp_path.iterdir())
    assert len(left) == 2
    assert left[0].startswith("epoch-")
    assert left[1] == "epoch-000003"


def test_a_thread_that_died_takes_its_writer_along():
    def work():
        writer = Writer()
        writer.put(lambda: done.append(1), wait=False)
        writers.append(writer)

    done, writers = [], []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    writers[0]._worker._thread.join(10)
    assert done == [1]
    assert not writers[0]._worker._thread.is_alive()
