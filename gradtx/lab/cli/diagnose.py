"""`python -m gradtx diagnose PROBLEM --method M --learning-rate 0.5`: train, and say what the run shows."""

import argparse
from typing import Any

import jax
import optax

import gradtx
from gradtx.landscapes import LANDSCAPES

from ..methods import METHODS
from ..plots.diagnosis import plot_diagnosis
from ..problems import PROBLEMS
from ..run import run as run_lab
from .arguments import add_out, make_out, make_problem, one_of, positive, positive_float


def add(commands: Any) -> None:
    """The parser of the command."""
    parser = commands.add_parser(
        "diagnose",
        help="train once with every instrument and say which of the chapter's challenges show",
        description="Trains one problem, or walks one landscape, with every instrument reading at every step. Prints "
        "the diagnosis; writes diagnosis.json, history.npz (lab.History.load reads it) and diagnosis.png, one page.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    names = [*PROBLEMS, *LANDSCAPES]
    parser.add_argument("problem", metavar="PROBLEM", type=one_of("problem", names), help=", ".join(names))
    parser.add_argument(
        "--method", metavar="METHOD", type=one_of("method", METHODS), default="sgd", help=", ".join(METHODS)
    )
    parser.add_argument(
        "--learning-rate", metavar="RATE", type=positive_float, help="default: the middle of the method's grid"
    )
    parser.add_argument("--steps", metavar="N", type=positive, default=300, help="optimizer steps")
    parser.add_argument("--batch-size", metavar="N", type=positive, help="examples a step; default: the problem's")
    parser.add_argument("--seed", metavar="N", type=positive, default=1, help="of initialisation and minibatches")
    add_out(parser)
    parser.set_defaults(run=lambda arguments: run(parser, arguments))


def run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Trains, prints, writes; a break diagnoses what is done."""
    method = METHODS[arguments.method]
    rate = method.middle if arguments.learning_rate is None else arguments.learning_rate
    if arguments.problem in LANDSCAPES:
        problem: Any = LANDSCAPES[arguments.problem]()
    else:
        problem = make_problem(parser, PROBLEMS, arguments.problem)
        if arguments.batch_size and arguments.batch_size > problem.num_examples:
            parser.error(f"argument --batch-size: must be at most {problem.num_examples}, got {arguments.batch_size}")
    out = make_out(parser, arguments.out)
    tx = optax.chain(
        gradtx.panel(rate),
        gradtx.plateau(),
        gradtx.stationarity(rate),
        gradtx.sharpness(rate),
        method.make_tx(rate),
        gradtx.trajectory(),
    )
    key, size = jax.random.key(arguments.seed), "all" if method.full_batch else arguments.batch_size
    history = run_lab(problem, tx, steps=arguments.steps, key=key, batch_size=size)
    diagnosis = gradtx.diagnose(history)
    print(diagnosis)
    history.save(out / "history.npz")
    (out / "diagnosis.json").write_text(diagnosis.to_json() + "\n", encoding="utf-8")
    plot_diagnosis(history, diagnosis).savefig(out / "diagnosis.png")
    print(f"\nwrote {', '.join(str(out / name) for name in ('diagnosis.json', 'history.npz', 'diagnosis.png'))}")
    return 130 if history.ended == "interrupted" else 0
