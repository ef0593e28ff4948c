"""Trains all members of a sweep side by side, with each minibatch split over the devices of a mesh.

The compiler adds the all-reduce of the gradients. One device gives the same numbers, to the rounding of the sums.
Between chunks of steps parameters and optimizer state are sharded, each leaf along an axis that the devices divide.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .checkpoints import is_save_due
from .distributed import is_end_wanted, local, put
from .members import Outcome, Shared, train_chunk
from .progress import progress_bar
from .sweep_checkpoint import Progress, SweepCheckpoint
from .terminating import Terminated, wait_for
from .training import Carry, Objective, first_carry

AXIS = "data"


def train_side_by_side(
    objective: Objective,
    make_tx: Callable[..., Any],
    mesh: Mesh,
    members: tuple[dict[str, np.ndarray], np.ndarray],
    shared: Shared,
    saved: SweepCheckpoint | None,
    progress: bool | None,
) -> Outcome:
    """Trains `members`, given as their hyper-parameters and the indices of their keys. An interrupt saves the steps."""
    # This function is long because what follows an interrupt of its loop needs nearly all of its variables.
    chunks = len(shared.active)
    if saved is not None and saved.step == chunks and (found := saved.load(None)) is not None:
        return found.outcome  # nothing has to be compiled
    mesh = Mesh(mesh.devices.reshape(-1), (AXIS,))
    whole = NamedSharding(mesh, PartitionSpec())
    objective = _split_over(objective, mesh)
    first = jax.tree.map(lambda x: np.asarray(x)[members[1], None], shared.first)
    (rates, keys), shared = jax.tree.map(partial(put, whole), (members, shared))

    def begin(rates: Any, keys: jax.Array, shared: Shared) -> Carry:
        params = jax.tree.map(lambda x: x[keys], shared.params)
        return jax.vmap(lambda params, rates: first_carry(params, make_tx(**rates)))(params, rates)

    def train(carry: Carry, k: Any, rates: Any, keys: jax.Array, shared: Shared) -> Any:
        def one(carry: Carry, rates: Any, key: jax.Array) -> Any:
            step_input = shared.inputs[key, k], shared.active[k]
            return train_chunk(objective, make_tx(**rates), shared, carry, step_input)

        return jax.vmap(one)(carry, rates, keys)

    layout = jax.tree.map(partial(_layout, mesh), jax.eval_shape(begin, rates, keys, shared))
    layout = layout._replace(diverged_at=whole)
    carry = jax.jit(begin, out_shardings=layout)(rates, keys, shared)
    train = jax.jit(train, out_shardings=(layout, whole))
    found = None if saved is None else saved.load(carry)
    state: tuple[int, Any, list[Any], list[Any]]  # chunks done, carry, and the curves and evaluations so far
    if found is None:
        state = 0, carry, [], [first]
    else:
        loss, readings, evaluation, _ = found.outcome
        state = found.done, found.carry, [(loss, readings)], [evaluation]

    def reached() -> Progress:
        done, carry, *parts = state
        joined: Any = [jax.tree.map(lambda *x: np.concatenate(x, axis=1), *part) for part in parts]
        (loss, readings), evaluation = joined
        return Progress(done, Outcome(loss, readings, evaluation, local(carry.diverged_at)), carry)

    with progress_bar(chunks, "sweeping", progress) as advance:
        advance(state[0], "")
        try:
            for k in range(state[0], chunks):
                carry, new = train(state[1], np.int32(k), rates, keys, shared)
                wait_for(new)
                loss, readings, evaluation = jax.tree.map(local, new)
                evaluation = jax.tree.map(lambda x: x[:, None], evaluation)
                # at once, as an interrupt may come
                state = k + 1, carry, [*state[2], (loss, readings)], [*state[3], evaluation]
                advance(1, "")
                is_end = is_end_wanted()
                if saved is not None and (is_end or is_save_due(k, k + 1, chunks)):
                    saved.save(reached())
                if is_end:
                    raise Terminated
        except KeyboardInterrupt:
            if saved is not None and state[0] and jax.process_count() == 1:  # alone, there is no step to agree on
                saved.save(reached())
            raise
    return reached().outcome


def _split_over(objective: Objective, mesh: Mesh) -> Objective:
    split = NamedSharding(mesh, PartitionSpec(AXIS))

    def losses(params: Any, data: Any, examples: jax.Array) -> jax.Array:
        return objective.losses(params, data, jax.lax.with_sharding_constraint(examples, split))

    return replace(objective, losses=losses)


def _layout(mesh: Mesh, leaf: Any) -> NamedSharding:
    """Splits along the longest axis that the devices divide. If there is none, each device holds the whole leaf."""
    fits = [axis for axis, length in enumerate(leaf.shape) if length and length % mesh.size == 0]
    spec: list[str | None] = [None] * leaf.ndim
    if fits:
        spec[max(fits, key=lambda axis: leaf.shape[axis])] = AXIS
    return NamedSharding(mesh, PartitionSpec(*spec))
