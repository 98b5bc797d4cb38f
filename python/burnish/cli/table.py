"""Tables from files: columns of numbers or of texts by name."""

from __future__ import annotations

import csv
import gzip
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, TypeAlias

import numpy as np

from .._errors import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from os import PathLike

    import numpy.typing as npt

__all__ = ["Table", "is_number", "read_table"]

Column: TypeAlias = "npt.NDArray[Any]"

MISSING = frozenset(("", "?", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "<NA>"))
_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?")
_DAY = np.timedelta64(1, "D")


class Table(NamedTuple):
    """Columns of one length by name: float64, NaN where a number is missing, or texts, None where one is missing."""

    columns: dict[str, Column]
    rows: int

    def column(self, name: str) -> Column:
        """Return a column; an unknown name is an error that tells the nearest one."""
        if name not in self.columns:
            raise ValueError(f"there is no column {name!r}; {nearest(name, self.columns)}")
        return self.columns[name]

    def known(self, name: str) -> npt.NDArray[np.int64]:
        """Return the rows where a column has a text, or a finite number."""
        column = self.column(name)
        there = [text is not None for text in column] if column.dtype == object else np.isfinite(column)
        return np.flatnonzero(there)

    def take(self, rows: npt.NDArray[np.int64]) -> Table:
        """Return some rows."""
        return Table({name: column[rows] for name, column in self.columns.items()}, len(rows))


def read_table(path: str | PathLike[str], *, header: bool = True) -> Table:
    """Read a table from a .csv, .tsv, .txt (also .gz), .npz or .parquet file.

    A text file has its names in the first line (else, without `header`, they are column_1 and so on) and its separator
    is the one of comma, semicolon, tab and bar that this line has most. A column is of numbers if every cell is one or
    missing (empty, NA, NaN, null, ?), of dates, which become days since 1970, if every cell is an ISO date, else of
    texts. Text is read by Python's csv module whatever else is installed: the same file gives the same bits everywhere.
    An .npz file holds an array a column, or a matrix, whose columns are then named x[0], x[1] and so on. A .parquet
    file needs pyarrow or polars.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no such table; the message tells the line.
    """
    place = Path(path)
    kind = place.suffixes[-2:] if place.suffix == ".gz" else [place.suffix]
    if kind[0].lower() in (".csv", ".tsv", ".txt"):
        columns = _read_text(place, header=header)
    elif kind == [".npz"]:
        columns = _read_npz(place)
    elif kind[0] in (".parquet", ".pq"):
        columns = _read_parquet(place)
    else:
        raise ValueError(f"{place.name!r} must be a .csv, .tsv, .txt, .npz or .parquet file")
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"{place.name!r}: the arrays must have the same number of rows, got {sorted(lengths)}")
    if not lengths or lengths == {0}:
        raise ValueError(f"{place.name!r} holds no rows")
    return Table(columns, lengths.pop())


def _read_text(path: Path, *, header: bool) -> dict[str, Column]:
    with _opened(path) as file:
        try:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t|", key=first.count))
            numbered = ((reader.line_num, row) for row in reader if row)
            names, cells = _cells(numbered, header=header)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path.name!r}: {error}") from error
        except ValueError as error:
            raise ValueError(f"{path.name!r}, {error}") from error
    return {name: _parsed(column) for name, column in zip(names, cells, strict=True)}


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _cells(rows: Iterable[tuple[int, list[str]]], *, header: bool) -> tuple[list[str], list[list[str]]]:
    """Return names and columns of cells; every row must be as long as the first."""
    names: list[str] = []
    cells: list[list[str]] = []
    for line, row in rows:
        if not cells:
            names = _names(row, header=header)
            cells = [[] for _ in names]
            if header:
                continue
        if len(row) != len(names):
            raise ValueError(f"line {line}: {len(names)} cells must be there, got {len(row)}")
        for column, cell in zip(cells, row, strict=True):
            column.append(cell.strip())
    return names, cells


def _names(row: list[str], *, header: bool) -> list[str]:
    names = [cell.strip() if header and cell.strip() else f"column_{index}" for index, cell in enumerate(row, 1)]
    if header and all(is_number(name) for name in names):
        raise ValueError("line 1 must name the columns, got numbers; is there no header (--no-header)?")
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ValueError(f"line 1: the name {repeated[0]!r} stands twice")
    return names


def is_number(cell: str) -> bool:
    """Say whether a text is a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _parsed(cells: Sequence[str | None]) -> Column:
    """Return texts as numbers or dates where all of them are such."""
    present = [cell for cell in cells if cell is not None and cell not in MISSING]
    if present and all(map(_DATE.fullmatch, present)):
        try:
            return _days(["NaT" if cell is None or cell in MISSING else cell for cell in cells])
        except ValueError:
            pass  # such as the 31st of February
    try:
        return np.array([_number(cell) for cell in cells], np.float64)
    except ValueError:
        return np.array([None if cell is None or cell in MISSING else cell for cell in cells], object)


def _number(cell: str | None) -> float:
    if cell is None or cell in MISSING:
        return float("nan")
    if "_" in cell:
        raise ValueError(cell)  # Python's own way to write numbers
    return float(cell)


def _days(dates: Any) -> Column:
    return (np.asarray(dates, "datetime64[us]") - np.datetime64(0, "us")) / _DAY


def _read_npz(path: Path) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays.files:
            array = arrays[name]
            if array.ndim == 0:
                raise ValueError(f"{path.name!r}: {name!r} must be an array with rows, got a single value")
            matrix = array.reshape(len(array), -1)
            names = [name] if array.ndim == 1 else [f"{name}[{index}]" for index in range(matrix.shape[1])]
            columns |= {one: _converted(matrix[:, index]) for index, one in enumerate(names)}
    return columns


def _converted(array: Column) -> Column:
    """Return an array of any type as numbers or texts."""
    if array.dtype.kind in "iuf":
        return array.astype(np.float64)
    if array.dtype.kind == "M":
        return _days(array)
    return _parsed([None if value is None else str(value) for value in array.tolist()])


def _read_parquet(path: Path) -> dict[str, Column]:
    for module in ("pyarrow.parquet", "polars"):
        try:
            reader: Any = import_module(module)
        except ModuleNotFoundError:
            continue
        if module == "polars":
            return {series.name: _from_list(series.to_list()) for series in reader.read_parquet(path)}
        table = reader.read_table(path)
        return {name: _from_list(table.column(name).to_pylist()) for name in table.column_names}
    raise ModuleNotFoundError(f"reading {path.name!r} needs pyarrow or polars: pip install pyarrow")


def _from_list(values: list[Any]) -> Column:
    """Return Python's values as numbers, if that is what they are, else by their text."""
    if all(value is None or type(value) in {int, float} for value in values):
        return np.array([np.nan if value is None else value for value in values], np.float64)
    return _parsed([None if value is None else str(value) for value in values])
