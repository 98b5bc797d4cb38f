"""Three ways to make a model, several inputs and outputs, nesting, freezing, files."""

import json

import numpy as np
import pytest

import burnish as bn
from burnish import _burnish, layers


class Subclass(bn.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(5, activation="tanh")
        self.dense_1 = layers.Dense(3)

    def call(self, x):
        return self.dense_1(self.dense(x))


class Forgetful(Subclass):
    """Does not call super().__init__, which is nobody's loss."""

    def __init__(self):
        self.dense, self.dense_1 = layers.Dense(5, activation="tanh"), layers.Dense(3)


def sequential():
    return bn.Sequential([layers.Dense(5, activation="tanh"), layers.Dense(3)])


def functional():
    x = bn.Input((4,))
    return bn.Model(x, layers.Dense(3)(layers.Dense(5, activation="tanh")(x)))


WAYS = [sequential, functional, Subclass, Forgetful]


def compiled(model, **options):
    model.compile("cross_entropy", "adam", 0.01, ["accuracy"], **options)
    return model


@pytest.mark.parametrize("make", WAYS)
def test_every_way_is_the_same_model(make, digits):
    x, y = digits
    expected = compiled(sequential())
    model = compiled(make())
    one = expected.fit(x, y, epochs=2, verbose=0)
    two = model.fit(x, y, epochs=2, verbose=0)
    assert one.history == two.history
    np.testing.assert_array_equal(model.predict(x), expected.predict(x))
    assert list(model.parameters()) == ["dense.bias", "dense.kernel", "dense_1.bias", "dense_1.kernel"]


@pytest.mark.parametrize("make", WAYS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", bn.optimizers.RMSprop(centered=True, momentum=0.9)])
def test_a_loaded_model_takes_the_same_next_step(make, optimizer, digits, tmp_path):
    x, y = digits
    model = make()
    model.compile("cross_entropy", optimizer, 0.01, ["accuracy"], accumulate_gradients=2, seed=3)
    model.fit(x, y, epochs=2, verbose=0)
    model.train_on_batch(x[:8], y[:8])  # leaves an accumulation group open
    model.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    assert loaded.evaluate(x, y) == model.evaluate(x, y)
    assert loaded.train_on_batch(x[8:16], y[8:16]) == model.train_on_batch(x[8:16], y[8:16])
    assert loaded.fit(x, y, epochs=2, verbose=0).history == model.fit(x, y, epochs=2, verbose=0).history
    for path, array in model.parameters(buffers=True).items():
        np.testing.assert_array_equal(loaded.parameters(buffers=True)[path], array)


def test_saving_needs_no_compile(digits, tmp_path):
    x, y = digits
    model = functional()
    model.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    one, two = (compiled(m).fit(x, y, epochs=2, verbose=0).history for m in (model, loaded))
    assert one == two


def test_a_loaded_model_can_be_compiled_anew_and_be_a_layer(digits, tmp_path):
    x, y = digits
    base = compiled(bn.Sequential([layers.Dense(6, "relu"), layers.BatchNorm(), layers.Dropout(0.2), layers.Dense(3)]))
    base.fit(x, y, epochs=3, verbose=0)
    base.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    for model in (base, loaded):
        model.compile("mse", "sgd", 0.01)
    target = np.eye(3)[y]
    assert base.fit(x, target, epochs=2, verbose=0).history == loaded.fit(x, target, epochs=2, verbose=0).history
    larger = compiled(bn.Sequential([bn.load(tmp_path / "model"), layers.Dense(3)]))
    larger.build((None, 4))
    assert "loaded_model.dense.kernel" in larger.parameters()
    larger.freeze("loaded_model")
    before = larger.parameters(buffers=True)
    larger.fit(x, y, epochs=1, verbose=0)
    changed = {
        path for path, array in larger.parameters(buffers=True).items() if not np.array_equal(array, before[path])
    }
    assert changed == {"dense.kernel", "dense.bias"}


@pytest.mark.parametrize("again", [False, True])
def test_after_compile_with_another_loss_only_training_needs_its_targets(again, digits, tmp_path):
    x, y = digits

    def trained():
        model = compiled(sequential())
        model.fit(x, y, verbose=0)
        model.save(tmp_path / "model")
        return bn.load(tmp_path / "model") if again else model

    model, expected = trained(), trained()
    weights, before = expected.parameters(), expected.predict(x)
    for each in (model, expected):
        each.compile("mse", "adam", ema=0.5)
    np.testing.assert_array_equal(model.predict(x), before)
    for average in (False, True):
        for path, array in model.parameters(average=average).items():
            np.testing.assert_array_equal(array, weights[path])
    model.freeze("dense")
    model.unfreeze("dense")
    model.summary()
    model.save_weights(tmp_path / "weights")
    assert not any(model.load_weights(tmp_path / "weights"))
    model.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(x), before)
    with pytest.raises(ValueError, match="before it had seen targets for its loss: call compile first"):
        loaded.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match="`y` must have shape"):
        model.fit(x, y, verbose=0)
    target = np.eye(3)[y]
    assert model.fit(x, target, epochs=2, verbose=0).history == expected.fit(x, target, epochs=2, verbose=0).history
    assert model.evaluate(x, target) == expected.evaluate(x, target)


