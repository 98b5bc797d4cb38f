"""Bad input: an exception that names the argument, what was expected and what came; the model is as before."""

import numpy as np
import pytest

import burnish as bn
from burnish import layers

RNG = np.random.default_rng(2)
X = RNG.normal(size=(64, 5)).astype(np.float32)
Y = RNG.integers(0, 10, size=64)
NAN = X.copy()
NAN[17, 3] = np.nan
HIGH = Y.copy()
HIGH[9] = 12


@pytest.mark.parametrize(
    "call",
    [
        lambda: bn.ops.take(bn.Tensor([1.0, 2.0]), [0, 5]),
        lambda: bn.ops.one_hot([0, 5], 2),
        lambda: bn.losses.cross_entropy(np.array([0, 5]), bn.Tensor(np.zeros((2, 2)))),
    ],
)
def test_an_index_outside_is_told_as_such(call):
    with pytest.raises(ValueError, match=r"index 5 is outside 0 to 1 of the axis that it picks from$"):
        call()


def classifier():
    model = bn.Sequential([layers.Dense(10)])
    model.compile("cross_entropy", "adam", 0.01, ["accuracy"])
    return model


def regressor():
    model = bn.Sequential([layers.Dense(1)])
    model.compile("mse")
    return model


DATA = {
    "rows": ((X, Y[:63]), ValueError, "`y` must have 64 rows like `x`, got 63"),
    "label too high": ((X, HIGH), ValueError, "`y` must hold labels from 0 to 9, got 12 at row 9"),
    "label negative": ((X, -1 - Y), ValueError, r"`y` must hold labels from 0 to 9, got -\d+ at row 0"),
    "label with fraction": ((X, Y + 0.5 * (Y[3] == Y)), ValueError, r"`y` must hold whole numbers .*, got \d.5"),
    "label column": ((X, Y[:, None]), ValueError, r"`y` must have shape \(batch,\) for .* got \(batch, 1\); use"),
    "classes": ((X, np.eye(9)[Y % 9]), ValueError, r"or \(batch, 10\) for probabilities, got \(batch, 9\)"),
    "nan": ((NAN, Y), ValueError, "`x` holds nan at row 17, column 3; check_data=False"),
    "infinity": ((np.where(np.isnan(NAN), np.inf, NAN), Y), ValueError, "`x` holds inf at row 17, column 3"),
    "float32 has no such number": (
        (np.where(np.isnan(NAN), 1e39, X.astype("f8")), Y),
        ValueError,
        r"`x` holds 1e\+39 at row 17, column 3, which is infinite in single precision",
    ),
    "big-endian nan": ((NAN.astype(">f8"), Y), ValueError, "`x` holds nan at row 17, column 3"),
    "nan in y": ((X, np.where(Y[5] == Y, np.nan, Y)), ValueError, "`y` holds nan at row"),
    "complex": ((X.astype(complex), Y), TypeError, "`x` must hold numbers .* got dtype complex128"),
    "strings": ((X, Y.astype(str)), TypeError, "`y` must hold numbers .* got dtype <U"),
    "objects": ((X.astype(object), Y), TypeError, "`x` must hold numbers .* got dtype object"),
    "dates": ((X.astype("M8[s]"), Y), TypeError, "`x` must hold numbers"),
    "ragged": (([[1, 2], [3]], Y[:2]), TypeError, "`x` must be an array of numbers, got list"),
    "masked": ((np.ma.masked_invalid(NAN), Y), TypeError, "`x` must be a plain array, got a masked one"),
    "empty": ((X[:0], Y[:0]), ValueError, "`x` must have at least one row, got none"),
    "number": ((3.0, Y), ValueError, "`x` must have an axis of rows"),
    "nothing": ((X, None), ValueError, "`y` is needed"),
    "empty tuple": (((), Y), ValueError, "`x` must hold at least one array"),
    "vector": ((X[:, 0], Y), ValueError, r"dense: expected an input of shape \(batch, features\)"),
    "nan in image": ((NAN.reshape(64, 5, 1), Y), ValueError, ""),
    "no batches": (([],), ValueError, "`x` must have at least one row"),
    "iterator of nothing": ((iter([]),), ValueError, "`x` must give at least one batch"),
    "iterator of numbers": ((iter([1, 2]),), TypeError, r"`x` must give \(x, y\)"),
    "batches and y": ((iter([(X, Y)]), Y), ValueError, "`y` must be left out"),
    "bad second batch": (([(X, Y), (X[:, :4], Y)],), ValueError, r"`x` must have shape \(batch, 5\), got \(batch, 4\)"),
    "nan in second batch": (([(X, Y), (NAN, Y)],), ValueError, "`x` holds nan at row 17, column 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_data(name):
    arguments, error, words = DATA[name]
    with pytest.raises(error, match=words or None):
        classifier().fit(*arguments, verbose=0)


OPTIONS = {
    "batch_size=0": (ValueError, "`batch_size` must be an integer of at least 1, got 0"),
    "batch_size=2.5": (TypeError, r"`batch_size` must be an integer of at least 1, got 2.5 \(float\)"),
    "batch_size=True": (TypeError, r"`batch_size` .* got True \(bool\)"),
    "batch_size='32'": (TypeError, "`batch_size`"),
    "batch_size=10**5000": (ValueError, "`batch_size` must be an integer of at most .*, got one of 16610 bits"),
    "epochs=-1": (ValueError, "`epochs` must be an integer of at least 0, got -1"),
    "epochs=1.0": (TypeError, "`epochs`"),
    "initial_epoch=-1": (ValueError, "`initial_epoch`"),
    "validation_split=1.5": (ValueError, r"`validation_split` must be a finite number in \[0, 1\), got 1.5"),
    "validation_split=1.0": (ValueError, "`validation_split`"),
    "validation_split=0.999": (ValueError, "leaves an empty part"),
    "validation_split=True": (TypeError, "`validation_split`"),
    "validation_split=float('nan')": (ValueError, "`validation_split`"),
    "validation_split=0.5, validation_data=(X, Y)": (ValueError, "not both"),
    "validation_data=X": (TypeError, r"`validation_data`"),
    "validation_data=(X, Y, None, None)": (TypeError, "`validation_data`"),
    "validation_data=(X[:, :4], Y)": (
        ValueError,
        r"`validation_data`: `x` must have shape \(batch, 5\), got \(batch, 4\)",
    ),
    "validation_data=(X, np.eye(10)[Y])": (ValueError, r"`validation_data`: `y` must have shape \(batch,\)"),
    "validation_data=(X, HIGH)": (ValueError, "`validation_data`: `y` must hold labels from 0 to 9, got 12 at row 9"),
    "validation_data=(NAN, Y)": (ValueError, "`validation_data`: `x` holds nan at row 17"),
    "validation_data=(X, Y[:3])": (ValueError, "`validation_data`: `y` must have 64 rows"),
    "shuffle=1": (TypeError, "`shuffle` must be True or False"),
    "sample_weight=np.ones(63)": (ValueError, r"`sample_weight` must have shape \(64,\).*got \(63,\)"),
    "sample_weight=np.ones((64, 1))": (ValueError, "`sample_weight` must have shape"),
    "sample_weight=-np.ones(64)": (ValueError, "`sample_weight` must be finite and not negative"),
    "sample_weight=np.full(64, np.nan)": (ValueError, "`sample_weight`"),
    "sample_weight=np.zeros(64)": (ValueError, "`sample_weight` must not be all zero"),
    "class_weight=[1, 2]": (TypeError, "`class_weight` must be a dict"),
    "class_weight={'a': 1.0}": (ValueError, "`class_weight`: a class must be an integer"),
    "class_weight={0: -1.0}": (ValueError, r"`class_weight\[0\]`"),
    "class_weight={1: 10**400}": (ValueError, r"`class_weight\[1\]` must be a finite number .*, got one that no float"),
    "class_weight={0: 'much'}": (TypeError, r"`class_weight\[0\]`"),
    "callbacks=[print]": (TypeError, "`callbacks` must hold"),
    "verbose=3": (ValueError, "`verbose` must be 0, 1, 2 or 'auto', got 3"),
    "verbose='loud'": (ValueError, "`verbose`"),
    "check_data=0": (TypeError, "`check_data`"),
    "validation_batch_size=0": (ValueError, "`validation_batch_size`"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_fit_options(option):
    error, words = OPTIONS[option]
    options = eval(f"dict({option})", {"X": X, "Y": Y, "NAN": NAN, "HIGH": HIGH, "np": np})  # fmt: skip
    model = classifier()
    model.fit(X, Y, verbose=0)
    before, state = model.parameters(), model.history
    with pytest.raises(error, match=words):
        model.fit(X, Y, **{"verbose": 0, **options})
    assert model.history is state
    assert all(np.array_equal(before[path], array) for path, array in model.parameters().items())


COMPILE = {
    "'cross_entrpy'": (ValueError, "`loss`: unknown name 'cross_entrpy'; did you mean 'cross_entropy'"),
    "3": (TypeError, "`loss` must be a name or a function"),
    "'mse', 'adamm'": (ValueError, "`optimizer`: unknown name 'adamm'; did you mean 'adam"),
    "'mse', 3": (TypeError, "`optimizer`"),
    "'mse', metrics=['acuracy']": (ValueError, "`metrics`: unknown name 'acuracy'; did you mean 'accuracy'"),
    "'mse', metrics=['mae', 'mae']": (ValueError, "'mae' is taken twice"),
    "'mse', metrics=[lambda t, p: p, lambda t, p: t]": (ValueError, "'lambda' is taken twice"),
    "'mse', metrics=[type('weight', (), {'__call__': lambda s, t, p: p})()]": (ValueError, "'weight' is taken"),
    "'mse', metrics=[3]": (TypeError, "`metrics` must be names or functions"),
    "'mse', learning_rate=float('nan')": (ValueError, "`learning_rate` must be a finite number of at least 0, got nan"),
    "'mse', learning_rate=-0.1": (ValueError, "`learning_rate`"),
    "'mse', learning_rate='fast'": (TypeError, "`learning_rate`"),
    "'mse', learning_rate=True": (TypeError, "`learning_rate`"),
    "'mse', weight_decay=-1": (ValueError, "`weight_decay`"),
    "'mse', clip_norm=0": (ValueError, "`clip_norm` must be a finite number greater than 0, got 0"),
    "'mse', clip_value=-1": (ValueError, "`clip_value`"),
    "'mse', accumulate_gradients=0": (ValueError, "`accumulate_gradients`"),
    "'mse', accumulate_gradients=1.5": (TypeError, "`accumulate_gradients`"),
    "'mse', grad_method='numeric'": (ValueError, "`grad_method`: unknown name 'numeric'; did you mean 'numerical'"),
    "'mse', precision='float23'": (ValueError, "`precision`: unknown name 'float23'; did you mean 'float32'"),
    "'mse', precision=32": (TypeError, "`precision`"),
    "'mse', device='cpuu'": ((ValueError, RuntimeError), "cpu"),
    "'mse', device=0": (TypeError, "`device`"),
    "'mse', clip_norm=10**400": (ValueError, "`clip_norm` must be a finite number .*, got one that no float holds"),
    "'mse', learning_rate=10**5000": (ValueError, "`learning_rate` must be a finite number"),
    "'mse', seed=-1": (ValueError, "`seed`"),
    "'mse', seed=0.5": (TypeError, "`seed`"),
}


@pytest.mark.parametrize("arguments", COMPILE)
def test_compile(arguments):
    error, words = COMPILE[arguments]
    model = classifier()
    model.fit(X, Y, verbose=0)
    twin = classifier()
    twin.fit(X, Y, verbose=0)
    with pytest.raises(error, match=words):
        eval(f"model.compile({arguments})", {"model": model})
    assert model.fit(X, Y, verbose=0).history == twin.fit(X, Y, verbose=0).history


MISSPELT = {
    "model.compile('mse', lr=0.1)": "learning_rate",
    "model.compile('mse', lerning_rate=0.1)": "learning_rate",
    "model.compile('mse', wd=0.1)": "weight_decay",
    "model.compile('mse', clipnorm=0.1)": "clip_norm",
    "model.fit(X, Y, batchsize=8)": "batch_size",
    "model.fit(X, Y, epoch=8)": "epochs",
    "model.evaluate(X, Y, batch=8)": "batch_size",
    "model.predict(X, callback=[])": "callbacks",
    "model.train_on_batch(X, Y, sample_weights=Y)": "sample_weight",
    "bn.optimizers.Adagrad(lr=0.1)": "learning_rate",
    "bn.optimizers.AdamW(wd=0.1)": "weight_decay",
}


@pytest.mark.parametrize("call", MISSPELT)
def test_misspelt_arguments(call):
    with pytest.raises(TypeError, match=rf"unexpected keyword argument '\w+'; did you mean '{MISSPELT[call]}'\?"):
        eval(call, {"model": classifier(), "bn": bn, "X": X, "Y": Y})


def test_arguments_that_nothing_resembles_are_told_the_known_ones():
    with pytest.raises(TypeError, match=r"argument 'jit'; known: batch_size, callbacks, check_data, x$"):
        classifier().predict(X, jit=True)


def test_targets_that_would_broadcast():
    for y in (X[:, 0], X[:, :2]):
        with pytest.raises(ValueError, match=r"`y` must have shape \(batch, 1\) like the prediction, got"):
            regressor().fit(X, y, verbose=0)
    with pytest.raises(ValueError, match=r"use y\[..., None\]"):
        regressor().fit(X, X[:, 0], verbose=0)
    flat = bn.Sequential([layers.Dense(1), layers.Reshape(())])
    flat.compile("mae")
    with pytest.raises(ValueError, match=r"got \(batch, 1\); use y.reshape"):
        flat.fit(X, X[:, :1], verbose=0)


def test_a_users_loss_that_broadcasts_or_reduces_is_refused():
    def broadcasts(target, prediction):
        return bn.ops.square(target - prediction)

    model = bn.Sequential([layers.Dense(1)])
    for loss, words in [
        (broadcasts, "batch"),
        (lambda t, p: bn.ops.mean(p), r"`loss` must return a value per sample, shape \(batch, …\), got \(\)"),
        (lambda t, p: 3.0, "`loss` must return a value per sample made of bn.ops, got float"),
        (lambda t, p: np.square(p), ""),
    ]:
        model.compile(loss)
        with pytest.raises((ValueError, TypeError), match=words or None):
            model.fit(X, X[:, 0], verbose=0)


def test_a_failed_first_fit_leaves_an_unbuilt_model():
    model = classifier()
    with pytest.raises(ValueError, match="rows"):
        model.fit(X, Y[:3], verbose=0)
    with pytest.raises(ValueError, match="not known yet"):
        model.parameters()
    with pytest.raises(ValueError, match="for labels"):
        model.fit(X[:, :3], Y[:, None], verbose=0)
    model.fit(X, Y, verbose=0)


def test_checks_can_be_left_out():
    model = classifier()
    with pytest.warns(RuntimeWarning, match="not finite"):
        model.fit(NAN, Y, check_data=False, verbose=0)
    assert np.isnan(model.predict(NAN, check_data=False)[17]).all()
    for call in (model.predict, lambda x: model.evaluate(x, Y), lambda x: model.train_on_batch(x, Y)):
        with pytest.raises(ValueError, match="`x` holds nan at row 17, column 3"):
            call(NAN)


@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_that_single_precision_has_pass(sign):
    model = regressor().build((None, 5))
    x = np.full((2, 5), sign * 2.0**127)
    x[1, 2] = sign * np.nextafter(2.0**128 - 2.0**103, 0)
    assert np.isfinite(x.astype("f4")).all()
    model.predict(x)
    x[1, 2] = sign * (2.0**128 - 2.0**103)
    for array in (x, np.asfortranarray(x), x.astype(">f8")):
        with pytest.raises(ValueError, match=r"`x` holds -?3\.4\S*e\+38 at row 1, column 2, which is infinite"):
            model.predict(array)
    model.predict(x, check_data=False)
    model.compile("mse", precision="float64")
    model.fit(x, x[:, :1], verbose=0)


def test_embeddings_check_their_indices():
    model = bn.Sequential([layers.Embedding(10, 3), layers.GlobalAvgPool(), layers.Dense(2)])
    model.compile("cross_entropy")
    x = RNG.integers(0, 10, size=(8, 4))
    model.fit(x, x[:, 0] % 2, verbose=0)
    x[5, 2] = 10
    with pytest.raises(ValueError, match="`x` must hold indices from 0 to 9, got 10 at row 5"):
        model.predict(x)
    with pytest.raises(ValueError, match=r"`x` must hold whole numbers from 0 to 9, got 0.5 at row 0"):
        model.predict(np.full((2, 4), 0.5))


def test_indices_behind_other_operations_are_safe():
    """What a check of the data cannot see must not read outside of the table."""
    model = bn.Sequential([layers.Lambda(lambda x: bn.ops.take(np.arange(12.0).reshape(4, 3), x + 1.0 - 1.0))])
    try:
        assert model.predict(np.array([[1e9], [-5.0]])).shape == (2, 1, 3)
    except (ValueError, IndexError, RuntimeError) as error:
        assert "inde" in str(error) or "range" in str(error)  # noqa: PT017  either is safe


def test_using_before_compiling():
    model = bn.Sequential([layers.Dense(3)])
    for call in (lambda: model.fit(X, Y), lambda: model.evaluate(X, Y), lambda: model.train_on_batch(X, Y)):
        with pytest.raises(ValueError, match="call compile first"):
            call()


def test_other_shapes_after_building():
    model = classifier()
    model.fit(X, Y, verbose=0)
    for call in (
        lambda: model.fit(X[:, :4], Y, verbose=0),
        lambda: model.predict(X[:, :4]),
        lambda: model.predict(X[0]),
    ):
        with pytest.raises(ValueError, match=r"`x` must have shape \(batch, 5\), got \(batch"):
            call()


def test_a_metric_or_loss_for_an_output_that_is_not_there():
    node = bn.Input((5,))
    model = bn.Model(node, {"a": layers.Dense(3)(node), "b": layers.Dense(3)(node)})
    y = {"a": Y % 3, "b": Y % 3}
    for options, words in [
        ({"loss": {"a": "cross_entropy", "c": "mse"}}, "`loss`: the model has no output 'c'"),
        ({"loss": "cross_entropy", "metrics": {"c": ["mae"]}}, "`metrics`: the model has no output 'c'"),
        ({"loss": ["cross_entropy"]}, "one loss for each of 2 outputs, got 1"),
        ({"loss": {}}, "at least one output"),
    ]:
        model.compile(**options)
        with pytest.raises(ValueError, match=words):
            model.fit(X, y, verbose=0)
    model.compile("cross_entropy")
    for wrong in (Y % 3, {"a": Y % 3}, (Y % 3, Y % 3)):
        with pytest.raises(ValueError, match="`y` must hold one array for each output"):
            model.fit(X, wrong, verbose=0)
    with pytest.raises(ValueError, match=r"`y.b` must hold labels from 0 to 2, got 7 at row 2"):
        model.fit(X, {"a": Y % 3, "b": np.where(np.arange(64) == 2, 7, 0)}, verbose=0)


def test_functional_models_that_do_not_hold_together():
    a, b = bn.Input((5,)), bn.Input((5,))
    for make, error, words in [
        (lambda: bn.Model(a, layers.Dense(1)(b)), ValueError, "not among `inputs`"),
        (lambda: bn.Model(a + 1.0, a), ValueError, "values of bn.Input itself"),
        (lambda: bn.Model(a, 3), TypeError, "`outputs` must be made from bn.Input"),
        (
            lambda: bn.Model([bn.Input((2,), name="n"), bn.Input((2,), name="n")], a),
            ValueError,
            "two inputs are named 'n'",
        ),
        (lambda: layers.Dense(3)(bn.Input(())), ValueError, "dense: expected"),
        (lambda: bn.Sequential([layers.Dense(2), a]), ValueError, "only as the first"),
    ]:
        with pytest.raises(error, match=words):
            make()
    model = bn.Model([a, b], a + b)
    with pytest.raises(ValueError, match="tuple or dict of 2 arrays"):
        model.predict(X)
    with pytest.raises(ValueError, match="`x` must hold the inputs input, input_1, got u, v"):
        model.predict({"u": X, "v": X})


def test_values_of_a_model_are_not_numbers():
    def compares(x):
        return x if x > 0 else -x

    for function, words in [
        (compares, "neither true nor false"),
        (np.asarray, "no numbers"),
        (lambda x: x[0], "batch axis"),
        (lambda x: next(iter(x)), "batch cannot be iterated"),
    ]:
        with pytest.raises((TypeError, IndexError), match=words):
            bn.Sequential([layers.Lambda(function)]).build((None, 3))


def test_a_layer_added_too_late():
    model = classifier()
    model.fit(X, Y, verbose=0)
    with pytest.raises(ValueError, match="cannot be added"):
        model.add(layers.Dense(2))


def test_probabilities_must_be_such():
    for loss, y in (("binary_cross_entropy", 2.0 * (X[:, :2] > 0) - 1), ("cross_entropy", 3.0 * np.eye(2)[Y % 2])):
        model = bn.Sequential([layers.Dense(2)])
        model.compile(loss)
        with pytest.raises(ValueError, match=r"`y` must lie in \[0, 1\] for this loss, got .* to"):
            model.fit(X, y, verbose=0)
        model.fit(X, y, check_data=False, verbose=0)


def test_a_model_is_not_called_with_arrays():
    with pytest.raises(TypeError, match="takes arrays in predict"):
        classifier()(X)


def test_batches_that_can_be_read_once():
    model = classifier()
    with pytest.raises(ValueError, match="`validation_data`: `x` is an iterator, which gives its batches once"):
        model.fit(X, Y, epochs=2, validation_data=iter([(X, Y)]), verbose=0)

    class Once:
        batches = iter([(X, Y)])

        def __iter__(self):
            return (batch for batch in self.batches)

    with pytest.raises(ValueError, match="gave no batch when it was read again"):
        model.fit(Once(), epochs=2, verbose=0)
    assert len(model.history.epoch) == 1


def test_labels_out_of_range_are_safe_without_the_check():
    model = classifier()
    try:
        model.fit(X, HIGH, check_data=False, verbose=0)
    except (ValueError, RuntimeError) as error:
        assert "12" in str(error) or "range" in str(error)  # noqa: PT017  either is safe


def test_an_iterator_for_several_epochs():
    with pytest.raises(ValueError, match="gives its batches once, but 3 epochs"):
        classifier().fit(iter([(X, Y)]), epochs=3, verbose=0)


def test_a_monitor_that_is_not_in_the_logs():
    stopping = bn.callbacks.EarlyStopping("val_loss")
    with pytest.raises(ValueError, match="`monitor` 'val_loss' is not in the logs; there are loss, accuracy"):
        classifier().fit(X, Y, callbacks=[stopping], verbose=0)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: bn.callbacks.EarlyStopping(patience=-1), ValueError),
        (lambda: bn.callbacks.EarlyStopping(mode="best"), ValueError),
        (lambda: bn.callbacks.EarlyStopping(min_delta=-1), ValueError),
        (lambda: bn.callbacks.EarlyStopping(restore_best_weights=1), TypeError),
        (lambda: bn.callbacks.LearningRateScheduler(0.1), TypeError),
        (lambda: bn.callbacks.LambdaCallback(on_epoch_and=print), ValueError),
        (lambda: bn.losses.CrossEntropy(1.0), ValueError),
        (lambda: bn.losses.Huber(0), ValueError),
        (lambda: bn.initializers.Normal(stddev=-1), ValueError),
        (lambda: bn.initializers.Uniform(1, 0), ValueError),
    ],
)
def test_bad_arguments_of_objects(make, error):
    with pytest.raises(error):
        make()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda model, path: bn.gradients(None, X, Y), TypeError, "`model` must be a model, got NoneType"),
        (lambda model, path: bn.check_gradients(X, X, Y), TypeError, "`model` must be a model, got ndarray"),
        (lambda model, path: bn.check_gradients(model, X, Y, seed=-1), ValueError, "`seed` must be an integer of at l"),
        (lambda model, path: bn.check_gradients(model, X, Y, seed="1"), TypeError, "`seed` must be an integer"),
        (lambda model, path: model.load_weights(path, strict="no"), TypeError, "`strict` must be True or False, got"),
        (lambda model, path: model.set_parameters({1: Y}), TypeError, "`arrays` must be .* got the path 1"),
    ],
)
def test_bad_arguments_beside_a_fit(call, error, words, tmp_path):
    model = classifier().build((None, 5))
    model.save_weights(tmp_path / "weights")
    with pytest.raises(error, match=words):
        call(model, tmp_path / "weights")


def test_auto_device_says_what_it_chose():
    if len(bn.devices()) > 2:
        pytest.skip("there is an accelerator")
    model = bn.Sequential([layers.Dense(1)])
    with pytest.warns(UserWarning, match="device='auto' uses the CPU: there is no accelerator"):
        model.compile("mse", device="auto")
    assert model.device == "cpu"
