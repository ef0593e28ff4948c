"""The members of a sweep: their common inputs, the outcome of each, and the sweep made of all outcomes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .sweep_result import Sweep
from .training import Carry, Evaluation, Objective, evaluate, judged_params, train


class Outcome(NamedTuple):
    """The results of one member, or of all members with one more leading axis."""

    loss: Any  # [steps]
    readings: dict[str, Any]  # name -> [steps], or [steps, leaves]
    evaluation: Evaluation  # leaves [evaluations]
    diverged_at: Any  # []


class Shared(NamedTuple):
    """The inputs that the members have in common."""

    params: Any  # leaves [keys, ...]: the initial parameters of each key
    inputs: Any  # leaves [keys, chunks, every, ...]: the minibatches of each key
    active: jax.Array  # [chunks, every]: which steps are real
    first: Evaluation  # leaves [keys]: the evaluation of the initial parameters
    data: Any
    examples: Any


def shared_by_members(objective: Objective, keys: jax.Array, steps: int, every: int, batch_size: int) -> Shared:
    """Parameters and minibatches of each key, as `lab.run` makes them. Chunks are padded to the same length."""
    split = [jax.random.split(key) for key in keys]
    chunks = -(-steps // every)
    params = [objective.init(key_init) for key_init, _ in split]
    padded = np.minimum(np.arange(chunks * every), steps - 1)
    inputs = jnp.stack([objective.inputs(key_batches, steps, batch_size)[padded] for _, key_batches in split])
    first = [evaluate(objective.subject, start, objective.examples) for start in params]
    return Shared(
        params=jax.tree.map(lambda *leaves: jnp.stack(leaves), *params),
        inputs=inputs.reshape(len(keys), chunks, every, *inputs.shape[2:]),
        active=jnp.asarray((np.arange(chunks * every) < steps).reshape(chunks, every)),
        first=jax.tree.map(lambda *leaves: jnp.stack(leaves), *first),
        data=objective.data,
        examples=objective.examples,
    )


def train_chunk(objective: Objective, tx: Any, shared: Shared, carry: Carry, step_input: Any) -> tuple[Carry, Any]:
    """Trains one member for a chunk of steps. Returns its carry, and its losses, readings and an evaluation."""
    carry, record = train(objective, tx, carry, shared.data, *step_input)
    return carry, (record.loss, record.readings, objective.evaluate(judged_params(carry), shared.examples))


def labelled(
    outcome: Outcome, objective: Objective, axes: dict[str, np.ndarray], is_random: bool, shared: Shared, method: str
) -> Sweep:
    """The sweep, with members as [*grid, keys]. Those that an interrupt left out are NaN, -1 and not finished."""
    lengths = tuple(len(axis) for axis in axes.values())
    grid, num_keys = lengths[:1] if is_random else lengths, len(shared.first.metric)
    members = int(np.prod(grid)) * num_keys
    (chunks, every), steps = shared.active.shape, int(shared.active.sum())

    def spread(x: Any, missing: Any = np.nan) -> np.ndarray:
        rest = np.full((members - len(x), *x.shape[1:]), missing, x.dtype)
        return np.concatenate([x, rest]).reshape(*grid, num_keys, *x.shape[1:])

    return Sweep(
        axes=axes,
        is_random=is_random,
        loss=spread(outcome.loss[:, :steps]),
        readings={name: spread(reading[:, :steps]) for name, reading in outcome.readings.items()},
        eval_steps=np.minimum(every * np.arange(chunks + 1), steps),
        **jax.tree.map(spread, outcome.evaluation)._asdict(),
        diverged_at=spread(outcome.diverged_at, -1),
        finished=spread(np.ones(len(outcome.loss), bool), False),
        problem=objective.subject.name,
        metric_name=objective.metric_name,
        higher_is_better=objective.higher_is_better,
        method=method,
    )
