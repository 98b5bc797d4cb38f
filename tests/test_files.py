"""Parquet files, folders of images and sequences of different lengths give the bits of their numbers in memory."""

import threading

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

RNG = np.random.default_rng(6)
NAMES = [f"column_{index}" for index in range(X.shape[1])]
pytestmark = pytest.mark.usefixtures("no_thread_is_left", "small_blocks")


def check_lives(folder, make):
    """Compare lives of 17 batches, each with data that is opened anew, with a run that nothing interrupted."""
    for name in ("lives", "whole"):
        (folder / name).mkdir()
    model = lives(lambda: train(folder / "lives", [Raise(17)], x=make(), y=None), most=20)
    assert digest(model, folder / "lives") == digest(train(folder / "whole", x=make(), y=None), folder / "whole")


class Ordered(Rows):
    """Arrays in the orders of another dataset."""

    def __init__(self, like, *arrays):
        super().__init__(*arrays)
        self.like = like

    def order(self, seed, epoch):
        return self.like.order(seed, epoch)


def outcome(x, *more, **options):
    model = bn.Sequential([layers.Dense(8, "relu"), layers.Dropout(0.2), layers.Dense(3)])
    model.compile("cross_entropy", "adam", 0.01, metrics=["accuracy"])
    history = model.fit(x, *more, **{"epochs": 3, "batch_size": 16, "verbose": 0, **options})
    return history.history, history.steps["loss"].tolist(), model.evaluate(x, *more), model.predict(x).tolist()


