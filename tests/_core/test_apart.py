"""Where XLA was told to join loops, a step is one loop a leaf and writes nothing down on the way."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from gradtx._core.apart import is_apart, tied

FLAG = "--xla_backend_extra_options=xla_cpu_use_multi_output_fusion"
SIZE = 1_000_000


@pytest.fixture(scope="module")
def joined():
    """What `measure` finds in a process of its own: XLA reads its flags once."""
    environment = os.environ | {"XLA_FLAGS": FLAG, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_every_method_is_one_loop_without_temporaries(joined):
    # XLA joins no loop that has read twenty arrays and numbers.
    within = {
        name: found
        for name, found in joined["one leaf"].items()
        if not name.startswith("blocks: adam, rate, nesterov; by")
    }
    if jax.__version_info__ < (0, 10):  # whose XLA writes down what a norm or a maximum is of
        within = {name: found for name, found in within.items() if name.endswith("alone")}
    assert len(within) >= 16
    assert {name: found for name, found in within.items() if found["temporaries"] > 0.01 or found["loops"] != 1} == {}


def test_the_numbers_are_those_of_several_loops(joined):
    assert {name: found for name, found in joined["one leaf"].items() if found["difference"] > 1e-4} == {}
    assert joined["20 leaves"]
    assert {name: difference for name, difference in joined["20 leaves"].items() if difference > 1e-4} == {}


def test_a_tie_changes_no_number():
    x = jnp.array([0.0, -0.0, 1.5, -3e38, jnp.inf, -jnp.inf, jnp.nan, 3.0])
    for tie in (0, 3):
        y = jax.jit(tied, static_argnums=1)(x, tie)
        assert jnp.array_equal(x, y, equal_nan=True)
        assert jnp.array_equal(jnp.signbit(x[:6]), jnp.signbit(y[:6]))


def test_outputs_are_apart_where_the_flag_is_set_and_the_arrays_are_traced_floats_of_one_dtype(monkeypatch):
    asked = []

    def ask(*arrays):
        jax.make_jaxpr(lambda *arrays: asked.append(is_apart(arrays)))(*arrays)

    for flags in (FLAG, f"--xla_dump_to=there {FLAG}", ""):
        monkeypatch.setenv("XLA_FLAGS", flags)
        ask(jnp.ones(2), jnp.ones(2, jnp.bfloat16))
        for dtype in (jnp.float32, jnp.bfloat16, jnp.complex64, jnp.int32):
            ask(jnp.ones(2, dtype), jnp.ones(3, dtype))
        asked.append(is_apart([jnp.ones(2)]))
    on_cpu = jax.default_backend() == "cpu"
    assert asked == [False, on_cpu, on_cpu, False, False, False] * 2 + [False] * 6


def measure():
    """For each method and clipping on one leaf: bytes beside arguments and results, loops over the leaf, distance of
    the results from those of the form for an XLA without the flag; the distance for 20 leaves, which share traces."""
    import optax
    from test_lift import CLIPPINGS, METHODS, PIPELINES, many

    def step(tx):
        def step(params, state, grads):
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        return jax.jit(step, donate_argnums=(0, 1))

    def trained(tx, params, grads):
        params = jax.tree.map(jnp.copy, params)  # the step takes what it is given
        state, run = tx.init(params), step(tx)
        for k in range(3):
            params, state = run(params, state, jax.tree.map(lambda g, k=k: g * (k + 1), grads))
        return jax.tree.leaves((params, state))

    def difference(tx, params, grads):
        one = trained(tx, params, grads)
        os.environ["XLA_FLAGS"] = ""  # read by gradtx at every trace, by XLA only once
        other = trained(tx, params, grads)
        os.environ["XLA_FLAGS"] = FLAG
        pairs = [(a, b) for a, b in zip(one, other, strict=True) if jnp.issubdtype(a.dtype, jnp.floating)]
        return max(float(jnp.max(jnp.abs(a - b) / (jnp.abs(b) + 1e-3))) for a, b in pairs)

    one_leaf = {}
    for method, tx in METHODS.items():
        for clipping in ("alone", "by value", "by global norm"):
            before = CLIPPINGS[clipping]
            whole = tx if before is None else optax.chain(before, tx)
            params = jnp.ones(SIZE)
            compiled = step(whole).lower(params, whole.init(params), params).compile()
            entry = compiled.as_text().split("ENTRY")[1].splitlines()
            one_leaf[f"{method}; {clipping}"] = {
                "temporaries": compiled.memory_analysis().temp_size_in_bytes / params.nbytes,
                "loops": sum("fusion(" in line and str(SIZE) in line.split("fusion(")[0] for line in entry),
                "difference": difference(whole, jnp.linspace(-1, 1, 1000), jnp.linspace(-3, 2, 1000)),
            }
    leaves = {name: difference(tx, many(20), many(20, seed=1)) for name, tx in PIPELINES.items()}
    print(json.dumps({"one leaf": one_leaf, "20 leaves": leaves}))


if __name__ == "__main__":
    measure()
