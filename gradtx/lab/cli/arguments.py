"""Parsers and checks of the command line's arguments. Each error states what is allowed."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gradtx._core.installing import install

from ..methods import METHODS, Method
from ..problems import PROBLEMS, Problem

EXIT_STATUS = (
    "Exit status: 0 done; 1 a package, memory or disk space is missing; 2 an argument is wrong; 3 another process of "
    "the run is gone; 130 interrupted; 141 output pipe closed; 143 ended by SIGTERM."
)
MOST = 10**7  # largest count: more would not fit in memory and is usually a typing error
SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)  # training runs in float32


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """A help formatter that prints the default of an option if it has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


class Command(argparse.ArgumentParser):
    """The parser of a command. Options cannot be abbreviated, because --seed and --seeds differ by command."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, formatter_class=Help, allow_abbrev=False, epilog=EXIT_STATUS)

    def add_name(self, argument: str, kind: str, names: Iterable[str], **settings: Any) -> None:
        """Adds an argument that takes one of these names, which its help lists."""
        check, listed = one_of(kind, names), ", ".join(names)
        self.add_argument(argument, metavar=kind.upper(), type=check, help=listed, **settings)

    def add_methods(self, default: str, help: str) -> None:
        """Adds the option `--methods`, which takes names separated by commas. Repeated names count once."""
        check = one_of("method", METHODS)

        def names(text: str) -> list[str]:
            return list(dict.fromkeys(check(name.strip()) for name in text.split(",")))

        self.add_argument("--methods", metavar="A,B,...", default=default, type=names, help=help)

    def add_integer(self, option: str, help: str, default: int | None = None, low: int = 1, high: int = MOST) -> None:
        """Adds an option that takes an integer from `low` to `high`."""
        self.add_argument(option, metavar="N", type=integer(low, high), default=default, help=help)

    def add_out(self) -> None:
        """Adds the option `--out`, the folder of the results."""
        text = "where the files go; older ones of the same name are kept with a number"
        self.add_argument("--out", metavar="DIR", type=folder, default=Path("results"), help=text)

    def add_report(self, shows: str) -> None:
        """Adds the option `--report`, the page to click through."""
        text = (
            f"also write one HTML page that opens offline, such as run.html: {shows}; needs plotly "
            f"({install('report')}); an older file of the same name is kept with a number"
        )
        self.add_argument("--report", metavar="FILE", type=Path, help=text)


def one_of(kind: str, names: Iterable[str]) -> Callable[[str], str]:
    """A parser of one name from a list."""
    known = list(names)

    def check(name: str) -> str:
        if name not in known:
            raise argparse.ArgumentTypeError(f"no {kind} is called {name!r}; there are {', '.join(known)}")
        return name

    return check


def integer(low: int = 1, high: int = MOST) -> Callable[[str], int]:
    """A parser of an integer from `low` to `high`."""

    def check(text: str) -> int:
        if not (text.isdecimal() and len(text) < 20 and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"must be an integer from {low} to {high}, got {text!r}")
        return int(text)

    return check


def positive_float(text: str) -> float:
    """Parses a number above 0."""
    number = _number(text)
    if number < SMALLEST:
        raise argparse.ArgumentTypeError(f"must be a number above 0, {SMALLEST:.2g} at least, got {text!r}")
    return number


def axis(text: str) -> tuple[str, np.ndarray]:
    """Parses `name=log:LOW:HIGH:COUNT`, `name=lin:LOW:HIGH:COUNT` or `name=A,B,C`."""
    name, equals, values = text.partition("=")
    if not name.isidentifier() or not equals:
        raise argparse.ArgumentTypeError(f"must read NAME=log:LOW:HIGH:COUNT, NAME=lin:... or NAME=A,B,C, got {text!r}")
    try:
        return name, _values(values)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{name}: {error}") from None


def _values(text: str) -> np.ndarray:
    kind, *rest = text.split(":")
    if kind not in ("log", "lin"):
        return np.array([_number(value) for value in text.split(",")])
    if len(rest) != 3:
        raise argparse.ArgumentTypeError(f"must read {kind}:LOW:HIGH:COUNT, got {text!r}")
    low, high, count = _number(rest[0]), _number(rest[1]), integer()(rest[2])
    if kind == "log" and not 0 < low <= high:
        raise argparse.ArgumentTypeError(f"a log range needs 0 < LOW <= HIGH, got {text!r}")
    return np.geomspace(low, high, count) if kind == "log" else np.linspace(low, high, count)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None
    if not abs(number) <= LARGEST:  # NaN compares false
        raise argparse.ArgumentTypeError(f"must be a number of at most {LARGEST:.2g}, got {text!r}")
    return number


def address(text: str) -> str:
    """Parses `HOST:PORT`."""
    host, _, port = text.rpartition(":")
    if not (host and port.isdecimal() and len(port) < 6 and 0 < int(port) < 2**16):
        raise argparse.ArgumentTypeError(f"must read HOST:PORT, such as 10.0.0.1:4321, got {text!r}")
    return text


def folder(text: str) -> Path:
    """Parses the name of a folder."""
    if not text:
        raise argparse.ArgumentTypeError("must name a folder, got ''")
    return Path(text)


def make_problem(parser: argparse.ArgumentParser, name: str) -> Problem:
    """Makes the problem. Exits if a package is missing, with an error that names it."""
    try:
        return PROBLEMS[name]()
    except ImportError as error:
        said = f"{error}" if "pip install" in str(error) else f"{name}: {error}; {install('lab')}"
        parser.error(f"argument PROBLEM: {said}")


def check_batch_size(parser: argparse.ArgumentParser, batch_size: int, problem: Problem) -> None:
    """Exits if the batch is larger than the training set."""
    if batch_size > problem.num_examples:
        parser.error(f"argument --batch-size: must be at most {problem.num_examples}, got {batch_size}")


def batch_size_of(
    parser: argparse.ArgumentParser, method: Method, problem: Problem, batch_size: int | None
) -> int | str | None:
    """The batch size for `lab.run` and `lab.sweep`. Exits if one is given to a method that takes all examples."""
    if batch_size is None:
        return "all" if method.full_batch else None
    if method.full_batch:
        parser.error(f"argument --batch-size: {method.name} takes all examples at each step: leave it out")
    check_batch_size(parser, batch_size, problem)
    return batch_size
