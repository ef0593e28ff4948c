"""The same problem, the same tuning budget, every method: which one, and how sure?"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax

import gradtx

from .problems import Problem
from .sweep import Curves, train_grid


@dataclass(frozen=True)
class Method:
    """A row of the comparison: how to make it from a learning rate, and the middle of the grid it is tuned on."""

    name: str
    make_tx: Callable[[Any], optax.GradientTransformation]
    middle: float  # of the learning-rate grid
    full_batch: bool = False


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("sgd", gradtx.sgd, 1.0),
        Method("momentum", lambda lr: gradtx.sgd(lr, momentum=0.9), 0.1),
        Method("nesterov", lambda lr: gradtx.sgd(lr, momentum=0.9, nesterov=True), 0.1),
        # Minibatch noise flips signs whatever the surface does (chapter §5.1): this one gets the whole training set.
        Method("delta_bar_delta", lambda lr: gradtx.delta_bar_delta(lr, increase=0.05), 0.1, full_batch=True),
        Method("adagrad", gradtx.adagrad, 0.1),
        Method("rmsprop", gradtx.rmsprop, 0.01),
        Method("rmsprop_momentum", lambda lr: gradtx.rmsprop(lr, momentum=0.9), 0.001),
        Method("rmsprop_nesterov", lambda lr: gradtx.rmsprop(lr, momentum=0.9, nesterov=True), 0.001),
        Method("adadelta", gradtx.adadelta, 3.0),
        Method("adam", gradtx.adam, 0.01),
    )
}


@dataclass(frozen=True)
class MethodResult:
    """One method on one problem, all its learning rates and seeds, and the choice among them."""

    method: str
    batch_size: int | None  # None: the whole training set
    curves: Curves
    best: int  # index into `curves.learning_rates`
    stopped_at: np.ndarray  # [S] int: step at which early stopping would have ended the best, -1 where it would not
    stopped_metric: np.ndarray  # [S] the metric that early stopping would have kept
    seconds: float  # wall time, compilation included

    @property
    def learning_rate(self) -> float:
        """The learning rate with the best result."""
        return float(self.curves.learning_rates[self.best])

    def steps_to(self, target: float) -> np.ndarray:
        """[S] steps until the validation metric of the best learning rate first reached `target`; inf where never."""
        return first_step_reaching(self.curves.steps, self.curves.validation_metric[self.best], target)


@dataclass(frozen=True)
class Comparison:
    """What `compare` found, method by method; `settings` holds everything that decides the numbers."""

    problem: str
    settings: dict[str, Any]
    results: tuple[MethodResult, ...]


def compare(problem: Problem, methods: Iterable[Method], **settings: int) -> Comparison:
    """The last of `comparisons`, which describes the settings: all methods, trained and judged."""
    finished = list(comparisons(problem, methods, **settings))
    if not finished:
        raise ValueError("compare: methods must hold at least one method.")
    return finished[-1]


def comparisons(
    problem: Problem,
    methods: Iterable[Method],
    *,
    steps: int = 1000,
    seeds: int = 5,
    learning_rates: int = 7,
    batch_size: int = 64,
    evaluations: int = 100,
    patience: int = 20,
) -> Iterator[Comparison]:
    """Trains each method on a grid of learning rates times seeds, one compilation a method, and picks its best rate.

    Yields the comparison so far after each method: save there, and a break loses nothing. Every method gets the same
    budget: as many learning rates, spaced by √10 around its own middle, as many seeds and steps. The best rate is the
    one with the highest mean final validation metric, ties to the lower training loss; a diverged member counts with
    what it had when it froze. The choice and the score use the same validation set, which flatters every method alike.

    Args:
        problem: what to train.
        methods: rows of `METHODS`, or your own.
        steps: optimizer steps a member; rounded up to a multiple of the evaluation interval.
        seeds: initialisations (each with its own minibatches) a learning rate.
        learning_rates: grid points a method.
        batch_size: examples a step, for the methods that are not full-batch.
        evaluations: how often a member is evaluated (every `steps / evaluations` steps).
        patience: evaluations without a better metric after which early stopping would end a member.

    Raises:
        ValueError: a number that is less than 1, or a batch larger than the training set.
    """
    numbers = {"steps": steps, "seeds": seeds, "learning_rates": learning_rates, "batch_size": batch_size}
    for argument, value in {**numbers, "evaluations": evaluations, "patience": patience}.items():
        if value < 1:
            raise ValueError(f"compare: {argument} must be at least 1, got {value}.")
    if batch_size > len(problem.train[0]):
        raise ValueError(f"compare: batch_size must be at most {len(problem.train[0])} examples, got {batch_size}.")
    every = -(-steps // evaluations)
    steps = every * -(-steps // every)
    settings = numbers | {"steps": steps, "evaluate_every": every, "patience": patience}
    settings |= {"problem": problem.description, "jax": jax.__version__, "optax": optax.__version__}
    settings |= {"device": jax.devices()[0].device_kind}
    keys = jax.random.split(jax.random.key(0), seeds)
    results: tuple[MethodResult, ...] = ()
    for method in methods:
        started = time.perf_counter()
        size = None if method.full_batch else batch_size
        grid = method.middle * 10.0 ** (0.5 * (np.arange(learning_rates) - learning_rates // 2))
        curves = train_grid(problem, method.make_tx, grid, keys, steps=steps, batch_size=size, evaluate_every=every)
        results = (*results, _judge(method.name, size, curves, patience, time.perf_counter() - started))
        yield Comparison(problem.name, settings, results)


def _judge(name: str, batch_size: int | None, curves: Curves, patience: int, seconds: float) -> MethodResult:
    order = np.lexsort((curves.train_loss[..., -1].mean(axis=1), -curves.validation_metric[..., -1].mean(axis=1)))
    best = int(order[0])
    stopping = gradtx.early_stopping(patience, mode="max")

    def follow(metrics: jax.Array) -> tuple[Any, jax.Array]:
        def one(state: Any, metric: jax.Array) -> tuple[Any, jax.Array]:
            state = stopping.update(metric, state)
            return state, state.should_stop

        return jax.lax.scan(one, stopping.init(), metrics)

    end, should_stop = jax.vmap(follow)(curves.validation_metric[best])
    stopped = np.asarray(should_stop)
    stopped_at = np.where(stopped.any(axis=1), curves.steps[stopped.argmax(axis=1)], -1)
    return MethodResult(name, batch_size, curves, best, stopped_at, np.asarray(end.best), seconds)


def first_step_reaching(steps: np.ndarray, metric: np.ndarray, target: float) -> np.ndarray:
    """First step at which each row of `metric` [S, E] is at least `target`; inf for a row that never is.

    >>> import numpy as np
    >>> first_step_reaching(np.array([0, 10, 20]), np.array([[0.1, 0.8, 0.9], [0.1, 0.2, 0.3]]), 0.8)
    array([10., inf])
    """
    reached = metric >= target
    return np.where(reached.any(axis=1), steps[reached.argmax(axis=1)], np.inf)
