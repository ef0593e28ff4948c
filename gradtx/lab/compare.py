"""Compares methods on the same problems with the same tuning budget."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax

import gradtx
from gradtx._core.arguments import checked_count

from .arguments import MOST, check_kind
from .methods import METHODS, Method, method_called
from .problems import Problem
from .sweep import sweep
from .sweep_result import Sweep

Methods = Method | str | Iterable[Method | str]
MOST_LEARNING_RATES = 101  # 25 powers of ten on each side of the middle; more would exceed the range of float32


@dataclass(frozen=True)
class MethodResult:
    """One method on one problem: all learning rates and seeds, and the best learning rate. S seeds, E evaluations."""

    problem: str
    method: str
    batch_size: int | None  # None: the whole training set
    sweep: Sweep  # axes: learning_rate, key
    best: int  # index into the learning rates
    stopped_at: np.ndarray  # [S] int: step at which early stopping would have ended the best rate's run, -1 if never
    stopped_metric: np.ndarray  # [S] the metric that early stopping would have kept
    seconds: float  # wall time, including compilation

    @property
    def learning_rate(self) -> float:
        """The learning rate with the best result."""
        return float(self.sweep.axes["learning_rate"][self.best])

    @property
    def has_diverged(self) -> bool:
        """Whether every seed diverged even at the best learning rate, so that there is no result."""
        return not bool(np.isfinite(self.sweep.final("metric")[self.best]).any())

    @property
    def train_loss(self) -> np.ndarray:
        """Training loss [S, E] at the best learning rate."""
        return self.sweep.train_loss[self.best]

    @property
    def metric(self) -> np.ndarray:
        """Validation metric [S, E] at the best learning rate."""
        return self.sweep.metric[self.best]

    @property
    def area(self) -> np.ndarray:
        """Mean height [S] of the training-loss curve at the best learning rate: its area over the number of steps."""
        # Evaluations are equally spaced.
        return (0.5 * (self.train_loss[:, 1:] + self.train_loss[:, :-1])).mean(axis=-1)

    def steps_to(self, target: float) -> np.ndarray:
        """Steps [S] until the validation metric at the best learning rate first reached `target`; inf if never."""
        return first_step_reaching(self.sweep.eval_steps, self.metric, target, self.sweep.higher_is_better)


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`, for each problem and each method. `settings` holds all settings that decide it."""

    settings: dict[str, Any]
    problems: dict[str, Problem]
    results: tuple[MethodResult, ...]

    def of(self, problem: str) -> tuple[MethodResult, ...]:
        """The results on one problem."""
        return tuple(result for result in self.results if result.problem == problem)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that have a result, in order."""
        return tuple(dict.fromkeys(result.method for result in self.results))

    def target(self, problem: str) -> float:
        """The metric to reach: the target of the problem, or the median final metric of the methods if it has none."""
        target = self.problems[problem].target
        return float(np.median([r.metric[:, -1].mean() for r in self.of(problem)])) if target is None else target


def compare(problems: Problem | Iterable[Problem], methods: Methods = tuple(METHODS), **settings: Any) -> Comparison:
    """Trains and judges all methods on all problems. `comparisons` describes the settings; this returns its last item.

    Ctrl-C returns the finished methods. If none is finished, it raises `KeyboardInterrupt`.
    """
    finished = None
    try:
        for so_far in comparisons(problems, methods, **settings):
            finished = so_far
    except KeyboardInterrupt:
        if finished is None:
            raise
    if finished is None:
        raise ValueError("compare: problems and methods must each hold at least one.")
    return finished


def comparisons(
    problems: Problem | Iterable[Problem],
    methods: Methods = tuple(METHODS),
    *,
    steps: int = 1000,
    seeds: int = 5,
    learning_rates: int = 7,
    batch_size: int = 64,
    evaluations: int = 100,
    patience: int = 20,
    trainer: Callable[[str], Callable[..., Sweep]] | None = None,
) -> Iterator[Comparison]:
    """Trains each method on a grid of learning rates and seeds, with one compilation, and picks its best rate.

    Yields the comparison so far after each method on each problem, so that you can save it before an interrupt. Every
    method gets the same budget: the same number of learning rates, spaced by √10 around its own middle, of seeds and of
    steps. The best rate has the best mean final validation metric; ties go to the lower training loss. Rates with a
    diverged seed come last. Choice and score use the same validation set, which favours all methods equally.

    Args:
        problems: one problem or several.
        methods: one or several of: rows of `METHODS`, their names, or methods of your own.
        steps: optimizer steps per member, rounded up to a multiple of the evaluation interval.
        seeds: initialisations (each with its own minibatches) per learning rate.
        learning_rates: grid points per method, at most 101.
        batch_size: examples per step, for methods that are not full-batch. A smaller training set is taken whole.
        evaluations: number of evaluations per member (every `steps / evaluations` steps).
        patience: evaluations without a better metric after which early stopping would end a member.
        trainer: maps the name "problem-method" to a function that trains its grid instead of `lab.sweep`, with the
            same arguments.

    Raises:
        ValueError: if a number is out of range, or a method does not exist.
        TypeError: if a number is not an integer, or `problems` holds anything but problems.
    """
    # This function is long because every setting is checked, recorded and used in one place.
    numbers = {"steps": steps, "seeds": seeds, "learning_rates": learning_rates, "batch_size": batch_size}
    for argument, value in {**numbers, "evaluations": evaluations, "patience": patience}.items():
        checked_count("compare", argument, value, most=MOST_LEARNING_RATES if argument == "learning_rates" else MOST)
    tried = _by_name(problems)
    rows = [method_called(method) for method in ([methods] if isinstance(methods, Method | str) else methods)]
    every = -(-steps // evaluations)
    steps = every * -(-steps // every)
    settings = numbers | {"steps": steps, "evaluate_every": every, "patience": patience}
    settings |= {"problems": {name: problem.description for name, problem in tried.items()}}
    settings |= {"jax": jax.__version__, "optax": optax.__version__, "device": jax.devices()[0].device_kind}
    keys = jax.random.split(jax.random.key(0), seeds)
    training: dict[str, Any] = {"steps": steps, "keys": keys, "eval_every": every, "progress": False}
    results: tuple[MethodResult, ...] = ()
    for problem in tried.values():
        for method in rows:
            started = time.perf_counter()
            whole = method.full_batch or batch_size >= problem.num_examples
            grid = method.middle * 10.0 ** (0.5 * (np.arange(learning_rates) - learning_rates // 2))
            train_grid = sweep if trainer is None else trainer(f"{problem.name}-{method.name}")
            result = train_grid(
                problem,
                lambda learning_rate, make_tx=method.make_tx: make_tx(learning_rate),
                {"learning_rate": grid},
                batch_size="all" if whole else batch_size,
                **training,
            )
            if not result.finished.all():
                raise KeyboardInterrupt  # a method is not judged on part of its members
            judged = _judge(method.name, None if whole else batch_size, result, patience, time.perf_counter() - started)
            results = (*results, judged)
            yield Comparison(settings, tried, results)


def check_comparison(caller: str, comparison: Any) -> None:
    """Raises if `comparison` is something else."""
    check_kind(caller, "comparison", comparison, Comparison, "which lab.compare returns")


def _by_name(problems: Any) -> dict[str, Problem]:
    is_one = isinstance(problems, str) or not isinstance(problems, Iterable)
    given: list[Any] = [problems] if is_one else list(problems)
    for problem in given:
        if not isinstance(problem, Problem):
            raise TypeError(f"compare: each problem must be a lab.Problem, such as lab.digits(), got {problem!r}.")
    return {problem.name: problem for problem in given}


def _judge(name: str, batch_size: int | None, result: Sweep, patience: int, seconds: float) -> MethodResult:
    sign = -1 if result.higher_is_better else 1
    bad = (~np.isfinite(result.final("metric"))).sum(axis=1)  # decides only if every rate has a diverged seed
    ranks = result.final("train_loss").mean(axis=1), bad, sign * result.final("metric").mean(axis=1)
    best = int(np.lexsort(ranks)[0])
    stopping = gradtx.early_stopping(patience, mode="max" if result.higher_is_better else "min")

    def follow(metrics: jax.Array) -> tuple[Any, jax.Array]:
        def one(state: Any, metric: jax.Array) -> tuple[Any, jax.Array]:
            state = stopping.update(metric, state)
            return state, state.should_stop

        return jax.lax.scan(one, stopping.init(), metrics)

    end, should_stop = jax.vmap(follow)(result.metric[best])
    stopped = np.asarray(should_stop)
    stopped_at = np.where(stopped.any(axis=1), result.eval_steps[stopped.argmax(axis=1)], -1)
    return MethodResult(result.problem, name, batch_size, result, best, stopped_at, np.asarray(end.best), seconds)


def first_step_reaching(
    steps: np.ndarray, metric: np.ndarray, target: float, higher_is_better: bool = True
) -> np.ndarray:
    """The first step at which each row of `metric` [S, E] reaches `target`; inf for a row that never does.

    >>> import numpy as np
    >>> first_step_reaching(np.array([0, 10, 20]), np.array([[0.1, 0.8, 0.9], [0.1, 0.2, 0.3]]), 0.8)
    array([10., inf])
    """
    reached = metric >= target if higher_is_better else metric <= target
    return np.where(reached.any(axis=1), steps[reached.argmax(axis=1)], np.inf)
