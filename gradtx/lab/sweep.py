"""Many trainings in one compilation: a grid of learning rates times a set of seeds, inside one compiled scan."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradtx import nesterov_eval_params, shuffled_epochs

from .problems import Batch, Problem

MakeTx = Callable[[jax.Array], optax.GradientTransformation]  # learning rate -> transformation


@dataclass(frozen=True)
class Curves:
    """What one grid of trainings left behind; L learning rates, S seeds, E evaluations."""

    learning_rates: np.ndarray  # [L]
    steps: np.ndarray  # [E] int: steps done at each evaluation; the first is 0, before any step
    train_loss: np.ndarray  # [L, S, E] mean loss over the whole training set
    validation_loss: np.ndarray  # [L, S, E]
    validation_metric: np.ndarray  # [L, S, E]
    diverged_at: np.ndarray  # [L, S] int: the step that was not finite, -1 where all were; the member froze before it


def train_grid(
    problem: Problem,
    make_tx: MakeTx,
    learning_rates: np.ndarray,
    keys: jax.Array,
    *,
    steps: int,
    batch_size: int | None,
    evaluate_every: int,
) -> Curves:
    """Trains every learning rate from every key, all in one compilation.

    A key decides initial parameters and minibatches, so that all learning rates of one key see the same of both. A
    member whose loss, or next parameters, are not finite keeps its last good parameters from there on.

    Args:
        problem: what to train.
        make_tx: the transformation of a (traced) learning rate.
        learning_rates: [L].
        keys: [S] random keys.
        steps: optimizer steps, a multiple of `evaluate_every`.
        batch_size: examples a step; None for the whole training set.
        evaluate_every: steps between two evaluations on the whole training and validation sets.

    Raises:
        ValueError: `evaluate_every` does not divide `steps`.
    """
    if steps < 1 or steps % evaluate_every:
        raise ValueError(f"train_grid: evaluate_every must divide steps = {steps}, got {evaluate_every}.")

    def member(learning_rate: jax.Array, key: jax.Array, batches: jax.Array | None) -> Any:
        return _train(problem, make_tx(learning_rate), key, batches, steps // evaluate_every, evaluate_every)

    split = jax.vmap(jax.random.split)(keys)
    batches = None
    if batch_size is not None:
        examples = len(problem.train[0])
        epochs = -(-steps // (examples // batch_size))
        shuffle = jax.vmap(lambda key: shuffled_epochs(key, examples, batch_size, epochs)[:steps])
        batches = shuffle(split[:, 1]).reshape(len(keys), -1, evaluate_every, batch_size)
    over_seeds = jax.vmap(member, in_axes=(None, 0, 0 if batches is not None else None))
    over_grid = jax.jit(jax.vmap(over_seeds, in_axes=(0, None, None)))
    evaluations, diverged_at = over_grid(jnp.asarray(learning_rates, jnp.float32), split[:, 0], batches)
    train_loss, validation_loss, validation_metric = (np.asarray(x) for x in evaluations)
    return Curves(
        learning_rates=np.asarray(learning_rates),
        steps=np.arange(0, steps + 1, evaluate_every),
        train_loss=train_loss,
        validation_loss=validation_loss,
        validation_metric=validation_metric,
        diverged_at=np.asarray(diverged_at),
    )


def _train(
    problem: Problem, tx: optax.GradientTransformation, key: jax.Array, batches: Any, evaluations: int, every: int
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jax.Array]:
    """One member: the evaluations [evaluations + 1] and the step that was not finite, or -1."""
    params = problem.init(key)
    start = (params, tx.init(params), jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32))

    def one_step(carry: Any, indices: jax.Array | None) -> tuple[Any, None]:
        params, state, step, diverged_at = carry
        batch = problem.train if indices is None else _take(problem.train, indices)
        loss, grads = jax.value_and_grad(problem.loss)(params, batch)
        updates, new_state = tx.update(grads, state, params)
        new_params = optax.apply_updates(params, updates)
        is_good = (diverged_at < 0) & jnp.isfinite(loss) & _is_finite(new_params)
        params, state = jax.tree.map(
            lambda new, old: jnp.where(is_good, new, old), (new_params, new_state), (params, state)
        )
        diverged_at = jnp.where((diverged_at < 0) & ~is_good, step, diverged_at)
        return (params, state, step + 1, diverged_at), None

    def evaluate(params: Any, state: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        params = _behind_lookahead(params, state)
        return (
            problem.loss(params, problem.train),
            problem.loss(params, problem.validation),
            problem.metric(params, problem.validation),
        )

    def stretch(carry: Any, indices: jax.Array | None) -> tuple[Any, Any]:
        carry, _ = jax.lax.scan(one_step, carry, indices, length=every)
        return carry, evaluate(carry[0], carry[1])

    first = evaluate(start[0], start[1])
    end, later = jax.lax.scan(stretch, start, batches, length=evaluations)
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, later), end[3]


def _take(data: Batch, indices: jax.Array) -> Batch:
    return data[0][indices], data[1][indices]


def _is_finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def _behind_lookahead(params: Any, state: Any) -> Any:
    """The parameters to judge: Nesterov trains at a point ahead of them."""
    try:
        return nesterov_eval_params(params, state)
    except ValueError:
        return params
