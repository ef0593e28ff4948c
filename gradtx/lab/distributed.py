"""Data-parallel training over all devices of all processes, with JAX's multi-controller runtime.

Every process runs the same program on the same data. Each minibatch is split over the devices, and the compiler adds
the all-reduce of the gradients. One process with all the devices gives the same numbers, to the rounding of the sums.
Between chunks of steps parameters and optimizer state are sharded, each leaf along an axis that the devices divide. So
each process writes its own part of a checkpoint, and any number of devices can read it.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .arguments import checked_batch_size
from .grids import checked_axes, points
from .members import Outcome, labelled, shared_by_members
from .shared_checkpoint import SharedCheckpoint
from .sweep_result import Sweep
from .terminating import ENDING, Terminated
from .training import Carry, Evaluation, Objective, evaluate, first_carry, objective_of, train

AXIS = "data"


def start(coordinator: str | None, processes: int | None, process: int | None, heartbeat: int = 10) -> None:
    """Joins the run. Call it before any other use of JAX. If all three are None, JAX reads them from the environment
    (Slurm, Kubernetes, TPU, ...). A process that is silent for `heartbeat` seconds counts as dead."""
    with suppress(AttributeError):  # without this setting JAX has no such service, or `ENDING.share` replaces it
        # JAX's own listener would catch SIGTERM. Here the processes agree on when to end (`_is_end_wanted`).
        jax.config.update("jax_enable_preemption_service", False)
    host = (coordinator or "").rpartition(":")[0]
    is_local = host in ("127.0.0.1", "localhost", "[::1]")
    jax.distributed.initialize(
        coordinator,
        processes,
        process,
        coordinator_bind_address=coordinator if is_local else None,  # by default JAX listens on all interfaces
        heartbeat_timeout_seconds=heartbeat,
    )


def whole_mesh() -> Mesh:
    """All devices of all processes, in a line."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def distributed_sweep(
    problem: Any,
    make_tx: Callable[..., optax.GradientTransformation],
    grid: dict[str, Any],
    *,
    steps: int,
    keys: jax.Array,
    batch_size: int | str | None = None,
    eval_every: int | None = None,
    checkpoint: Path,
    saves: int = 5,
    mesh: Mesh | None = None,
    progress: bool | None = None,
) -> Sweep:
    """`lab.sweep` with each minibatch split over all devices of all processes. Each device computes all members.

    Args:
        problem: a `lab.Problem`.
        make_tx: called once, as in `lab.sweep`.
        grid: {name: values}; every combination is tried.
        steps: optimizer steps of each member.
        keys: [K] random keys.
        batch_size: examples per step, over all processes.
        eval_every: steps between two evaluations, by default a 25th of the steps.
        checkpoint: a folder that all processes see. A run saved there is resumed.
        saves: the number of saves during the run.
        mesh: the devices along one axis "data", by default all devices.
        progress: not used; it is here because `lab.sweep` has it.

    Raises:
        ValueError: `checkpoint` holds another run.
        KeyboardInterrupt: a process of the run was asked to end. All processes have saved the same step.
    """
    del progress
    mesh = mesh or whole_mesh()
    every = min(eval_every or max(1, steps // 25), steps)
    axes, objective = checked_axes("sweep", grid), objective_of("sweep", problem)
    size = checked_batch_size("sweep", objective.num_examples, objective.default_batch_size, batch_size)
    columns, shared = points(axes, False), shared_by_members(objective, keys, steps, every, size)
    saved = SharedCheckpoint(checkpoint, _description(objective, axes, keys, steps, every, size))
    if (found := saved.finished()) is not None:
        return found

    members = len(keys) * len(next(iter(columns.values())))
    key_of = np.arange(members) % len(keys)
    rates = {name: column[np.arange(members) // len(keys)] for name, column in columns.items()}
    whole = NamedSharding(mesh, PartitionSpec())
    everywhere = partial(jax.tree.map, partial(put, whole))
    rates, params, inputs, data, examples = everywhere(
        (rates, jax.tree.map(lambda x: x[key_of], shared.params), shared.inputs, shared.data, shared.examples)
    )
    begin = jax.vmap(lambda params, rates: first_carry(params, make_tx(**rates)))
    layout = jax.tree.map(partial(_layout, mesh), jax.eval_shape(begin, params, rates))
    layout = layout._replace(diverged_at=whole)
    carry = jax.jit(begin, out_shardings=layout)(params, rates)
    train_chunk = jax.jit(partial(_train_chunk, _cut_over(objective, mesh), make_tx), out_shardings=(layout, whole))
    judge = jax.vmap(partial(evaluate, objective), in_axes=(0, None))
    first = jax.jit(judge, out_shardings=whole)(carry, examples)
    log = {name: local(value)[:, None] for name, value in first._asdict().items()}
    done, carry, log = saved.load(carry, log)
    for k in range(done, len(shared.active)):
        step_input = (inputs[key_of, k], everywhere(np.asarray(shared.active[k])))
        carry, (loss, readings, evaluation) = train_chunk(carry, rates, step_input, data, examples)
        new = {"loss": local(loss)} | {f"readings/{name}": local(reading) for name, reading in readings.items()}
        new |= {name: local(value)[:, None] for name, value in evaluation._asdict().items()}
        log = {name: np.concatenate([log[name], x], axis=1) if name in log else x for name, x in new.items()}
        ends_here = _is_end_wanted()
        if ends_here or (k + 1) * saves // len(shared.active) > k * saves // len(shared.active):
            saved.save(k + 1, carry, log)
        if ends_here:
            raise Terminated
    result = labelled(_outcome(log, local(carry.diverged_at)), objective, axes, False, len(keys), steps, every)
    saved.finish(result)
    return result


def _is_end_wanted() -> bool:
    """Whether any process of the run has been asked to end. All get the same answer, so all save the same step."""
    if jax.process_count() > 1:
        asked = multihost_utils.process_allgather(np.array(ENDING.is_wanted))
        ENDING.is_wanted = bool(np.any(asked))
    return ENDING.is_wanted


def checkpointing_trainer(folder: Path) -> Callable[[str], Callable[..., Sweep]]:
    """The trainer for `comparisons`: `distributed_sweep` with a separate checkpoint folder for each method."""
    return lambda name: partial(distributed_sweep, checkpoint=folder / name)


def _train_chunk(
    objective: Objective,
    make_tx: Callable[..., Any],
    carry: Carry,
    rates: Any,
    step_input: Any,
    data: Any,
    examples: Any,
) -> tuple[Carry, Any]:
    """One chunk of steps of all members, and an evaluation at its end."""
    inputs, active = step_input

    def one(carry: Carry, rates: Any, inputs: Any) -> tuple[Carry, Any]:
        carry, record = train(objective, make_tx(**rates), carry, data, inputs, active)
        return carry, (record.loss, record.readings, evaluate(objective, carry, examples))

    return jax.vmap(one)(carry, rates, inputs)


def _cut_over(objective: Objective, mesh: Mesh) -> Objective:
    """The objective with its minibatches split over the devices."""
    cut = NamedSharding(mesh, PartitionSpec(AXIS))

    def losses(params: Any, data: Any, indices: jax.Array) -> jax.Array:
        return objective.losses(params, data, jax.lax.with_sharding_constraint(indices, cut))

    return replace(objective, losses=losses)


def _layout(mesh: Mesh, leaf: Any) -> NamedSharding:
    """Splits along the longest axis that the devices divide. If there is none, each device holds the whole leaf."""
    fits = [axis for axis, length in enumerate(leaf.shape) if length and length % mesh.size == 0]
    spec: list[str | None] = [None] * leaf.ndim
    if fits:
        spec[max(fits, key=lambda axis: leaf.shape[axis])] = AXIS
    return NamedSharding(mesh, PartitionSpec(*spec))


def put(sharding: NamedSharding, leaf: Any) -> jax.Array:
    """A global array from a leaf that every process has in full."""
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])


def local(leaf: jax.Array) -> np.ndarray:
    """An array that every device has in full, as NumPy."""
    return np.asarray(leaf.addressable_data(0))


def _outcome(log: dict[str, Any], diverged_at: np.ndarray) -> Outcome:
    readings = {name.removeprefix("readings/"): x for name, x in log.items() if name.startswith("readings/")}
    return Outcome(log["loss"], readings, Evaluation(*(log[name] for name in Evaluation._fields)), diverged_at)


def _description(
    objective: Objective, axes: dict[str, np.ndarray], keys: jax.Array, steps: int, every: int, size: int
) -> dict[str, Any]:
    """Everything that determines the numbers of the run, as JSON."""
    return {
        "problem": objective.subject.name,
        "grid": {name: axis.tolist() for name, axis in axes.items()},
        "keys": np.asarray(jax.random.key_data(keys)).tolist(),
        "steps": steps,
        "eval_every": every,
        "batch_size": size,
    }