def test_after_compile_with_the_same_loss_a_saved_model_trains_on(digits, tmp_path):
    x, y = digits
    model = compiled(sequential())
    model.fit(x, y, verbose=0)
    compiled(model, param_groups=bn.ParamGroup("no_such_layer"))
    assert np.isfinite(model.predict(x)).all()
    with pytest.raises(ValueError, match="'no_such_layer' matches no parameter"):
        model.fit(x, y, verbose=0)
    compiled(model)
    model.fit(x, y, verbose=0)
    compiled(model)
    model.save(tmp_path / "model")
    assert bn.load(tmp_path / "model").fit(x, y, verbose=0).history == model.fit(x, y, verbose=0).history


def test_a_loss_compiled_while_a_fit_runs_must_take_its_targets(digits):
    x, y = digits
    model = compiled(sequential())
    other = bn.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: model.compile("mse"))
    with pytest.raises(ValueError, match="`y` must have shape"):
        model.fit(x, y, epochs=2, callbacks=other, verbose=0)
    assert np.isfinite(model.predict(x)).all()


def test_freezing_a_loaded_model(digits, tmp_path):
    x, y = digits
    model = compiled(bn.Sequential([layers.Dense(6), layers.BatchNorm(), layers.Dense(3)]))
    model.fit(x, y, verbose=0)
    model.freeze("dense")
    model.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    loaded.freeze("dense_1.bias")
    model.freeze("dense_1.bias")
    assert loaded.fit(x, y, verbose=0).history == model.fit(x, y, verbose=0).history
    for path in ("dense.kernel", "dense_1.bias"):
        np.testing.assert_array_equal(loaded.parameters()[path], model.parameters()[path])
    with pytest.raises(ValueError, match=r"compile the loaded model again before freezing .* 'batch_norm.moving_mean'"):
        loaded.freeze("batch_norm")
    assert loaded.fit(x, y, verbose=0).history == model.fit(x, y, verbose=0).history
    with pytest.raises(ValueError, match=r"`y` must have shape \(batch,\), got \(batch, 3\)"):
        loaded.evaluate(x, np.eye(3)[y])
    compiled(loaded)
    with pytest.raises(ValueError, match="freeze all of it"):
        loaded.freeze("batch_norm.moving_mean")
    loaded.freeze()
    before = loaded.parameters(buffers=True)
    loaded.fit(x, y, verbose=0)
    assert all(np.array_equal(before[path], array) for path, array in loaded.parameters(buffers=True).items())


def test_a_loaded_model_of_indices_checks_them_anew(tmp_path):
    x = np.arange(12).reshape(4, 3)
    model = bn.Sequential([layers.Embedding(12, 2), layers.Flatten(), layers.Dense(2)])
    compiled(model).fit(x, x[:, 0] % 2, verbose=0)
    model.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    for each in (loaded, compiled(loaded) or loaded):
        with pytest.raises(ValueError, match="`x` must hold indices from 0 to 11, got 12 at row 3"):
            each.fit(x + 1, x[:, 0] % 2, verbose=0)
    inner = bn.load(tmp_path / "model")
    outer = compiled(bn.Sequential([inner, layers.Dense(2)]))
    assert np.isfinite(outer.predict(x)).all()
    with pytest.raises(TypeError, match="takes arrays in predict"):
        loaded(x)


