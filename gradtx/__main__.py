"""The command line: `python -m gradtx compare digits`."""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXTRA = "python -m gradtx needs the lab extra: pip install 'gradtx[lab]'"


def main(argv: list[str] | None = None) -> int:
    """Parses, calls the lab, prints; returns the exit status."""
    try:
        from gradtx import lab
    except ModuleNotFoundError as error:
        print(f"{EXTRA} ({error.name} is missing).", file=sys.stderr)
        return 1
    parser = _parser(lab)
    arguments = parser.parse_args(argv)
    if arguments.command == "list":
        print("problems:", ", ".join(lab.PROBLEMS))
        print("methods: ", ", ".join(lab.METHODS))
        return 0
    return _compare(lab, arguments, parser)


def _parser(lab: Any) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gradtx", description="Optimisation methods on real problems.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="the problems and methods there are")
    compare = commands.add_parser(
        "compare",
        help="train one problem with many methods and say which is best",
        description="Trains each method over a grid of learning rates and seeds, one compilation a method. Prints a "
        "table; writes comparison.json after each method, and comparison.png.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    compare.add_argument(
        "problem", metavar="PROBLEM", type=_one_of("problem", lab.PROBLEMS), help=", ".join(lab.PROBLEMS)
    )
    compare.add_argument(
        "--methods",
        metavar="A,B,...",
        default=",".join(lab.METHODS),
        type=lambda text: [_one_of("method", lab.METHODS)(name) for name in text.split(",")],
        help="the methods to compare",
    )
    for option, default, text in (
        ("--steps", 1000, "optimizer steps of each training"),
        ("--seeds", 5, "initialisations of each learning rate"),
        ("--learning-rates", 7, "grid points of each method, a factor √10 apart"),
        ("--batch-size", 64, "examples a step (full-batch methods take all)"),
    ):
        compare.add_argument(option, metavar="N", type=_positive, default=default, help=text)
    compare.add_argument("--out", metavar="DIR", type=Path, default=Path("results"), help="where the files go")
    return parser


def _one_of(kind: str, names: dict[str, Any]) -> Any:
    def check(name: str) -> str:
        if name not in names:
            raise argparse.ArgumentTypeError(f"no {kind} is called {name!r}; there are {', '.join(names)}")
        return name

    return check


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _compare(lab: Any, arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from rich.console import Console

    problem = lab.PROBLEMS[arguments.problem]()
    if arguments.batch_size > len(problem.train[0]):
        parser.error(f"argument --batch-size: must be at most {len(problem.train[0])}, got {arguments.batch_size}")
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=arguments.out).close()  # now, not after the long work
    except OSError as error:
        parser.error(f"argument --out: cannot write to {arguments.out}: {error.strerror}")

    json_path, figure_path = arguments.out / "comparison.json", arguments.out / "comparison.png"
    methods = [lab.METHODS[name] for name in dict.fromkeys(arguments.methods)]
    console = Console()
    finished = None
    try:
        for finished in _results_with_progress(lab, problem, methods, arguments, console):
            lab.save_comparison(finished, json_path)
    except KeyboardInterrupt:
        count = 0 if finished is None else len(finished.results)
        print(f"interrupted: {count} of {len(methods)} methods were finished and are kept.", file=sys.stderr)
        status = 130
    else:
        status = 0
    if finished is not None:
        # A table cut to 80 columns because nobody watches would lose what it says.
        (console if console.is_terminal else Console(width=132)).print(lab.comparison_table(finished))
        lab.plot_comparison(finished).savefig(figure_path)
        print(f"wrote {json_path} and {figure_path}")
    return status


def _results_with_progress(
    lab: Any, problem: Any, methods: list[Any], arguments: argparse.Namespace, console: Any
) -> Iterator[Any]:
    """The comparison so far, after each method; a bar on a terminal, a line a method elsewhere."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True)
    with bar:
        task = bar.add_task("", total=len(methods))
        settings = {name: getattr(arguments, name) for name in ("steps", "seeds", "learning_rates", "batch_size")}
        comparisons = lab.comparisons(problem, methods, **settings)
        for count, method in enumerate(methods):
            bar.update(task, completed=count, description=f"compiling and training {method.name}")
            yield next(comparisons)
            if not console.is_terminal:
                print(f"{count + 1}/{len(methods)} {method.name}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
