"""Ailments of the data: numbers no network can use, scales that slow it down, rows that tell the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._report import Finding, Remedy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

    Arrays = Mapping[str, npt.NDArray[Any]]

__all__ = ["Sample", "examine_data"]

_ROWS = 4096  # looked at, evenly spread: enough for means, and quick for a memory map
_BYTES = 1 << 28  # compared row by row for leaks


class Sample(NamedTuple):
    """Training arrays by name, validation arrays or None, and which targets are class labels."""

    x: Arrays
    y: Arrays
    validation: Arrays | None
    labels: frozenset[str]


def examine_data(sample: Sample) -> list[Finding]:
    """Return everything that is wrong with the data."""
    return [
        *_not_finite(sample),
        *_unscaled(sample),
        *_constant_columns(sample),
        *_labels(sample),
        *_leaks(sample),
    ]


def _some(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array[:: max(1, len(array) // _ROWS)]


def _floats(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return some rows as a table of float64."""
    some = _some(array)
    return np.asarray(some, dtype=np.float64).reshape(len(some), -1)


def _not_finite(sample: Sample) -> Iterator[Finding]:
    for name, array in {**sample.x, **sample.y}.items():
        if array.dtype.kind != "f":
            continue
        bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
        count = int(np.count_nonzero(bad))
        if count:
            first = int(np.argmax(bad))
            text = f"{count} of {len(array)} rows of `{name}` hold NaN or infinity, row {first} first"
            short = name.partition(".")[0]
            remedies = (
                Remedy("Drop those rows", f"keep = np.isfinite({short}).all(axis=-1); x, y = x[keep], y[keep]"),
                Remedy("Fill them", f"{short} = np.nan_to_num({short}, nan=0.0, posinf=0.0, neginf=0.0)"),
            )
            yield Finding("bad_data", "error", text, {"array": name, "rows": count, "first": first}, remedies)


def _unscaled(sample: Sample) -> Iterator[Finding]:
    for name, array in {**sample.x, **sample.y}.items():
        limit = 10.0 if name in sample.x else 30.0
        if array.dtype.kind not in "fiu" or name in sample.labels or (name in sample.x and array.dtype.kind != "f"):
            continue
        table = _floats(array)
        table = table[np.isfinite(table).all(axis=1)]
        if len(table) < 2:
            continue
        means, deviations = np.abs(table.mean(axis=0)), table.std(axis=0)
        size = np.maximum(means, deviations)
        worst = int(np.argmax(size))
        moving = deviations[deviations > 0]
        tiny = name in sample.x and moving.size > 0 and float(size.max()) < 1e-2
        if float(size[worst]) <= limit and not tiny:
            continue
        text = (
            f"`{name}` is not scaled: column {worst} has mean {table[:, worst].mean():.3g} and deviation "
            f"{deviations[worst]:.3g}; about 0 and 1 train best"
        )
        short = name.partition(".")[0]
        code = f"{short} = ({short} - {short}.mean(axis=0)) / ({short}.std(axis=0) + 1e-7)"
        remedies = (
            Remedy("Bring every column to mean 0 and deviation 1 (with the training set's figures everywhere)", code),
            Remedy("Let the network do it", "bn.layers.BatchNorm()  # as the first layer"),
        )
        numbers: dict[str, float | str] = {
            "array": name,
            "column": worst,
            "mean": float(table[:, worst].mean()),
            "deviation": float(deviations[worst]),
        }
        yield Finding("unscaled_data", "warning", text, numbers, remedies)


def _constant_columns(sample: Sample) -> Iterator[Finding]:
    for name, array in sample.x.items():
        if array.dtype.kind != "f" or len(array) < 8:
            continue
        table = _floats(array)
        constant = np.flatnonzero(np.ptp(table, axis=0) == 0)
        if 2 * constant.size <= table.shape[1]:
            continue  # a few dead pixels or unused features are usual
        text = f"{constant.size} of {table.shape[1]} columns of `{name}` never change: they tell the network nothing"
        remedies = (
            Remedy("Leave them out", "x = x[:, x.std(axis=0) > 0]"),
            Remedy("Look at how the array was made", "print(x[:3])"),
        )
        yield Finding("constant_columns", "warning", text, {"array": name, "columns": constant.size}, remedies)