def test_models_with_several_outputs_inside_models(digits):
    x, _ = digits
    node = bn.Input((4,))
    split = bn.Model(node, [layers.Dense(2, name="a")(node), layers.Dense(2, name="b")(node)])
    named = bn.Model(node, {"sum": node + 1.0, "half": node / 2.0})
    left, right = split(node)
    parts = named(node)
    model = bn.Model(node, layers.Concatenate()([left * right, parts["sum"], parts["half"]]))
    p = model.parameters()
    product = (x @ p["functional.a.kernel"]) * (x @ p["functional.b.kernel"])
    np.testing.assert_allclose(model.predict(x), np.concatenate([product, x + 1, x / 2], 1), rtol=1e-4, atol=1e-5)


def test_functional_values_know_their_shapes_and_refuse_strangers():
    node = bn.Input((4, 3))
    assert layers.Flatten()(node).shape == (None, 12)
    assert repr(node[:, 1:] @ np.ones((3, 2))) == "<Node shape=(None, 3, 2) kind=float>"
    assert (node > 0).kind == "bool"
    with pytest.raises(TypeError, match="no numbers"):
        node.numpy()

    class Leaks(layers.Layer):
        def call(self, x):
            return x + node

    with pytest.raises(ValueError, match="was used inside a layer's `call`"):
        bn.Sequential([Leaks()]).build((None, 4, 3))


def test_a_value_kept_between_traces_is_refused():
    class Keeps(layers.Layer):
        kept = None

        def call(self, x):
            self.kept = x if self.kept is None else self.kept
            return x + self.kept

    layer = Keeps()
    bn.Sequential([layer]).build((None, 3))
    with pytest.raises(ValueError, match="earlier trace"):
        bn.Sequential([layer]).build((None, 3))


def test_a_trained_model_inside_another_brings_its_weights(digits):
    x, y = digits
    inner = compiled(sequential())
    inner.fit(x, y, verbose=0)
    outer = bn.Sequential([inner, layers.Softmax()])
    logits = inner.predict(x).astype(float)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(outer.predict(x), expected, rtol=1e-5, atol=1e-7)
    assert sorted(outer.parameters())[0] == "sequential.dense.bias"


def test_shared_layers_have_one_set_of_parameters(digits):
    x, y = digits
    shared = layers.Dense(4, name="shared")
    node = bn.Input((4,))
    model = compiled(bn.Model(node, layers.Dense(3)(shared(shared(node)))))
    assert sorted(model.parameters()) == ["dense.bias", "dense.kernel", "shared.bias", "shared.kernel"]
    p = model.parameters()
    hidden = (x @ p["shared.kernel"]) @ p["shared.kernel"]
    np.testing.assert_allclose(model.predict(x), hidden @ p["dense.kernel"], rtol=1e-4, atol=1e-5)
    report = bn.check_gradients(model, x[:5], y[:5])
    assert report.passed, report


def two_inputs():
    left, right = bn.Input((4,), name="left"), bn.Input((2,), name="right")
    joined = layers.Concatenate()([layers.Dense(3)(left), right * 2.0])
    return bn.Model([left, right], {"class": layers.Dense(3)(joined), "size": layers.Dense(1)(joined)})


def test_several_inputs_and_outputs(digits):
    x, y = digits
    data = {"left": x, "right": x[:, :2]}
    target = {"class": y, "size": x[:, :1]}
    model = two_inputs()
    model.compile({"class": "cross_entropy", "size": "mse"}, metrics={"class": ["accuracy"], "size": ["mae"]})
    history = model.fit(data, target, epochs=3, validation_split=0.2, verbose=0)
    names = ["loss", "class_loss", "class_accuracy", "size_loss", "size_mae"]
    assert list(history.history) == [*names, *(f"val_{name}" for name in names)]
    result = model.evaluate((x, x[:, :2]), target)  # a tuple goes by position
    assert result["loss"] == pytest.approx(result["class_loss"] + result["size_loss"])
    predicted = model.predict({"right": x[:, :2], "left": x})
    assert list(predicted) == ["class", "size"]
    assert result["class_accuracy"] == pytest.approx((predicted["class"].argmax(1) == y).mean())
    assert result["size_mae"] == pytest.approx(np.abs(predicted["size"] - x[:, :1]).mean(), rel=1e-5)
    assert model.predict([x, x[:, :2]])["size"].shape == (96, 1)


def test_several_inputs_are_saved(digits, tmp_path):
    x, y = digits
    data, target = {"left": x, "right": x[:, :2]}, {"class": y, "size": x[:, :1]}
    model = two_inputs()
    model.compile({"class": "cross_entropy", "size": "mse"})
    model.fit(data, target, verbose=0)
    model.save(tmp_path / "model")
    loaded = bn.load(tmp_path / "model")
    assert loaded.fit(data, target, verbose=0).history == model.fit(data, target, verbose=0).history
    np.testing.assert_array_equal(loaded.predict(data)["class"], model.predict(data)["class"])


