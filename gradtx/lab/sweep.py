"""Trains every point of a grid of hyper-parameters from every key, with one compilation."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from gradtx._core.arguments import check_function, checked_count

from .arguments import MOST, checked_batch_size, checked_keys
from .checkpoints import saved_at_end
from .data_parallel import train_side_by_side
from .grids import RandomGrid, check_values, checked_axes, points, untraceable_name
from .member_parallel import train_in_turn
from .members import Shared, labelled, shared_by_members
from .provenance import description
from .sweep_checkpoint import SweepCheckpoint
from .sweep_result import Sweep
from .training import Objective, Subject, objective_of


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
    point, key = (places.ravel() for places in np.indices((len(next(iter(columns.values()))), len(keys))))
    trained = {name: column[point] for name, column in columns.items()}, key
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
                outcome = train_in_turn(problem, make_tx, trained, shared, steps, budget, saved, progress)
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
    return labelled(outcome, objective, axes, is_random, shared, _name_of(make_tx))


def _check_devices(mesh: Any, checkpoint: Any, at_once: int | None) -> None:
    """Raises if the arguments do not say how the devices share the work."""
    example = 'jax.make_mesh((jax.device_count(),), ("data",))'
    if mesh is None:
        if checkpoint is not None and jax.process_count() > 1:
            needed = "a checkpoint that several processes share needs a mesh of all their devices"
            raise ValueError(f"sweep: {needed}: give mesh={example}.")
        return
    if not isinstance(mesh, Mesh):
        raise TypeError(f"sweep: mesh must be a jax.sharding.Mesh, such as {example}, got {mesh!r}.")
    held, all_of_them = {device.process_index for device in mesh.devices.flat}, jax.process_count()
    if len(held) < all_of_them:
        raise ValueError(f"sweep: mesh must hold devices of all {all_of_them} processes, got those of {sorted(held)}.")
    if at_once is not None:
        raise ValueError(f"sweep: with a mesh all members are trained side by side: omit at_once, got {at_once}.")


def _description(
    objective: Objective, make_tx: Callable[..., Any], columns: dict[str, np.ndarray], shared: Shared
) -> dict[str, Any]:
    """The properties of problem and method, as JSON, that a checkpoint shares with a sweep that resumes it."""
    first, params = jax.tree.map(lambda x: x[0], (columns, shared.params))
    opt_state = jax.eval_shape(lambda rates, params: make_tx(**rates).init(params), first, params)
    evaluations = np.stack(shared.first).ravel().tolist()
    return description(objective.subject, params, opt_state) | {"evaluations": evaluations}


def _name_of(make_tx: Any) -> str:
    """The name of the function that makes the method, or "" if it has none."""
    while isinstance(make_tx, partial):
        make_tx = make_tx.func
    name = getattr(make_tx, "__name__", "")
    return "" if name.startswith("<") else name
