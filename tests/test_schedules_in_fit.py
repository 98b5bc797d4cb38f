"""What a fit makes of schedules: chunks, epochs, accumulation, saved models, the model's learning rate."""

import numpy as np
import pytest

import burnish as bn
from burnish.schedules import (
    Constant,
    CosineAnnealing,
    Cyclic,
    Exponential,
    Lambda,
    Linear,
    OneCycle,
    StepDecay,
    join,
    warmup,
)

CURVES = [
    0.5 * CosineAnnealing(0.1, 20),
    OneCycle(0.1, 30),
    Cyclic(0.01, 0.1, 3, 5, "triangular2"),
    join([0.1, warmup(2, then=0.2), Exponential(0.1, 0.9)], [4, 12]),
    Lambda(lambda t: 0.1 / (1 + t)),
]
MIXED = warmup(6, then=StepDecay(0.1, 2, 0.5, unit="epoch"))


def network(learning_rate, optimizer="sgd", **options):
    model = bn.Sequential([bn.layers.Dense(2)])
    model.compile("mse", optimizer, learning_rate, **options)
    return model


X = np.linspace(-1, 1, 40, dtype=np.float32).reshape(20, 2)


class Endless:
    """Batches without a length."""

    def __iter__(self):
        return iter([(X[:4], X[:4])] * 5)


@pytest.mark.parametrize("schedule", CURVES, ids=lambda schedule: type(schedule).__name__)
@pytest.mark.parametrize("hooked", [False, True])
def test_a_fit_follows_the_curve_in_any_chunks(schedule, hooked):
    watch = [bn.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)] if hooked else []
    history = network(schedule).fit(X, X, batch_size=4, epochs=6, callbacks=watch, verbose=0)
    np.testing.assert_array_equal(history.steps["learning_rate"], schedule.values(30))


def test_whole_pieces_are_evaluated_at_once():
    calls = []

    class Counted(Constant):
        def _curve(self, index):
            calls.append(len(index))
            return super()._curve(index)

    network(Counted(0.01)).fit(X, X, batch_size=1, epochs=20, verbose=0)
    assert sum(calls) == 401  # all updates, and the check before the first
    assert len(calls) < 200


@pytest.mark.parametrize("accumulate", [1, 2, 5])
@pytest.mark.parametrize("batches", [None, [(X[:4], X[:4])] * 5], ids=["arrays", "list"])
def test_epochs_have_as_many_updates_as_the_fit_makes(accumulate, batches):
    schedule = StepDecay(0.1, 1, 0.5, unit="epoch")
    model = network(schedule, accumulate_gradients=accumulate)
    data = (X, X) if batches is None else (batches,)
    history = model.fit(*data, batch_size=4, epochs=3, verbose=0)
    np.testing.assert_array_equal(history.steps["learning_rate"], np.repeat([0.1, 0.05, 0.025], 5))
    assert model.learning_rate == 0.0125
    more = model.fit(*data, batch_size=4, epochs=1, verbose=0)
    np.testing.assert_array_equal(more.steps["learning_rate"], np.full(5, 0.0125))


def test_epochs_of_unknown_length_are_counted():
    schedule = warmup(2, then=StepDecay(0.1, 1, 0.5), unit="epoch")
    model = network(schedule)
    history = model.fit(Endless(), epochs=4, verbose=0)
    np.testing.assert_array_equal(history.steps["learning_rate"], np.repeat([0.05, 0.1, 0.1, 0.05], 5))
    assert model.learning_rate == 0.025
    model.compile("mse", "sgd", schedule)
    assert model.learning_rate == 0.05
    assert network(0.1).fit(Endless(), epochs=1, verbose=0).steps["learning_rate"].tolist() == [0.1] * 5


def test_mixed_units_in_a_fit():
    history = network(MIXED).fit(X, X, batch_size=5, epochs=5, verbose=0)
    np.testing.assert_array_equal(history.steps["learning_rate"], MIXED.values(20, updates_per_epoch=4))
    model = network(MIXED)
    before = model.build((None, 2)).parameters()
    with pytest.raises(ValueError, match="mixes steps and epochs"):
        model.fit(Endless(), verbose=0)
    assert all(np.array_equal(before[path], array) for path, array in model.parameters().items())


def test_mixed_units_before_a_fit_are_told_with_what_helps():
    model = network(MIXED)
    with pytest.raises(ValueError, match="how many updates make an epoch is not known: fit arrays") as told:
        model.train_on_batch(X, X)
    assert "updates_per_epoch" not in str(told.value)  # which train_on_batch does not take
    model.fit(X, X, batch_size=5, verbose=0)
    model.train_on_batch(X, X)
    assert model.learning_rate == MIXED(5, updates_per_epoch=4)


def test_a_failed_fit_leaves_the_length_of_an_epoch():
    model = network(StepDecay(0.1, 1, 0.5, unit="epoch"))
    model.fit(X, X, batch_size=4, epochs=2, verbose=0)
    model.learning_rate = lambda update: -1.0
    with pytest.raises(ValueError, match="must return"):
        model.fit(X, X, batch_size=1, verbose=0)
    model.learning_rate = StepDecay(0.1, 1, 0.5, unit="epoch")
    assert model.learning_rate == 0.025


def test_the_models_learning_rate_is_that_of_the_next_update():
    model = network(None, bn.optimizers.SGD(Linear(1, 0, 10)))
    assert model.learning_rate == 1
    model.train_on_batch(X, X)
    assert model.learning_rate == 0.9
    model.learning_rate = Constant(0.25)
    assert model.learning_rate == 0.25


def test_a_schedule_drives_the_scheduler_of_epochs():
    scheduler = bn.callbacks.LearningRateScheduler(StepDecay(0.1, 2, 0.5))
    history = network(0.3).fit(X, X, epochs=4, callbacks=[scheduler], verbose=0)
    assert history.history["learning_rate"] == [0.1, 0.1, 0.05, 0.05]


@pytest.mark.parametrize(
    "schedule", [CosineAnnealing(0.1, 15), MIXED, 0.5 * Cyclic(0.01, 0.1, 2, unit="epoch")], ids=repr
)
@pytest.mark.filterwarnings("error")
def test_a_saved_schedule_goes_on(schedule, tmp_path):
    once, twice = network(schedule, seed=3), network(schedule, seed=3)
    expected = once.fit(X, X, batch_size=4, epochs=4, verbose=0).steps["learning_rate"]
    twice.fit(X, X, batch_size=4, epochs=2, verbose=0)
    twice.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    assert loaded.learning_rate == twice.learning_rate
    history = loaded.fit(X, X, batch_size=4, epochs=2, verbose=0)
    np.testing.assert_array_equal(history.steps["learning_rate"], expected[10:])
    assert all(np.array_equal(once.parameters()[path], array) for path, array in loaded.parameters().items())


def test_a_schedule_that_holds_a_function_is_said_to_be_lost(tmp_path):
    model = network(warmup(2, then=Lambda(lambda t: 0.1 / (1 + t))))
    model.fit(X, X, batch_size=4, verbose=0)
    with pytest.warns(UserWarning, match="function cannot be saved"):
        model.save(tmp_path / "model")
    assert bn.load(tmp_path / "model").learning_rate == model.learning_rate == 0.1 / 4