def test_a_subclass_takes_tuples_and_returns_them(digits):
    x, y = digits

    class Twin(bn.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = layers.Dense(3), layers.Dense(3)

        def call(self, x):
            left, right = x
            return self.a(left), self.b(right)

    model = Twin()
    model.compile(["cross_entropy", None], metrics={"0": ["accuracy"]})
    history = model.fit((x, x), (y, y), epochs=2, verbose=0)
    assert list(history.history) == ["loss", "0_loss", "0_accuracy"]
    first, second = model.predict((x, x))
    assert first.shape == second.shape == (96, 3)


def test_freezing_takes_effect_at_once_and_momentum_stays(digits):
    x, y = digits
    model, plain = compiled(sequential()), compiled(sequential())
    model.fit(x, y, verbose=0)
    plain.fit(x, y, verbose=0)
    model.freeze("dense.*")
    before = model.parameters()
    model.fit(x, y, verbose=0)
    after = model.parameters()
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    assert moved == {"dense_1.kernel", "dense_1.bias"}
    model.unfreeze("dense.kernel")
    model.fit(x, y, verbose=0)
    assert np.array_equal(model.parameters()["dense.bias"], before["dense.bias"])
    assert not np.array_equal(model.parameters()["dense.kernel"], before["dense.kernel"])
    plain.freeze("dense")
    plain.unfreeze()
    plain.fit(x, y, verbose=0)  # as if nothing had been
    again = compiled(sequential())
    again.fit(x, y, verbose=0)
    again.fit(x, y, verbose=0)
    for path, array in again.parameters().items():
        np.testing.assert_array_equal(plain.parameters()[path], array)


def test_freezing_unknown_names(digits):
    model = functional()
    with pytest.raises(ValueError, match=r"matches no parameter; did you mean 'dense.kernel'"):
        model.freeze("dense.kernal")
    with pytest.raises(ValueError, match="not known yet"):
        sequential().freeze("dense")


def test_weights_in_files(digits, tmp_path):
    x, _ = digits
    model = bn.Sequential([bn.Input((4,)), layers.Dense(3), layers.BatchNorm()])
    model.compile("mse", seed=1)
    model.save_weights(tmp_path / "weights")
    arrays, metadata = _burnish.read_arrays(str(tmp_path / "weights"))
    assert set(arrays) == set(model.parameters(buffers=True))
    assert "burnish" not in metadata
    other = bn.Sequential([bn.Input((4,)), layers.Dense(3), layers.BatchNorm()])
    other.compile("mse", seed=2)
    assert not np.array_equal(other.predict(x), model.predict(x))
    assert other.load_weights(tmp_path / "weights") == ([], [], [])
    np.testing.assert_array_equal(other.predict(x), model.predict(x))


def test_weights_that_do_not_fit(tmp_path):
    small = bn.Sequential([bn.Input((4,)), layers.Dense(3), layers.Dense(2)])
    large = bn.Sequential([bn.Input((4,)), layers.Dense(3), layers.Dense(5), layers.Dense(1)])
    large.save_weights(tmp_path / "weights")
    before = small.parameters()
    with pytest.raises(
        ValueError, match=r"unexpected 'dense_2.bias'.*'dense_1.kernel' must have shape \(3, 2\), got \(3, 5\)"
    ):
        small.load_weights(tmp_path / "weights")
    assert all(np.array_equal(before[path], array) for path, array in small.parameters().items())
    difference = small.load_weights(tmp_path / "weights", strict=False)
    assert difference.unexpected == ["dense_2.bias", "dense_2.kernel"]
    assert difference.misshapen == ["dense_1.bias", "dense_1.kernel"]
    np.testing.assert_array_equal(small.parameters()["dense.kernel"], large.parameters()["dense.kernel"])
    with pytest.raises(ValueError, match=r"did you mean 'dense.kernel'"):
        small.set_parameters({"dense.kernl": np.zeros((4, 3))})


def test_damaged_files(digits, tmp_path):
    model = compiled(functional())
    model.fit(*digits, verbose=0)
    path = tmp_path / "model"
    model.save(path)
    whole = path.read_bytes()
    for damaged in (whole[:100], whole[:-10], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(damaged)
        with pytest.raises(ValueError):  # noqa: PT011  the words are the reader's
            bn.load(path)
    with pytest.raises(FileNotFoundError):
        bn.load(tmp_path / "nothing")
    model.save_weights(path)
    with pytest.raises(ValueError, match="holds no burnish model"):
        bn.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(version=99), lambda d: d.pop("position"), lambda d: d.update(position={"epoch": -1}),
        lambda d: d.update(inputs=["x", 3]), lambda d: d.update(outputs={"a": "nothing"}),
        lambda d: d.update(program="{}"),
        lambda d: d.update(rules=3), lambda d: d.update(classes=[]), lambda d: d.update(learning_rate="fast"),
        lambda d: d["compiled"].update(precision="float128"),
        lambda d: d["compiled"]["optimizer"].update(name="os.system"),
    ],
)  # fmt: skip
def test_documents_that_lie(digits, tmp_path, change):
    model = compiled(functional())
    model.fit(*digits, verbose=0)
    path = str(tmp_path / "model")
    model.save(path)
    arrays, metadata = _burnish.read_arrays(path)
    document = json.loads(metadata["burnish"])
    change(document)
    _burnish.write_arrays(path, arrays, {"burnish": json.dumps(document)})
    with pytest.raises(ValueError):  # noqa: PT011  whatever is wrong, it is said as a ValueError
        bn.load(path).predict(digits[0])


