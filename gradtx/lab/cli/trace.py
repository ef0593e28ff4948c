"""`python -m gradtx trace LANDSCAPE --methods A,B`: draws the paths of methods over a landscape."""

import argparse
import sys
from typing import Any

import jax
import numpy as np

from gradtx.landscapes import LANDSCAPES, Landscape

from ..history import History
from ..methods import METHODS, Method
from ..plots.animation import animate_trajectories
from ..plots.trajectories import plot_trajectories
from ..run import run as run_lab
from ..sweep import sweep
from .arguments import Command, positive_float
from .results import Results


def add(commands: Any) -> None:
    """Adds the parser of the command."""
    parser: Command = commands.add_parser(
        "trace",
        help="draw the paths of methods over a landscape",
        description="Runs each method from the landscape's start and draws its path. Writes trace.png.",
    )
    parser.add_name("landscape", "landscape", LANDSCAPES)
    parser.add_methods("sgd,momentum,rmsprop", "the methods to trace")
    parser.add_argument(
        "--learning-rate",
        metavar="RATE",
        type=positive_float,
        help="learning rate of every method; default: for each method the best of 25 from 1e-5 to 10, or the "
        "landscape's own if the landscape has no minimum",
    )
    parser.add_integer("--steps", "steps of each path", 100)
    parser.add_argument("--animate", action="store_true", help="also write trace.html, an animation")
    parser.add_out()
    parser.set_defaults(run=lambda arguments: run(parser, arguments))


def run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Computes the paths, draws and writes. An interrupt keeps the finished paths."""
    landscape = LANDSCAPES[arguments.landscape]()
    names = ("trace.png", "trace.html")[: 1 + arguments.animate]
    results = Results(parser, arguments.out, *names)
    figure_path, *animation_paths = results.paths
    paths, status = {}, 0
    try:
        for name in arguments.methods:
            rate = arguments.learning_rate or _best_rate(landscape, METHODS[name], arguments.steps)
            paths[f"{name}, ε = {rate:.2g}"] = _walk(landscape, METHODS[name], rate, arguments.steps)
    except KeyboardInterrupt:
        print(f"interrupted: {len(paths)} of {len(arguments.methods)} paths were finished.", file=sys.stderr)
        status = 130
    if not paths:
        return status
    results.write(figure_path, plot_trajectories(landscape, paths).savefig)
    for path in animation_paths:
        results.write(path, animate_trajectories(landscape, paths).save)
    return results.report() or status


def _walk(landscape: Landscape, method: Method, rate: float, steps: int) -> History:
    history = run_lab(landscape, method.make_tx(rate), steps=steps, key=jax.random.key(0))
    if history.ended == "interrupted":
        raise KeyboardInterrupt
    value = float(landscape(history.params))
    diverged = f", diverged at step {history.diverged_at}" if history.diverged_at >= 0 else ""
    print(f"{method.name:16} learning rate {rate:<8.3g} f {float(history.loss[0]):.4g} -> {value:.4g}{diverged}")
    return history


def _best_rate(landscape: Landscape, method: Method, steps: int) -> float:
    """The rate that ends lowest, without diverged ones. If the landscape has no minimum, its own learning rate."""
    if landscape.minimum == -np.inf:
        return landscape.learning_rate
    keys = jax.random.split(jax.random.key(0), 1)
    grid = {"learning_rate": np.geomspace(1e-5, 10, 25)}
    found = sweep(landscape, method.make_tx, grid, steps=steps, keys=keys, progress=False)
    if not found.finished.all():
        raise KeyboardInterrupt
    try:
        return found.best("train_loss")["learning_rate"]
    except ValueError:  # every rate of the grid diverged
        return landscape.learning_rate
