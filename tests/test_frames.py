"""Tables of other libraries give the bits of their numbers as an array, and are known by their columns' names."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import burnish as bn
from burnish import layers

RNG = np.random.default_rng(8)
COLUMNS = {
    "age": RNG.integers(0, 90, 40),
    "height": RNG.normal(size=40).astype(np.float32),
    "member": RNG.integers(0, 2, 40).astype(bool),
    "income": RNG.normal(size=40),
}
X = np.column_stack(list(COLUMNS.values()))
Y = RNG.integers(0, 3, 40)


def polars(columns):
    return pytest.importorskip("polars").DataFrame(columns)


def pyarrow(columns):
    return pytest.importorskip("pyarrow").table(columns)


def record_batch(columns):
    return pyarrow(columns).combine_chunks().to_batches()[0]


def narwhals(columns):
    return pytest.importorskip("narwhals").from_native(pd.DataFrame(columns))


class Capsule:
    """What has nothing but Arrow's interface."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


FRAMES = {
    "pandas": pd.DataFrame,
    "nullable": lambda columns: pd.DataFrame(columns).convert_dtypes(dtype_backend="numpy_nullable"),
    "narwhals": narwhals,
    "polars": polars,
    "pyarrow": pyarrow,
    "record batch": record_batch,
    "capsule of pyarrow": lambda columns: Capsule(pyarrow(columns)),
    "capsule of polars": lambda columns: Capsule(polars(columns)),
}
ALL = pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)


def network():
    model = bn.Sequential([layers.BatchNorm(), layers.Dense(4, "tanh"), layers.Dense(3)])
    model.compile("cross_entropy", "adam", 0.05)
    return model


def trained(x, y, predicted=None, **options):
    model = network()
    losses = model.fit(x, y, epochs=2, batch_size=16, verbose=0, **options).history
    return losses, model.evaluate(x, y), model.predict(x if predicted is None else predicted).tolist()


EXPECTED = trained(X, Y)


@ALL
def test_a_table_is_the_array_of_its_columns(make):
    assert trained(make(COLUMNS), Y) == EXPECTED
    frame = make({**COLUMNS, "target": Y})
    if hasattr(frame, "__getitem__"):
        assert trained(make(COLUMNS), frame["target"]) == EXPECTED
        weight = np.linspace(0, 1, 40)
        weighted = trained(make(COLUMNS), Y, sample_weight=make({"w": weight})["w"], validation_split=0.25)
        assert weighted == trained(X, Y, sample_weight=weight, validation_split=0.25)
        named = bn.Input((), name="age"), bn.Input((), name="income")
        stacked = layers.Concatenate()([layers.Reshape((1,))(node) for node in named])
        results = []
        for age, income in ((frame["age"], frame["income"]), (COLUMNS["age"], COLUMNS["income"])):
            model = bn.Model({"age": named[0], "income": named[1]}, layers.Dense(3)(stacked))
            model.compile("cross_entropy")
            results.append(model.fit({"age": age, "income": income}, Y, verbose=0).history)
        assert results[0] == results[1]


@ALL
def test_tables_in_validation_and_batches(make):
    given = trained(make(COLUMNS), Y, validation_data=(make(COLUMNS), Y))
    assert given == trained(X, Y, validation_data=(X, Y))
    parts = [slice(at, at + 16) for at in range(0, 40, 16)]

    def batches(table):
        return [(table({name: column[part] for name, column in COLUMNS.items()}), Y[part]) for part in parts]

    one, two = network(), network()
    assert one.fit(batches(make), verbose=0).history == two.fit(X, Y, batch_size=16, shuffle=False, verbose=0).history


@ALL
def test_columns_are_found_by_their_names(make, tmp_path):
    shuffled = {name: COLUMNS[name] for name in ("income", "age", "member", "height")}
    assert trained(make(COLUMNS), Y, make(shuffled))[2] == EXPECTED[2]
    model = network()
    model.fit(make(COLUMNS), Y, verbose=0)
    model.save(tmp_path / "model")
    for each in (model, bn.load(tmp_path / "model")):
        assert each.predict(make(shuffled)).tolist() == model.predict(X).tolist()
        renamed = {name.replace("age", "years"): column for name, column in COLUMNS.items()}
        with pytest.raises(
            ValueError, match="`x` must have the columns age, height, member, income, got years, height"
        ):
            each.predict(make(renamed))


