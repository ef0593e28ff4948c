"""A chain of blocks is compiled as one rule per leaf.

On a CPU the compiled step has no gradient-sized temporaries. On other platforms the program is the plain one.
"""

import json
import os
import subprocess
import sys
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx._core import lift
from gradtx._core.copies import tagged, unmerged
from tests.comparing import assert_same

FLAG = "--xla_backend_extra_options=xla_cpu_use_multi_output_fusion"
SIZE = 1_000_000
on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="other backends fuse several outputs by themselves")

RMS_NAG = gradtx.rmsprop(0.1, momentum=0.9, nesterov=True)
METHODS = {
    "sgd": gradtx.sgd(0.1),
    "sgd momentum": gradtx.sgd(0.1, 0.9),
    "sgd nesterov": gradtx.sgd(0.1, 0.9, True),
    "delta_bar_delta": gradtx.delta_bar_delta(0.1),
    "adagrad": gradtx.adagrad(0.1),
    "rmsprop": gradtx.rmsprop(0.1),
    "rmsprop momentum": gradtx.rmsprop(0.1, momentum=0.9),
    "rmsprop nesterov": RMS_NAG,
    "adadelta": gradtx.adadelta(),
    "adam": gradtx.adam(0.1),
    "blocks: rate, nesterov": gradtx.chain(gradtx.scale_by_learning_rate(0.1), gradtx.nesterov(0.9)),
    "blocks: adagrad, rate, heavy ball": gradtx.chain(
        gradtx.scale_by_adagrad(), gradtx.scale_by_learning_rate(0.1), gradtx.heavy_ball(0.9)
    ),
    "blocks: adam, rate, nesterov": gradtx.chain(
        gradtx.scale_by_adam(), gradtx.scale_by_learning_rate(0.1), gradtx.nesterov(0.9)
    ),
}
CLIPPINGS = {
    "alone": None,
    "by value": gradtx.clip_by_value(1.0),
    "by norm": gradtx.clip_by_norm(1.0),
    "by global norm": gradtx.clip_by_global_norm(1.0),
}


def clipped(clipping, method, chain=gradtx.chain):
    return METHODS[method] if CLIPPINGS[clipping] is None else chain(CLIPPINGS[clipping], METHODS[method])


def step(tx):
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1))


def temporaries(tx, params):
    """Returns the size of the temporary buffers relative to the size of the tree."""
    compiled = step(tx).lower(params, tx.init(params), params).compile()
    return compiled.memory_analysis().temp_size_in_bytes / sum(x.nbytes for x in jax.tree.leaves(params))


