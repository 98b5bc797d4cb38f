"""Every operation against NumPy: value, shape and kind, eagerly and inside a model; slopes against its differences."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from operation_cases import (
    CASES,
    IMAGES,
    POSITIVE,
    RANDOM,
    X,
    eager,
    gradient_error,
    model_of,
    operations_without_a_case,
)

import burnish as bn
from burnish import ops

RNG = np.random.default_rng(1)


def test_every_function_has_a_case():
    covered = {name.partition(",")[0] for name in CASES} | set(RANDOM)
    assert covered == set(ops.__all__)


def test_the_cases_use_every_operation_of_the_engine():
    assert operations_without_a_case() == set(RANDOM)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-12)])
def test_eager_value(name, dtype, tolerance, device):
    if device == "wgpu" and dtype == "float64":
        pytest.skip("WGSL has no float64")
    case = CASES[name]
    value = case.function(*eager(case, dtype, device))
    expected = case.reference(*case.inputs)
    assert value.shape == expected.shape
    assert value.device.startswith(device)
    if expected.dtype.kind == case.inputs[0].dtype.kind == "f":
        assert value.dtype == dtype
    np.testing.assert_allclose(value.numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_gradient(name):
    error = gradient_error(CASES[name])
    assert error is None or error <= (0.0 if CASES[name].flat else 1e-6)


@pytest.mark.parametrize("name", CASES)
def test_value_inside_a_model(name):
    case = CASES[name]
    result, _ = model_of(case)
    np.testing.assert_allclose(result, case.reference(*case.inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
def test_reductions_to_a_number(name, device):
    x = bn.Tensor(X.astype(np.float32), requires_grad=True, device=device)
    value = getattr(ops, name)(x)
    assert value.shape == ()
    np.testing.assert_allclose(value.numpy(), getattr(X, name)(), rtol=1e-5)
    value.backward()
    assert x.grad.shape == (3, 4)


@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_taken_several_times_gets_several_slopes(axis, device):
    indices = np.array([[0, 2, 2, 1], [1, 2, 0, 1], [0, 0, 2, 1]])
    indices = indices if axis else np.vstack([indices, indices])
    slopes = np.linspace(-1.0, 1.0, indices.size).reshape(indices.shape)
    x = bn.Tensor(X.astype(np.float32), requires_grad=True, device=device)
    ops.sum(ops.take_along_axis(x, indices, axis) * slopes).backward()
    expected = np.zeros((3, 4))
    for place, slope in np.ndenumerate(slopes):
        expected[(indices[place], place[1]) if axis == 0 else (place[0], indices[place])] += slope
    np.testing.assert_allclose(x.grad.numpy(), expected, atol=1e-6)


def test_dropout_keeps_the_mean_and_scales():
    x = bn.Tensor(np.ones((200, 500), np.float32))
    y = ops.dropout(x, 0.25).numpy()
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.01
    assert not np.array_equal(y, ops.dropout(x, 0.25).numpy())


def test_dropout_gradient_is_its_mask():
    x = bn.Tensor(np.ones((20, 5)), requires_grad=True)
    y = ops.dropout(x, 0.5)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())


def test_random_numbers_have_their_distribution():
    x = bn.Tensor(np.zeros((400, 500), np.float32))
    normal, uniform = ops.random_normal_like(x).numpy(), ops.random_uniform_like(x).numpy()
    assert abs(normal.mean()) < 0.01
    assert abs(normal.std() - 1) < 0.01
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.01


floats = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=1, max_dims=3, max_side=4), elements=st.floats(-5, 5, width=32)
)


@given(floats, st.data())
def test_indexing_is_numpys(array, data):
    key = data.draw(hnp.basic_indices(array.shape, allow_newaxis=True, allow_ellipsis=True))
    keys = key if isinstance(key, tuple) else (key,)
    if any(isinstance(k, slice) and k.step is not None and k.step < 0 for k in keys):
        with pytest.raises(IndexError, match="step"):
            bn.Tensor(array)[key]
        return
    expected = array[key]
    if expected.size:
        np.testing.assert_array_equal(bn.Tensor(array)[key].numpy(), expected)


@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3))
def test_broadcasting_and_its_gradient_are_numpys(shapes):
    a, b = (RNG.normal(size=shape) for shape in shapes.input_shapes)
    x, y = bn.Tensor(a, requires_grad=True), bn.Tensor(b, requires_grad=True)
    product = x * y
    np.testing.assert_array_equal(product.numpy(), a * b)
    product.sum().backward()
    np.testing.assert_allclose(
        x.grad.numpy(), np.broadcast_to(b, (a * b).shape).sum() if a.ndim == 0 else reduced(b, a)
    )
    np.testing.assert_allclose(
        y.grad.numpy(), np.broadcast_to(a, (a * b).shape).sum() if b.ndim == 0 else reduced(a, b)
    )


def reduced(other, to):
    """Sum what was broadcast, back to the shape of `to`."""
    full = np.broadcast_to(other, np.broadcast_shapes(other.shape, to.shape))
    full = full.sum(axis=tuple(range(full.ndim - to.ndim)))
    axes = tuple(i for i, n in enumerate(to.shape) if n == 1 and full.shape[i] != 1)
    return full.sum(axis=axes, keepdims=True)


@pytest.mark.parametrize("value", [800.0, -800.0])
@pytest.mark.parametrize("function", [ops.softplus, ops.sigmoid, ops.softmax, ops.log_softmax, ops.silu, ops.logsumexp])
def test_large_numbers_do_not_overflow(function, value):
    x = bn.Tensor([[value, 0.0]], requires_grad=True)
    y = function(x)
    y.sum().backward()
    assert np.isfinite(y.numpy()).all()
    assert np.isfinite(x.grad.numpy()).all()


def test_kinds_follow_numpy():
    i, f = bn.Tensor([1, 2]), bn.Tensor([1.5, 2.5])
    assert (i + 1).kind == "int"
    assert (i + f).kind == "float"
    assert (i / 2).kind == "float"
    assert (i > 1).kind == "bool"
    assert (~(i > 1)).numpy().tolist() == [True, False]
    assert (-i).numpy().tolist() == [-1, -2]
    assert ((i > 1) | (i < 2)).numpy().all()


def test_arrays_and_numbers_stand_on_either_side():
    x, array = bn.Tensor([1.0, 2.0]), np.array([3.0, 4.0])
    for left, right, expected in [
        (array, x, [4.0, 6.0]),
        (x, array, [4.0, 6.0]),
        (1, x, [2.0, 3.0]),
        (x, 1.0, [2.0, 3.0]),
    ]:
        assert isinstance(left + right, bn.Tensor)
        assert (left + right).numpy().tolist() == expected
    assert (2**x).numpy().tolist() == [2.0, 4.0]


def test_operators_and_methods_are_numpys():
    a, b = X.copy(), POSITIVE
    x, y = bn.Tensor(a), bn.Tensor(b)
    for made, expected in [
        (1.0 - x, 1.0 - a), (1.0 / y, 1.0 / b), (y**x, b**a), (2.0**x, 2.0**a), (x**2.0, a**2), (abs(x), abs(a)),
        (-x, -a), (x.sum(), a.sum()),
        (x @ b.T, a @ b.T), (a @ y.T, a @ b.T), (x <= a, a <= a), (x < y, a < b), (x >= y, a >= b), (x == a, a == a),
        (x != y, a != b), ((x > 0) & (y > 1), (a > 0) & (b > 1)), (x.T, a.T), (x.transpose(1, 0), a.T),
        (x.mean(1), a.mean(1)), (x.max(0, keepdims=True), a.max(0, keepdims=True)), (x.min(), a.min()),
        (x.reshape(4, -1), a.reshape(4, -1)), (x.reshape((2, 6)), a.reshape(2, 6)), (x[[2, 0]], a[[2, 0]]),
        (x[np.array(1)], a[1]), (abs(bn.Tensor([-2, 3])), [2, 3]), (x[..., None, 1], a[..., None, 1]),
    ]:  # fmt: skip
        np.testing.assert_allclose(made.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: ops.sum(x, 2), ValueError, "`axis` must be from -2 to 1"),
        (lambda x: ops.squeeze(x, 0), ValueError, "length 1"),
        (lambda x: ops.take(x, [0.5]), TypeError, "indices must be integers"),
        (lambda x: x + np.array(["a"]), TypeError, "array of numbers"),
        (lambda x: ops.concatenate([]), ValueError, "at least one"),
        (lambda x: x @ x, ValueError, "matmul"),
        (lambda x: x.reshape(5), ValueError, "reshape"),
        (lambda x: x[5], IndexError, "out of range"),
        (lambda x: x[0, 0, 0], IndexError, "3 indices for 2 axes"),
        (lambda x: x[1.5], TypeError, "an index must be"),
        (lambda x: ops.stack([x], 5), ValueError, "`axis` must be from"),
        (lambda x: int(x.T), ValueError, "size 1"),
        (lambda x: x[..., 0, ...], IndexError, "one `...`"),
        (lambda x: ops.cast(x, "complex"), ValueError, "unknown name 'complex'"),
        (bool, ValueError, "ambiguous"),
        (lambda x: ops.einsum("ab", x), ValueError, "must have the form"),
        (lambda x: ops.einsum("ab,bc->ac", x), ValueError, "must have the form"),
        (lambda x: ops.einsum("aab->b", x), ValueError, "a letter twice"),
        (lambda x: ops.einsum("ab->ac", x), ValueError, "no operand has the axis 'c'"),
        (lambda x: ops.einsum("abc->a", x), ValueError, "names 3 axes"),
        (lambda x: ops.einsum("ab,bc->ac", x, x), ValueError, "axis 'b' has lengths 3 and 2"),
        (lambda x: ops.split(x, 2, 1), ValueError, "must divide the length 3"),
        (lambda x: ops.split(x, [2, 1], 1), ValueError, "places from 0 to 3 in order"),
        (lambda x: ops.tile(x, [2]), ValueError, "a number for each of 2 axes"),
        (lambda x: ops.repeat(x, 0, 1), ValueError, "`repeats` must be an integer of at least 1"),
        (lambda x: ops.tril(x[0]), ValueError, "needs two axes"),
        (lambda x: ops.prod(np.zeros((2, 0))), ValueError, "no elements"),
        (lambda x: ops.max_pool1d(x[None], 2, 0), ValueError, "strides and dilation must be at least 1"),
        (lambda x: x.backward(), ValueError, "requires_grad"),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call(bn.Tensor(np.ones((2, 3))))


def test_expm1_is_exact_for_small_numbers():
    x = np.float32([1e-7, -1e-5, 3e-4, 0.5, -0.99, 1.01, 20.0, -20.0])
    np.testing.assert_allclose(ops.expm1(bn.Tensor(x)).numpy(), np.expm1(x.astype(float)), rtol=3e-7)


def test_elu_and_sigmoid_keep_the_digits_of_small_values():
    x = -np.float32([1e-7, 1e-5, 3e-4, 0.1, 1.0, 20.0, 60.0])
    exact = x.astype(float)
    np.testing.assert_allclose(ops.elu(bn.Tensor(x)).numpy(), np.expm1(exact), rtol=3e-7)
    np.testing.assert_allclose(ops.sigmoid(bn.Tensor(x)).numpy(), 1 / (1 + np.exp(-exact)), rtol=3e-7)


def test_angles_of_the_whole_plane():
    y, x = np.meshgrid([-2.0, -1e-9, -0.0, 0.0, 1e-9, 3.0], [-1.0, -1e-12, 0.0, 1e-12, 5.0])
    found = ops.arctan2(bn.Tensor(y), bn.Tensor(x)).numpy()
    np.testing.assert_allclose(np.exp(1j * found), np.exp(1j * np.arctan2(y, x)), atol=1e-15)
    assert (abs(found) <= np.pi).all()
    ends = bn.Tensor(np.array([-1.0, 0.0, 1.0]))
    np.testing.assert_allclose(ops.arcsin(ends).numpy(), np.arcsin([-1, 0, 1]), atol=1e-15)
    np.testing.assert_allclose(ops.arccos(ends).numpy(), np.arccos([-1, 0, 1]), atol=1e-15)
    far = bn.Tensor(np.array([-np.inf, -1e300, 0.0, 1e300, np.inf]), requires_grad=True)
    np.testing.assert_allclose(ops.arctan(far).numpy(), [-np.pi / 2, -np.pi / 2, 0.0, np.pi / 2, np.pi / 2])
    ops.arctan(far).sum().backward()
    np.testing.assert_array_equal(far.grad.numpy(), [0.0, 0.0, 1.0, 0.0, 0.0])
    np.testing.assert_allclose(ops.arctan2([3.0, -1.0], [0.0, -2.0]).numpy(), np.arctan2([3.0, -1.0], [0.0, -2.0]))


def test_slopes_on_the_axes():
    zero = bn.Tensor(np.zeros(1), requires_grad=True)
    for name, slope in (("arcsinh", 1), ("arcsin", 1), ("arccos", -1), ("arctan", 1), ("arctanh", 1), ("sinh", 1)):
        zero.zero_grad()
        getattr(ops, name)(zero).sum().backward()
        np.testing.assert_allclose(zero.grad.numpy(), [slope], err_msg=name)
    y, x = np.array([2.0, -3.0, 0.0, -0.5]), np.array([0.0, 0.0, 4.0, -0.5])
    up, right = bn.Tensor(y, requires_grad=True), bn.Tensor(x, requires_grad=True)
    ops.arctan2(up, right).sum().backward()
    np.testing.assert_allclose(up.grad.numpy(), x / (x**2 + y**2), atol=1e-15)
    np.testing.assert_allclose(right.grad.numpy(), -y / (x**2 + y**2), atol=1e-15)


@given(st.floats(-1, 1))
def test_small_numbers_keep_their_digits(x):
    for name, reference in (("sinh", np.sinh), ("arcsinh", np.arcsinh), ("arctan", np.arctan), ("expm1", np.expm1)):
        np.testing.assert_allclose(getattr(ops, name)(bn.Tensor([x])).numpy(), reference([x]), rtol=4e-15, atol=1e-300)


def test_numbers_whose_squares_overflow_or_vanish():
    large = np.float32([1e18, 1e20, 1e38])
    x = bn.Tensor(np.concatenate([large, -large]), requires_grad=True)
    value = ops.arcsinh(x)
    np.testing.assert_allclose(value.numpy(), np.arcsinh(x.numpy().astype(float)), rtol=1e-6)
    value.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 1 / np.tile(large, 2), rtol=1e-5)
    np.testing.assert_allclose(ops.arccosh(bn.Tensor(large)).numpy(), np.arccosh(large.astype(float)), rtol=1e-6)
    for size in np.float32([1e-30, 1e20, 1e38]):
        y, x = np.float32([[1, 1, -2, 0.5], [1, -3, 0.1, -1]]) * size
        np.testing.assert_allclose(ops.arctan2(bn.Tensor(y), bn.Tensor(x)).numpy(), np.arctan2(y, x), rtol=1e-6)
    near = np.float32([1, 1 + 1e-6, 1.001])
    np.testing.assert_allclose(ops.arccosh(bn.Tensor(near)).numpy(), np.arccosh(near.astype(float)), rtol=1e-6)


def test_the_slope_of_the_norm_at_zero_is_zero():
    x = bn.Tensor(np.zeros((2, 3)), requires_grad=True)
    (ops.norm(x, -1).sum() + ops.normalize(x).sum()).backward()
    assert np.isfinite(x.grad.numpy()).all()
    assert not bn.Tensor(np.zeros(3)).numpy().any()


EQUATIONS = [
    "ab,bc->ac", "ab,cb->ca", "abc,abd->acd", "ab,ab->a", "ab,ab->", "a,b->ba", "abc,dc->bda", "ab,c->abc",
    "ab,bcd->ad",
]  # fmt: skip


@given(st.sampled_from(EQUATIONS), st.fixed_dictionaries({letter: st.integers(1, 3) for letter in "abcd"}))
def test_einsum_is_numpys(equation, by_letter):
    left, right = (
        RNG.normal(size=[by_letter[n] for n in letters]) for letters in equation.partition("->")[0].split(",")
    )
    expected = np.einsum(equation, left, right)
    np.testing.assert_allclose(ops.einsum(equation, left, right).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_einsum_of_one_operand():
    np.testing.assert_allclose(ops.einsum("abcd->dca", IMAGES).numpy(), np.einsum("abcd->dca", IMAGES), rtol=1e-5)


@given(hnp.array_shapes(min_dims=1, max_dims=3, max_side=5), st.integers(-7, 7), st.data())
def test_movements_are_numpys(shape, shift, data):
    array = RNG.normal(size=shape)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    other = data.draw(st.integers(-len(shape), len(shape) - 1))
    for made, expected in [
        (ops.roll(array, shift, axis), np.roll(array, shift, axis)),
        (ops.moveaxis(array, axis, other), np.moveaxis(array, axis, other)),
        (ops.swapaxes(array, axis, other), np.swapaxes(array, axis, other)),
        (ops.repeat(array, abs(shift) + 1, axis), np.repeat(array, abs(shift) + 1, axis)),
        (ops.tile(array, [2] * len(shape)), np.tile(array, [2] * len(shape))),
        (ops.cumsum(array, axis), np.cumsum(array, axis)),
        (ops.cumprod(array, axis), np.cumprod(array, axis)),
        (ops.prod(array, axis), np.prod(array, axis)),
    ]:
        np.testing.assert_allclose(made.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("a", "b"), [(427.7, 0.1), (-427.7, 0.1), (5.0, np.inf), (-5.0, np.inf), (6.0, 3.0), (1.0, -0.1)]
)
def test_mod_of_a_rounded_quotient(a, b):
    rest, quotient = ops.mod(a, b).item(), ops.floor_divide(a, b).item()
    np.testing.assert_allclose(rest, np.mod(a, b), atol=1e-13)
    assert quotient == np.floor_divide(a, b)
    assert rest * np.sign(b) >= 0


def test_slopes_of_mod():
    a, b = bn.Tensor([7.5, -7.5], requires_grad=True), bn.Tensor([2.0, 2.0], requires_grad=True)
    ops.sum(ops.mod(a, b)).backward()
    assert a.grad.numpy().tolist() == [1, 1]
    assert b.grad.numpy().tolist() == [-3, 4]


def test_slope_of_the_standard_deviation_of_equal_elements():
    x = bn.Tensor([2.0, 2.0], requires_grad=True)
    ops.standard_deviation(x).backward()
    assert x.grad.numpy().tolist() == [0, 0]
    assert np.isnan(ops.standard_deviation([np.nan, 1.0]).item())


def test_arccos_near_one():
    x = np.float32(1) - np.float32(2) ** -np.arange(2, 24, dtype="f4")
    np.testing.assert_allclose(ops.arccos(x).numpy(), np.arccos(x.astype("f8")), rtol=1e-6)


def test_slope_of_cosh_near_zero():
    numbers = np.array([-1e-4, 1e-6, 1e-3, 2.0], "f4")
    x = bn.Tensor(numbers, requires_grad=True)
    ops.sum(ops.cosh(x)).backward()
    np.testing.assert_allclose(x.grad.numpy(), np.sinh(numbers.astype("f8")), rtol=1e-6)


def test_axes_of_numpy_integers():
    x = np.arange(6.0).reshape(2, 3)
    assert ops.sum(x, np.int64(1)).shape == (2,)
    assert ops.softmax(x, np.int64(1)).shape == (2, 3)
    for axis in (1.0, [1.0]):
        with pytest.raises(TypeError, match=r"`axis` must be an integer, got 1\.0"):
            ops.sum(x, axis)


def test_any_and_all_of_nothing():
    assert ops.any(np.ones((2, 0)), 1).numpy().tolist() == [False, False]
    assert ops.all(np.ones((2, 0)), 1).numpy().tolist() == [True, True]


@pytest.mark.parametrize("function", [ops.hard_shrink, ops.threshold])
def test_thresholds_keep_nan(function):
    assert np.isnan(function(np.nan).item())


def test_arguments_may_be_numbers_of_numpy():
    x = bn.Tensor([[0.3, -0.7], [1.5, 0.2]])
    pairs = [
        (ops.leaky_relu(x, np.float32(0.5)), ops.leaky_relu(x, 0.5)),
        (ops.sum(x, np.int64(1), keepdims=np.bool_(True)), ops.sum(x, 1, keepdims=True)),
        (ops.dropout(x, np.float64(0.0)), x),
    ]
    for found, expected in pairs:
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