def test_a_failed_save_leaves_the_old_file(digits, tmp_path):
    model = compiled(functional())
    path = tmp_path / "model"
    model.save(path)
    whole = path.read_bytes()
    with pytest.raises(OSError):  # noqa: PT011  which one is the system's business
        model.save(tmp_path / "no" / "folder")
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_a_function_as_learning_rate_is_said_to_be_lost(digits, tmp_path):
    model = functional()
    model.compile("cross_entropy", "sgd", lambda update: 0.1 / (1 + update))
    model.fit(*digits, verbose=0)
    with pytest.warns(UserWarning, match="function cannot be saved"):
        model.save(tmp_path / "model")
    assert bn.load(tmp_path / "model").learning_rate == pytest.approx(0.1 / 4)


def test_summary(capsys):
    model = bn.Sequential(
        [bn.Input((28, 28, 1)), layers.Conv2D(4, 3), layers.BatchNorm(), layers.Flatten(), layers.Dense(10)]
    )
    model.freeze("conv2d")
    model.summary()
    out = capsys.readouterr().out
    assert "conv2d" in out
    assert "(batch, 26, 26, 4)" in out
    assert "27,050" in out
    assert "parameters: 27,098 (27,058 trained, 40 frozen); buffers: 8" in out


def test_the_shape_of_the_input_is_learnt_or_given(digits):
    x, _ = digits
    model = sequential()
    for call in (model.parameters, model.summary, lambda: model.save("nowhere")):
        with pytest.raises(ValueError, match="not known yet"):
            call()
    assert model.predict(x).shape == (96, 3)
    assert model.parameters()["dense.kernel"].shape == (4, 5)
    assert sequential().build((None, 7)).parameters()["dense.kernel"].shape == (7, 5)
    two_inputs().build({"left": (None, 4), "right": (None, 2)})
    with pytest.raises(ValueError, match="batch first"):
        sequential().build((7,))


def test_precision_and_device_are_kept(digits, device):
    x, y = digits
    model = compiled(sequential(), device=device)
    model.fit(x, y, verbose=0)
    assert model.device == device
    assert model.predict(x).dtype == np.float32
    if device in ("cpu", "ndarray"):
        expected = model.predict(x)
        compiled(model, precision="float64", device="ndarray" if device == "cpu" else "cpu")
        assert model.predict(x).dtype == np.float64
        np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4, atol=1e-5)


def test_devices_agree(digits, device):
    x, y = digits
    image = np.tile(x.reshape(96, 2, 2, 1), (1, 4, 4, 1))
    model, expected = (
        bn.Sequential(
            [layers.Conv2D(4, 3, activation="relu", padding="same"), layers.MaxPool2D(), layers.BatchNorm(),
             layers.Flatten(), layers.LayerNorm(), layers.Dense(3)]
        )
        for _ in range(2)
    )  # fmt: skip
    # Adam would blow the rounding of gradients that are zero in theory up to whole steps.
    model.compile("cross_entropy", "sgd", 0.01, device=device)
    expected.compile("cross_entropy", "sgd", 0.01)
    one, two = (m.fit(image, y, epochs=2, verbose=0).history["loss"] for m in (model, expected))
    np.testing.assert_allclose(one, two, rtol=1e-4)
    np.testing.assert_allclose(model.predict(image), expected.predict(image), rtol=1e-3, atol=1e-3)


