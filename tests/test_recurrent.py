"""Recurrent layers against NumPy, step by step, and against what PyTorch gives (tests/golden/recurrent.py)."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recurrence import oracle, states

import burnish as bn
from burnish import layers
from burnish.model import core_of

GOLDEN = np.load(Path(__file__).parent / "golden" / "recurrent.npz")
KINDS = {"rnn": layers.RNN, "gru": layers.GRU, "lstm": layers.LSTM}
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
OPERATIONS = {"rnn": bn.ops.rnn, "gru": bn.ops.gru, "lstm": bn.ops.lstm}


def weights(rng, kind, features, units):
    width = GATES[kind] * units
    return {
        "kernel": rng.normal(size=(features, width)),
        "recurrent_kernel": rng.normal(size=(units, width)) / np.sqrt(units),
        "bias": rng.normal(size=(2, width) if kind == "gru" else width),
    }


def built(node, outputs, **options):
    model = bn.Model(node, outputs)
    model.compile("mse" if not isinstance(outputs, tuple) else ("mse",) * len(outputs), precision="float64", **options)
    return model


def layer_weights(model):
    return {path.rpartition(".")[2]: array for path, array in model.parameters().items()}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_sequences_and_states(rng, kind, backwards, masked):
    x = rng.normal(size=(5, 6, 3))
    mask = rng.random((5, 6)) < 0.6
    mask[0] = [False, True, True, False, True, False]
    mask[1] = False
    initial = [rng.normal(size=(5, 4)) for _ in range(states(kind))]
    nodes = {"x": bn.Input((6, 3)), "mask": bn.Input((6,)), **{f"s{i}": bn.Input((4,)) for i in range(len(initial))}}
    layer = KINDS[kind](4, return_sequences=True, return_state=True, go_backwards=backwards, bias_initializer="normal")
    state = [nodes[f"s{i}"] for i in range(len(initial))]
    found = layer(nodes["x"], mask=nodes["mask"] if masked else None, initial_state=state)
    model = built(nodes, found)
    data = {"x": x, "mask": mask.astype(float), **{f"s{i}": one for i, one in enumerate(initial)}}
    outputs, *last = model.predict(data)
    p = layer_weights(model)
    after, expected = oracle(kind, p, x, mask=mask if masked else None, initial=initial, backwards=backwards)
    np.testing.assert_allclose(outputs, after[0][:, ::-1] if backwards else after[0], rtol=1e-10, atol=1e-12)
    assert len(last) == len(expected)
    for one, wanted in zip(last, expected, strict=True):
        np.testing.assert_allclose(one, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["relu", "hard_sigmoid", "linear", "sigmoid"])
def test_activations_and_no_bias(rng, kind, activation):
    x = rng.normal(size=(3, 4, 2))
    options = {} if kind == "rnn" else {"recurrent_activation": "hard_sigmoid"}
    model = bn.Sequential([KINDS[kind](3, activation, use_bias=False, **options)])
    model.compile("mse", precision="float64")
    found = model.predict(x)
    p = layer_weights(model)
    assert set(p) == {"kernel", "recurrent_kernel"}
    _, expected = oracle(kind, p, x, activation=activation, gate="hard_sigmoid")
    np.testing.assert_allclose(found, expected[0], rtol=1e-10, atol=1e-12)
    report = bn.check_gradients(model, x, rng.normal(size=(3, 3)))
    assert report.passed, report


@pytest.mark.parametrize("kind", KINDS)
def test_padding_on_either_side_is_as_if_it_were_not_there(rng, kind):
    short = rng.normal(size=(4, 3, 2))
    padding = rng.normal(size=(4, 2, 2))
    p = weights(rng, kind, 2, 3)
    run = OPERATIONS[kind]
    expected = run(short, *p.values()).numpy()
    left, right = np.concatenate([padding, short], 1), np.concatenate([short, padding], 1)
    there = bn.ops.sequence_mask(np.full(4, 3), 5).numpy()
    np.testing.assert_allclose(run(right, *p.values(), mask=there).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(run(left, *p.values(), mask=there[:, ::-1]).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_states_are_pytorchs(kind):
    golden = {name.removeprefix(f"{kind}."): GOLDEN[name] for name in GOLDEN.files if name.startswith(f"{kind}.")}
    initial = [golden[f"initial_{index}"] for index in range(states(kind))]
    nodes = {"x": bn.Input((6, 3)), "lengths": bn.Input((1,)), **{f"s{i}": bn.Input((5,)) for i in range(len(initial))}}
    layer = KINDS[kind](5, return_sequences=True, return_state=True, zero_output_for_mask=True, name="layer")
    state = [nodes[f"s{i}"] for i in range(len(initial))]
    found = layer(nodes["x"], mask=bn.ops.sequence_mask(nodes["lengths"], 6), initial_state=state)
    model = built(nodes, found)
    model.set_parameters({f"layer.{name}": golden[name] for name in ("kernel", "recurrent_kernel", "bias")})
    data = {"x": GOLDEN["x"], "lengths": GOLDEN["lengths"][:, None].astype(float)}
    outputs, *last = model.predict(data | {f"s{i}": one for i, one in enumerate(initial)})
    np.testing.assert_allclose(outputs, golden["outputs"], rtol=1e-10, atol=1e-12)
    for index, one in enumerate(last):
        np.testing.assert_allclose(one, golden[f"last_{index}"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_and_losses_are_pytorchs(kind):
    golden = {name.removeprefix(f"{kind}."): GOLDEN[name] for name in GOLDEN.files if name.startswith(f"{kind}.")}
    model = bn.Sequential([KINDS[kind](5, return_sequences=True, name="layer")])
    model.compile("mse", bn.optimizers.SGD(), 0.5, precision="float64")
    model.build((None, 6, 3))
    model.set_parameters({f"layer.{name}": golden[name] for name in ("kernel", "recurrent_kernel", "bias")})
    gradients = bn.gradients(model, GOLDEN["x"], GOLDEN["y"])
    for name in ("kernel", "recurrent_kernel", "bias"):
        np.testing.assert_allclose(gradients[f"layer.{name}"], golden[f"gradient.{name}"], rtol=1e-9, atol=1e-13)
    losses = [model.train_on_batch(GOLDEN["x"], GOLDEN["y"])["loss"] for _ in range(25)]
    np.testing.assert_allclose(losses, golden["losses"], rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_bidirectional_is_pytorchs(kind):
    prefix = f"{kind}.both."
    golden = {name.removeprefix(prefix): GOLDEN[name] for name in GOLDEN.files if name.startswith(prefix)}
    nodes = {"x": bn.Input((6, 3)), "lengths": bn.Input((1,))}
    layer = layers.Bidirectional(KINDS[kind](5, return_sequences=True), name="both")
    model = built(nodes, layer(nodes["x"], mask=bn.ops.sequence_mask(nodes["lengths"], 6)))
    expected = golden.pop("outputs")
    assert set(model.parameters()) == {f"both.{name}" for name in golden}
    model.set_parameters({f"both.{name}": array for name, array in golden.items()})
    found = model.predict({"x": GOLDEN["x"], "lengths": GOLDEN["lengths"][:, None].astype(float)})
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", ["concat", "sum", "mul", "ave", None])
@pytest.mark.parametrize("kind", KINDS)
def test_bidirectional_merges_and_returns_states(rng, kind, mode):
    x = rng.normal(size=(3, 5, 2))
    node = bn.Input((5, 2))
    layer = layers.Bidirectional(KINDS[kind](4, return_state=True, name="cell"), mode, name="both")
    model = built(node, layer(node))
    found = model.predict(x)
    p = model.parameters()
    halves = []
    for direction in ("forward", "backward"):
        start = f"both.{direction}_cell."
        own = {path.removeprefix(start): array for path, array in p.items() if path.startswith(start)}
        halves.append(oracle(kind, own, x, backwards=direction == "backward")[1])
    (a, *_), (b, *_) = halves
    merged = {"concat": [np.concatenate([a, b], 1)], "sum": [a + b], "mul": [a * b], "ave": [(a + b) / 2], None: [a, b]}
    for one, expected in zip(found, [*merged[mode], *halves[0], *halves[1]], strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-10, atol=1e-12)


def test_bidirectional_takes_the_states_of_both_layers(rng):
    x, state = rng.normal(size=(3, 5, 2)), rng.normal(size=(4, 3, 2))
    nodes = {"x": bn.Input((5, 2)), **{f"s{index}": bn.Input((2,)) for index in range(4)}}
    layer = layers.Bidirectional(layers.LSTM(2), name="both")
    model = built(nodes, layer(nodes["x"], initial_state=[nodes[f"s{index}"] for index in range(4)]))
    found = model.predict({"x": x, **{f"s{index}": one for index, one in enumerate(state)}})
    p = model.parameters()
    halves = []
    for index, direction in enumerate(("forward", "backward")):
        own = {path.rpartition(".")[2]: array for path, array in p.items() if f".{direction}_layer." in path}
        initial = state[2 * index : 2 * index + 2]
        halves.append(oracle("lstm", own, x, initial=initial, backwards=direction == "backward")[1][0])
    np.testing.assert_allclose(found, np.concatenate(halves, 1), rtol=1e-10, atol=1e-12)


@settings(max_examples=40)
@given(
    kind=st.sampled_from(list(KINDS)),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(1, 4)),
    flags=st.tuples(*[st.booleans()] * 5),
    returns=st.sampled_from(["last", "sequence", "states"]),
    seed=st.integers(0, 2**31),
)
def test_eager_gradients_are_central_differences(kind, sizes, flags, returns, seed):
    """Of every input, on the fused path and on that of other devices."""
    rng = np.random.default_rng(seed)
    batch, steps, features, units = sizes
    biased, started, masked, dropped, backwards = flags
    p = weights(rng, kind, features, units)
    arrays = [rng.normal(size=(batch, steps, features)), p["kernel"], p["recurrent_kernel"]]
    arrays += [p["bias"]] if biased else []
    arrays += [rng.normal(size=(batch, units)) for _ in range(states(kind) if started else 0)]
    arrays += [rng.uniform(0.5, 2.0, size=(batch, units))] if dropped else []
    mask = rng.random((batch, steps)) < 0.6
    width = units * (states(kind) if returns == "states" else 1)
    direction = rng.normal(size=(batch, width) if returns == "last" else (batch, steps, width))

    def value(values):
        x, kernel, recurrent, *rest = values
        options = {"bias": rest.pop(0)} if biased else {}
        options |= {"recurrent_factors": rest.pop()} if dropped else {}
        options |= {"mask": mask} if masked else {}
        y = OPERATIONS[kind](
            x, kernel, recurrent, **options, initial_state=rest, returns=returns, go_backwards=backwards
        )
        return bn.ops.sum(y * direction)

    found = {}
    for device in ("cpu", "ndarray"):
        tensors = [bn.Tensor(array, device=device, requires_grad=True) for array in arrays]
        mask = bn.Tensor(np.asarray(mask), device=device)
        direction = bn.Tensor(np.asarray(direction), device=device)
        value(tensors).backward()
        found[device] = [tensor.grad.numpy() for tensor in tensors]
    for one, other in zip(*found.values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)
    mask, direction = mask.numpy(), direction.numpy()
    for place, array in enumerate(arrays):
        index = tuple(rng.integers(0, length) for length in array.shape)
        moved = []
        for sign in (1, -1):
            copies = [one.copy() for one in arrays]
            copies[place][index] += sign * 1e-5
            moved.append(float(value([bn.Tensor(one) for one in copies]).numpy()))
        slope = (moved[0] - moved[1]) / 2e-5
        np.testing.assert_allclose(found["cpu"][place][index], slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_masked_gradients_in_a_model(rng, kind):
    x, mask = rng.normal(size=(4, 5, 3)), rng.random((4, 5)) < 0.6
    nodes = {"x": bn.Input((5, 3)), "mask": bn.Input((5,))}
    layer = layers.Bidirectional(KINDS[kind](3, return_sequences=True, recurrent_dropout=0.3, dropout=0.3))
    model = built(nodes, layer(layers.Dense(2)(nodes["x"]), mask=nodes["mask"]))
    report = bn.check_gradients(model, {"x": x, "mask": mask.astype(float)}, rng.normal(size=(4, 5, 6)))
    assert report.passed, report
    assert report.checked > len(report.kinks)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_large_batches_on_both_devices(rng, kind, precision):
    """Shared among threads on the fused path, the same tensor by tensor."""
    x, y = rng.normal(size=(70, 20, 9)), rng.normal(size=(70, 20, 24))
    found = []
    for device in ("cpu", "ndarray"):
        model = bn.Sequential([KINDS[kind](24, return_sequences=True)])
        model.compile("mse", precision=precision, device=device)
        model.build((None, 20, 9))
        found.append([model.predict(x), *bn.gradients(model, x, y).values()])
    tolerance = 1e-4 if precision == "float32" else 1e-10
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("precision", "tolerance"), [("mixed_float16", 2e-3), ("mixed_bfloat16", 2e-2)])
def test_half_precision_is_near(rng, kind, precision, tolerance):
    """Only what goes in and comes out is rounded."""
    x, y = rng.normal(size=(6, 20, 4)), rng.normal(size=(6, 5))
    found = []
    for one in ("float64", precision):
        model = bn.Sequential([KINDS[kind](5)])
        model.compile("mse", precision=one)
        model.build((None, 20, 4))
        found.append([model.predict(x), *bn.gradients(model, x, y).values()])
    for exact, rounded in zip(*found, strict=True):
        np.testing.assert_allclose(rounded, exact, rtol=0, atol=tolerance * max(1.0, np.abs(exact).max()))


def test_dropout_is_one_mask_for_all_steps():
    """With the identity as kernels and activation each step adds what is kept of ones to what is kept of the state."""
    ones = np.ones((200, 4, 3))
    model = bn.Sequential([layers.RNN(3, "linear", dropout=0.5, recurrent_dropout=0.5, return_sequences=True)])
    model.compile("mse", precision="float64")
    model.build((None, 4, 3))
    model.set_parameters({"rnn.kernel": np.eye(3), "rnn.recurrent_kernel": np.eye(3), "rnn.bias": np.zeros(3)})
    y = core_of(model).runtime.session.predict({"x": ones}, batch_size=200, outputs=["training.prediction"])[0]
    kept = y[:, 0]
    assert set(np.unique(kept)) == {0.0, 2.0}
    assert abs((kept > 0).mean() - 0.5) < 0.1
    again = np.where(kept > 0, (y[:, 1] - kept) / 2, 0)
    assert set(np.unique(again)) == {0.0, 2.0}
    np.testing.assert_allclose(y[:, 2], kept + again * y[:, 1])
    np.testing.assert_allclose(y[:, 3], kept + again * y[:, 2])


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_for_training_alone(kind, rng):
    x = rng.normal(size=(20, 4, 3))
    model = bn.Sequential([KINDS[kind](3, dropout=0.5, recurrent_dropout=0.5, return_sequences=True)])
    model.compile("mse", "sgd", 0.0)
    model.build((None, 4, 3))
    target = model.predict(x)
    np.testing.assert_array_equal(model.predict(x), target)
    first, second = (model.train_on_batch(x, target)["loss"] for _ in range(2))
    assert first != second
    assert min(first, second) > 1e-4 > model.evaluate(x, target)["loss"]


def test_forget_gates_start_open():
    half = bn.initializers.Constant(0.5)
    for start, others in (("zeros", 0.0), (half, 0.5), (lambda shape, _: np.full(shape, 0.25), 0.25)):
        model = bn.Sequential([layers.LSTM(3, bias_initializer=start, name="layer")])
        bias = model.build((None, 2, 2)).parameters()["layer.bias"]
        np.testing.assert_array_equal(bias, np.repeat([others, 1.0, others, others], 3))
    model = bn.Sequential([layers.LSTM(3, unit_forget_bias=False, name="layer")])
    np.testing.assert_array_equal(model.build((None, 2, 2)).parameters()["layer.bias"], np.zeros(12))


def test_recurrent_kernels_start_orthogonal():
    model = bn.Sequential([layers.GRU(8, name="layer")])
    kernel = model.build((None, 2, 2)).parameters()["layer.recurrent_kernel"]
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(8), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_penalties(rng, kind):
    penalties = dict.fromkeys(["kernel_regularizer", "recurrent_regularizer", "bias_regularizer"], "l2")
    model = bn.Sequential([KINDS[kind](3, bias_initializer="normal", **penalties)])
    model.compile(lambda target, prediction: 0.0 * prediction, precision="float64")
    parameters = model.build((None, 4, 2)).parameters()
    wanted = 0.01 * sum(np.sum(array**2) for array in parameters.values())
    found = model.evaluate(rng.normal(size=(5, 4, 2)), np.zeros((5, 3)))["loss"]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_stacked_layers_learn_to_count(rng):
    x = rng.integers(0, 2, size=(256, 12, 1)).astype(np.float32)
    y = (x.sum(1) - 6) / np.sqrt(3)
    model = bn.Sequential([layers.LSTM(12, return_sequences=True), layers.GRU(12), layers.Dense(1)])
    model.compile("mse", "adam", 0.02)
    model.fit(x, y, epochs=25, verbose=0)
    assert model.evaluate(x, y)["loss"] < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_the_batch_changes_nothing(rng, kind):
    x, p = rng.normal(size=(9, 4, 3)), weights(rng, kind, 3, 5)
    order = rng.permutation(9)
    whole = OPERATIONS[kind](x, *p.values(), returns="states").numpy()
    np.testing.assert_array_equal(OPERATIONS[kind](x[order], *p.values(), returns="states").numpy(), whole[order])


def test_a_batch_without_samples_is_a_value(rng):
    for kind, operation in OPERATIONS.items():
        p = weights(rng, kind, 3, 5)
        assert operation(np.zeros((0, 4, 3)), *p.values()).numpy().shape == (0, 5)
        tensors = [bn.Tensor(array, requires_grad=True) for array in p.values()]
        bn.ops.sum(operation(np.zeros((0, 4, 3)), *tensors)).backward()
        assert not tensors[0].grad.numpy().any()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: layers.LSTM(0), ValueError, "`units`"),
        (lambda: layers.LSTM(2, "tahn"), ValueError, "`activation`: unknown name 'tahn'; did you mean 'tanh'"),
        (lambda: layers.GRU(2, recurrent_activation="gelu"), ValueError, "`recurrent_activation`"),
        (lambda: layers.RNN(2, activation=bn.ops.tanh), TypeError, "`activation` must be a name"),
        (lambda: layers.RNN(2, recurrent_dropout=1.0), ValueError, "`recurrent_dropout`"),
        (lambda: layers.LSTM(2, return_sequence=True), TypeError, "return_sequence"),
        (lambda: layers.LSTM(2, unit_forget_bias=1), TypeError, "`unit_forget_bias`"),
        (lambda: bn.initializers.UnitForget(lambda shape, _: np.ones(shape)), TypeError, "`rest` must be a name"),
        (lambda: layers.Bidirectional(layers.Dense(2)), TypeError, "`layer` must be an RNN"),
        (lambda: layers.Bidirectional(layers.GRU(2), "add"), ValueError, "`merge_mode`: unknown name 'add'"),
        (lambda: layers.LSTM(2)(bn.Input((3,))), ValueError, "lstm: expected sequences of shape"),
        (
            lambda: layers.LSTM(2)(bn.Input((3, 4)), mask=bn.Input((4,))),
            ValueError,
            r"lstm: `mask` must have shape \(batch, 3\), got \(batch, 4\)",
        ),
        (
            lambda: layers.LSTM(2)(bn.Input((3, 4)), initial_state=bn.Input((2,))),
            ValueError,
            r"`initial_state` must be 2 of shape \(batch, 2\), got \(batch, 2\)",
        ),
        (
            lambda: layers.Bidirectional(layers.GRU(2))(bn.Input((3, 4)), initial_state=[bn.Input((2,))]),
            ValueError,
            "the states of both layers",
        ),
        (lambda: bn.ops.sequence_mask(np.zeros((2, 2)), 3), ValueError, "`lengths` must have shape"),
        (
            lambda: bn.ops.lstm(np.ones((2, 3, 4)), np.ones((4, 8)), np.ones((2, 6))),
            ValueError,
            r"lstm: the recurrent kernel must have shape \(units, 4 · units\), got \(2, 6\)",
        ),
        (
            lambda: bn.ops.gru(np.ones((2, 3, 4)), np.ones((4, 6)), np.ones((2, 6)), np.ones(6)),
            ValueError,
            r"gru: the bias must have shape \(2, 6\), got \(6,\)",
        ),
        (
            lambda: bn.ops.lstm(np.ones((2, 0, 4)), np.ones((4, 8)), np.ones((2, 8))),
            ValueError,
            "time and features must have known lengths of at least 1",
        ),
        (
            lambda: bn.ops.rnn(np.ones((2, 3, 4)), np.ones((4, 2)), np.ones((2, 2)), activation="gelu"),
            ValueError,
            "gelu",
        ),
    ],
)
def test_bad_arguments(make, error, words):
    with pytest.raises(error, match=words):
        make()
