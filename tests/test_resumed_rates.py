"""The learning rate of a run that goes on: a number, a schedule or a function, and what callbacks made of it."""

import warnings

import numpy as np
import pytest
from killing import Raise, digest, network, train

import burnish as bn
from burnish.callbacks import Callback, Checkpoint


@pytest.mark.parametrize("first", [0.01, bn.schedules.Linear(0.02, 0.01, 100), lambda update: 0.02 / (1 + update)])
def test_another_learning_rate_goes_on_at_the_stored_update(first, tmp_path, capsys):
    second = bn.schedules.Exponential(0.03, 0.9)
    with pytest.raises(RuntimeError):
        train(tmp_path, [Raise(18)], model=network(learning_rate=first, precision="float32"))
    model = train(tmp_path, model=network(learning_rate=second, precision="float32"), verbose=2, epochs=2)
    assert "the learning rate is another one from here on" in capsys.readouterr().out
    steps = model.history.steps["learning_rate"]
    # The first epoch has 11 batches and 4 updates, the second goes on after 5 batches: in its second group.
    np.testing.assert_array_equal(steps[16:], second([5, 6, 6, 6, 7, 7]))


def test_a_rate_that_a_callback_had_set_is_kept(tmp_path):
    def fit(folder, *extra):
        scheduler = bn.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
        return train(folder, [scheduler, *extra], model=network(learning_rate=0.1), epochs=4)

    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    expected = digest(fit(tmp_path / "a"))
    for batches in (13, 14):
        with pytest.raises(RuntimeError):
            fit(tmp_path / "b", Raise(batches))
    assert digest(fit(tmp_path / "b")) == expected


@pytest.mark.parametrize("rate", [0.1, bn.schedules.Linear(0.1, 0.01, 50), lambda update: 0.1 / (1 + update)])
def test_the_same_model_may_be_resumed(tmp_path, rate):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    expected = digest(train(tmp_path / "a", model=network(learning_rate=rate)))
    model = network(learning_rate=rate)
    for batches in (14, 35):
        with pytest.raises(RuntimeError):
            train(tmp_path / "b", [Raise(batches)], model=model)
    assert digest(train(tmp_path / "b", model=model)) == expected


def plateaus(*factors):
    return [bn.callbacks.ReduceLROnPlateau("loss", factor, patience=1, min_delta=10.0) for factor in factors]


def decaying(update):
    return 0.1 / (1 + 0.1 * update)


def regress(rate, several, **options):
    """A fit of a small network in 64 bits, in which every epoch from the second on is a plateau."""
    x = np.random.default_rng(0).normal(size=(40, 4))
    model = bn.Sequential([bn.layers.Dense(8, activation="tanh"), bn.layers.Dense(1)])
    model.compile("mse", "sgd", rate, precision="float64")
    model.fit(x, x[:, :1] - x[:, 1:2], batch_size=8, epochs=7, callbacks=several, verbose=0, **options)
    return model


class Sets(Callback):
    """Sets the rate to a function when a fit begins, or at the beginning of an epoch."""

    def __init__(self, epoch=None, factor=1.0):
        self.epoch, self.rate = epoch, factor * bn.schedules.Lambda(decaying)

    def on_train_begin(self, logs=None):
        if self.epoch is None:
            self.model.learning_rate = self.rate

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            self.model.learning_rate = self.rate


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("rate", "factors", "sets"),
    [
        (3.0 * bn.schedules.Lambda(decaying), [0.6], None),
        (decaying, [0.9, 0.6], None),
        (bn.schedules.warmup(3, then=decaying), [0.9, 0.6], None),
        (0.1, [0.9, 0.6], Sets()),
        (decaying, [0.6], Sets(factor=3.0)),
    ],
    ids=["scaled", "function", "within", "set", "set again"],
)
def test_what_plateaus_made_of_a_function_comes_back_to_the_last_bit(rate, factors, sets, tmp_path):
    def callbacks(*more):
        return [*([] if sets is None else [sets]), *plateaus(*factors), *more]

    expected = regress(rate, callbacks())
    for batches in (13, 18, 23, 28, 31):
        folder = tmp_path / str(batches)
        with pytest.raises(RuntimeError):
            regress(rate, callbacks(Checkpoint.every(1, folder), Raise(batches)))
        found = regress(rate, callbacks(Checkpoint.every(1, folder)), resume_from=folder)
        assert found.history.steps["learning_rate"].tolist() == expected.history.steps["learning_rate"].tolist()
        assert all(np.array_equal(found.parameters()[path], array) for path, array in expected.parameters().items())


def test_another_factor_before_a_function_is_another_rate(tmp_path):
    schedule = bn.schedules.Lambda(decaying)
    with pytest.raises(RuntimeError):
        regress(3.0 * schedule, [*plateaus(0.5), Checkpoint.every(1, tmp_path), Raise(13)])
    model = regress(6.0 * schedule, plateaus(0.5), resume_from=tmp_path)
    # The second epoch was not better, and so was followed by a reduction.
    np.testing.assert_array_equal(model.history.steps["learning_rate"][12:15], 3.0 * schedule(np.arange(12, 15)))


def test_a_function_that_a_callback_had_set_is_missed(tmp_path):
    for batches in (13, 18):  # in the epoch in which it is set and in the next one
        with pytest.raises(RuntimeError):
            regress(0.1, [Sets(2), Checkpoint.every(1, tmp_path / str(batches)), Raise(batches)])
    expected = regress(0.1, [Sets(2)]).history.steps["learning_rate"]
    with warnings.catch_warnings(action="error"):
        found = regress(0.1, [Sets(2)], resume_from=tmp_path / "13").history.steps["learning_rate"]
    np.testing.assert_array_equal(found, expected)
    with pytest.warns(RuntimeWarning, match=r"set the learning rate to a function, .* `on_train_begin`") as told:
        found = regress(0.1, [Sets(2)], resume_from=tmp_path / "18").history.steps["learning_rate"]
    assert told[0].filename == __file__
    np.testing.assert_array_equal(found[:17], expected[:17])
    assert set(found[17:]) == {0.1}