def _labels(sample: Sample) -> Iterator[Finding]:
    for name, array in sample.y.items():
        if name not in sample.labels:
            if len(array) >= 8 and array.dtype.kind == "f" and not np.ptp(_floats(array), axis=0).any():
                yield _one_answer(name, float(_floats(array).flat[0]))
            continue
        values, counts = np.unique(_some(array).astype(np.float64), return_counts=True)
        share = float(counts.max() / counts.sum())
        if len(values) == 1 and len(array) >= 8:
            yield _one_answer(name, float(values[0]))
        elif share > 0.9 and len(array) >= 20:
            yield _imbalance(name, values[int(counts.argmax())], share, values, counts)
        if values.min() < 0 or (values != np.floor(values)).any():
            text = f"`{name}` must hold whole numbers from 0 on, and goes from {values.min():g} to {values.max():g}"
            remedies = (Remedy("Number the classes", "classes, y = np.unique(y, return_inverse=True)"),)
            yield Finding("bad_labels", "error", text, {"least": float(values.min())}, remedies)


def _one_answer(name: str, value: float) -> Finding:
    text = f"every row of `{name}` is {value:g}: there is nothing to tell apart"
    remedies = (
        Remedy("Look at how the targets were made", "print(np.unique(y, return_counts=True))"),
        Remedy("Shuffle before cutting rows off a sorted set", "order = np.random.default_rng(0).permutation(len(x))"),
    )
    return Finding("one_class", "error", text, {"array": name, "value": value}, remedies)


def _imbalance(name: str, label: Any, share: float, values: Any, counts: Any) -> Finding:
    weights = ", ".join(
        f"{int(value)}: {counts.sum() / (len(counts) * count):.3g}"
        for value, count in list(zip(values, counts, strict=True))[:4]
    )
    text = f"{share:.1%} of `{name}` is class {label:g}: always saying so looks like an accuracy of {share:.1%}"
    remedies = (
        Remedy("Weight the classes", f"model.fit(..., class_weight={{{weights}{', ...' * (len(values) > 4)}}})"),
        Remedy("Watch the rare classes by themselves", f"model.evaluate(x[y != {label:g}], y[y != {label:g}])"),
    )
    return Finding("imbalanced_classes", "warning", text, {"array": name, "share": share}, remedies)


def _leaks(sample: Sample) -> Iterator[Finding]:
    yield from _shared_rows(sample)
    yield from _told_targets(sample)


def _shared_rows(sample: Sample) -> Iterator[Finding]:
    validation = sample.validation
    if validation is None or sum(array.nbytes for array in sample.x.values()) > _BYTES:
        return
    seen = set(_rows_of(sample.x))
    rows = _rows_of({name: _some(validation[name]).astype(array.dtype) for name, array in sample.x.items()})
    shared = sum(row in seen for row in rows)
    if shared <= 0.05 * len(rows) or len(seen) < 0.5 * len(next(iter(sample.x.values()))):
        return
    part = shared / len(rows)
    text = f"{part:.1%} of the validation rows are training rows too: validation shows too good a result"
    remedies = (
        Remedy("Drop repeated rows before splitting", "x, keep = np.unique(x, axis=0, return_index=True); y = y[keep]"),
        Remedy("Split once, by rows that belong together", "model.fit(x, y, validation_split=0.2)"),
    )
    yield Finding("leak", "error", text, {"rows": shared, "of": len(rows)}, remedies)


def _rows_of(arrays: Arrays) -> list[bytes]:
    columns = [np.ascontiguousarray(arrays[name]) for name in sorted(arrays)]
    return [b"".join(row.tobytes() for row in rows) for rows in zip(*columns, strict=True)]


def _told_targets(sample: Sample) -> Iterator[Finding]:
    """Find a column of the data that is the target itself, or a multiple of it."""
    for target, y in sample.y.items():
        answer = _floats(y)
        if answer.shape[1] != 1 or len(answer) < 20 or not np.ptp(answer):
            continue
        for name, x in sample.x.items():
            table = _floats(x)
            if x.dtype.kind != "f" or not 2 <= table.shape[1] <= 4096:
                continue
            column, correlation = _closest(table, answer[:, 0])
            if correlation > 0.9999:
                text = f"column {column} of `{name}` tells `{target}`: their correlation is {correlation:.6g}"
                remedies = (Remedy("Leave that column out", f"x = np.delete(x, {column}, axis=1)"),)
                numbers: dict[str, float | str] = {"column": column, "correlation": correlation}
                yield Finding("leak", "error", text, numbers, remedies)


def _closest(table: npt.NDArray[np.float64], answer: npt.NDArray[np.float64]) -> tuple[int, float]:
    centred, wanted = table - table.mean(axis=0), answer - answer.mean()
    sizes = np.linalg.norm(centred, axis=0) * np.linalg.norm(wanted)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlations = np.nan_to_num(np.abs(wanted @ centred) / sizes, nan=0.0, posinf=0.0)
    column = int(np.argmax(correlations))
    return column, float(correlations[column])
