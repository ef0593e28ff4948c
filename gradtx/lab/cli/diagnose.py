"""`python -m gradtx diagnose PROBLEM --method M --learning-rate 0.5`: trains once and prints the diagnosis."""

import argparse
import sys
from typing import Any

import jax
import optax

import gradtx
from gradtx.landscapes import LANDSCAPES

from ..methods import METHODS
from ..page.report import report
from ..plots.diagnosis import plot_diagnosis
from ..problems import PROBLEMS
from ..run import run as run_lab
from .arguments import Command, batch_size_of, make_problem, positive_float
from .results import Results


def add(commands: Any) -> None:
    """Adds the parser of the command."""
    parser: Command = commands.add_parser(
        "diagnose",
        help="train once with the instruments and say which of the chapter's challenges show",
        description="Trains one problem, or descends one landscape, and reads the instruments at every step. Prints "
        "the diagnosis; writes diagnosis.json, history.npz (lab.History.load reads it) and diagnosis.png, one page; "
        "--report run.html writes a page to click through.",
    )
    parser.add_name("problem", "problem", [*PROBLEMS, *LANDSCAPES])
    parser.add_name("--method", "method", METHODS, default="sgd")
    middle = "default: the middle of the method's grid"
    parser.add_argument("--learning-rate", metavar="RATE", type=positive_float, help=middle)
    parser.add_integer("--steps", "optimizer steps", 300)
    sizes = "examples per step, default: 64, or all for a full-batch method; for a landscape: noise samples per step, "
    parser.add_integer("--batch-size", f"{sizes}default: 1")
    parser.add_integer("--seed", "seed of initialisation and minibatches", 1, 0, 2**32 - 1)
    parser.add_report("interactive curves, and findings that a click marks in them")
    parser.add_out()
    parser.set_defaults(run=lambda arguments: run(parser, arguments))


def run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Trains, prints and writes. After an interrupt the finished steps are diagnosed."""
    method = METHODS[arguments.method]
    rate = method.middle if arguments.learning_rate is None else arguments.learning_rate
    if arguments.problem in LANDSCAPES:
        problem, size = LANDSCAPES[arguments.problem](), arguments.batch_size
    else:
        problem = make_problem(parser, arguments.problem)
        size = batch_size_of(parser, method, problem, arguments.batch_size)
    results = Results(parser, arguments.out, "diagnosis.json", "history.npz", "diagnosis.png", page=arguments.report)
    tx = optax.chain(
        gradtx.panel(rate),
        gradtx.plateau(),
        gradtx.stationarity(rate),
        gradtx.sharpness(rate),
        method.make_tx(rate),
        gradtx.trajectory(),
    )
    history = run_lab(problem, tx, steps=arguments.steps, key=jax.random.key(arguments.seed), batch_size=size)
    if not history.steps:
        print("interrupted: no step was finished.", file=sys.stderr)
        return 130
    diagnosis = gradtx.diagnose(history)
    json_path, history_path, figure_path, *pages = results.paths
    results.write(history_path, history.save)
    results.write(json_path, lambda path: path.write_text(diagnosis.to_json() + "\n", encoding="utf-8"))
    results.write(figure_path, plot_diagnosis(history, diagnosis).savefig)
    for page in pages:
        results.write(page, lambda path: report(history, path))
    print(f"{diagnosis}\n")
    status = results.report()
    if history.ended == "interrupted":
        print(f"interrupted: {history.steps} of {arguments.steps} steps were done and are diagnosed.", file=sys.stderr)
        return status or 130
    return status
