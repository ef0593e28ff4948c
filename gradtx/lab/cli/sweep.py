"""`python -m gradtx sweep PROBLEM --method M --grid NAME=...`: finds the best hyper-parameters of one method."""

import argparse
import inspect
import sys
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from ..conclusions import sweep_in_words
from ..grids import check_values
from ..methods import METHODS, Method
from ..plots.style import Picture
from ..plots.sweeps import plot_sensitivity, plot_sweep
from ..problems import PROBLEMS
from ..sweep import sweep
from ..sweep_result import Sweep
from ..tables import print_table
from .arguments import Command, axis, batch_size_of, make_problem
from .results import Results


def add(commands: Any) -> None:
    """Adds the parser of the command."""
    parser: Command = commands.add_parser(
        "sweep",
        help="try a grid of hyper-parameters of one method",
        description="Trains every point of the grid from every seed, with one compilation. Prints the best points; "
        "writes sweep.npz (all curves; lab.Sweep.load reads it) and sweep.png.",
    )
    parser.add_name("problem", "problem", PROBLEMS)
    parser.add_name("--method", "method", METHODS, default="momentum")
    parser.add_argument(
        "--grid",
        metavar="NAME=VALUES",
        type=axis,
        nargs="+",
        action="extend",
        help="values of a hyper-parameter: log:1e-4:1:13, lin:0:0.9:4 or 0.5,0.9; may be repeated, then all "
        "combinations are tried; default: 13 learning rates around the method's usual one",
    )
    parser.add_integer("--steps", "optimizer steps of each training", 500)
    parser.add_integer("--seeds", "initialisations of each point", 3)
    parser.add_integer("--rows", "points in the table", 10)
    parser.add_integer("--batch-size", "examples per step; default: 64, or all for a full-batch method")
    parser.add_out()
    parser.set_defaults(run=lambda arguments: run(parser, arguments))


def run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Trains, prints and writes. An interrupt keeps the finished trainings."""
    method = METHODS[arguments.method]
    grid = _checked_grid(parser, method, arguments.grid)
    problem = make_problem(parser, arguments.problem)
    size = batch_size_of(parser, method, problem, arguments.batch_size)
    results = Results(parser, arguments.out, "sweep.npz", "sweep.png")
    curves_path, figure_path = results.paths
    keys = jax.random.split(jax.random.key(0), arguments.seeds)
    try:
        result = sweep(problem, method.make_tx, grid, steps=arguments.steps, keys=keys, batch_size=size)
    except KeyboardInterrupt:
        print("interrupted: nothing was finished.", file=sys.stderr)
        return 130
    result = replace(result, method=method.name)
    results.write(curves_path, result.save)
    results.write(figure_path, _picture(result).savefig)
    print_table(result.table(arguments.rows), sweep_in_words(result))
    status = results.report()
    if not result.finished.all():
        print(f"interrupted: {result.finished.sum()} of {result.finished.size} trainings were finished and are kept.")
        return status or 130
    return status


def _checked_grid(
    parser: argparse.ArgumentParser, method: Method, axes: list[tuple[str, np.ndarray]] | None
) -> dict[str, np.ndarray]:
    """The values of each hyper-parameter, including the learning rate. Exits if the method does not take one."""
    grid = {}
    taken = inspect.signature(method.make_tx).parameters
    known = [name for name in taken if name not in ("nesterov", "accumulator_dtype")]
    for name, values in axes or [("learning_rate", method.middle * np.geomspace(1e-3, 1e3, 13))]:
        if name not in known:
            parser.error(f"argument --grid: {method.name} has no {name}; it has {', '.join(known)}")
        if name in grid:
            parser.error(f"argument --grid: {name} is given twice: put all its values in one, {name}=A,B,C")
        grid[name] = values
    grid = grid if "learning_rate" in grid else {"learning_rate": np.array([method.middle])} | grid
    try:
        check_values("argument --grid", method.make_tx, grid)
    except ValueError as error:
        parser.error(str(error))
    return grid


def _picture(result: Sweep) -> Picture:
    """Draws a map if two or more hyper-parameters vary, otherwise a curve."""
    varied = [name for name, values in result.axes.items() if len(values) > 1]
    if len(varied) > 1:
        return plot_sweep(result, x=varied[0], y=varied[1])
    return plot_sensitivity(result, x=varied[0] if varied else "learning_rate")
