"""Joins the processes of one run with JAX's multi-controller runtime, and holds what they have in common.

Every process runs the same program on the same data, and the devices of all of them form one mesh.
"""

import json
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from .terminating import ENDING


def start(coordinator: str | None, processes: int | None, process: int | None, heartbeat: int = 10) -> None:
    """Joins the run. Call it before any other use of JAX. If all three are None, JAX reads them from the environment
    (Slurm, Kubernetes, TPU, ...). A process that is silent for `heartbeat` seconds counts as dead."""
    with suppress(AttributeError):  # without this setting JAX has no such service, or `ENDING.share` replaces it
        # JAX's own listener would catch SIGTERM. Here the processes agree on when to end (`is_end_wanted`).
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
    return Mesh(np.array(jax.devices()), ("data",))


def of_all_processes(plain: Any) -> list[Any]:
    """The value of `plain`, which is JSON, in each process of the run."""
    if jax.process_count() == 1:
        return [plain]
    text = json.dumps(plain).encode()
    longest = int(np.max(multihost_utils.process_allgather(np.array(len(text)))))
    padded = np.frombuffer(text.ljust(longest), np.uint8)
    return [json.loads(bytes(x)) for x in np.asarray(multihost_utils.process_allgather(padded))]


def is_end_wanted() -> bool:
    """Whether any process of the run has been asked to end. All get the same answer, so all save the same step."""
    if jax.process_count() == 1:
        return ENDING.is_wanted and ENDING.is_listening
    asked = multihost_utils.process_allgather(np.array(ENDING.is_wanted))
    ENDING.is_wanted = bool(np.any(asked))
    return ENDING.is_wanted


def put(sharding: NamedSharding, leaf: Any) -> jax.Array:
    """A global array from a leaf that every process has in full."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(put(sharding, jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])


def local(leaf: jax.Array) -> np.ndarray:
    """An array that every device has in full, as NumPy."""
    return np.asarray(leaf.addressable_data(0))