@pytest.fixture
def parquet(tmp_path):
    """Two files of row groups of 20 rows."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {name: X[:, index] for index, name in enumerate(NAMES)}
    table = pa.table({**columns, "target": Y, "weight": np.linspace(0, 2, len(Y))})
    folder = tmp_path / "table"
    folder.mkdir()
    pq.write_table(table[:130], folder / "a.parquet", row_group_size=20)
    pq.write_table(table[130:], folder / "b.parquet", row_group_size=20)
    return folder


def rows_of(folder, **options):
    return data.Parquet(folder, **{"x": NAMES, "y": "target", "window": 50, **options})


def test_parquet_gives_the_bits_of_arrays(parquet):
    rows = rows_of(parquet)
    assert len(rows) == len(X)
    in_order = {"shuffle": False, "validation_split": 0.2}
    assert outcome(rows, **in_order)[:2] == outcome(X, Y, **in_order)[:2]
    plain = Ordered(rows, X, Y)
    assert outcome(rows) == outcome(plain)
    assert outcome(rows, validation_split=0.3) == outcome(plain, validation_split=0.3)
    weighted = Ordered(rows, X, Y, np.linspace(0, 2, len(Y)))
    assert outcome(rows_of(parquet, sample_weight="weight")) == outcome(weighted)
    several = [parquet / "a.parquet", str(parquet / "b.parquet")]
    assert outcome(rows_of(several)) == outcome(rows)


def test_parquet_columns(parquet):
    rows = np.array([3, 200, 17, 129, 130])
    (x, y, weight) = rows_of(parquet, x={"one": "column_0", "two": ["column_3", "column_1"]}).read(rows)
    np.testing.assert_array_equal(x["one"], X[rows, 0])
    np.testing.assert_array_equal(x["two"], X[rows][:, [3, 1]])
    np.testing.assert_array_equal(y, Y[rows])
    assert weight is None
    x, y, weight = data.Parquet(parquet, y=["target"], sample_weight="weight").read(rows)
    np.testing.assert_array_equal(x, X[rows])
    assert y.shape == (5, 1)
    np.testing.assert_array_equal(weight, np.linspace(0, 2, len(Y))[rows])
    x, y, _ = data.Parquet(parquet, x="column_2").read(rows)
    np.testing.assert_array_equal(x, X[rows, 2])
    assert y is None


@settings(max_examples=30)
@given(window=st.integers(1, 300), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 5))
def test_windows_mix_whole_row_groups(tmp_path_factory, window, seed, epoch):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path_factory.getbasetemp() / "numbers.parquet"
    if not path.exists():
        pq.write_table(pa.table({"x": np.arange(205.0)}), path, row_group_size=20)
    rows = data.Parquet(path, window=window)
    order = rows.order(seed, epoch)
    assert sorted(order.tolist()) == list(range(205))
    assert order.tolist() == data.Parquet(path, window=window).order(seed, epoch).tolist()
    left = order.tolist()
    while left:
        # A window is as few whole row groups as hold `window` rows.
        whole = next(
            size
            for size in range(1, len(left) + 1)
            if sum(min(20, 205 - 20 * group) for group in {row // 20 for row in left[:size]}) == size
        )
        sizes = sorted(min(20, 205 - 20 * group) for group in {row // 20 for row in left[:whole]})
        assert whole == len(left) or window <= whole < window + 20
        assert whole - sizes[-1] < window
        left = left[whole:]


def test_a_shuffled_epoch_reads_every_row_group_once(parquet, monkeypatch):
    loads = []
    load = data.Parquet._load
    monkeypatch.setattr(data.Parquet, "_load", lambda self, group: loads.append(group.first) or load(self, group))
    rows = rows_of(parquet)
    source = stream.StreamSource(rows, 16, 3, shuffle=True)
    loads.clear()
    rows._kept.clear()
    for _ in source.pieces(0, Pacer(single=True)):
        assert sum(rows._groups[kept].rows for kept in rows._kept) <= 2 * 50 + 20
    assert sorted(loads) == [group.first for group in rows._groups]


def test_lives_with_parquet_end_in_the_same_bits(parquet, tmp_path):
    check_lives(tmp_path, lambda: rows_of(parquet))


PARQUET_ERRORS = {
    "column": ({"x": ["colum_1"]}, ValueError, "`x`: unknown name 'colum_1'; did you mean 'column_1'"),
    "target": ({"y": "goal"}, ValueError, "`y`: unknown name 'goal'"),
    "kind": ({"y": 3}, TypeError, "`y` must be a column's name, a list of names or a dict of them, got 3"),
    "window": ({"window": 0}, ValueError, "`window` must be an integer of at least 1"),
}


@pytest.mark.parametrize("name", PARQUET_ERRORS)
def test_parquet_errors(parquet, name):
    options, kind, message = PARQUET_ERRORS[name]
    with pytest.raises(kind, match=message):
        rows_of(parquet, **options)


def test_parquet_files_that_do_not_fit(parquet, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    with pytest.raises(ValueError, match="`path` must name Parquet files, got none"):
        data.Parquet(tmp_path)
    with pytest.raises(TypeError, match="`path` must be a path or a list of paths, got 3"):
        data.Parquet(3)
    pq.write_table(pa.table({"text": ["a", "b"], "y": [1.0, 2.0]}), tmp_path / "text.parquet")
    with pytest.raises(ValueError, match=r"text\.parquet must have the columns column_0"):
        data.Parquet([parquet, tmp_path / "text.parquet"])
    with pytest.raises(TypeError, match="column 'text' must hold numbers, got string"):
        outcome(data.Parquet(tmp_path / "text.parquet", x="text", y="y"))
    pq.write_table(pa.table({"x": [1.0, None, 2.0], "y": [1, 2, 0]}), tmp_path / "null.parquet")
    with pytest.raises(ValueError, match="`x` holds nan at row 1, column 0"):
        outcome(data.Parquet(tmp_path / "null.parquet", x=["x"], y="y"))


@pytest.fixture
def folder(tmp_path):
    """12 images of random size in three classes, and what is no image."""
    images = pytest.importorskip("PIL.Image")
    for name in ("rose", "aster", "tulip"):
        place = tmp_path / "flowers" / name
        place.mkdir(parents=True)
        for index in range(4):
            pixels = RNG.integers(0, 256, (8 + index, 6, 3)).astype(np.uint8)
            images.fromarray(pixels).save(place / f"{index}.png")
        (place / "readme.txt").write_text("no image")
    (tmp_path / "flowers" / "empty").mkdir()
    return tmp_path / "flowers"


def decoded(folder, size, mode="RGB"):
    images = pytest.importorskip("PIL.Image")
    files = sorted(folder.glob("*/*.png"))
    height, width = size
    opened = [images.open(file).convert(mode).resize((width, height), images.Resampling.BILINEAR) for file in files]
    pixels = np.stack([np.asarray(image).reshape(height, width, -1) for image in opened])
    return pixels, np.repeat([0, 1, 2], 4)


def convolved(x, *more, **options):
    model = bn.Sequential([layers.Conv2D(4, 3), layers.GlobalAvgPool(), layers.Dense(3)])
    model.compile("cross_entropy", "adam", 0.01)
    history = model.fit(x, *more, **{"epochs": 2, "batch_size": 5, "verbose": 0, **options})
    return history.steps["loss"].tolist(), model.evaluate(x, *more), model.predict(x).tolist()


@pytest.mark.parametrize("workers", [1, 4])
def test_images_give_the_bits_of_arrays(folder, workers):
    x, y = decoded(folder, (7, 5))
    flowers = data.ImageFolder(folder, (7, 5), workers=workers)
    assert flowers.classes == ["aster", "rose", "tulip"]
    assert len(flowers) == 12
    scaled = x.astype(np.float32) / np.float32(255)
    assert convolved(flowers) == convolved(scaled, y)
    assert convolved(data.ImageFolder(folder, (7, 5), dtype="uint8", workers=workers)) == convolved(x, y)
    flips = data.random_flip()
    assert convolved(flowers, augment=flips) == convolved(scaled, y, augment=flips)


def test_forms_of_images(folder):
    rows = np.array([11, 0, 5])
    for channels, mode in ((1, "L"), (4, "RGBA")):
        x, y = data.ImageFolder(folder, (4, 9), channels=channels, dtype="uint8").read(rows)
        np.testing.assert_array_equal(x, decoded(folder, (4, 9), mode)[0][rows])
        assert y.tolist() == [2, 0, 1]
    images = pytest.importorskip("PIL.Image")
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 200
    images.fromarray(wide).save(folder / "aster" / "0.png")
    x, _ = data.ImageFolder(folder, (4, 4), resize="crop", dtype="uint8").read(np.array([0]))
    np.testing.assert_array_equal(x[0], np.full((4, 4, 3), 200))
    turned = images.fromarray(wide)
    exif = turned.getexif()
    exif[0x0112] = 6  # held by the side
    turned.save(folder / "aster" / "0.png", exif=exif)
    x, _ = data.ImageFolder(folder, (12, 4), dtype="uint8").read(np.array([0]))
    assert (x[0, 4:8] == 200).all()
    assert (x[0, :4] == 0).all()


def test_images_without_classes_are_predicted(folder):
    flowers = data.ImageFolder(folder / "rose", (7, 5))
    assert flowers.classes == []
    model = bn.Sequential([layers.Flatten(), layers.Dense(2)])
    model.compile("cross_entropy")
    expected = model.predict(decoded(folder, (7, 5))[0][4:8].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(model.predict(flowers), expected)
    with pytest.raises(ValueError, match="`y` is needed for the loss"):
        model.fit(flowers)


def test_image_errors(folder, tmp_path):
    with pytest.raises(ValueError, match=r"would hold out the last classes: give a part of `dataset\.split"):
        convolved(data.ImageFolder(folder, (7, 5)), validation_split=0.2)
    with pytest.raises(NotADirectoryError, match="`path` must be a folder"):
        data.ImageFolder(folder / "none", (7, 5))
    with pytest.raises(ValueError, match="`path` must hold images"):
        data.ImageFolder(folder / "empty", (7, 5))
    with pytest.raises(TypeError, match=r"`size` must be \(height, width\), got 5"):
        data.ImageFolder(folder, 5)
    with pytest.raises(ValueError, match="`channels` must be 1, 3 or 4, got 2"):
        data.ImageFolder(folder, (7, 5), channels=2)
    (folder / "tulip" / "2.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"tulip.2\.png' cannot be read as an image"):
        convolved(data.ImageFolder(folder, (7, 5), workers=2), shuffle=False)


def test_a_checkpoint_tells_other_images(folder, tmp_path):
    def begun(size, callbacks=()):
        model = bn.Sequential([layers.Flatten(), layers.Lambda(lambda x: x[:, :30]), layers.Dense(3)])
        model.compile("cross_entropy")
        saving = bn.callbacks.Checkpoint.every(1, tmp_path / "run")
        model.fit(
            data.ImageFolder(folder, size), batch_size=5, callbacks=[saving, *callbacks], resume_from=tmp_path / "run"
        )

    with pytest.raises(RuntimeError):
        begun((7, 5), [Raise(2)])
    (folder / "rose" / "3.png").rename(folder / "rose" / "9.png")
    with pytest.raises(ValueError, match=r"`files` was '.*', is '.*', which may change between two epochs only"):
        begun((7, 5))


SEQUENCES = [RNG.normal(size=(int(steps), 3)).astype(np.float32) for steps in RNG.integers(1, 9, 205)]
PADDED = np.zeros((205, 8, 3), np.float32)
LENGTHS = np.array([len(sequence) for sequence in SEQUENCES])
for row, sequence in enumerate(SEQUENCES):
    PADDED[row, : len(sequence)] = sequence
MASK = np.arange(8) < LENGTHS[:, None]


def attended(x, *more, **options):
    """Train a model that looks at what is there."""
    values, mask = bn.Input((8, 3)), bn.Input((8,))
    attention = layers.MultiHeadAttention(1, key_dim=4)(values, key_mask=mask)
    model = bn.Model([values, mask], layers.Dense(3)(layers.Flatten()(attention)))
    model.compile("cross_entropy", "adam", 0.01)
    history = model.fit(x, *more, **{"epochs": 2, "batch_size": 16, "verbose": 0, **options})
    return history.steps["loss"].tolist(), model.evaluate(x, *more), [array.tolist() for array in [model.predict(x)]]


def test_sequences_give_the_bits_of_padded_arrays():
    assert max(LENGTHS) == 8
    ragged = data.Ragged(SEQUENCES, Y)
    assert attended(ragged) == attended((PADDED, MASK), Y)
    assert attended(ragged, validation_data=ragged)[0] == attended((PADDED, MASK), Y)[0]
    weight = np.linspace(0, 1, 205)
    weighted = attended(data.Ragged(SEQUENCES, Y, sample_weight=weight))[0]
    assert weighted == attended((PADDED, MASK), Y, sample_weight=weight)[0]


def test_forms_of_sequences():
    rows = np.array([7, 3, 100])
    values, _, _ = data.Ragged(SEQUENCES, with_mask="none", length=10, padding=-1).read(rows)
    assert values.shape == (3, 10, 3)
    np.testing.assert_array_equal(values[:, :8], np.where(MASK[rows, :, None], PADDED[rows], -1))
    (values, lengths), y, weight = data.Ragged(SEQUENCES, {"a": Y}, with_mask="lengths", length=4).read(rows)
    np.testing.assert_array_equal(values, PADDED[rows, :4])
    assert lengths.tolist() == np.minimum(LENGTHS[rows], 4).tolist()
    np.testing.assert_array_equal(y["a"], Y[rows])
    assert weight is None
    tokens, _, _ = data.Ragged([[1], [2, 3]], with_mask="none").read(np.array([1, 0]))
    assert tokens.dtype.kind == "i"
    assert tokens.tolist() == [[2, 3], [1, 0]]


def test_lives_with_sequences_end_in_the_same_bits(tmp_path):
    flat = [row[:steps] for row, steps in zip(X, RNG.integers(1, 13, len(X)), strict=True)]
    check_lives(tmp_path, lambda: data.Ragged(flat, Y, length=12, with_mask="none"))


class MaskedMean(layers.Layer):
    def call(self, x, mask):
        weight = bn.ops.expand_dims(mask, -1)
        return bn.ops.sum(x * weight, axis=1) / bn.ops.sum(weight, axis=1)


class Attends(bn.Model):
    """Knows no length."""

    def __init__(self):
        super().__init__()
        self.attention, self.mean, self.out = layers.MultiHeadAttention(1, key_dim=4), MaskedMean(), layers.Dense(3)

    def call(self, x):
        values, mask = x
        return self.out(self.mean(self.attention(values, key_mask=mask), mask))


class Padded(data.Ragged):
    """The same batches, all filled up to the greatest length."""

    def read_run(self, rows):
        return self.read(rows)


def attending(x, callbacks=(), model=None, **options):
    model = Attends() if model is None else model
    model.compile("cross_entropy", "adam", 0.01, precision="float64", metrics=["accuracy"], accumulate_gradients=3)
    history = model.fit(x, batch_size=4, epochs=3, callbacks=[bn.callbacks.EMA(0.9), *callbacks], verbose=0, **options)
    return model, history


def test_buckets_give_the_numbers_of_padded_sequences():
    bucketed, padded = (kind(SEQUENCES, Y, buckets=3) for kind in (data.Ragged, Padded))
    assert bucketed.bounds.tolist() == sorted(set(bucketed.bounds.tolist()))
    assert len(bucketed.bounds) == 3
    one, first = attending(bucketed, validation_data=data.Ragged(SEQUENCES, Y))
    two, second = attending(padded, validation_data=data.Ragged(SEQUENCES, Y))
    np.testing.assert_allclose(first.steps["loss"], second.steps["loss"], rtol=1e-9)
    np.testing.assert_allclose(first.history["val_loss"], second.history["val_loss"], rtol=1e-9)
    for path, array in one.parameters().items():
        np.testing.assert_allclose(array, two.parameters()[path], rtol=1e-7, atol=1e-12)


def test_lives_with_buckets_end_in_the_same_bits(tmp_path):
    def lived(name, batches):
        def live():
            callbacks = [bn.callbacks.Checkpoint.every(2, tmp_path / name), Raise(batches)]
            return attending(data.Ragged(SEQUENCES, Y, buckets=3), callbacks, resume_from=tmp_path / name)

        return lives(live, most=40)

    (one, first), (two, second) = lived("lives", 13), lived("whole", 1000)
    assert first.steps["loss"].tolist() == second.steps["loss"].tolist()
    assert len(first.steps["loss"]) > 3 * 51
    for path, array in one.parameters().items():
        assert array.tolist() == two.parameters()[path].tolist()


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=60),
    buckets=st.integers(1, 5),
    batch_size=st.integers(1, 9),
    epoch=st.integers(0, 3),
)
def test_batches_of_buckets(lengths, buckets, batch_size, epoch):
    rows = data.Ragged([np.full((steps, 1), 1.0) for steps in lengths], np.zeros(len(lengths)), buckets=buckets)
    source = stream.StreamSource(rows, batch_size, 5, shuffle=True, by_runs=True)
    pieces = list(source.pieces(epoch, Pacer(single=True)))
    assert len(pieces) == source.steps
    assert sum(piece.rows for piece in pieces) == len(lengths)
    assert sum(piece.inputs["x.0"].sum() for piece in pieces) == sum(lengths)
    for piece in pieces:
        width, longest = piece.inputs["x.0"].shape[1], int(piece.inputs["x.1"].sum(axis=1).max())
        assert width == next(bound for bound in rows.bounds if bound >= longest)
    start = min(3, source.steps)
    rest = list(source.pieces(epoch, Pacer(single=True), start))
    assert [piece.inputs["x.1"].tolist() for piece in rest] == [
        piece.inputs["x.1"].tolist() for piece in pieces[start:]
    ]


def test_a_model_of_one_length_takes_one_bucket():
    model = bn.Sequential([layers.Flatten(), layers.Dense(3)])
    model.compile("cross_entropy")
    with pytest.raises(ValueError, match=r"'dense\.kernel' depends on the sequences' length .* one bucket only"):
        model.fit(data.Ragged(SEQUENCES, Y, buckets=3, with_mask="none"), verbose=0)
    assert model.history is None
    model.fit(data.Ragged(SEQUENCES, Y, with_mask="none"), verbose=0)


def test_a_loaded_model_takes_one_bucket(tmp_path):
    model, _ = attending(data.Ragged(SEQUENCES, Y, buckets=3))
    model.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    with pytest.raises(ValueError, match="a loaded model takes sequences of one length"):
        loaded.fit(data.Ragged(SEQUENCES, Y, buckets=3), verbose=0)
    loaded.fit(data.Ragged(SEQUENCES, Y), verbose=0)


@pytest.mark.parametrize("kind", ["attention", "recurrent"])
def test_a_functional_model_takes_several_lengths(kind):
    values, mask = bn.Input((8, 3)), bn.Input((8,))
    if kind == "attention":
        summary = MaskedMean()(layers.MultiHeadAttention(1, key_dim=4)(values, key_mask=mask), mask)
    else:
        summary = layers.LSTM(4)(values, mask=mask)
    losses = []
    for ragged in (data.Ragged, Padded):
        model = bn.Model([values, mask], layers.Dense(3)(summary))
        model.compile("cross_entropy", "adam", precision="float64")
        losses.append(model.fit(ragged(SEQUENCES, Y, buckets=3), epochs=2, verbose=0).steps["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)


def test_finders_fill_up_to_one_length():
    model = Attends()
    model.compile("cross_entropy")
    found = bn.tuning.find_learning_rate(model, data.Ragged(SEQUENCES, Y, buckets=3), steps=20)
    assert found.losses.tolist() == bn.tuning.find_learning_rate(model, (PADDED, MASK), Y, steps=20).losses.tolist()


def test_sequence_errors():
    with pytest.raises(ValueError, match="`sequences` must hold at least one"):
        data.Ragged([])
    with pytest.raises(ValueError, match=r"`sequences\[1\]` must have shape \(steps, 3\) like the first one"):
        data.Ragged([np.zeros((2, 3)), np.zeros((2, 4))])
    with pytest.raises(TypeError, match=r"`sequences\[1\]` must hold numbers"):
        data.Ragged([[1, 2], ["a"]])
    with pytest.raises(ValueError, match="`y` must have 2 rows"):
        data.Ragged([[1], [2]], [1, 2, 3])
    with pytest.raises(ValueError, match="`with_mask`: unknown name 'masks'"):
        data.Ragged([[1]], with_mask="masks")


class Loader:
    """Batches, read anew each time; says which threads read them and what became of the iterators."""

    def __init__(self, count=7, breaks_at=None):
        self.count, self.breaks_at = count, breaks_at
        self.threads, self.closed = set(), 0

    def __iter__(self):
        try:
            for index in range(self.count):
                self.threads.add(threading.current_thread().name)
                if index == self.breaks_at:
                    raise OSError(f"batch {index} is gone")
                part = slice(index * 20, index * 20 + 20)
                yield X[part], Y[part]
        finally:
            self.closed += 1


class Sized(Loader):
    def __len__(self):
        return self.count


def fitted(batches, **options):
    model = bn.Sequential([layers.Dense(3)])
    model.compile("cross_entropy", metrics=["accuracy"])
    return model.fit(batches, epochs=3, verbose=0, **options).history, model.evaluate(batches)


def test_prefetched_batches_are_the_batches():
    for make in (Loader, Sized, lambda: [(X[at : at + 20], Y[at : at + 20]) for at in range(0, 140, 20)]):
        assert fitted(data.prefetch(make(), 3)) == fitted(make())
    loader = Sized()
    assert len(data.prefetch(loader)) == 7
    assert fitted(data.prefetch(loader), validation_data=data.prefetch(loader)) == fitted(
        loader, validation_data=loader
    )
    loader.threads.clear()
    fitted(data.prefetch(loader))
    assert loader.threads == {"burnish-reader"}
    assert not hasattr(data.prefetch(Loader()), "__len__")


def test_a_prefetched_iterator_is_one():
    model = bn.Sequential([layers.Dense(3)])
    model.compile("cross_entropy")
    assert len(model.fit(data.prefetch(iter(Loader())), verbose=0).steps["loss"]) == 7
    with pytest.raises(ValueError, match="gives its batches once, but 2 epochs"):
        model.fit(data.prefetch(iter(Loader())), epochs=2, verbose=0)


@pytest.mark.parametrize("prefetched", [False, True])
def test_batches_that_break(prefetched):
    loader = Loader(breaks_at=4)
    model = bn.Sequential([layers.Dense(3)])
    model.compile("cross_entropy")
    with pytest.raises(OSError, match="batch 4 is gone"):
        model.fit(data.prefetch(loader) if prefetched else loader, verbose=0)
    assert len(model.history.steps["loss"]) == 4
    assert loader.closed == 1


@pytest.mark.parametrize("error", [RuntimeError, None])
def test_a_fit_that_ends_early_closes_what_it_read(error):
    class Ends(bn.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2 and error is not None:
                raise error
            self.model.stop_training = batch == 2

    for wrap in (lambda loader: loader, data.prefetch):
        loader = Loader(count=10)
        model = bn.Sequential([layers.Dense(3)])
        model.compile("cross_entropy")
        try:
            model.fit(wrap(loader), epochs=3, callbacks=[Ends()], verbose=0)
        except RuntimeError:
            assert error is not None
        assert len(model.history.steps["loss"]) == 3
        assert loader.closed == 1


def test_what_is_no_iterable_is_not_prefetched():
    with pytest.raises(TypeError, match="`batches` must be an iterable of batches, got int"):
        data.prefetch(3)
    with pytest.raises(ValueError, match="`ahead` must be an integer of at least 1"):
        data.prefetch([], 0)
