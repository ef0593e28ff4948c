"""Trains the members of a sweep in turn, compiled once. Each device of this process trains members of its own."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .checkpoints import is_save_due
from .members import Outcome, Shared, train_chunk
from .progress import progress_bar
from .sweep_checkpoint import Progress, SweepCheckpoint
from .terminating import ends_program, wait_for
from .training import Subject, first_carry, objective_of

STEPS_PER_CALL = 4096  # least number of steps per device in a call of the compiled program


def train_in_turn(
    problem: Subject,
    make_tx: Callable[..., Any],
    trained: tuple[dict[str, np.ndarray], np.ndarray],
    shared: Shared,
    steps: int,
    budget: tuple[int, int | None],
    saved: SweepCheckpoint | None,
    progress: bool | None,
) -> Outcome:
    """Trains members, given as their hyper-parameters and the indices of their keys, in portions that fit in memory.

    `budget` is the memory budget and `at_once`.
    """
    members = len(trained[1])
    mesh = Mesh(np.array(jax.local_devices()[:members]), ("members",))
    at_once, per_call = _portions(members, steps, mesh, budget[0] // _member_bytes(shared, steps), budget[1])
    compiled = partial(_train_members, problem, _hashable(make_tx), at_once, mesh)
    shared = jax.device_put(shared, NamedSharding(mesh, PartitionSpec()))  # copied once, not in every call
    found = None if saved is None else saved.load(None)
    start, outcomes = (0, []) if found is None else (found.done, [found.outcome])

    firsts = range(start, members, per_call)  # the first member of each portion

    def train_from(first: int) -> Outcome:
        member = np.minimum(np.arange(first, first + per_call), members - 1)
        return compiled(jax.tree.map(lambda x: x[member], trained), shared)

    def reached() -> Progress:
        outcome = jax.tree.map(lambda *parts: np.concatenate(parts)[:members], *outcomes)
        return Progress(len(outcome.loss), outcome, None)

    with progress_bar(members, "sweeping", progress) as advance:
        if start:
            advance(start, "")
        try:
            for first, outcome in zip(firsts, _fetched(map(train_from, firsts)), strict=True):
                outcomes.append(outcome)
                done = min(first + per_call, members)
                advance(done - first, "")
                if saved is not None and is_save_due(first, done, members):
                    saved.save(reached())
        except KeyboardInterrupt as interrupt:
            if saved is not None and outcomes:
                saved.save(reached())
            if not outcomes or ends_program(interrupt):
                raise
    return reached().outcome


def _portions(members: int, steps: int, mesh: Mesh, fit: int, at_once: int | None) -> tuple[int, int]:
    """Members per device side by side, and members per call of the compiled program, if `fit` members fit in memory."""
    if members > fit:
        fit //= 2  # the next call is dispatched while one still runs
    fit = max(1, fit // mesh.size)
    if at_once is None:
        at_once = 1 if mesh.devices.flat[0].platform == "cpu" else min(fit, -(-members // mesh.size))
    rounds = -(-members // (mesh.size * at_once))
    # About 16 calls, so that progress is visible, but enough steps per call that devices rarely wait for the slowest.
    rounds_per_call = max(1, min(fit // at_once, max(-(-rounds // 16), -(-STEPS_PER_CALL // steps))))
    calls = -(-rounds // rounds_per_call)
    return at_once, mesh.size * at_once * -(-rounds // calls)  # equal calls need the least padding


def _fetched(running: Iterable[Outcome]) -> Iterator[Outcome]:
    """Converts each outcome to NumPy while the next one runs, so that devices do not wait for Python."""
    before = None
    for outcome in chain(running, [None]):
        if before is not None:
            wait_for(before)
            yield jax.tree.map(np.asarray, before)
        before = outcome


def _member_bytes(shared: Shared, steps: int) -> int:
    """Estimated bytes: parameters, gradients, updates, a state of three times the parameters, and twenty curves."""
    params = sum(leaf[0].nbytes for leaf in jax.tree.leaves(shared.params))
    return 6 * params + 4 * 20 * steps


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _train_members(
    problem: Subject, make_tx: Callable, at_once: int, mesh: Mesh, members: Any, shared: Shared
) -> Outcome:
    """Splits the members over the devices. With `at_once` of 1 there is no vmap, so results are bit-equal to a run.

    Compiles once per problem, `make_tx` and size. A second sweep with another grid does not compile again.
    """
    objective = objective_of("sweep", problem)

    def in_turn(members: Any, shared: Shared) -> Outcome:
        def train_one(member: tuple[dict[str, Any], jax.Array]) -> Outcome:
            hyperparameters, key = member
            params, inputs, first = jax.tree.map(lambda x: x[key], (shared.params, shared.inputs, shared.first))
            tx = make_tx(**hyperparameters)
            start = first_carry(params, tx)
            chunk = partial(train_chunk, objective, tx, shared)
            end, (loss, seen, later) = jax.lax.scan(chunk, start, (inputs, shared.active))
            loss, seen = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (loss, seen))  # chunks end to end
            evaluations = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, later)
            return Outcome(loss, seen, evaluations, end.diverged_at)

        return jax.lax.map(train_one, members, batch_size=at_once if at_once > 1 else None)

    spread = PartitionSpec("members")
    share_out = jax.shard_map(in_turn, mesh=mesh, in_specs=(spread, PartitionSpec()), out_specs=spread, check_vma=False)
    return share_out(members, shared)


def _hashable(make_tx: Callable[..., optax.GradientTransformation]) -> Callable[..., optax.GradientTransformation]:
    """Returns `make_tx` if it can be hashed, as `jit` needs, otherwise a function around it."""
    try:
        hash(make_tx)
    except TypeError:
        return lambda **hyperparameters: make_tx(**hyperparameters)
    return make_tx