@on_cpu
@pytest.mark.parametrize("clipping", CLIPPINGS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.sampled(26)
def test_a_donated_step_has_no_gradient_sized_temporaries(method, clipping):
    if jax.__version_info__ < (0, 10) and clipping != "alone":
        pytest.skip("XLA of JAX 0.7.2 writes the clipped gradient out; from 0.10 on it does not")
    assert temporaries(clipped(clipping, method), jnp.ones(SIZE)) < 0.25


@on_cpu
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.sampled(5)
def test_skip_nonfinite_adds_about_one_byte_per_entry(method):
    assert temporaries(gradtx.skip_nonfinite(METHODS[method]), jnp.ones(SIZE)) < 0.3


@on_cpu
@pytest.mark.parametrize(("dtype", "size"), [("8bit", 1), (jnp.bfloat16, 2)], ids=["8 bits", "bfloat16"])
@pytest.mark.parametrize("method", ["sgd momentum", "rmsprop nesterov", "adam"])
@pytest.mark.sampled(2)
def test_a_stored_state_is_copied_once_and_never_held_in_float32(method, dtype, size):
    tx, params = gradtx.stored_as(METHODS[method], dtype), jnp.ones(256 * 4000)  # whole blocks need no padding
    arrays = sum(x.size == params.size for x in jax.tree.leaves(tx.init(params)))
    assert temporaries(tx, params) < arrays * (size / 4 + 0.05)


PIPELINES = {"adam": METHODS["adam"], "clip, rmsprop nesterov": clipped("by global norm", "rmsprop nesterov")}


def many(count, seed=0):
    keys = jax.random.split(jax.random.key(seed), count)
    return {f"layer{i}": jax.random.normal(key, (i % 2 + 2, 1000)) for i, key in enumerate(keys)}


class Counted(NamedTuple):
    pass


def test_the_rule_is_traced_once_per_shape():
    traced = []

    def rule(store, g):
        traced.append(g.shape)
        return -g

    tx = lift.lift("counted", lambda params: Counted(), lambda state: ({}, {}), rule)
    jax.eval_shape(tx.update, many(20), Counted())
    assert sorted(traced) == [(2, 1000), (3, 1000)]


@on_cpu
@pytest.mark.parametrize("name", PIPELINES)
def test_a_step_over_many_leaves_has_no_gradient_sized_temporaries(name):
    if jax.__version_info__ < (0, 10) and name.startswith("clip"):
        pytest.skip("XLA of JAX 0.7.2 writes the clipped gradient out; from 0.10 on it does not")
    assert temporaries(PIPELINES[name], {f"layer{i}": jnp.ones(20_000 + i % 2) for i in range(20)}) < 0.25


# Transformations keep nothing between two traces


def trained(tx, params, steps=3, update=None):
    state = tx.init(params)
    for k in range(steps):
        grads = jax.tree.map(lambda x, k=k: jnp.sin((k + 1) * x), params)
        updates, state = (update or jax.jit(tx.update))(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


assert_close = partial(assert_same, rtol=2e-6, atol=1e-6)


def test_an_update_from_one_trace_can_be_used_in_another():
    tx = optax.chain(gradtx.scale_by_rms(), gradtx.stale(gradtx.sgd(0.1, momentum=0.9, nesterov=True), delay=0))
    x = jnp.linspace(-1.0, 1.0, 50)
    assert_close(trained(tx, x), trained(tx, x, update=tx.update))


def test_cond_can_switch_between_two_momenta_after_another_method():
    first, early, late = gradtx.rmsprop(0.1), gradtx.nesterov(0.5), gradtx.nesterov(0.9)

    def run(g, s, m, k):
        u, s = first.update(g, s)
        u, m = jax.lax.cond(k < 1, lambda: early.update(u, m), lambda: late.update(u, m))
        return u, s, m

    def by_hand(g, s, m, k):
        u, s = first.update(g, s)
        u, m = (early if k < 1 else late).update(u, m)
        return u, s, m

    g = jnp.linspace(-1.0, 1.0, 50)
    state = expected = first.init(g), early.init(g)
    for k in range(3):
        u, *state = jax.jit(run)(g, *state, k)
        v, *expected = by_hand(g, *expected, k)
        assert_close(u, v)


@pytest.mark.parametrize("method", METHODS)
def test_the_traced_update_does_not_depend_on_the_environment_or_the_backend(method, monkeypatch):
    x = jnp.linspace(-1.0, 1.0, 50)
    tx = METHODS[method]
    before = str(jax.make_jaxpr(tx.update)(x, tx.init(x), x))
    monkeypatch.setenv("XLA_FLAGS", FLAG)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert str(jax.make_jaxpr(tx.update)(x, tx.init(x), x)) == before


ELSEWHERE = {
    "adam": lambda: gradtx.adam(0.1),
    "adam, scheduled": lambda: gradtx.adam(0.1, b1=lambda k: 0.9),
    "clip, rmsprop nesterov": lambda: PIPELINES["clip, rmsprop nesterov"],
    "clip by value": lambda: gradtx.clip_by_value(lambda k: 1.0),
    "accumulate": lambda: gradtx.accumulate(gradtx.adam(0.1), 2),
    "packed": lambda: gradtx.packed(gradtx.adam(0.1)),
    "guarded": lambda: gradtx.skip_nonfinite(optax.chain(gradtx.clip_by_norm(1.0), gradtx.adam(0.1))),
    "stored": lambda: gradtx.stored_as(gradtx.adam(0.1), "8bit", min_leaf_size=1),
    "mean across": lambda: gradtx.mean_across(None),
}


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.sampled(4)
def test_a_state_with_other_dtypes_keeps_its_dtypes(name):
    """The cases are a float32 checkpoint that is resumed under x64, and a state that was cast to bfloat16."""
    tx, params = ELSEWHERE[name](), {"a": jnp.ones(3), "b": jnp.ones(4)}
    state = tx.init(params)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x, state)

    def types_after(state):
        carried, _ = jax.lax.scan(lambda s, _: (tx.update(params, s, params)[1], None), state, length=2)
        return jax.tree.map(jax.typeof, carried)

    assert types_after(half) == jax.tree.map(jax.typeof, half)
    jax.config.update("jax_enable_x64", True)
    try:
        assert types_after(state) == jax.tree.map(jax.typeof, state)
    finally:
        jax.config.update("jax_enable_x64", False)


# The program for each platform


def lowered(tx, platform):
    x = jnp.ones(50)
    return jax.jit(tx.update).trace(x, tx.init(x), x).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("method", ["rmsprop nesterov", "adadelta", "delta_bar_delta"])
def test_barriers_are_in_the_program_for_cpus_only(method):
    for tx in (METHODS[method], gradtx.skip_nonfinite(METHODS[method]), clipped("by global norm", method)):
        assert "optimization_barrier" in lowered(tx, "cpu")
        for platform in ("cuda", "tpu"):
            assert "optimization_barrier" not in lowered(tx, platform)


def test_xla_does_not_merge_tagged_copies_on_a_cpu_and_the_copies_keep_all_bits():
    x = jnp.array([0.0, -0.0, 1.5, -3e38, jnp.inf, -jnp.inf, jnp.nan, 3.0])

    def both(x, copied):
        return jnp.sqrt(x * x + 1), jnp.sqrt(copied(x) * copied(x) + 1) + 1

    for copied in (lambda x: unmerged({"x": x})["x"], lambda x: tagged(3, x)):
        np.testing.assert_array_equal(jax.jit(copied)(x), x)
        assert np.array_equal(np.signbit(jax.jit(copied)(x)[:6]), np.signbit(x[:6]))
        if jax.default_backend() == "cpu":
            program = jax.jit(both, static_argnums=1).lower(x, copied).compile().as_text()
            assert program.count(" sqrt(") == 2


# The numbers of chains


def test_a_chain_has_the_state_structure_of_optax_and_the_numbers_of_the_recipe():
    blocks = gradtx.scale_by_rms(), gradtx.scale_by_learning_rate(0.1), gradtx.nesterov(0.9)
    x = jnp.linspace(-1.0, 1.0, 50)
    together, apart_, recipe = gradtx.chain(*blocks), optax.chain(*blocks), RMS_NAG
    assert jax.tree.structure(together.init(x)) == jax.tree.structure(apart_.init(x))
    assert_same(trained(together, x), trained(recipe, x))
    assert_close(trained(together, x), trained(apart_, x))


WRAPPED = {
    "guarded": lambda tx: gradtx.skip_nonfinite(tx),
    "guarded chain of Optax": lambda tx: gradtx.skip_nonfinite(optax.chain(tx)),
    "accumulated": lambda tx: gradtx.accumulate(tx, 1),
    "delay of 0": lambda tx: gradtx.stale(tx, 0),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("method", ["delta_bar_delta", "rmsprop nesterov", "adam"])
@pytest.mark.sampled(4)
def test_a_wrapped_step_gives_the_numbers_of_the_plain_step(wrapper, method):
    tx, params = clipped("by norm", method), {f"w{i}": jnp.linspace(-1, 1, 30 + i) for i in range(3)}
    assert_close(trained(WRAPPED[wrapper](tx), params)[0], trained(tx, params)[0], rtol=1e-5, atol=1e-6)


def test_a_guarded_instrument_evaluates_the_loss_as_often_as_a_plain_one():
    measured = []

    def loss(x):
        jax.debug.callback(lambda: measured.append(1))
        return jnp.sum(x**4)

    x = jnp.linspace(-1.0, 1.0, 50)
    alone = optax.chain(gradtx.gain_ratio(), gradtx.adam(0.1))
    counts = []
    for tx in (alone, gradtx.skip_nonfinite(alone), gradtx.skip_nonfinite(gradtx.chain(*[alone]))):
        jax.jit(lambda g, s, tx=tx: tx.update(g, s, x, value=loss(x), value_fn=loss))(x, tx.init(x))
        jax.effects_barrier()
        counts.append(len(measured) - sum(counts))
    assert counts[0] == counts[1] == counts[2] > 0


# If XLA on the CPU is told to join loops, a step is one loop per leaf


@pytest.fixture(scope="module")
def joined():
    """Runs `measure` in a new process, because XLA and gradtx read the flag only once."""
    environment = os.environ | {"XLA_FLAGS": FLAG, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_with_joined_loops_every_method_is_one_loop_without_temporaries(joined):
    # XLA does not join a loop that already reads twenty arrays and numbers.
    within = {k: found for k, found in joined.items() if not k.startswith("blocks: adam, rate, nesterov; by")}
    if jax.__version_info__ < (0, 10):  # this XLA stores the argument of a norm or a maximum
        within = {k: found for k, found in within.items() if k.endswith("alone")}
    assert len(within) >= 13
    assert {k: found for k, found in within.items() if found["temporaries"] > 0.01 or found["loops"] != 1} == {}


@pytest.mark.slow
def test_joined_loops_give_the_numbers_of_several_loops(joined):
    for name, found in joined.items():
        method, clipping = name.split("; ")
        for got, expected in zip(found["numbers"], sample(clipped(clipping, method)), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def sample(tx):
    params, state = trained(tx, jnp.linspace(-1.0, 1.0, 20))
    return [np.asarray(x).tolist() for x in jax.tree.leaves((params, state))]


def measure():
    """Prints the temporary bytes, the loops over the leaf and the numbers for each method and clipping."""
    found = {}
    for method in METHODS:
        for clipping in ("alone", "by value", "by global norm"):
            tx, params = clipped(clipping, method), jnp.ones(SIZE)
            compiled = step(tx).lower(params, tx.init(params), params).compile()
            entry = compiled.as_text().split("ENTRY")[1].splitlines()
            found[f"{method}; {clipping}"] = {
                "temporaries": compiled.memory_analysis().temp_size_in_bytes / params.nbytes,
                "loops": sum("fusion(" in line and str(SIZE) in line.split("fusion(")[0] for line in entry),
                "numbers": sample(tx),
            }
    print(json.dumps(found))


if __name__ == "__main__":
    measure()
