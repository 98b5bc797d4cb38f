"""The profile of a training step: every operation, what it moves and computes, and no trace left."""

import numpy as np
import pytest

import burnish as bn

X = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
Y = np.arange(50) % 3


@pytest.fixture
def model():
    model = bn.Sequential([bn.layers.Dense(8, activation="relu"), bn.layers.Dense(3)])
    model.compile("cross_entropy", "adam", metrics=["accuracy"])
    return model


def found(profile, phase, layer):
    (row,) = (row for row in profile.rows if (row.phase, row.layer, row.operation) == (phase, layer, "linear"))
    return row


def test_flops_and_bytes_are_those_of_the_shapes(model):
    profile = bn.profile(model, X, Y, batch_size=16, steps=5)
    first, second = 16 * 8 * (2 * 6 + 1 + 1), 16 * 3 * (2 * 8 + 1)
    assert found(profile, "forward", "dense").flops == first
    assert found(profile, "forward", "dense_1").flops == second
    assert found(profile, "backward", "dense").flops == first  # nobody asks for the gradient of the data
    assert found(profile, "backward", "dense_1").flops == 2 * second
    assert found(profile, "forward", "dense").bytes == 4 * (16 * 6 + 6 * 8 + 8 + 16 * 8)
    (gather,) = (row for row in profile.rows if row.phase == "gather")
    assert gather.bytes == 4 * 16 * (6 + 1)


def test_a_frozen_layer_has_no_gradient(model):
    model.build((None, 6))
    model.freeze("dense.*")
    profile = bn.profile(model, X, Y, steps=2)
    assert found(profile, "backward", "dense_1").flops == 32 * 3 * 17
    assert not [row for row in profile.rows if row.phase == "backward" and row.layer == "dense"]


def passes(layers, x, y, operation):
    """The FLOPs of an operation, forward and backward, in a step of one row."""
    model = bn.Sequential(layers)
    model.compile("mse")
    rows = [row for row in bn.profile(model, x, y, batch_size=1, steps=1).rows if row.operation == operation]
    return [sum(row.flops for row in rows if row.phase == phase) for phase in ("forward", "backward")]


@pytest.mark.parametrize(("name", "blocks", "of_a_unit"), [("LSTM", 4, 9), ("GRU", 3, 8), ("RNN", 1, 1)])
def test_the_gradient_of_a_recurrent_operation_is_that_of_two_products(name, blocks, of_a_unit):
    steps, features, units = 5, 3, 7
    of_input = steps * blocks * units * 2 * features
    of_state = steps * units * (blocks * (2 * units + 2) + of_a_unit)
    x, y = np.zeros((2, steps, features)), np.zeros((2, units))
    stack = [getattr(bn.layers, name)(units)]
    # Nobody asks for the gradient of the data; that of the state is needed by the step before.
    assert passes(stack, x, y, name.lower()) == [of_input + of_state, of_input + 2 * of_state]
    stack = [bn.layers.Dense(features), *stack]
    assert passes(stack, x, y, name.lower()) == [of_input + of_state, 2 * (of_input + of_state)]


def test_the_gradient_of_attention_is_that_of_two_products():
    x = np.zeros((2, 6, 4))
    places, width, heads = 6, 8, 2
    once = 2 * 2 * places * places * width + 6 * heads * places * places
    encoder = bn.layers.TransformerEncoderLayer(5, heads)
    assert passes([bn.layers.Dense(width), encoder], x, np.zeros((2, 6, width)), "attention") == [once, 2 * once]


def test_what_a_gradient_does_not_pass_has_none():
    stack = [bn.layers.Dense(4), bn.layers.Lambda(bn.ops.stop_gradient), bn.layers.Dense(3)]
    first, second = 4 * (2 * 6 + 1), 3 * (2 * 4 + 1)
    assert passes(stack, X, np.zeros((50, 3)), "linear") == [first + second, second]


def test_parts_add_up(model):
    profile = bn.profile(model, X, Y, steps=20)
    assert 0 < sum(row.seconds for row in profile.rows) <= profile.seconds
    assert 0 < profile.of_peak < 2
    for column in ("phase", "layer", "operation"):
        sums = profile.by(column)
        assert [row.seconds for row in sums] == sorted((row.seconds for row in sums), reverse=True)
        for place in (3, 4, 5):
            whole = sum(row[place] for row in profile.rows)
            assert sum(row[place] for row in sums) == pytest.approx(whole)
    assert {row.phase for row in profile.by("phase")} == {"gather", "forward", "backward", "update"}


def test_it_reads_well(model):
    profile = bn.profile(model, X, Y, batch_size=16, steps=3)
    head, columns, *lines, rest, step = str(profile).splitlines()
    assert head.startswith("3 steps of 16 rows on cpu, peak ")
    assert columns.split() == ["phase", "layer", "operation", "ms", "share", "MB", "GB/s", "GFLOP/s", "of", "peak"]
    assert len(lines) == len(profile.rows)
    assert "(the rest)" in rest
    assert "100%" in step
    assert repr(profile).startswith("<profile: ")


def test_the_model_stays_as_it_is(model):
    model.fit(X, Y, epochs=2, verbose=0)
    before = {path: array.copy() for path, array in model.parameters().items()}
    bn.profile(model, X, Y, steps=5)
    assert all(np.array_equal(array, before[path]) for path, array in model.parameters().items())
    again = bn.Sequential([bn.layers.Dense(8, activation="relu"), bn.layers.Dense(3)])
    again.compile("cross_entropy", "adam", metrics=["accuracy"])
    assert (
        again.fit(X, Y, epochs=4, verbose=0).history["loss"][2:] == model.fit(X, Y, epochs=2, verbose=0).history["loss"]
    )


def test_a_model_that_was_not_built_stays_so(model):
    bn.profile(model, X, Y, steps=1)
    model.fit(X[:, :4], Y, verbose=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "`batch_size` must be an integer"),
        ({"steps": 0}, "`steps` must be an integer"),
        ({"sample_weight": np.ones(3)}, "`sample_weight` must have shape"),
    ],
)
def test_arguments(model, options, words):
    with pytest.raises(ValueError, match=words):
        bn.profile(model, X, Y, **options)


def test_it_needs_a_loss():
    with pytest.raises(ValueError, match="compile"):
        bn.profile(bn.Sequential([bn.layers.Dense(1)]), X, X[:, :1])
