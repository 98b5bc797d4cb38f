"""The command that prints the contract suite."""

import math

import contract
import numpy as np
import pytest

import burnish as bn


def test_the_table(capsys):
    assert contract.main(["losses"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.endswith("| yes |") for line in lines) == len(contract.test_contract.TARGETS)
    assert lines[-1] == "Every operation, layer and loss has a case."


def test_what_has_no_case_fails(monkeypatch, capsys):
    monkeypatch.delitem(contract.test_contract.TARGETS, "mse")
    monkeypatch.delitem(contract.test_contract.LAYERS, "Dense")
    for name in ("conv2d", "conv2d, grouped"):
        monkeypatch.delitem(contract.operation_cases.CASES, name)
    monkeypatch.setattr(contract, "FAMILIES", {})
    assert contract.main([]) == 1
    assert capsys.readouterr().out == "Without a case: Dense, conv2d, mse\n"


GOOD = contract.Row("case", (None, 2), 1e-9, [1e-7], reloads=True, onnx=1e-7)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": None}, {"gradient": 1e-3}, {"gradient": math.inf}, {"gradient": math.nan}, {"devices": [0.0, 1e-2]},
        {"reloads": False}, {"onnx": 1e-3},
    ],
)  # fmt: skip
def test_what_is_wrong_fails_and_shows(change):
    assert contract.passes(GOOD, "layers")
    assert contract.line(GOOD, "layers").endswith("| yes |")
    bad = GOOD._replace(**change)
    assert not contract.passes(bad, "layers")
    assert contract.line(bad, "layers").endswith("| NO |")


def test_what_cannot_be_measured_passes_and_shows():
    assert contract.passes(GOOD._replace(gradient=None, onnx=None), "losses")
    assert "| not installed | yes |" in contract.line(GOOD._replace(onnx=math.nan), "losses")


def test_a_layer_that_is_not_what_it_should_be_is_found(monkeypatch, tmp_path):
    """One whose gradient is another function's, and one whose loading forgets what it learnt."""

    def make(**options):
        model = bn.Sequential(
            [bn.layers.Dense(3), bn.layers.Lambda(lambda x: bn.ops.stop_gradient(x * x) + x), bn.layers.Dense(2)]
        )
        model.compile("mse", **options)
        return model

    x, y = np.ones((6, 4)), np.ones((6, 2))
    assert contract.trained("wrong", make, x, y, tmp_path).gradient == math.inf
    load = bn.load
    monkeypatch.setattr(bn, "load", lambda path: zeroed(load(path)))
    assert not contract.trained("forgetful", make, x, y, tmp_path).reloads


def zeroed(model):
    model.set_parameters({path: 0 * array for path, array in model.parameters().items()})
    return model
