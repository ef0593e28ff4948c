"""Trains once, compiled in chunks of steps, and returns a `History`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from gradtx._core.arguments import check_function, checked_count
from gradtx.stopping import EarlyStopping

from .arguments import MOST, checked_batch_size, checked_keys
from .checkpoints import Checkpoint, is_save_due, saved_at_end
from .history import History
from .progress import progress_bar
from .recording import Recording
from .terminating import ends_program, wait_for
from .training import Carry, Objective, Record, Subject, evaluate, first_carry, judged_params, objective_of, train

Callback = Callable[[int, Any, dict[str, float]], bool | None]  # step, parameters, evaluation -> True ends the run


def run(
    problem: Subject,
    tx: optax.GradientTransformation,
    *,
    steps: int,
    key: jax.Array,
    batch_size: int | str | None = None,
    batch_size_schedule: Callable[[int], int] | None = None,
    eval_every: int | None = None,
    stopping: EarlyStopping | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
) -> History:
    """Trains a problem, or descends a landscape, and returns the history of the run.

    A chunk of steps, from one evaluation to the next, is one compiled scan. Between chunks the host shows progress,
    calls callbacks and saves. The transformation gets `value`, `value_fn` and `losses_fn` of the step's minibatch, so
    instruments, line searches and Newton work. The key decides initial parameters and minibatches: the same key gives
    the same result bit for bit.

    Args:
        problem: a `lab.Problem` or a `gradtx.landscapes.Landscape`.
        tx: any Optax or gradtx transformation.
        steps: optimizer steps.
        key: random key. It is split: the first part initialises, the second part shuffles.
        batch_size: examples per step, default 64 for a problem; "all" takes the whole training set. For a landscape
            it is the number of noise samples that a step averages, default 1.
        batch_size_schedule: step -> examples, instead of `batch_size`; each size compiles once.
        eval_every: steps between two evaluations, default a 25th of the steps.
        stopping: a `gradtx.early_stopping(...)`. It follows the metric on the validation set, or a landscape's value.
            The problem decides whether higher or lower is better.
        callbacks: called as `callback(step, params, evaluation)` after each evaluation. If one returns True, the run
            ends.
        checkpoint: a folder. If it holds a checkpoint, the run resumes from it. To make a run longer bit for bit, give
            the same `eval_every` both times: its default follows `steps`. The run is saved there five times and when
            interrupted. The checkpoint stores its problem and the structure of its optimizer state. Instruments
            may be added or removed: then all of them start anew, with a warning. If the disk is full, a warning says
            so and the run goes on. SIGTERM, which schedulers send, saves and then ends the program with status 143.
        progress: show a bar; by default only if standard error is a terminal.

    Returns:
        The `History`, whose `best_params` are those with the best metric. Ctrl-C ends the run and returns the finished
        steps (`history.ended == "interrupted"`).

    Raises:
        ValueError, TypeError: if an argument is out of range, `stopping` has the opposite direction to the problem's
            metric, or `checkpoint` is of another run or cannot be written to.

    >>> import gradtx, jax
    >>> from gradtx import lab, landscapes
    >>> history = lab.run(landscapes.quadratic(10.0), gradtx.sgd(0.1), steps=50, key=jax.random.key(0))
    >>> print(history.loss.shape, history.iterates.shape, history.loss[-1] < 0.01 * history.loss[0])
    (50,) (51, 2) True
    """
    # This function is long because the loop, and what follows an interrupt of it, need nearly all of its variables.
    _check(tx, stopping, callbacks)
    steps = checked_count("run", "steps", steps, most=MOST)
    every = checked_count("run", "eval_every", max(1, steps // 25) if eval_every is None else eval_every, most=MOST)
    every = min(every, steps)
    key_init, key_batches = jax.random.split(checked_keys("run", "key", key, ndim=0))
    objective = objective_of("run", problem)
    patience = Patience(stopping, objective)
    sizes = _batch_sizes(objective, steps, batch_size, batch_size_schedule)
    saved = None if checkpoint is None else Checkpoint("run", checkpoint)
    recording = Recording(objective, key_batches, sizes, saved)
    start = first_carry(objective.init(key_init), tx)
    recording.begin(start, evaluate(problem, judged_params(start), objective.examples))
    for metric in recording.evaluations()["metric"]:
        patience.after(metric)
    ended = "stopped early" if patience.is_over else "finished"
    interrupt = None
    with saved_at_end(saved), progress_bar(steps, "training", progress) as advance:
        advance(recording.step, "")
        try:
            left = () if patience.is_over else _chunks(objective, key_batches, sizes, every, recording.step)
            for inputs, active in left:
                carry, record = _train_chunk(problem, tx, recording.carry, objective.data, inputs, active)
                before, done = recording.step, int(active.sum())
                evaluation = evaluate(problem, judged_params(carry), objective.examples)
                wait_for((record, evaluation))
                recording.add(carry, record, done, evaluation)
                numbers = {name: float(value) for name, value in evaluation._asdict().items()}
                advance(done, f"loss {numbers['train_loss']:.4g}")
                if is_save_due(before, recording.step, steps):
                    recording.save()
                answers = [callback(recording.step, carry.params, numbers) for callback in callbacks]
                if any(answers):
                    ended = "stopped"
                    break
                if patience.after(evaluation.metric):
                    ended = "stopped early"
                    break
        except KeyboardInterrupt as error:
            ended, interrupt = "interrupted", error
        recording.save()
        if interrupt is not None and ends_program(interrupt):
            raise interrupt
    return recording.history(ended)


def _check(tx: Any, stopping: Any, callbacks: Any) -> None:
    if not (callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None))):  # such as gradtx.sgd alone
        raise TypeError(f"run: tx must be a gradient transformation, such as gradtx.sgd(0.1), got {tx!r}.")
    if not isinstance(stopping, EarlyStopping | None):
        raise TypeError(f"run: stopping must be a gradtx.early_stopping(...) or None, got {stopping!r}.")
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise TypeError(f"run: callbacks must be a list of functions, got {callbacks!r}.")


@partial(jax.jit, static_argnames=("problem", "tx"))
def _train_chunk(
    problem: Subject, tx: optax.GradientTransformation, carry: Carry, data: Any, inputs: Any, active: jax.Array
) -> tuple[Carry, Record]:
    return train(objective_of("run", problem), tx, carry, data, inputs, active)


def _batch_sizes(
    objective: Objective, steps: int, batch_size: int | str | None, schedule: Callable[[int], int] | None
) -> np.ndarray:
    """The number of examples of each step [steps]."""
    checked = partial(checked_batch_size, "run", objective.num_examples, objective.default_batch_size)
    if schedule is None:
        return np.full(steps, checked(batch_size))
    if batch_size is not None:
        raise ValueError("run: give batch_size or batch_size_schedule, not both.")
    example = "batch_size_schedule=gradtx.growing_batch_sizes(32, 256, every=100)"
    check_function("run", "batch_size_schedule", schedule, "the step", example)
    return np.array([checked(schedule(k)) for k in range(steps)])


def _chunks(
    objective: Objective, key: jax.Array, sizes: np.ndarray, every: int, done: int
) -> Iterator[tuple[Any, np.ndarray]]:
    """Yields the inputs of each chunk, and which of its steps are real. Padding to one length avoids recompilation.

    A chunk ends when the batch size changes. The first `done` steps are left out.
    """
    changes = [0, *(np.flatnonzero(np.diff(sizes)) + 1), len(sizes)]
    for first, end in pairwise(changes):
        if end <= done:
            continue
        segment_key = key if first == 0 else jax.random.fold_in(key, first)
        inputs = objective.inputs(segment_key, int(end - first), int(sizes[first]))
        for start in range(max(first, done), end, every):
            steps = np.arange(start, start + every)
            yield inputs[np.minimum(steps, end - 1) - first], steps < end


class Patience:
    """The state of early stopping, in the direction of the problem's metric. Raises if its mode is the opposite."""

    def __init__(self, stopping: EarlyStopping | None, objective: Objective) -> None:
        mode, better = ("max", "higher") if objective.higher_is_better else ("min", "lower")
        if stopping is not None and stopping.mode not in (None, mode):
            raise ValueError(
                f"run: stopping has mode {stopping.mode!r}, but a {better} {objective.metric_name} of "
                f"{objective.subject.name} is better: leave mode out, or give mode={mode!r}."
            )
        self._stopping = stopping and replace(stopping, mode=mode)
        self._state, self.is_over = self._stopping and self._stopping.init(), False

    def after(self, metric: Any) -> bool:
        """Whether to stop, after one more evaluation."""
        if self._stopping is not None and self._state is not None:
            self._state = self._stopping.update(metric, self._state)
            self.is_over = bool(self._state.should_stop)
        return self.is_over
