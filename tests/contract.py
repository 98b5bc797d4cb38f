"""Print what every operation, layer and loss keeps, a Markdown table for each family: `python tests/contract.py`.

The cases are those of the tests (tests/operation_cases.py, tests/test_contract.py). Each is held to: the shape that the
program infers is the result's; float64 gradients are those of central differences; every device gives what the CPU
does, two updates included; what is saved and loaded gives the same bits, and the same bits after another update;
onnxruntime computes from the exported file what `predict` does. An operation, layer or loss without a case fails.
`python tests/contract.py layers` prints that table alone. ONNX needs onnx and onnxruntime.
"""

import importlib.util
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import operation_cases
import test_contract

import burnish as bn
from burnish import layers, losses
from burnish._onnx.table import REFUSED
from burnish.model import core_of

# |a - b| / max(1, |b|) of the worst element. Gradients: the step of the differences is 1e-6. Devices: other orders of
# summation in float32, through two updates for layers and losses.
GRADIENTS = 1e-6
DEVICES = {"operations": 2e-5, "layers": 1e-4, "losses": 1e-4}
ONNX = 1e-5
PRESENT = sorted({device["name"].partition(":")[0] for device in bn.devices()} - {"cpu"})
RUNTIME = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))


class Row(NamedTuple):
    """One case; an error that is None stands for what there is nothing to measure of."""

    name: str
    shape: tuple | None  # None: the program's is not the result's
    gradient: float | None
    devices: list
    reloads: bool
    onnx: float | None


def distance(found, expected):
    """The largest |a - b| / max(1, |b|); infinite for other shapes and where one is NaN."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    if found.shape != expected.shape:
        return math.inf
    apart = np.abs(found - expected) / np.maximum(1.0, np.abs(expected))
    return float(np.max(np.nan_to_num(apart, nan=math.inf), initial=0.0))


def operations(folder):
    for name, case in operation_cases.CASES.items():
        model, x = operation_cases.modelled(case)
        yield Row(
            name,
            shape_of(model, x),
            operation_cases.gradient_error(case),
            [distance(eager(case, device), eager(case, "cpu")) for device in PRESENT],
            predicts_again(model, x, folder),
            None if name.partition(",")[0] in REFUSED else exported(model, x, folder),
        )
    for name, function in operation_cases.RANDOM.items():
        x = test_contract.VECTOR

        def between(function=function, **options):
            made = bn.Sequential([layers.Dense(4, "tanh"), layers.Lambda(function), layers.Dense(2)])
            made.compile("mse", **options)
            return made

        yield trained(name, between, x, test_contract.NUMBERS[:, :2], folder, drawn=True)


def eager(case, device):
    return case.function(*operation_cases.eager(case, "float32", device)).numpy()


def layers_between_others(folder):
    for name in test_contract.LAYERS:
        node, value, x = test_contract.applied(name)
        y = test_contract.NUMBERS[:, :2]

        def make(name=name, **options):
            return test_contract.network(name, **options)[0]

        yield trained(name, make, x, y, folder)._replace(shape=shape_of(bn.Model(node, value), x))


def losses_of_a_layer(folder):
    for name, target in test_contract.TARGETS.items():

        def make(name=name, **options):
            made = bn.Sequential([layers.Dense(4, "tanh"), test_contract.head(name)])
            made.compile(name, **options)
            return made

        yield trained(name, make, test_contract.VECTOR, target, folder, predicts=False)


def trained(name, make, x, y, folder, *, drawn=False, predicts=True):
    """Hold what `make(**options)` returns, a compiled model, to the contract."""
    model = make()
    report = bn.check_gradients(model, x, y)
    worst = report.worst
    return Row(
        name,
        shape_of(model, x),
        math.inf if not report.passed else worst and distance(worst.analytic, worst.numeric),
        [updates_apart(make, x, y, device) for device in PRESENT],
        predicts_again(model, x, folder) and goes_on(model, x, y, folder),
        exported(model, x, folder) if predicts and not drawn else None,
    )


def shape_of(model, x):
    """The inferred shape of one sample's result, if that is what comes out."""
    result = model.predict(x)
    program = core_of(model).ready().built.program
    inferred = program.shape(json.loads(program.to_json())["outputs"]["prediction"])
    rows = len(x[0] if isinstance(x, tuple) else x)
    return inferred if result.shape == (rows, *inferred[1:]) else None


