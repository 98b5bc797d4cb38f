"""Eager tensors: memory in and out, gradients."""

import numpy as np
import pytest

import burnish as bn


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("float32", "float32"),
        ("float64", "float64"),
        ("float16", "float32"),
        ("int64", "int32"),
        ("uint8", "int32"),
        ("bool", "bool"),
        (">f4", "float32"),
        (">i2", "int32"),
    ],
)
def test_types(given, kept):
    array = np.array([[0, 1], [1, 0]], dtype=given)
    tensor = bn.Tensor(array)
    assert tensor.dtype == kept
    np.testing.assert_array_equal(tensor.numpy(), array.astype(kept))


def test_any_layout():
    array = np.arange(24.0).reshape(2, 3, 4)
    for view in (array[:, ::-1], array.T, array[..., 1::2], np.asfortranarray(array)):
        np.testing.assert_array_equal(bn.Tensor(view).numpy(), view)


def test_the_array_is_copied():
    array = np.zeros(3)
    tensor = bn.Tensor(array)
    array[:] = 1
    out = tensor.numpy()
    out[:] = 2
    assert tensor.numpy().tolist() == [0, 0, 0]


def test_gradients_add_up_until_zeroed():
    x = bn.Tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    (3.0 * x).sum().backward()
    assert x.grad.numpy().tolist() == [5.0, 7.0]
    x.zero_grad()
    assert x.grad is None


def test_gradients_flow_once():
    x = bn.Tensor([1.0, 2.0], requires_grad=True)
    squares = x * x
    total = squares.sum()
    total.backward()
    for used in (total, squares.sum()):
        with pytest.raises(ValueError, match="called before"):
            used.backward()


def test_detach_stops_gradients():
    x = bn.Tensor([2.0], requires_grad=True)
    (x * x.detach()).sum().backward()
    assert x.grad.numpy().tolist() == [2.0]
    assert not x.detach().requires_grad


def test_free():
    x = bn.Tensor(np.ones(10))
    x.free()
    with pytest.raises(ValueError, match="freed"):
        x.numpy()


def test_dlpack_both_ways():
    array = np.arange(6.0).reshape(2, 3)
    tensor = bn.from_dlpack(array)
    np.testing.assert_array_equal(np.from_dlpack(tensor), array)
    np.testing.assert_array_equal(np.asarray(tensor), array)
    assert np.asarray(tensor, dtype=np.float32).dtype == np.float32


class Exchanged:
    """What speaks DLPack and nothing else."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int64", "uint8", "bool"])
def test_dlpack_of_any_type_and_layout(dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for view in (array, array[:, ::2], array[::-1, :, 1:3], array.T, array[:0], array[0, 0, 1:2].reshape(())):
        tensor = bn.from_dlpack(Exchanged(view))
        assert tensor.dtype == bn.Tensor(view).dtype
        back = np.from_dlpack(Exchanged(tensor.numpy()))
        np.testing.assert_array_equal(back, view)
        assert np.from_dlpack(tensor).dtype == tensor.dtype


def test_dlpack_gives_a_copy_that_outlives_the_tensor():
    tensor = bn.Tensor(np.arange(5.0))
    array = np.from_dlpack(tensor)
    assert np.from_dlpack(tensor, copy=True, device="cpu").flags.writeable
    tensor.free()
    np.testing.assert_array_equal(array, np.arange(5.0))
    with pytest.raises(ValueError, match="freed"):
        np.from_dlpack(tensor)


def test_long_chains_are_freed_without_recursion():
    x = bn.Tensor([0.0], requires_grad=True)
    y = x
    for _ in range(20_000):
        y = y + 1.0
    y.sum().backward()
    assert x.grad.numpy().tolist() == [1.0]


def test_python_sees_numbers():
    x = bn.Tensor([[1.5]])
    assert float(x) == 1.5
    assert len(x) == 1
    assert bool(x > 1)
    assert "float32" in repr(bn.Tensor(np.float32([1])))
    assert [row.numpy().tolist() for row in bn.Tensor([[1.0], [2.0]])] == [[1.0], [2.0]]


def test_losses_and_layers_without_parameters_run_eagerly(rng):
    target, prediction = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    value = bn.losses.mse(target, prediction)
    np.testing.assert_allclose(value.numpy(), ((target - prediction) ** 2).mean(1))
    np.testing.assert_array_equal(bn.layers.ReLU()(prediction).numpy(), np.maximum(prediction, 0))
    with pytest.raises(RuntimeError, match="inside a model"):
        bn.layers.Dense(2)(prediction)


@pytest.mark.parametrize("other", [1.0, np.ones(()), np.float64(1), np.ones(3, "f2")])
def test_float32_arrays_and_numbers_give_float32(other):
    assert bn.ops.add(np.ones(3, "f4"), other).dtype == "float32"
    assert bn.ops.add(other, np.ones(3, "f4")).dtype == "float32"


def test_arrays_of_two_types_meet_in_the_wider():
    assert bn.ops.add(np.ones(3, "f4"), np.ones(3)).dtype == "float64"


def test_what_is_computed_of_arrays_takes_the_type_and_device_of_tensors():
    computed = bn.ops.subtract(1.0, np.arange(3.0))
    for one in (computed, computed[:], computed.detach()):
        total = one + bn.Tensor(np.ones(3, "f4"), device="ndarray")
        assert (total.dtype, total.device) == ("float32", "ndarray")
        np.testing.assert_array_equal(total.numpy(), [2, 1, 0])


@pytest.mark.parametrize("types", [("f4", "f4"), ("f4", "f8")])
def test_tensors_of_two_devices_do_not_meet(types):
    a, b = np.ones(3, types[0]), np.ones(3, types[1])
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        bn.Tensor(a) + bn.Tensor(b, device="ndarray")


def test_long_floats_become_float64():
    assert bn.Tensor(np.ones(2, np.longdouble)).dtype == "float64"


def test_an_operand_must_not_be_masked():
    with pytest.raises(TypeError, match="masked"):
        bn.ops.add(np.ma.array([1.0, 2.0], mask=[0, 1]), 1.0)
