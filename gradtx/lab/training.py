"""The training step of every experiment: `run` repeats it, `sweep` maps it over many members.

It trains a `Problem` (data, minibatches) or a `Landscape` (a vector, noise samples instead of minibatches).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradtx import nesterov_eval_params, readings, shuffled_epochs
from gradtx.landscapes import Landscape

from .problems import Problem

Subject = Problem | Landscape
EVALUATION_EXAMPLES = 2048  # at most, of each set, so that evaluations cost less than the steps between them


class Carry(NamedTuple):
    """The state that each step passes to the next."""

    params: Any
    opt_state: Any
    step: jax.Array  # [] int32: steps done
    diverged_at: jax.Array  # [] int32: the step that led to parameters that are not finite; -1: none


class Record(NamedTuple):
    """The record of a step; NaN from the step after the divergence on."""

    loss: jax.Array  # [] mean loss of the step's minibatch, before the step
    readings: dict[str, jax.Array]  # name -> [], or another shape from the instrument, such as [leaves]
    iterate: jax.Array | None  # [dim] after the step; None for a problem


class Evaluation(NamedTuple):
    """Losses and metric on fixed examples. For a landscape all three are its noiseless value."""

    train_loss: jax.Array  # []
    validation_loss: jax.Array  # []
    metric: jax.Array  # []


@dataclass(frozen=True, eq=False)
class Objective:
    """The common form of `Problem` and `Landscape`: each step's inputs, the losses of its examples, an evaluation."""

    subject: Subject
    init: Callable[[jax.Array], Any]  # key -> parameters
    inputs: Callable[[jax.Array, int, int], Any]  # key, steps, batch size -> tree with leading [steps]
    losses: Callable[[Any, Any, Any], jax.Array]  # parameters, training data, input of a step -> [batch]
    evaluate: Callable[[Any, Any], Evaluation]  # parameters, examples of evaluation
    data: Any  # training data
    examples: Any  # the examples of evaluations
    num_examples: int | None  # None: unlimited
    default_batch_size: int
    metric_name: str
    higher_is_better: bool


def objective_of(caller: str, subject: Subject) -> Objective:
    """The objective of a problem or a landscape."""
    if isinstance(subject, Problem):
        return _of_problem(subject)
    if isinstance(subject, Landscape):
        return _of_landscape(subject)
    raise TypeError(
        f"{caller}: the first argument must be a lab.Problem or a gradtx.landscapes.Landscape, got {subject!r} "
        f"({type(subject).__name__}). A problem of the lab is made by a call, as lab.digits(). A function of a vector "
        "needs a start: gradtx.landscapes.Landscape.of(function, start)."
    )


def _of_problem(problem: Problem) -> Objective:
    def inputs(key: jax.Array, steps: int, batch_size: int) -> jax.Array:
        epochs = -(-steps // (problem.num_examples // batch_size))
        return shuffled_epochs(key, problem.num_examples, batch_size, epochs)[:steps]

    def evaluate(params: Any, examples: Any) -> Evaluation:
        train, validation = examples
        return Evaluation(
            problem.loss(params, train), problem.loss(params, validation), problem.metric(params, validation)
        )

    return Objective(
        subject=problem,
        init=problem.init,
        inputs=inputs,
        losses=lambda params, data, indices: problem.losses(params, jax.tree.map(lambda x: x[indices], data)),
        evaluate=evaluate,
        data=problem.train,
        examples=jax.tree.map(lambda x: x[:EVALUATION_EXAMPLES], (problem.train, problem.validation)),
        num_examples=problem.num_examples,
        default_batch_size=min(64, problem.num_examples),
        metric_name=problem.metric_name,
        higher_is_better=problem.higher_is_better,
    )


def _of_landscape(landscape: Landscape) -> Objective:
    def evaluate(params: jax.Array, examples: None) -> Evaluation:
        value = landscape(params)
        return Evaluation(value, value, value)

    return Objective(
        subject=landscape,
        init=lambda key: jnp.asarray(landscape.start, jnp.result_type(float)),
        inputs=lambda key, steps, batch_size: jax.random.split(key, (steps, batch_size)),
        losses=lambda params, data, keys: jax.vmap(landscape.sample, in_axes=(None, 0))(params, keys),
        evaluate=evaluate,
        data=None,
        examples=None,
        num_examples=None,
        default_batch_size=1,
        metric_name="value",
        higher_is_better=False,
    )


def first_carry(params: Any, tx: optax.GradientTransformation) -> Carry:
    """The state before the first step."""
    return Carry(params, tx.init(params), jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32))


def train(
    objective: Objective, tx: optax.GradientTransformation, carry: Carry, data: Any, inputs: Any, active: jax.Array
) -> tuple[Carry, Record]:
    """Scans over the inputs of several steps [n, ...]. A step that is not `active` [n] does nothing.

    If the parameters would become NaN or inf, the member keeps its last finite ones. Other members under a vmap are
    not affected, and the parameters can still be examined.
    """
    update = optax.with_extra_args_support(tx).update

    def one_step(carry: Carry, step_input: tuple[Any, jax.Array]) -> tuple[Carry, Record]:
        values, is_active = step_input

        def losses_fn(params: Any) -> jax.Array:
            return objective.losses(params, data, values)

        def value_fn(params: Any, losses_fn: Any = losses_fn) -> jax.Array:
            # `losses_fn` is an argument because Optax's line searches refuse arguments that `value_fn` does not take.
            return jnp.mean(losses_fn(params))

        value, grads = jax.value_and_grad(value_fn)(carry.params)
        extra = {"value": value, "grad": grads, "value_fn": value_fn, "losses_fn": losses_fn}
        updates, opt_state = update(grads, carry.opt_state, carry.params, **extra)
        params = optax.apply_updates(carry.params, updates)
        is_alive = is_active & (carry.diverged_at < 0)
        is_good = is_alive & _is_finite(params)
        loss, measured = jax.tree.map(lambda x: jnp.where(is_alive, x, jnp.nan), (value, readings(opt_state)))
        now, before = (params, opt_state), (carry.params, carry.opt_state)
        params, opt_state = jax.tree.map(lambda new, old: jnp.where(is_good, new, old), now, before)
        diverged_at = jnp.where(is_alive & ~is_good, carry.step, carry.diverged_at)
        iterate = params if isinstance(objective.subject, Landscape) else None
        return Carry(params, opt_state, carry.step + is_active, diverged_at), Record(loss, measured, iterate)

    return jax.lax.scan(one_step, carry, (inputs, active))


@partial(jax.jit, static_argnames="subject")
def evaluate(subject: Subject, params: Any, examples: Any) -> Evaluation:
    """Compiled once for a problem or a landscape, whatever the method."""
    return objective_of("evaluate", subject).evaluate(params, examples)


@jax.jit
def judged_params(carry: Carry) -> Any:
    """The parameters that a method is judged by. Nesterov trains at a point ahead of them."""
    try:
        return nesterov_eval_params(carry.params, carry.opt_state)
    except ValueError:
        return carry.params


def _is_finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.array(True), *(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree))]))
