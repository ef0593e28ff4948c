"""What the command line understands, with errors that say what would be right."""

import argparse
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np


def one_of(kind: str, names: Iterable[str]) -> Callable[[str], str]:
    """A name out of a list."""
    known = list(names)

    def check(name: str) -> str:
        if name not in known:
            raise argparse.ArgumentTypeError(f"no {kind} is called {name!r}; there are {', '.join(known)}")
        return name

    return check


def some_of(kind: str, names: Iterable[str]) -> Callable[[str], list[str]]:
    """Names out of a list, with commas between them; each counts once."""
    check = one_of(kind, names)
    return lambda text: list(dict.fromkeys(check(name) for name in text.split(",")))


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def positive_float(text: str) -> float:
    """A number above 0."""
    number = _number(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return number


def axis(text: str) -> tuple[str, np.ndarray]:
    """`name=log:LOW:HIGH:COUNT`, `name=lin:LOW:HIGH:COUNT` or `name=A,B,C`."""
    name, equals, values = text.partition("=")
    if not name.isidentifier() or not equals:
        raise argparse.ArgumentTypeError(f"must read NAME=log:LOW:HIGH:COUNT, NAME=lin:... or NAME=A,B,C, got {text!r}")
    kind, *rest = values.split(":")
    if kind not in ("log", "lin"):
        return name, np.array([_number(value) for value in values.split(",")])
    if len(rest) != 3:
        raise argparse.ArgumentTypeError(f"{name}: must read {kind}:LOW:HIGH:COUNT, got {values!r}")
    low, high, count = _number(rest[0]), _number(rest[1]), positive(rest[2])
    if kind == "log" and not 0 < low <= high:
        raise argparse.ArgumentTypeError(f"{name}: a log range needs 0 < LOW <= HIGH, got {values!r}")
    return name, np.geomspace(low, high, count) if kind == "log" else np.linspace(low, high, count)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None


def add_out(parser: argparse.ArgumentParser) -> None:
    """The folder of the results."""
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("results"), help="where the files go")


def make_out(parser: argparse.ArgumentParser, out: Path) -> Path:
    """Makes the folder and tries to write there: now, not after the long work."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        parser.error(f"argument --out: cannot write to {out}: {error.strerror}")
    return out


def make_problem(parser: argparse.ArgumentParser, problems: dict[str, Callable[[], Any]], name: str) -> Any:
    """The problem, or the error that says which package carries its data."""
    try:
        return problems[name]()
    except ModuleNotFoundError as error:
        parser.error(f"argument PROBLEM: {error}")
