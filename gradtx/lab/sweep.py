"""Trains every point of a grid of hyper-parameters from every key, with one compilation."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gradtx._core.arguments import check_function, checked_count

from .arguments import MOST, checked_batch_size, checked_keys
from .checkpoints import is_save_due, saved_at_end
from .data_parallel import check_mesh, train_side_by_side
from .grids import RandomGrid, check_values, checked_axes, points, untraceable_name
from .members import Outcome, Shared, labelled, shared_by_members, train_chunk
from .progress import progress_bar
from .provenance import description
from .sweep_checkpoint import Progress, SweepCheckpoint
from .sweep_result import Sweep
from .terminating import ends_program, wait_for
from .training import Objective, Subject, evaluate, first_carry, objective_of

STEPS_PER_CALL = 4096  # least number of steps per device in a call of the compiled program


def sweep(
    problem: Subject,
    make_tx: Callable[..., optax.GradientTransformation],
    grid: Any,
    *,
    steps: int,
    keys: jax.Array,
    batch_size: int | str | None = None,
    eval_every: int | None = None,
    memory_budget: int = 2**30,
    at_once: int | None = None,
    progress: bool | None = None,
    mesh: Mesh | None = None,
    checkpoint: str | Path | None = None,
) -> Sweep:
    """Trains every point of a grid from every key, compiled once, on all devices of this process.

    A key decides initial parameters and minibatches, which are the same for all points, and the same as in `lab.run`
    with that key. Each member's numbers are those of `lab.run`. If a member's parameters would become NaN or inf, it
    keeps its last finite ones and its loss is NaN from there on. Other members are not affected.

    Args:
        problem: a `lab.Problem` or a landscape.
        make_tx: traced once, as `make_tx(**hyperparameters)`; functions of Optax also work. Before that it is called
            with the smallest and the largest values of the grid, so that it can refuse values out of range.
        grid: {name: values}, of which every combination is tried, or a `lab.random_grid(...)`, whose points are tried.
        steps: optimizer steps of each member.
        keys: [K] random keys.
        batch_size: examples per step, as in `lab.run`.
        eval_every: steps between two evaluations; default a 25th of the steps.
        memory_budget: bytes that members may take at a time, estimated from parameters, optimizer state and curves. If
            not all members fit, the same compiled program trains them in turn.
        at_once: members that a device trains side by side (vmapped). The default is 1 on a CPU, where side by side is
            not faster and one by one is bit-equal to `lab.run`. Elsewhere it is as many as the budget allows.
        progress: show a bar; by default only if standard error is a terminal.
        mesh: devices that share each minibatch, of this process or of all processes of a run. The default gives each
            device members of its own. On a mesh, all members are trained side by side, and `memory_budget` is not used.
            The numbers are those without a mesh, to the rounding of the sums. The axes of the mesh do not matter.
        checkpoint: a folder, which all processes of a run must see. If it holds this sweep, the sweep resumes from
            there, on any number of devices. It is saved there five times and when interrupted: with a mesh the state
            of all members, otherwise the finished members. A full disk and SIGTERM are treated as in `lab.run`.

    Returns:
        The `Sweep`. Ctrl-C returns the finished members, with NaN for the rest. If none is finished, it raises
        `KeyboardInterrupt`. On a mesh no member is finished before all are.

    Raises:
        TypeError: if an argument is of another kind, a hyper-parameter is not a number, or the transformation cannot
            take it as a traced number.
        ValueError: if an argument is out of range, `make_tx` refuses a value of the grid, or `checkpoint` is of another
            sweep or cannot be written to.

    >>> import gradtx, jax
    >>> from gradtx import lab, landscapes
    >>> keys = jax.random.split(jax.random.key(0), 1)
    >>> grid = {"learning_rate": [0.01, 0.1, 0.3]}
    >>> result = lab.sweep(landscapes.quadratic(10.0), gradtx.sgd, grid, steps=50, keys=keys)
    >>> print(result.loss.shape, result.best(), result.diverged_at.ravel() >= 0)
    (3, 1, 50) {'learning_rate': 0.1} [False False False]
    """
    # This function is long because every argument is checked here, before the work starts.
    steps = checked_count("sweep", "steps", steps, most=MOST)
    every = checked_count("sweep", "eval_every", max(1, steps // 25) if eval_every is None else eval_every, most=MOST)
    every = min(every, steps)
    memory_budget = checked_count("sweep", "memory_budget", memory_budget)
    at_once = None if at_once is None else checked_count("sweep", "at_once", at_once)
    _check_devices(mesh, checkpoint, at_once)
    keys = checked_keys("sweep", "keys", keys, ndim=1)
    check_function("sweep", "make_tx", make_tx, "the grid's arguments", "make_tx=gradtx.sgd")
    axes, objective = checked_axes("sweep", grid), objective_of("sweep", problem)
    size = checked_batch_size("sweep", objective.num_examples, objective.default_batch_size, batch_size)
    check_values("sweep", make_tx, axes)
    is_random = isinstance(grid, RandomGrid)
    columns = points(axes, is_random)
    shared = shared_by_members(objective, keys, steps, every, size)
    num_keys = len(keys)
    members = num_keys * len(next(iter(columns.values())))
    member = np.arange(members)
    trained = {name: column[member // num_keys] for name, column in columns.items()}, member % num_keys
    try:
        saved = None
        if checkpoint is not None:
            settings = {"grid": {name: axis.tolist() for name, axis in axes.items()}, "random_grid": is_random}
            settings |= {"keys": np.asarray(jax.random.key_data(keys)).tolist(), "steps": steps, "eval_every": every}
            settings |= {"batch_size": size, "mesh": "none" if mesh is None else "given"}
            described = {"settings": settings} | _description(objective, make_tx, columns, shared)
            saved = SweepCheckpoint(checkpoint, described)
        with saved_at_end(saved):
            if mesh is None:
                budget = memory_budget, at_once
                outcome = _train_in_turn(problem, make_tx, trained, shared, steps, budget, saved, progress)
            else:
                outcome = train_side_by_side(objective, make_tx, mesh, trained, shared, saved, progress)
    except TypeError as error:
        untraceable = untraceable_name(make_tx, columns, jax.tree.map(lambda x: x[0], shared.params))
        if untraceable is None:
            raise
        raise TypeError(
            f"sweep: make_tx cannot take a traced {untraceable} (it decides shapes or Python branches): close over "
            "it, and run one sweep per value."
        ) from error
    result = labelled(outcome, objective, axes, is_random, num_keys, steps, every)
    return replace(result, method=_name_of(make_tx))


def _check_devices(mesh: Any, checkpoint: Any, at_once: int | None) -> None:
    """Raises if the arguments do not say how the devices share the work."""
    if mesh is not None:
        check_mesh(mesh)
        if at_once is not None:
            raise ValueError(f"sweep: with a mesh all members are trained side by side: omit at_once, got {at_once}.")
    elif checkpoint is not None and jax.process_count() > 1:
        raise ValueError(
            "sweep: a checkpoint that several processes share needs a mesh of all their devices: give "
            'mesh=jax.make_mesh((jax.device_count(),), ("data",)).'
        )


def _description(
    objective: Objective, make_tx: Callable[..., Any], columns: dict[str, np.ndarray], shared: Shared
) -> dict[str, Any]:
    """The properties of problem and method, as JSON, that a checkpoint shares with a sweep that resumes it."""
    first, params = jax.tree.map(lambda x: x[0], (columns, shared.params))
    opt_state = jax.eval_shape(lambda rates, params: make_tx(**rates).init(params), first, params)
    evaluations = jax.jit(jax.vmap(objective.evaluate, (0, None)))(shared.params, shared.examples)
    return description(objective.subject, params, opt_state) | {"evaluations": np.stack(evaluations).ravel().tolist()}


def _train_in_turn(
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

    def portions() -> Iterator[Any]:
        for first in range(start, members, per_call):
            member = np.minimum(np.arange(first, first + per_call), members - 1)
            yield jax.tree.map(lambda x, member=member: x[member], trained)

    def reached() -> Progress:
        outcome = jax.tree.map(lambda *parts: np.concatenate(parts)[:members], *outcomes)
        return Progress(len(outcome.loss), outcome, None)

    with progress_bar(members, "sweeping", progress) as advance:
        if start:
            advance(start, "")
        try:
            before = start
            for outcome in _fetched(compiled(portion, shared) for portion in portions()):
                outcomes.append(outcome)
                done = min(before + per_call, members)
                advance(done - before, "")
                if saved is not None and is_save_due(before, done, members):
                    saved.save(reached())
                before = done
        except KeyboardInterrupt as interrupt:
            if saved is not None and outcomes:
                saved.save(reached())
            if not outcomes or ends_program(interrupt):
                raise
    return reached().outcome


def _name_of(make_tx: Any) -> str:
    """The name of the function that makes the method, or "" if it has none."""
    while isinstance(make_tx, partial):
        make_tx = make_tx.func
    name = getattr(make_tx, "__name__", "")
    return "" if name.startswith("<") else name


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
    for outcome in running:
        if before is not None:
            wait_for(before)
            yield jax.tree.map(np.asarray, before)
        before = outcome
    if before is not None:
        wait_for(before)
        yield jax.tree.map(np.asarray, before)


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
    train_one = partial(_train_member, objective_of("sweep", problem), make_tx)

    def in_turn(members: Any, shared: Shared) -> Outcome:
        width = at_once if at_once > 1 else None
        return jax.lax.map(lambda member: train_one(member, shared), members, batch_size=width)

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


def _train_member(
    objective: Objective, make_tx: Callable[..., optax.GradientTransformation], member: Any, shared: Shared
) -> Outcome:
    hyperparameters, key = member
    params, inputs = jax.tree.map(lambda x: x[key], (shared.params, shared.inputs))
    tx = make_tx(**hyperparameters)
    start = first_carry(params, tx)
    chunk = partial(train_chunk, objective, tx, shared)
    end, (loss, seen, later) = jax.lax.scan(chunk, start, (inputs, shared.active))
    loss, seen = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (loss, seen))  # chunks end to end
    first = evaluate(objective, start, shared.examples)
    evaluations = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, later)
    return Outcome(loss, seen, evaluations, end.diverged_at)