def test_names_are_forgotten_when_the_call_fails():
    model = network()
    with pytest.raises(ValueError, match="`y` must have 40 rows"):
        model.fit(pd.DataFrame(COLUMNS), Y[:3], verbose=0)
    model.fit(pd.DataFrame(X, columns=["a", "b", "c", "d"]), Y, verbose=0)
    with pytest.raises(ValueError, match="columns a, b, c, d, got age"):
        model.predict(pd.DataFrame(COLUMNS))


def test_targets_in_several_columns():
    frame = pd.DataFrame(COLUMNS)[["height", "income"]]
    results = []
    for y in (frame, frame.to_numpy(), frame[["income", "height"]]):
        model = bn.Sequential([layers.Dense(2)])
        model.compile("mse")
        results.append(model.fit(X, frame, verbose=0).history if y is frame else model.fit(X, y, verbose=0).history)
    assert results[0] == results[1]
    model.fit(X, frame, verbose=0)
    assert model.evaluate(X, frame) == model.evaluate(X, frame[["income", "height"]])


@pytest.mark.parametrize("make", [FRAMES[name] for name in ("nullable", "polars", "pyarrow")])
def test_missing_numbers_are_told_as_nan(make):
    columns = {"a": [1, None, 3], "b": [True, False, None]}
    with pytest.raises(ValueError, match="`x` holds nan at row 1, column 0"):
        network().fit(make(columns), [0, 1, 2], verbose=0)


@ALL
def test_texts_are_told_by_their_column(make):
    columns = {**COLUMNS, "city": ["Ulm", "Bonn"] * 20}
    with pytest.raises(TypeError, match=r"`x`: column 'city' must hold numbers, got .*; encode texts"):
        network().fit(make(columns), Y, verbose=0)
    with pytest.raises(TypeError, match="`y`: column 'city' must hold numbers"):
        network().fit(X, make({"city": columns["city"]}), verbose=0)


def test_dates_categories_and_digits_in_texts_are_no_numbers():
    for column in (pd.date_range("2020", periods=40), pd.Categorical(["a", "b"] * 20), ["1", "2"] * 20):
        with pytest.raises(TypeError, match="column 'c' must hold numbers"):
            network().fit(pd.DataFrame({"c": column}), Y, verbose=0)
    with pytest.raises(TypeError, match="`y` must hold numbers"):
        network().fit(X, pd.Series(["1"] * 40), verbose=0)


def test_a_lazy_table_is_told():
    with pytest.raises(TypeError, match="`x` must be an array of numbers, got LazyFrame"):
        network().fit(polars(COLUMNS).lazy(), Y, verbose=0)


def test_columns_of_lists_are_rows():
    for make in (polars, pyarrow):
        frame = make({"vector": X.tolist()})
        assert trained(frame, Y) == EXPECTED


def test_names_that_are_none():
    frame = pd.DataFrame(X)
    assert trained(frame, Y, frame[[0, 1, 2, 3]]) == EXPECTED
    with pytest.raises(ValueError, match="columns of different names, got a, a"):
        network().fit(pd.DataFrame(X[:, :2], columns=["a", "a"]), Y)
    with pytest.raises(ValueError, match="at least one column"):
        network().fit(pd.DataFrame(index=range(40)), Y)


def test_a_frame_of_one_type_is_not_copied():
    frame = pd.DataFrame(np.zeros((1000, 4)), columns=list("abcd"))
    from burnish._feed.arrays import as_array

    assert np.shares_memory(as_array(frame, "x"), frame.to_numpy())


@settings(max_examples=40)
@given(
    columns=st.dictionaries(
        st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=4),
        st.sampled_from(["i1", "u2", "i8", "f4", "f8", "?"]),
        min_size=1,
        max_size=5,
    ),
    data=st.data(),
)
def test_any_mixture_of_types(columns, data):
    from burnish._feed.arrays import as_array

    arrays = {name: RNG.integers(0, 2, 6).astype(dtype) for name, dtype in columns.items()}
    kinds = ["pandas", "narwhals", "polars", "pyarrow"]
    frame = FRAMES[data.draw(st.sampled_from(kinds))](arrays)
    expected = np.column_stack(list(arrays.values()))
    got = as_array(frame, "x")
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)