def updates_apart(make, x, y, device):
    """How far predictions and parameters are from the CPU's, before and after two plain updates."""
    found, expected = make(optimizer="sgd", device=device), make(optimizer="sgd")
    apart = [distance(found.predict(x), expected.predict(x))]
    for _ in range(2):
        losses = [model.train_on_batch(x, y)["loss"] for model in (found, expected)]
        apart.append(distance(*losses))
    parameters = expected.parameters(buffers=True)
    return max(*apart, *(distance(array, parameters[path]) for path, array in found.parameters(buffers=True).items()))


def loaded(model, folder):
    model.save(folder / "model")
    return bn.load(folder / "model")


def predicts_again(model, x, folder):
    return np.array_equal(loaded(model, folder).predict(x), model.predict(x))


def goes_on(model, x, y, folder):
    """Whether the next update has the same bits."""
    model.train_on_batch(x, y)
    other = loaded(model, folder)
    same = model.train_on_batch(x, y) == other.train_on_batch(x, y)
    arrays = other.parameters(buffers=True)
    return same and all(np.array_equal(array, arrays[path]) for path, array in model.parameters(buffers=True).items())


def exported(model, x, folder):
    """How far onnxruntime is from `predict`; NaN where it is not installed, None for what ONNX has no words for."""
    program = core_of(model).ready().built.program
    if {operation for _, operation, _ in program.nodes()} & set(REFUSED):
        return None
    if not RUNTIME:
        return math.nan
    import onnxruntime

    try:
        model.export(folder / "model.onnx")
    except ValueError as error:
        print(f"{error}", file=sys.stderr)
        return math.inf
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    arrays = x if isinstance(x, tuple) else (x,)
    types = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}
    feed = {
        given.name: array.astype(types[given.type]) for given, array in zip(session.get_inputs(), arrays, strict=True)
    }
    return distance(session.run(None, feed)[0], model.predict(x))


def passes(row, family):
    return (
        row.shape is not None
        and (row.gradient is None or row.gradient <= GRADIENTS)
        and all(error <= DEVICES[family] for error in row.devices)
        and row.reloads
        and (row.onnx is None or math.isnan(row.onnx) or row.onnx <= ONNX)
    )


def line(row, family):
    shape = "WRONG" if row.shape is None else ", ".join("batch" if n is None else str(n) for n in row.shape)
    cells = [
        row.name,
        shape,
        figure(row.gradient),
        *map(figure, row.devices),
        "same bits" if row.reloads else "NO",
        "not installed" if row.onnx is not None and math.isnan(row.onnx) else figure(row.onnx),
        "yes" if passes(row, family) else "NO",
    ]
    return f"| {' | '.join(cells)} |"


def figure(error):
    return "" if error is None else f"{error:.1e}"


def uncovered():
    """Names that no case covers."""
    functions = {name.partition(",")[0] for name in operation_cases.CASES} | set(operation_cases.RANDOM)
    return sorted(
        {
            *(operation_cases.operations_without_a_case() - set(operation_cases.RANDOM)),
            *(set(bn.ops.__all__) - functions),
            *(set(layers.__all__) - {"Layer"} - set(test_contract.LAYERS)),
            *(set(losses.BY_NAME) - set(test_contract.TARGETS)),
        }
    )


FAMILIES = {"operations": operations, "layers": layers_between_others, "losses": losses_of_a_layer}


def main(names):
    passed = True
    for family in names or FAMILIES:
        print(
            f"## {family.capitalize()}\n\nGradients to {GRADIENTS:.0e}, devices to {DEVICES[family]:.0e}, "
            f"ONNX to {ONNX:.0e}: the worst |a - b| / max(1, |b|).\n\n"
            f"| case | shape | gradient | {' | '.join(PRESENT)} | saved and loaded | ONNX | pass |\n"
            f"|---|---|---|{'---|' * len(PRESENT)}---|---|---|"
        )
        with tempfile.TemporaryDirectory() as folder:
            for row in FAMILIES[family](Path(folder)):
                passed &= passes(row, family)
                print(line(row, family), flush=True)
        print()
    missing = uncovered()
    print(f"Without a case: {', '.join(missing)}" if missing else "Every operation, layer and loss has a case.")
    return 0 if passed and not missing else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
