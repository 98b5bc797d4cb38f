"""Training against a network written out in NumPy, float64; weights, accumulation, averages, callbacks, history."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import burnish as bn
from burnish._feed import sources
from burnish.callbacks import Callback


class Reference:
    """tanh network 4-5-3 with cross entropy, trained by hand."""

    def __init__(self, parameters, optimizer, learning_rate):
        self.p = {path: array.astype(float) for path, array in parameters.items()}
        self.optimizer, self.learning_rate, self.updates = optimizer, learning_rate, 0
        self.m = {path: np.zeros_like(array) for path, array in self.p.items()}
        self.v = {path: np.zeros_like(array) for path, array in self.p.items()}

    def forward(self, x):
        hidden = np.tanh(x @ self.p["dense.kernel"] + self.p["dense.bias"])
        logits = hidden @ self.p["dense_1.kernel"] + self.p["dense_1.bias"]
        return hidden, logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)

    def losses(self, x, y):
        return -self.forward(x)[1][np.arange(len(y)), y]

    def gradient(self, x, y, w):
        """Of the sum of weighted losses."""
        hidden, logs = self.forward(x)
        d = (np.exp(logs) - np.eye(3)[y]) * w[:, None]
        back = (d @ self.p["dense_1.kernel"].T) * (1 - hidden**2)
        return {
            "dense.kernel": x.T @ back, "dense.bias": back.sum(0),
            "dense_1.kernel": hidden.T @ d, "dense_1.bias": d.sum(0),
        }  # fmt: skip

    def update(self, gradients):
        self.updates += 1
        for path, g in gradients.items():
            if self.optimizer == "sgd":
                self.p[path] -= self.learning_rate * g
                continue
            self.m[path] = 0.9 * self.m[path] + 0.1 * g
            self.v[path] = 0.999 * self.v[path] + 0.001 * g**2
            m, v = self.m[path] / (1 - 0.9**self.updates), self.v[path] / (1 - 0.999**self.updates)
            self.p[path] -= self.learning_rate * m / (np.sqrt(v) + 1e-8)

    def epoch(self, x, y, w, batch_size, accumulate=1):
        """Return the loss of each batch before its update."""
        batches = [slice(i, i + batch_size) for i in range(0, len(x), batch_size)]
        seen = []
        for start in range(0, len(batches), accumulate):
            group = batches[start : start + accumulate]
            seen += [np.average(self.losses(x[b], y[b]), weights=w[b]) for b in group]
            sums = [self.gradient(x[b], y[b], w[b]) for b in group]
            weight = sum(w[b].sum() for b in group)
            self.update({path: sum(g[path] for g in sums) / weight for path in sums[0]})
        return seen


def network(optimizer="adam", learning_rate=0.05, **options):
    model = bn.Sequential([bn.layers.Dense(5, activation="tanh"), bn.layers.Dense(3)])
    options = {"precision": "float64", "metrics": ["accuracy"], **options}
    model.compile("cross_entropy", optimizer, learning_rate, **options)
    model.build((None, 4))
    return model


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("batch_size", [7, 32, 96, 200])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_step_is_numpys(digits, optimizer, batch_size, accumulate, weighted):
    x, y = digits
    w = np.random.default_rng(0).uniform(size=96) if weighted else np.ones(96)
    model = network(optimizer, accumulate_gradients=accumulate)
    reference = Reference(model.parameters(), optimizer, 0.05)
    history = model.fit(
        x, y, batch_size=batch_size, epochs=3, shuffle=False, sample_weight=w if weighted else None, verbose=0
    )
    losses = [reference.epoch(x.astype(float), y, w, batch_size, accumulate) for _ in range(3)]
    np.testing.assert_allclose(history.steps["loss"], np.concatenate(losses), rtol=1e-10)
    sizes = [w[i : i + batch_size].sum() for i in range(0, 96, batch_size)]
    np.testing.assert_allclose(
        history.history["loss"], [np.average(epoch, weights=sizes) for epoch in losses], rtol=1e-10
    )
    for path, array in model.parameters().items():
        np.testing.assert_allclose(array, reference.p[path], rtol=1e-9, atol=1e-12)


def test_shuffled_epochs_take_every_row_once_in_the_order_of_seed_and_epoch(digits):
    x, y = digits
    model = network("sgd", seed=4)
    reference = Reference(model.parameters(), "sgd", 0.05)
    history = model.fit(x, y, batch_size=10, epochs=2, verbose=0)
    losses = []
    for epoch in range(2):
        order = bn._burnish.permutation(4, epoch, 96)
        assert sorted(order) == list(range(96))
        losses += reference.epoch(x[order].astype(float), y[order], np.ones(96), 10)
    np.testing.assert_allclose(history.steps["loss"], losses, rtol=1e-10)


@settings(max_examples=20)
@given(rows=st.integers(1, 40), size=st.integers(1, 20), accumulate=st.integers(1, 4), seed=st.integers(0, 99))
def test_accumulating_is_one_larger_batch(rows, size, accumulate, seed):
    generator = np.random.default_rng(seed)
    x, y, w = generator.normal(size=(rows, 4)), generator.integers(0, 3, rows), generator.uniform(0.1, 1, rows)
    small, large = network("sgd", accumulate_gradients=accumulate), network("sgd")
    small.fit(x, y, batch_size=size, sample_weight=w, shuffle=False, verbose=0)
    large.fit(x, y, batch_size=size * accumulate, sample_weight=w, shuffle=False, verbose=0)
    for path, array in large.parameters().items():
        np.testing.assert_allclose(small.parameters()[path], array, rtol=1e-9, atol=1e-13)


def test_weight_zero_is_absence(digits):
    x, y = digits
    w = np.ones(96)
    w[::2] = 0
    whole, half = network(), network()
    whole.fit(x, y, sample_weight=w, batch_size=16, shuffle=False, epochs=2, verbose=0)
    half.fit(x[1::2], y[1::2], batch_size=8, shuffle=False, epochs=2, verbose=0)
    for path, array in half.parameters().items():
        np.testing.assert_allclose(whole.parameters()[path], array, rtol=1e-9)


def test_class_weight_is_a_sample_weight(digits):
    x, y = digits
    by_class, by_row = network(), network()
    by_class.fit(x, y, class_weight={0: 2.0, 2: 0.5}, epochs=2, verbose=0)
    by_row.fit(x, y, sample_weight=np.array([2.0, 1.0, 0.5])[y], epochs=2, verbose=0)
    for path, array in by_row.parameters().items():
        np.testing.assert_array_equal(by_class.parameters()[path], array)


def test_class_weight_of_one_hot_labels_and_beside_sample_weight(digits):
    x, y = digits
    weight = np.arange(96.0)
    one, two = network(), network()
    one.fit(x, np.eye(3)[y], class_weight={1: 3.0}, sample_weight=weight, verbose=0)
    two.fit(x, np.eye(3)[y], sample_weight=weight * np.array([1.0, 3.0, 1.0])[y], verbose=0)
    for path, array in two.parameters().items():
        np.testing.assert_array_equal(one.parameters()[path], array)
    for wrong in ({"y": y}, np.zeros((96, 2, 2)), x[:, :3], x[:, :1], x[:, 0], np.eye(3)[y] + np.eye(3)[0]):
        with pytest.raises(ValueError, match="`class_weight` needs"):
            one.fit(x, wrong, class_weight={1: 3.0}, verbose=0)


def test_validation_is_evaluate(digits):
    x, y = digits
    for batch_size in (5, 64):
        model = network()
        history = model.fit(x, y, batch_size=batch_size, epochs=2, validation_data=(x[:31], y[:31]), verbose=0)
        result = model.evaluate(x[:31], y[:31])
        assert history.history["val_loss"][-1] == result["loss"]
        assert history.history["val_accuracy"][-1] == result["accuracy"]
        right = model.predict(x[:31]).argmax(1) == y[:31]
        assert result["accuracy"] == pytest.approx(right.mean(), abs=1e-15)


def test_validation_split_takes_the_last_rows(digits):
    x, y = digits
    split, apart = network(), network()
    one = split.fit(x, y, validation_split=0.25, epochs=2, verbose=0)
    two = apart.fit(x[:72], y[:72], validation_data=(x[72:], y[72:]), epochs=2, verbose=0)
    assert one.history == two.history


def test_training_loss_is_the_mean_before_updates(digits):
    x, y = digits
    model = network("sgd", 0.0)
    history = model.fit(x, y, batch_size=13, verbose=0)
    result = model.evaluate(x, y)
    np.testing.assert_allclose(history.history["loss"], result["loss"], rtol=1e-12)
    np.testing.assert_allclose(history.history["accuracy"], result["accuracy"], rtol=1e-12)


def test_batches_are_the_same_as_arrays(digits):
    x, y = digits
    batches = [(x[i : i + 20], y[i : i + 20], np.ones(len(y[i : i + 20]))) for i in range(0, 96, 20)]

    class Loader:
        def __iter__(self):
            return iter(batches)

    whole = network()
    expected = whole.fit(x, y, batch_size=20, shuffle=False, epochs=3, validation_data=(x, y), verbose=0)
    for source in (batches, Loader()):
        model = network()
        history = model.fit(source, epochs=3, validation_data=batches, verbose=0)
        assert history.history["loss"] == expected.history["loss"]
        np.testing.assert_allclose(history.history["val_loss"], expected.history["val_loss"], rtol=1e-12)
        np.testing.assert_allclose(model.evaluate(source)["loss"], whole.evaluate(x, y)["loss"], rtol=1e-12)
        np.testing.assert_array_equal(model.predict(x[i : i + 20] for i in range(0, 96, 20)), whole.predict(x))
    model = network()
    history = model.fit(iter(batches), verbose=0)
    assert history.history["loss"] == expected.history["loss"][:1]
    assert history.steps["step"].tolist() == [0, 1, 2, 3, 4]


def test_train_on_batch_returns_what_it_saw(digits):
    x, y = digits
    model = network()
    before = model.evaluate(x, y)
    logs = model.train_on_batch(x, y)
    assert logs == pytest.approx(before)
    assert model.evaluate(x, y)["loss"] < before["loss"]


def test_epochs_go_on_where_they_stopped(digits):
    x, y = digits
    once, twice = network(), network()
    whole = once.fit(x, y, epochs=4, verbose=0)
    first = twice.fit(x, y, epochs=2, verbose=0)
    second = twice.fit(x, y, epochs=4, initial_epoch=2, verbose=0)
    assert first.history["loss"] + second.history["loss"] == whole.history["loss"]
    assert second.epoch == [2, 3]


def test_zero_epochs_do_nothing(digits):
    model = network()
    before = model.parameters()
    assert model.fit(*digits, epochs=0, verbose=0).history == {}
    assert all(np.array_equal(before[path], array) for path, array in model.parameters().items())


class Recorder(Callback):
    def __init__(self):
        self.calls = []


def _recording(hook):
    def method(self, *arguments):
        self.calls.append((hook, *arguments[:-1]))

    return method


for _hook in [name for name in dir(Callback) if name.startswith("on_")]:
    setattr(Recorder, _hook, _recording(_hook))


def test_hooks_and_their_order(digits):
    x, y = digits
    recorder = Recorder()
    model = network()
    model.fit(x[:40], y[:40], batch_size=30, epochs=1, validation_data=(x[:10], y[:10]), callbacks=recorder, verbose=0)
    assert recorder.params == {"epochs": 1, "steps": 2, "verbose": 0}
    assert recorder.calls == [
        ("on_train_begin",),
        ("on_epoch_begin", 0),
        ("on_train_batch_begin", 0),
        ("on_train_batch_end", 0),
        ("on_train_batch_begin", 1),
        ("on_train_batch_end", 1),
        ("on_test_begin",),
        ("on_test_batch_begin", 0),
        ("on_test_batch_end", 0),
        ("on_test_end",),
        ("on_epoch_end", 0),
        ("on_train_end",),
    ]
    recorder.calls.clear()
    model.predict(x[:40], batch_size=30, callbacks=[recorder])
    assert [call[0] for call in recorder.calls] == [
        "on_predict_begin", *["on_predict_batch_begin", "on_predict_batch_end"] * 2, "on_predict_end"
    ]  # fmt: skip


@pytest.mark.parametrize("hooked", [False, True])
def test_a_stop_at_an_epoch_s_beginning_comes_before_its_first_batch(digits, hooked):
    def stop(epoch, logs):
        calls.append(("begin", epoch))
        model.stop_training = epoch == 2

    calls = []
    several = [
        bn.callbacks.LambdaCallback(
            on_epoch_begin=stop,
            on_epoch_end=lambda epoch, logs: calls.append(("end", epoch)),
            on_train_end=lambda logs: calls.append(("over", logs["loss"])),
        ),
        bn.callbacks.EarlyStopping("loss"),
    ]
    if hooked:
        several.append(bn.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None))
    model, shorter = network(), network()
    history = model.fit(*digits, batch_size=8, epochs=5, callbacks=several, verbose=0)
    expected = shorter.fit(*digits, batch_size=8, epochs=2, verbose=0)
    last = ("over", expected.history["loss"][1])
    assert calls == [("begin", 0), ("end", 0), ("begin", 1), ("end", 1), ("begin", 2), last]
    for _ in range(2):
        assert history.history == expected.history
        assert all(np.array_equal(history.steps[name], column) for name, column in expected.steps.items())
        assert all(np.array_equal(shorter.parameters()[path], array) for path, array in model.parameters().items())
        history, expected = (one.fit(*digits, batch_size=8, verbose=0) for one in (model, shorter))  # and go on alike


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_progress"])
def test_freezing_within_a_group_makes_an_update_that_is_recorded(digits, hook):
    class Freeze(Callback):
        def next_stop(self, step):
            return 2 if step < 2 else None

    def freeze(self, at, *_):
        if at == (1 if hook == "on_train_batch_end" else 2):  # the batch's index, or how many are done
            self.model.learning_rate = 0.5
            self.model.freeze("dense")

    setattr(Freeze, hook, freeze)
    x, y = digits
    model = network("sgd", accumulate_gradients=3)
    reference = Reference(model.parameters(), "sgd", 0.5)
    history = model.fit(x, y, batch_size=20, shuffle=False, callbacks=Freeze(), verbose=0)
    # Five batches: two that freezing parted from their third, and a whole group.
    first = {path: array / 40 for path, array in reference.gradient(x[:40], y[:40], np.ones(40)).items()}
    reference.update(first)
    second = reference.gradient(x[40:], y[40:], np.ones(56))
    second = {path: array / 56 for path, array in second.items() if path.startswith("dense_1")}
    norms = [np.sqrt(sum(np.sum(array**2) for array in group.values())) for group in (first, second)]
    np.testing.assert_allclose(history.steps["gradient_norm"], [np.nan, norms[0], np.nan, np.nan, norms[1]], rtol=1e-9)
    assert history.steps["learning_rate"].tolist() == [0.05, 0.5, 0.5, 0.5, 0.5]
    of_kernel = history.parameters["dense.kernel"]["gradient_norm"]
    np.testing.assert_allclose(of_kernel, [np.linalg.norm(first["dense.kernel"])], rtol=1e-9)
    reference.update({path: second.get(path, np.zeros_like(array)) for path, array in first.items()})
    for path, array in model.parameters().items():
        np.testing.assert_allclose(array, reference.p[path], rtol=1e-9)


def test_logs_are_running_means(digits):
    x, y = digits
    seen = []
    callback = bn.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))
    history = network().fit(x, y, batch_size=40, callbacks=[callback], verbose=0)
    losses, weights = history.steps["loss"], history.steps["weight"]
    np.testing.assert_allclose(seen, np.cumsum(losses * weights) / np.cumsum(weights))


class Script(Callback):
    """Replaces the watched number by a script."""

    def __init__(self, values):
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs["watched"] = self.values[epoch]


@pytest.mark.parametrize(
    ("values", "options", "epochs", "best"),
    [
        ([5, 4, 3, 2, 1], {}, 5, 4),
        ([5, 4, 4, 3, 2], {}, 3, 1),
        ([5, 4, 4, 3, 3, 3, 3], {"patience": 2}, 6, 3),
        ([5, 4.9, 4.8, 4.7], {"min_delta": 0.5, "patience": 2}, 3, 0),
        ([1, 2, 3, 2, 2], {"mode": "max", "patience": 2}, 5, 2),
        ([float("nan"), 3, float("nan"), float("nan")], {"patience": 2}, 4, 1),
        ([1, 5, 4, 3, 3.5], {"start_from_epoch": 1}, 5, 3),
        ([5, 6], {"baseline": 3.0, "patience": 2}, 2, None),
        ([-10, -10.5, -12], {"min_delta": 0.1, "relative": True, "patience": 2}, 3, 2),
    ],
)
def test_early_stopping(digits, values, options, epochs, best):
    stopping = bn.callbacks.EarlyStopping("watched", restore_best_weights=True, **options)
    model = network()
    kept = []
    keep = bn.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.parameters()))
    history = model.fit(*digits, epochs=len(values), callbacks=[Script(values), stopping, keep], verbose=0)
    assert len(history.epoch) == epochs
    assert stopping.best_epoch == best
    expected = kept[-1] if best is None else kept[best]
    assert all(np.array_equal(array, expected[path]) for path, array in model.parameters().items())


def test_early_stopping_restores_on_every_way_out(digits):
    class Fails(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise RuntimeError("enough")

    model = network()
    kept = []
    keep = bn.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.parameters()))
    stopping = bn.callbacks.EarlyStopping("watched", patience=9, restore_best_weights=True)
    with pytest.raises(RuntimeError, match="enough"):
        model.fit(*digits, epochs=4, callbacks=[Script([1, 2]), stopping, keep, Fails()], verbose=0)
    assert all(np.array_equal(array, kept[0][path]) for path, array in model.parameters().items())
    assert len(model.history.epoch) == 2


def test_checkpoints(digits, tmp_path):
    x, y = digits
    model = network()
    every = bn.callbacks.ModelCheckpoint(tmp_path / "{epoch:02d}.burnish")
    best = bn.callbacks.ModelCheckpoint(
        tmp_path / "best", monitor="watched", save_best_only=True, save_weights_only=True
    )
    script = Script([3, 1, 2])
    model.fit(x, y, epochs=3, callbacks=[script, every, best], verbose=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["01.burnish", "02.burnish", "03.burnish", "best"]
    second = bn.load(tmp_path / "02.burnish")
    model.load_weights(tmp_path / "best")
    np.testing.assert_array_equal(model.predict(x), second.predict(x))


def test_learning_rate_scheduler(digits):
    model = network("sgd")
    scheduler = bn.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    history = model.fit(*digits, epochs=3, callbacks=[scheduler], verbose=0)
    assert history.history["learning_rate"] == [0.025, 0.0125, 0.00625]
    assert sorted(set(history.steps["learning_rate"])) == [0.00625, 0.0125, 0.025]


def test_an_update_that_is_not_finite_is_skipped_and_said(digits):
    x, y = digits
    bad = x.copy()
    bad[40] = np.nan
    model, without = network(), network()
    with pytest.warns(RuntimeWarning, match="epoch 1, batch 5: that update was skipped"):
        history = model.fit(bad, y, batch_size=8, shuffle=False, check_data=False, verbose=0)
    assert np.flatnonzero(~history.steps["finite"]).tolist() == [5]
    keep = np.r_[:40, 48:96]
    without.fit(x[keep], y[keep], batch_size=8, shuffle=False, verbose=0)
    for path, array in without.parameters().items():
        np.testing.assert_array_equal(model.parameters()[path], array)


def test_a_smaller_last_group_that_is_not_finite_is_skipped_and_said(digits):
    x, y = digits
    bad = x.copy()
    bad[90] = np.nan
    model = network(accumulate_gradients=5)
    with pytest.warns(RuntimeWarning, match="epoch 1, batch 11: that update was skipped") as told:
        history = model.fit(bad, y, batch_size=8, shuffle=False, check_data=False, epochs=2, verbose=0)
    assert len(told) == 1
    assert np.flatnonzero(~history.steps["finite"]).tolist() == [11, 23]


def test_terminate_on_nan(digits, capsys):
    x, y = digits
    x = x.copy()
    x[40] = np.nan
    model = network()
    with pytest.warns(RuntimeWarning, match="not finite"):
        model.fit(
            x, y, batch_size=8, shuffle=False, check_data=False, callbacks=bn.callbacks.TerminateOnNaN(), verbose=0
        )
    assert len(model.history.steps["loss"]) == 6
    assert "batch 5: the loss is not finite" in capsys.readouterr().out


def test_csv_logger(digits, tmp_path):
    path = tmp_path / "log.csv"
    model = network()
    history = model.fit(*digits, epochs=2, callbacks=[bn.callbacks.CSVLogger(path)], verbose=0)
    model.fit(*digits, epochs=3, initial_epoch=2, callbacks=[bn.callbacks.CSVLogger(path, append=True)], verbose=0)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2]
    assert [float(row["loss"]) for row in rows[:2]] == history.history["loss"]


@pytest.mark.parametrize("batches", [1, 2, 5, 1000])
def test_chunks_make_no_difference(digits, monkeypatch, batches):
    x, y = digits

    def run():
        model = bn.Sequential(
            [bn.layers.Dense(8, "relu"), bn.layers.BatchNorm(), bn.layers.Dropout(0.3), bn.layers.Dense(3)]
        )
        model.compile("cross_entropy", "adam", 0.01, ["accuracy"], accumulate_gradients=2)
        history = model.fit(x, y, batch_size=7, epochs=3, validation_split=0.2, verbose=0)
        return model.parameters(buffers=True), history

    expected, first = run()
    monkeypatch.setattr(sources.Pacer, "note", lambda self, *_: setattr(self, "batches", batches))
    again, second = run()
    assert first.history == second.history
    assert all(np.array_equal(expected[path], again[path]) for path in expected)
    assert all(np.array_equal(first.steps[name], second.steps[name], equal_nan=True) for name in first.steps)


@pytest.mark.parametrize("method", ["numerical", "numerical_batch"])
def test_numerical_gradients_train(digits, method):
    x, y = digits
    exact, numeric = network("sgd"), network("sgd", grad_method=method)
    for model in (exact, numeric):
        model.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    for path, array in exact.parameters().items():
        np.testing.assert_allclose(numeric.parameters()[path], array, rtol=1e-4, atol=1e-6)
