"""A step compiled for GPUs and TPUs moves only the necessary bytes. A step can be exported for every platform.

`tests/benchmarks/compiled.py` makes the whole table. It needs the compilers and not the devices. The extras
`compilers-tpu` and `compilers-gpu` install the compilers.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from .benchmarks import compiled
from .zoo import ROWS

SHORT = ["sgd", "rmsprop, nesterov", "adadelta", "clip, rmsprop, nesterov", "accumulate sgd"]


@pytest.fixture(params=compiled.WHEELS)
def device(request):
    """The name of a device whose compiler is on this machine."""
    if not compiled.is_installed(request.param):
        pytest.skip(f"no compiler for {request.param}: pip install 'gradtx[compilers-tpu]' or 'gradtx[compilers-gpu]'")
    if jax.__version_info__ < (0, 10):
        pytest.skip("the figures are of the compilers of JAX 0.10")
    return request.param


@pytest.mark.slow
def test_a_compiled_step_moves_only_the_necessary_bytes(device):
    found = compiled.measured(device, SHORT, "one leaf")
    for name in SHORT:
        ours, theirs = found[name]["gradtx"], found[name]["Optax"]
        floor = compiled.STEPS[name][2]
        # A TPU's compiler counts a norm's read of a large leaf five times.
        least = max(floor, theirs["bytes"]) if name.startswith("clip") else floor
        assert ours["bytes"] < 1.01 * least, name
        assert ours["temporaries"] < 0.01, name
        assert ours["conditionals"] == 0, name
        if device == "H100" and not name.startswith("clip"):  # a clip of gradtx also writes readings
            assert ours["kernels"] <= theirs["kernels"], name


@pytest.mark.slow
def test_a_compiled_8_bit_step_reads_twice_on_gpus_and_moves_no_blocks_on_tpus(device):
    found = compiled.measured(device, ["adam in 8 bits"], "one leaf")["adam in 8 bits"]["gradtx"]
    # On a GPU: the gradients and codes twice, the parameters once; parameters and codes written; scales. On a TPU a
    # step that moved its blocks had 42 trees and 5 trees of temporaries.
    most, temporaries = {"H100": (5.7, 0.04), "TPU v5e": (24, 3.1)}[device]
    assert found["bytes"] < most
    assert found["temporaries"] < temporaries
    assert found["conditionals"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("device", ["H100"], indirect=True)
def test_norms_and_guards_of_many_leaves_take_no_more_kernels_than_in_optax(device):
    names = ["clip, sgd", "clip by leaf norm, sgd", "guarded rmsprop"]
    found = compiled.measured(device, names, "12 leaves")
    for name in names:
        assert found[name]["gradtx"]["kernels"] <= found[name]["Optax"]["kernels"], name


TREE = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.ones(3)}


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.sampled(12)
def test_a_step_exported_for_every_platform_gives_the_same_numbers(row):
    tx = row.make()

    def step(grads, state, params):
        return tx.update(grads, state, params, **row.extra())

    grads = jax.tree.map(lambda x: jnp.sin(3 * x), TREE)
    state = tx.init(TREE)
    leaves, treedef = jax.tree.flatten((grads, state, TREE))

    def flat(*leaves):
        return jax.tree.leaves(step(*treedef.unflatten(leaves)))

    exported = export.export(jax.jit(flat), platforms=("cpu", "cuda", "tpu"))(*leaves)
    for got, expected in zip(exported.call(*leaves), jax.jit(flat)(*leaves), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
