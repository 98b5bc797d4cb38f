"""What is recorded of every parameter and of rectified layers, against NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import burnish as bn
from burnish import _burnish


def network(activation="relu"):
    layers = [bn.layers.Dense(5, activation=activation, name="hidden"), bn.layers.Dense(2, name="last")]
    model = bn.Sequential([bn.Input((3,)), *layers])
    model.compile("mse", "sgd", 0.1, precision="float64")
    return model


@pytest.mark.parametrize("accumulate", [1, 3])
def test_norms_and_ratios_of_each_parameter(rng, accumulate):
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 2))
    model = network()
    model.compile("mse", "sgd", 0.1, precision="float64", accumulate_gradients=accumulate, clip_norm=0.01)
    weights, gradients = model.parameters(), bn.gradients(model, x, y)
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients.values()))
    history = model.fit(x, y, batch_size=-(-8 // accumulate), shuffle=False, verbose=0)
    for path, figures in history.parameters.items():
        step = 0.1 * gradients[path] * 0.01 / norm
        np.testing.assert_allclose(figures["gradient_norm"], [np.linalg.norm(gradients[path])], rtol=1e-9)
        with np.errstate(divide="ignore"):
            ratio = np.linalg.norm(step) / np.linalg.norm(weights[path])
        expected = [ratio] if np.isfinite(ratio) else [np.nan]
        np.testing.assert_allclose(figures["update_ratio"], expected, rtol=1e-9)
    assert set(history.parameters) == set(weights)


def test_frozen_parameters_are_not_recorded(rng):
    model = network()
    model.freeze("hidden")
    history = model.fit(rng.normal(size=(8, 3)), rng.normal(size=(8, 2)), epochs=2, verbose=0)
    assert sorted(history.parameters) == ["last.bias", "last.kernel"]
    assert all(len(values) == 2 for figures in history.parameters.values() for values in figures.values())


def test_zero_activations_and_dead_units(rng, device):
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    model = network()
    precision = "float64" if device in {"cpu", "ndarray"} else "float32"
    model.compile("mse", "sgd", 1e-12, precision=precision, device=device)
    bias = np.array([-100.0, 0.0, 0.0, 0.0, 100.0])
    model.set_parameters({"hidden.bias": bias})
    hidden = np.maximum(x @ model.parameters()["hidden.kernel"] + bias, 0.0)
    history = model.fit(x, y, batch_size=6, epochs=1, verbose=0)
    assert history.activations == {
        "hidden": {"zeros": [np.mean(hidden == 0)], "dead": [np.mean((hidden == 0).all(axis=0))]}
    }


def test_every_sixteenth_batch_of_an_epoch_is_looked_at(rng):
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 2))
    model = network()
    kernel = model.parameters()["hidden.kernel"]
    model.compile("mse", "sgd", 0.0, precision="float64")
    history = model.fit(x, y, batch_size=1, shuffle=False, verbose=0)
    seen = np.maximum(x[[0, 16, 32]] @ kernel, 0.0) == 0
    np.testing.assert_allclose(history.activations["hidden"]["zeros"], [seen.mean()])


def test_layers_that_do_not_rectify_are_left_out(rng):
    history = network("tanh").fit(rng.normal(size=(6, 3)), rng.normal(size=(6, 2)), verbose=0)
    assert history.activations == {}


def test_the_figures_do_not_depend_on_the_pieces(rng):
    """A callback that wants batches makes pieces of one batch."""

    class EachBatch(bn.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            pass

    x, y = rng.normal(size=(70, 3)), rng.normal(size=(70, 2))
    histories = [network().fit(x, y, batch_size=2, epochs=2, callbacks=some, verbose=0) for some in ([], [EachBatch()])]
    assert histories[0].parameters == histories[1].parameters
    assert histories[0].activations == histories[1].activations


def test_the_callback_puts_the_figures_into_the_logs(rng):
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 2))
    history = network().fit(x, y, batch_size=4, epochs=2, callbacks=bn.callbacks.Monitor(parameters=True), verbose=0)
    for name in ("gradient_norm", "update_ratio"):
        means = history.steps[name].reshape(2, 2).mean(axis=1)
        np.testing.assert_allclose(history.history[name], means)
        assert history.history[f"{name}/last.kernel"] == history.parameters["last.kernel"][name]


NUMBERS = st.floats(-1e9, 1e9) | st.sampled_from([np.nan, np.inf, -np.inf, -0.0])


@given(st.lists(st.tuples(NUMBERS, st.sampled_from([0.0, 0.25, 1.0, 3.0]))), st.integers(0, 20))
def test_weighted_sums_are_numpy_s_wherever_they_are_cut(rows, cut):
    means, weights = np.array(rows, dtype=np.float64).reshape(-1, 2).T
    # A column that is no mean comes behind them.
    rows = np.column_stack([weights, means, -means, np.full(len(means), np.nan)])
    start = np.array([0.5, 1.5, 2.5])
    whole = _burnish.add_weighted(start, rows)
    first = _burnish.add_weighted(start, rows[:cut])
    assert np.array_equal(whole, _burnish.add_weighted(first, rows[cut:]), equal_nan=True)
    with np.errstate(invalid="ignore"):
        terms = np.column_stack([weights, np.where(weights[:, None] > 0, rows[:, 1:3] * weights[:, None], 0.0)])
        assert np.array_equal(whole, np.cumsum([start, *terms], axis=0)[-1], equal_nan=True)
    with pytest.raises(ValueError, match="rows: expected 5 columns, got 4"):
        _burnish.add_weighted(np.zeros(5), rows)
    with pytest.raises(ValueError, match="one behind the other"):
        _burnish.add_weighted(start, np.zeros((2, 8))[:, ::2])


@given(hnp.arrays(np.float64, st.tuples(st.integers(0, 6), st.integers(1, 4)), elements=NUMBERS), st.integers(0, 6))
def test_sums_of_what_is_finite_are_numpy_s_wherever_they_are_cut(rows, cut):
    start = np.full(rows.shape[1], 0.5), np.arange(rows.shape[1], dtype=np.float64)
    given = np.concatenate(start)
    totals, first = _burnish.add_finite(given, rows), _burnish.add_finite(given, rows[:cut])
    assert given.tolist() == [*start[0], *start[1]]
    assert np.array_equal(totals, _burnish.add_finite(first, rows[cut:]))
    sums, counts = totals.reshape(2, -1)
    expected = np.cumsum(np.vstack([start[0], np.where(np.isfinite(rows), rows, 0.0)]), axis=0)[-1]
    np.testing.assert_array_equal(sums, expected)
    np.testing.assert_array_equal(counts, start[1] + np.isfinite(rows).sum(axis=0))
    with pytest.raises(ValueError, match=f"rows: expected {rows.shape[1]} columns, got {rows.shape[1] + 1}"):
        _burnish.add_finite(totals, np.zeros((1, rows.shape[1] + 1)))
