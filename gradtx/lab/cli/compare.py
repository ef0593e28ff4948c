"""`python -m gradtx compare PROBLEM ...`: trains with many methods and prints which is best."""

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

from rich.console import Console

from ..compare import MOST_LEARNING_RATES, Comparison, comparisons
from ..comparison_tables import comparison_table, save_comparison
from ..conclusions import comparison_in_words
from ..distributed import whole_mesh
from ..methods import METHODS
from ..page.report import report
from ..plots.comparison import plot_comparison
from ..problems import PROBLEMS
from ..progress import progress_bar
from ..sweep import sweep
from ..tables import print_table
from .arguments import Command, check_batch_size, make_problem
from .processes import AGAIN, add_processes, is_distributed, run_processes
from .results import Results


def add(commands: Any) -> None:
    """Adds the parser of the command."""
    parser: Command = commands.add_parser(
        "compare",
        help="train problems with many methods and say which is best",
        description="Trains each method over a grid of learning rates and seeds, with one compilation per method. "
        "Prints a table and the best method; writes comparison.json after each method, and comparison.png; --report "
        "page.html writes a page to click through.",
    )
    parser.add_name("problems", "problem", PROBLEMS, nargs="+")
    parser.add_methods(",".join(METHODS), "the methods to compare")
    parser.add_integer("--steps", "optimizer steps of each training", 1000)
    parser.add_integer("--seeds", "initialisations of each learning rate", 5)
    rates = "grid points of each method, a factor √10 apart"
    parser.add_integer("--learning-rates", rates, 7, high=MOST_LEARNING_RATES)
    parser.add_integer("--batch-size", "examples per step (full-batch methods take all)", 64)
    add_processes(parser)
    parser.add_report("the curves of all methods at their best learning rates, over one another")
    parser.add_out()
    parser.set_defaults(run=lambda arguments: run(parser, arguments))


def run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Trains, prints and writes. An interrupt keeps the finished methods."""
    if is_distributed(parser, arguments):
        return run_processes(parser, arguments, lambda is_first: _train(parser, arguments, is_first, is_alone=False))
    return _train(parser, arguments, is_first=True, is_alone=True)


def _train(parser: argparse.ArgumentParser, arguments: argparse.Namespace, is_first: bool, is_alone: bool) -> int:
    """Trains in every process of a run. Only the first process prints and writes."""
    problems = [make_problem(parser, name) for name in dict.fromkeys(arguments.problems)]
    if len(problems) == 1:  # with several problems, a smaller training set is taken whole
        check_batch_size(parser, arguments.batch_size, problems[0])
    results = Results(parser, arguments.out, "comparison.json", "comparison.png", page=arguments.report)
    json_path, figure_path, *pages = results.paths
    checkpoints = arguments.out / "checkpoints"  # one for each method, if the devices of several processes train it
    finished, status = None, 0
    try:
        trainer = None if is_alone else lambda name: partial(sweep, mesh=whole_mesh(), checkpoint=checkpoints / name)
        for finished in _with_progress(problems, arguments, trainer):
            if is_first:
                results.write(json_path, partial(save_comparison, finished))
    except KeyboardInterrupt:
        count, total = 0 if finished is None else len(finished.results), len(problems) * len(arguments.methods)
        print(f"interrupted: {count} of {total} methods were finished and are kept.", file=sys.stderr)
        if not is_alone:
            print(f"The one under way is saved in {checkpoints}. {AGAIN}", file=sys.stderr)
        status = 130
    if finished is None or not is_first:
        return status
    results.write(json_path, partial(save_comparison, finished))  # an interrupt may have come while it was written
    results.write(figure_path, plot_comparison(finished).savefig)  # before the table, whose pipe may be broken
    for page in pages:
        results.write(page, lambda path: report(finished, path))
    print_table(comparison_table(finished), comparison_in_words(finished))
    return results.report() or status


def _with_progress(problems: list[Any], arguments: argparse.Namespace, trainer: Any) -> Iterator[Comparison]:
    """Yields the comparison so far after each method. Shows a bar on a terminal, one line per method elsewhere."""
    console = Console()
    tasks = [f"{method} on {problem.name}" for problem in problems for method in arguments.methods]
    settings = {name: getattr(arguments, name) for name in ("steps", "seeds", "learning_rates", "batch_size")}
    found = comparisons(problems, arguments.methods, **settings, trainer=trainer)
    with progress_bar(len(tasks), "compiling and training", console=console) as advance:
        for count, name in enumerate(tasks):
            advance(0, name)
            yield next(found)
            advance(1, name)
            if not console.is_terminal:
                print(f"{count + 1}/{len(tasks)} {name}", file=sys.stderr, flush=True)
