"""The command `burnish`: train on a table, go on, examine, predict. See docs/command_line.md."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["main"]

_EXAMPLES = """
examples:
  burnish train iris.csv --target species
  burnish resume runs/iris
  burnish doctor runs/iris
  burnish predict runs/iris new.csv --output answers.csv
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 1 for what failed (said in one line), 130 after Ctrl-C. Wrong usage exits with 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    options.given = given
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            _run(options)
            sys.stdout.flush()
    except KeyboardInterrupt as stopped:
        print(f"\nburnish: interrupted{f'; {stopped}' if str(stopped) else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Nobody reads on, as in `burnish predict … | head`; the interpreter must not try to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if options.traceback:
            raise
        print(f"burnish: error: {_one_line(error)}", file=sys.stderr)
        return 1
    return 0


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    text = " ".join(str(error).split())
    expected = isinstance(error, (ImportError, OSError, TypeError, ValueError)) and text
    return text if expected else f"{type(error).__name__}: {text} (--traceback shows where)"


def _show_warning(message: Warning | str, *_: Any) -> None:
    print(f"burnish: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="burnish",
        description="Train a neural network on a table, and use it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version)
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(commands)
    _add_resume(commands)
    _add_predict(commands)
    _add_doctor(commands)
    _add(commands, "devices", "list the devices that a network can run on")
    return parser


class _Version(argparse.Action):
    """Show the version; found out only when asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        parser.exit(0, f"burnish {version('burnish')}\n")


def _add(commands: Any, name: str, words: str, description: str = "") -> argparse.ArgumentParser:
    text = description or f"{words[0].upper()}{words[1:]}."
    parser: argparse.ArgumentParser = commands.add_parser(name, help=words, description=text)
    parser.set_defaults(command=name)
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what was asked for; imported only now, so that help and wrong usage cost nothing."""
    from . import commands

    getattr(commands, options.command)(options)


def _add_train(commands: Any) -> None:
    parser = _add(
        commands,
        "train",
        "train on a table and write a run's folder",
        "Train a network on a table (.csv, .tsv, .txt, .npz, .parquet). It finds out whether the target is a class or "
        "a number, encodes and normalises the other columns, keeps rows apart for validation and test, stops when the "
        "validation loss no longer falls, and writes a folder with the model, its history and picture, a report on the "
        "test rows, checkpoints, and a Python script that repeats the run.",
    )
    parser.add_argument("data", help="the table")
    parser.add_argument("--target", required=True, metavar="COLUMN", help="what to predict")
    parser.add_argument("--run", metavar="FOLDER", help="where to write (default: runs/<name of the table>)")
    data = parser.add_argument_group("data")
    data.add_argument("--task", choices=("classification", "regression"), help="default: by the target's values")
    data.add_argument("--drop", nargs="+", default=[], metavar="COLUMN", help="columns to leave out")
    data.add_argument("--categorical", nargs="+", default=[], metavar="COLUMN", help="numbers that name categories")
    data.add_argument(
        "--no-header", action="store_true", help="the first line is data; columns are column_1, column_2, …"
    )
    _number(data, "--test", 0.15, "PART", "part of the rows to test on", _part)
    _number(data, "--validation", 0.15, "PART", "part of the rows to validate on", _part)
    network = parser.add_argument_group("network and training")
    network.add_argument(
        "--hidden", nargs="*", type=_positive, default=[64, 64], metavar="UNITS", help="hidden layers (default: 64 64)"
    )
    _number(network, "--dropout", 0.1, "RATE", "part of the units that is dropped", _rate)
    _number(network, "--learning-rate", 1e-3, "RATE", "AdamW's learning rate", _above_zero)
    _number(network, "--weight-decay", 1e-2, "RATE", "AdamW's weight decay", _not_negative)
    network.add_argument(
        "--batch-size", type=_positive, metavar="ROWS", help="rows of an update (default: by the table)"
    )
    _number(network, "--epochs", 200, "N", "the most epochs", _positive)
    _number(network, "--patience", 20, "N", "epochs without improvement before it stops", _positive)
    network.add_argument("--device", default="cpu", help="see `burnish devices` (default: cpu)")
    _number(network, "--seed", 0, "N", "decides the split, initial weights, shuffles and dropout", _natural)
    _add_training(parser)


def _add_resume(commands: Any) -> None:
    parser = _add(
        commands,
        "resume",
        "go on with an interrupted run",
        "Go on with a run that was interrupted, from its last checkpoint, to the same numbers as if it had not been.",
    )
    parser.add_argument("run", metavar="FOLDER", help="the run's folder")
    _add_training(parser)


def _add_training(parser: argparse.ArgumentParser) -> None:
    _number(parser, "--checkpoint", 10.0, "SECONDS", "time between checkpoints", _above_zero)
    parser.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")


def _add_doctor(commands: Any) -> None:
    parser = _add(
        commands,
        "doctor",
        "say what is wrong with a run, and what helps",
        "Examine a run's history, data and model, and say what is wrong, with the figures that show it and remedies.",
    )
    parser.add_argument("run", metavar="FOLDER", help="the run's folder")


def _add_predict(commands: Any) -> None:
    parser = _add(
        commands,
        "predict",
        "write predictions for a table as CSV",
        "Write predictions for the rows of a table as CSV: a column `prediction`, and for classes one "
        "`probability_<class>` each. Columns are found by name. If the table holds the target, scores are said too.",
    )
    parser.add_argument("run", metavar="FOLDER", help="the run's folder")
    parser.add_argument("data", help="the table")
    parser.add_argument("--output", metavar="FILE", help="where to write (default: standard output)")
    parser.add_argument("--keep", nargs="+", default=[], metavar="COLUMN", help="columns to copy in front")
    parser.add_argument("--device", default="cpu", help="see `burnish devices` (default: cpu)")


def _number(  # noqa: PLR0917  in the order of add_argument
    parser: Any, name: str, default: float, metavar: str, words: str, kind: Callable[[str], float]
) -> None:
    parser.add_argument(name, type=kind, default=default, metavar=metavar, help=f"{words} (default: {default:g})")


def _checked(text: str, kind: type, wanted: str, *, fits: Callable[[Any], bool]) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"must be {wanted}, got {text!r}")
    return value


def _positive(text: str) -> int:
    return _checked(text, int, "a whole number of at least 1", fits=lambda value: value >= 1)


def _natural(text: str) -> int:
    return _checked(text, int, "a whole number of at least 0", fits=lambda value: 0 <= value < 2**64)


def _part(text: str) -> float:
    return _checked(text, float, "a number between 0 and 0.5", fits=lambda value: 0 < value < 0.5)


def _rate(text: str) -> float:
    return _checked(text, float, "a number in [0, 1)", fits=lambda value: 0 <= value < 1)


def _above_zero(text: str) -> float:
    return _checked(text, float, "a number greater than 0", fits=lambda value: 0 < value < float("inf"))


def _not_negative(text: str) -> float:
    return _checked(text, float, "a number of at least 0", fits=lambda value: 0 <= value < float("inf"))