def test_seeds(digits):
    x, y = digits
    results = []
    for seed in (0, 0, 1):
        model = bn.Sequential([layers.Dense(8), layers.Dropout(0.5), layers.Dense(3)])
        results.append(compiled(model, seed=seed).fit(x, y, epochs=2, verbose=0).history["loss"])
    assert results[0] == results[1] != results[2]


def test_gradients_agree_between_methods(digits):
    x, y = digits
    model = compiled(sequential(), precision="float64")
    exact = bn.gradients(model, x, y)
    for method, tolerance in (("numerical", 1e-8), ("numerical_batch", 1e-5)):
        numeric = bn.gradients(model, x, y, method=method)
        for path, array in exact.items():
            np.testing.assert_allclose(numeric[path], array, rtol=1e-5, atol=tolerance)
    weighted = bn.gradients(model, x, y, sample_weight=np.arange(96) < 10)
    head = bn.gradients(model, x[:10], y[:10])
    for path, array in head.items():
        np.testing.assert_allclose(weighted[path], array, rtol=1e-12, atol=1e-15)


def test_check_gradients_finds_what_is_wrong(digits):
    x, y = digits
    model = compiled(bn.Sequential([layers.Dense(5), layers.Lambda(bn.ops.stop_gradient), layers.Dense(3)]))
    before = model.build((None, 4)).parameters()
    report = bn.check_gradients(model, x, y)
    assert not report.passed
    assert {failure.path for failure in report.failures} == {"dense.kernel", "dense.bias"}
    assert report.worst.path.startswith("dense.")
    assert "FAILED" in repr(report)
    directions = bn.check_gradients(model, x, y, limit=10, directions=5)
    assert not directions.passed
    assert directions.checked == 5
    assert all(np.array_equal(before[path], array) for path, array in model.parameters().items())


def test_check_gradients_lists_kinks_apart():
    class Kink(layers.Layer):
        def call(self, x):
            return bn.ops.relu(self.parameter("p", (2,), "zeros") * x)

    model = bn.Sequential([Kink()])
    model.compile("mae")
    report = bn.check_gradients(model, np.ones((3, 2)), -np.ones((3, 2)))
    assert report.passed
    assert {kink.path for kink in report.kinks} == {"kink.p"}


def test_large_models_are_checked_along_directions(digits):
    x, y = digits
    model = compiled(bn.Sequential([layers.Dense(500, "tanh"), layers.Dropout(0.3), layers.Dense(3)]))
    report = bn.check_gradients(model, x, y)
    assert report.passed, report
    assert report.checked == 20


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - bn.ops.mean(x), lambda x: (x.T / bn.ops.max(x)).T, lambda x: bn.ops.softmax(x @ x.T) @ x,
        lambda x: bn.ops.where(bn.ops.any(x > 0, 0), x, -x),
        lambda x: x + bn.ops.take(np.arange(4.0), bn.ops.argmax(x)[:, None]),
        lambda x: bn.ops.moveaxis(bn.ops.stack([x.T, x.T], 0), 2, 0) * bn.ops.reshape(bn.ops.max(x, 0), (1, 1, 4)),
    ],
)  # fmt: skip
def test_operations_on_inputs_are_those_of_a_layer(function, digits):
    """Also where the batch is not the first axis of what lies between, or is none or two of them."""
    x = bn.Input((4,))
    graph = bn.Model(x, function(x))
    layer = bn.Sequential([bn.Input((4,)), layers.Lambda(function)])
    np.testing.assert_array_equal(graph.predict(digits[0], batch_size=96), layer.predict(digits[0], batch_size=96))


def test_a_model_and_its_layers_say_what_they_are():
    model = bn.Sequential([bn.layers.Dense(3), bn.layers.Dense(2, name="head")], name="net")
    assert repr(model) == "<Sequential 'net', not built yet>"
    model.build((None, 4))
    assert repr(model) == "<Sequential 'net' of 23 parameters>"
    assert [repr(layer) for layer in model.layers] == ["<Dense 'dense'>", "<Dense 'head'>"]
