"""Print how far burnish is from the reference curves, a Markdown table for each section: `python tests/parity.py`."""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import test_optimizers
import test_parity
import test_schedules

import burnish as bn


class Row(NamedTuple):
    """One case: the largest error, and what is allowed."""

    case: str
    error: float
    tolerance: float

    @property
    def passes(self):
        return self.error <= self.tolerance


def schedules():
    """Compare every schedule with the curve of PyTorch, Keras or Optax, or the formula, that it follows."""
    for case in test_schedules.CASES:
        errors = np.abs(case.schedule.values(len(case.values)) - case.values)
        yield Row(case.name, float(errors.max()), case.tolerance)


def optimizers():
    """Compare every optimizer, on every device and in every precision, with PyTorch, Optax or the formula in NumPy."""
    for case in test_optimizers.CASES:
        for precision in case.precisions:
            for device in devices_with(precision):
                errors = np.abs(case.points(device, precision) - np.array(case.trajectory))
                tolerance = test_optimizers.TOLERANCES[precision]
                yield Row(f"{case.name}, {device}, {precision}", float(errors.max()), tolerance)


def training():
    """Compare the losses of 25 updates, relatively, with PyTorch's: trained here if installed, else its golden ones."""
    sys.path.append(str(Path(__file__).parent / "golden"))
    try:
        from make_training import record
    except ModuleNotFoundError:
        record = test_parity.golden
    for case in test_parity.CASES:
        reference = record(case.name)
        for precision, tolerance in test_parity.TOLERANCES.items():
            for device in devices_with(precision):
                yield Row(f"{case.name}, {device}, {precision}", case.error(reference, device, precision), tolerance)


def devices_with(precision):
    """Return the devices that are here and have the precision."""
    names = ("cpu", "ndarray", "wgpu", "cuda") if precision == "float32" else ("cpu", "ndarray")
    return [name for name in names if name in DEVICES]


DEVICES = {device["name"].partition(":")[0] for device in bn.devices()}
SECTIONS = {"Schedules": schedules, "Optimizers": optimizers, "Training": training}


def main():
    passed = True
    for title, rows in SECTIONS.items():
        print(f"## {title}\n\n| case | largest error | tolerance | pass |\n|---|---|---|---|")
        for row in rows():
            passed &= row.passes
            print(f"| {row.case} | {row.error:.1e} | {row.tolerance:.0e} | {'yes' if row.passes else 'NO'} |")
        print()
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
