"""Two processes with two devices each give the same numbers as one process."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # several processes

WORKER = """
import json, sys
import jax, jax.numpy as jnp, numpy as np, optax
import gradtx

process, processes, port = map(int, sys.argv[1:])
if processes > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, process)
mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
values = np.linspace(-1.0, 1.0, 16, dtype=np.float32).reshape(8, 2)
params = jax.make_array_from_callback((8, 2), sharding, lambda index: values[index])
results = {}
for name, tx in {
    "clipped": optax.chain(gradtx.clip_by_global_norm(0.5), gradtx.rmsprop(0.1, momentum=0.9, nesterov=True)),
    "guarded": gradtx.skip_nonfinite(gradtx.adam(0.1)),
    "adadelta": gradtx.adadelta(),
    "delta_bar_delta": gradtx.delta_bar_delta(jnp.float32(0.1)),
}.items():
    @jax.jit
    def train(params):
        def step(carry, k):
            params, state = carry
            updates, state = tx.update(params * (k + 1), state, params)
            return (optax.apply_updates(params, updates), state), None
        (params, state), _ = jax.lax.scan(step, (params, tx.init(params)), jnp.arange(5.0))
        return jnp.sum(params**2), jnp.max(params)
    results[name] = [float(x) for x in train(params)]
print(json.dumps(results))
"""


def run(processes):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={4 // processes}",
        "JAX_PLATFORMS": "cpu",
    }
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(i), str(processes), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for i in range(processes)
    ]
    out = [worker.communicate(timeout=240) for worker in workers]
    for worker, (_, errors) in zip(workers, out, strict=True):
        assert worker.returncode == 0, errors
    return [json.loads(printed.strip().splitlines()[-1]) for printed, _ in out]


def test_two_processes_give_the_numbers_of_one_process():
    (alone,) = run(1)
    first, second = run(2)
    assert first == second
    for name, expected in alone.items():
        np.testing.assert_allclose(first[name], expected, rtol=1e-5, err_msg=name)
