"""What impatient users do: half-wrong calls, odd containers, callbacks that misbehave, models copied."""

import copy
import math
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest

import burnish as bn
from burnish import callbacks, layers

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = RNG.integers(0, 3, 60)


def classifier(**options):
    model = bn.Sequential([layers.Dense(8, activation="relu"), layers.Dense(3)])
    model.compile("cross_entropy", **options)
    return model


def with_nan(x):
    x = x.copy()
    x[3, 1] = np.nan
    return x


WRONG = {
    "nan": {"x": with_nan(X)},
    "label": {"y": Y + 1},
    "validation": {"validation_data": (X, Y + 3)},
    "callbacks": {"callbacks": 5},
    "monitor": {"callbacks": callbacks.EarlyStopping()},
    "class weight": {"class_weight": {3: 2.0}},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_refused_fit_leaves_no_built_model_behind(name):
    model = classifier()
    with pytest.raises((TypeError, ValueError)):
        model.fit(**{"x": X, "y": Y, **WRONG[name]}, verbose=0)
    model.fit(X[:, :2], Y, verbose=0)
    assert model.parameters()["dense.kernel"].shape == (2, 8)


def test_refused_evaluation_and_prediction_build_nothing():
    model = classifier()
    for call in (lambda: model.evaluate(with_nan(X), Y), lambda: model.predict(with_nan(X))):
        with pytest.raises(ValueError, match="nan at row 3, column 1"):
            call()
    assert model.predict(X[:, :2]).shape == (60, 3)


REFUSED = {
    "class weights of zero": ({"class_weight": {0: 0, 1: 0, 2: 0}}, "`class_weight` leaves no row"),
    "class that is none": ({"class_weight": {7: 2.0}}, "`class_weight` must name classes from 0 to 2, got 7"),
    "weights zero where trained": (
        {"sample_weight": np.arange(60) >= 48, "validation_split": 0.2},
        "`sample_weight` must not be all zero in the training part",
    ),
    "negative weight": ({"sample_weight": np.where(np.arange(60) == 5, -1.0, 1.0)}, "got -1.0 at row 5"),
    "no columns": ({"x": X[:, :0]}, r"`x` must hold at least one number a row, got shape \(60, 0\)"),
    "one row of nothing": ({"x": []}, "`x` must have at least one row"),
    "tuple": ({"x": (X,)}, r"dense: expected a single value, got a tuple of 1; `x.0` has shape \(batch, 4\)"),
    "dict": ({"x": {"a": X}}, r"dense: expected a single value, got a dict of 1; `x.a` has shape \(batch, 4\)"),
    "one axis": ({"x": X[:, 0]}, r"dense: expected .* got \(batch,\); `x` has shape \(batch,\)"),
    "targets in a dict": ({"y": {"a": Y}}, r"`y` must be a single array for this loss, got a dict \(a\)"),
    "targets in a tuple": ({"y": (Y,)}, "`y` must be a single array for this loss"),
    "huge batch": ({"batch_size": 2**70}, "`batch_size` must be an integer of at most"),
    "callbacks": ({"callbacks": "early"}, "`callbacks` must be a Callback or a list of them, got 'early'"),
    "validation": ({"validation_data": (X,)}, r"^`validation_data`: it must give \(x, y\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    arguments, words = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=words):
        classifier().fit(**{"x": X, "y": Y, **arguments}, verbose=0)


def test_cross_entropy_of_a_single_class_is_refused():
    model = bn.Sequential([layers.Dense(1)])
    model.compile("cross_entropy")
    with pytest.raises(ValueError, match="at least two classes"):
        model.fit(X, np.zeros(60), verbose=0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: classifier(seed=2**64), "`seed` must be an integer of at most"),
        (lambda: bn.optimizers.SGD(momentum="a", nesterov=True), "`momentum` must be a number"),
        (lambda: layers.Dense(3, activation=layers.ReLU), "`activation` must be a name, .* got the class ReLU"),
        (lambda: layers.Reshape("a"), "`target_shape` must be an integer"),
        (lambda: layers.Concatenate(axis=0), "`axis` must not be 0"),
        (lambda: layers.Concatenate(axis="a"), "`axis` must be an integer"),
        (lambda: bn.Sequential(layers.Dense(3)), "`layers` must be a list of layers"),
        (lambda: callbacks.EarlyStopping(monitor=3), "`monitor` must be a name"),
        (lambda: callbacks.LambdaCallback(on_epoch_end=3), "`on_epoch_end` must be a function"),
        (lambda: callbacks.LambdaCallback(on_epoch_ends=print), "did you mean 'on_epoch_end'"),
        (lambda: classifier().build((None, 4)).set_parameters([1]), "`arrays` must be a dict"),
        (lambda: bn.from_dlpack([1, 2]), "`source` must speak DLPack"),
        (lambda: bn.Tensor(np.ma.array([1.0])), "masked"),
    ],
)
def test_refused_arguments(make, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make()


@pytest.mark.parametrize(
    ("loss", "meant"),
    [
        ("categorical_crossentropy", "cross_entropy"),
        ("sparse_categorical_crossentropy", "cross_entropy"),
        ("binary_crossentropy", "binary_cross_entropy"),
        ("mean_squared_error", "mse"),
        ("MeanAbsoluteError", "mae"),
        ("MSE", "mse"),
        ("bce", "binary_cross_entropy"),
    ],
)
def test_names_from_elsewhere_are_recognised(loss, meant):
    with pytest.raises(ValueError, match=f"did you mean '{meant}'"):
        classifier().compile(loss)


def test_accepted_spellings():
    model = classifier(metrics=None)
    model.fit(X, Y, shuffle=np.bool_(True), callbacks=None, verbose=0)
    layers.Dense(3, kernel_initializer=bn.initializers.HeNormal)
    assert layers.Reshape(4).target_shape == (4,)


def test_batches_of_several_inputs_in_a_list():
    a, b = bn.Input((4,), name="a"), bn.Input((4,), name="b")
    model = bn.Model([a, b], layers.Dense(3)(layers.Concatenate()([a, b])))
    model.compile("cross_entropy")
    model.fit([((X, X), Y), ({"a": X, "b": X}, Y)], epochs=2, verbose=0)
    model.fit((X, X), Y, validation_data=[(X, X), Y], verbose=0)


def test_a_list_of_batches_is_checked_before_the_first_step():
    model = classifier()
    model.fit(X, Y, verbose=0)
    before = model.parameters()
    for bad, words in (((X[:, :2], Y), "batch 1: `x` must have shape"), ((with_nan(X), Y), "batch 1: `x` holds nan")):
        with pytest.raises(ValueError, match=words):
            model.fit([(X, Y), bad], verbose=0)
    assert all(np.array_equal(before[path], array) for path, array in model.parameters().items())


class Failing(callbacks.Callback):
    """Raise in one hook."""

    def __init__(self, hook):
        setattr(self, hook, self.fail)

    def fail(self, *_):
        raise RuntimeError("mine")


def best_first(model, *others):
    """Fit with an early stopping that takes the first epoch for the best; return the weights that it had."""
    found = {}

    class Keep(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            found.setdefault("best", model.parameters())

    stopping = callbacks.EarlyStopping("loss", mode="max", patience=9, restore_best_weights=True)
    try:
        model.fit(X, Y, epochs=4, verbose=0, callbacks=[*others, stopping, Keep()])
    finally:
        found["end"] = model.parameters()
        best_first.found = found


def test_a_callback_that_fails_at_the_end_does_not_keep_others_from_theirs():
    with pytest.raises(RuntimeError, match="mine"):
        best_first(classifier(learning_rate=0.1), Failing("on_train_end"))
    found = best_first.found
    assert all(np.array_equal(found["best"][path], array) for path, array in found["end"].items())


def test_a_callback_that_fails_at_the_beginning_is_what_is_told():
    with pytest.raises(RuntimeError, match="mine"):
        classifier().fit(X, Y, verbose=0, callbacks=[Failing("on_train_begin"), callbacks.EarlyStopping("loss")])


@pytest.mark.parametrize(
    ("values", "mode", "stopped"),
    [
        ([math.inf, math.inf, math.inf], "min", 1),
        ([-math.inf, 5.0, 4.0], "min", 2),
        ([math.inf, 1.0, 2.0], "max", 2),
        ([math.inf, 1.0, 0.5], "min", None),
        ([math.nan, math.nan], "min", 1),
    ],
)
def test_infinities_are_compared_like_numbers(values, mode, stopped):
    model = classifier().build((None, 4))
    stopping = callbacks.EarlyStopping("value", patience=2, mode=mode)
    stopping.set_model(model)
    stopping.on_train_begin({})
    for epoch, value in enumerate(values):
        if stopping.stopped_epoch is None:
            stopping.on_epoch_end(epoch, {"value": value})
    assert stopping.stopped_epoch == stopped


@pytest.mark.parametrize(
    "callback",
    [
        callbacks.EarlyStopping("val_loss"),
        callbacks.ModelCheckpoint("model", "val_loss", save_best_only=True),
        callbacks.ModelCheckpoint("model-{val_los:.2f}"),
    ],
)
def test_a_name_that_the_logs_will_not_hold_is_told_before_the_first_step(callback):
    model = classifier().build((None, 4))
    before = model.parameters()
    with pytest.raises(ValueError, match="is not in the logs; there are loss"):
        model.fit(X, Y, verbose=0, callbacks=callback)
    assert all(np.array_equal(before[path], array) for path, array in model.parameters().items())


def test_a_name_that_another_callback_adds_may_be_monitored():
    class Adds(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["mine"] = 1.0

    history = classifier().fit(
        X, Y, epochs=5, verbose=0, callbacks=[Adds(), callbacks.EarlyStopping("mine", patience=1)]
    )
    assert history.epoch == [0, 1]


def test_short_hook_names_and_one_argument_schedules():
    batches = []
    short = callbacks.LambdaCallback(on_batch_end=lambda batch, logs: batches.append((batch, sorted(logs))))
    schedule = callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
    history = classifier().fit(X, Y, epochs=2, batch_size=30, verbose=0, callbacks=[short, schedule])
    assert batches == [(batch, ["loss"]) for batch in (0, 1, 0, 1)]
    assert history.history["learning_rate"] == [0.1, 0.05]


def test_what_a_callback_freezes_stays_and_the_rest_trains_on():
    kept = {}

    class Freeze(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                self.model.freeze("dense")
                kept.update(self.model.parameters())

    model = classifier()
    model.fit(X, Y, epochs=3, verbose=0, callbacks=Freeze())
    after = model.parameters()
    assert np.array_equal(after["dense.kernel"], kept["dense.kernel"])
    assert not np.array_equal(after["dense_1.kernel"], kept["dense_1.kernel"])


def test_what_a_callback_compiles_holds_from_then_on():
    class Stop(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                self.model.compile("cross_entropy", "sgd", learning_rate=0.0, metrics=["accuracy"])
                self.kept = self.model.parameters()

    model, stop = classifier(), Stop()
    history = model.fit(X, Y, epochs=3, verbose=0, callbacks=stop)
    assert all(np.array_equal(stop.kept[path], array) for path, array in model.parameters().items())
    assert np.isnan(history.history["accuracy"]).tolist() == [True, False, False]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_model_is_not_copied_by_halves(copied):
    x = bn.Input((4,))
    for model in (bn.Sequential([layers.Dense(3)]), bn.Model(x, layers.Dense(2)(x)), classifier().build((None, 4))):
        with pytest.raises(TypeError, match="a model cannot be copied or pickled: save it"):
            copied(model)


def test_tensors_are_copied_and_pickled():
    tensor = bn.Tensor([1.0, 2.0], requires_grad=True)
    for twin in (copy.deepcopy(tensor), pickle.loads(pickle.dumps(tensor))):
        assert twin.numpy().tolist() == [1.0, 2.0]
        assert twin.requires_grad


def test_arrays_of_indices_follow_numpy():
    tensor, array = bn.Tensor([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0])
    assert tensor[[-1, 0]].numpy().tolist() == array[[-1, 0]].tolist()
    for key in ([3], [-4], np.array([True, False, True]), [0.5]):
        with pytest.raises(IndexError):
            tensor[key]


def test_a_thousand_layers_are_made_and_named_in_no_time():
    began = time.process_time()
    model = bn.Sequential([layers.Dense(2) for _ in range(1000)])
    assert list(model.children())[-1] == "dense_999"
    assert time.process_time() - began < 2


def test_paths_may_be_bytes(tmp_path):
    model = classifier().build((None, 4))
    path = bytes(tmp_path / "model")
    model.save(path)
    assert np.array_equal(bn.load(path).predict(X), model.predict(X))


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's here")
def test_too_large_an_array_is_a_memory_error():
    code = """if True:
        import resource
        import numpy as np
        import burnish as bn
        x = np.ones((8, 4), np.float32)
        model = bn.Sequential([bn.layers.Dense(3)])
        model.compile("mse")
        model.fit(x, x[:, :3], verbose=0)
        before = model.predict(x)
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        tall, wide = (bn.Tensor(np.ones(shape, np.float32)) for shape in [(2**17, 1), (1, 2**17)])
        for large in (lambda: tall * wide, lambda: bn.Sequential([bn.layers.Dense(2**29)]).predict(x)):
            try:
                large()
            except MemoryError as error:
                print(error)
        assert np.array_equal(model.predict(x), before)
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.stdout.splitlines(), run.stderr) == (
        ["there is no memory for an array of 68.7 GB", "there is no memory for an array of 17.2 GB"],
        "",
    )
