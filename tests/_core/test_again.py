"""A cheap step is done again for each use, any other once; the numbers are the same."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradtx._core.again import repeated

import gradtx
from gradtx._core import again as again_module

X = jnp.linspace(-1.0, 1.0, 1000)
STEPS = {
    "a few operations an entry": (lambda x: jnp.sqrt(x * x + 1), 2),
    "a reduction": (lambda x: x / jnp.sum(x * x), 2),
    "a branch": (lambda x: jax.lax.cond(x[0] > 0, jnp.exp, jnp.sin, x), 2),
    "a function of its own": (jax.jit(lambda x: x + 1), 2),
    "a product of matrices": (lambda x: x @ jnp.ones((1000, 3)), 1),
    "a product of matrices in a branch": (lambda x: jax.lax.cond(x[0] > 0, lambda y: y @ y, jnp.sum, x), 1),
    "a loop": (lambda x: jax.lax.fori_loop(0, 3, lambda i, y: y + x, x), 1),
    "random numbers": (lambda x: x + jax.random.normal(jax.random.key(0), x.shape), 1),
}


def count_runs(step, compiled=True):
    runs = []

    def counted(x):
        runs.append(x)
        return step(x)

    def use_twice(x):
        again = repeated(counted, x)
        first_look = len(runs)
        results = again(), again()
        return results, len(runs) - first_look

    if not compiled:
        use_twice(X)
    else:
        jax.jit(lambda x: use_twice(x)[0])(X)
    return len(runs)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a step is done again on the CPU only")
@pytest.mark.parametrize("name", STEPS)
def test_only_what_is_cheap_is_done_again(name):
    step, times = STEPS[name]
    looked_at = 1  # the trace that tells what the step consists of
    assert count_runs(step) == looked_at + times
    assert count_runs(step, compiled=False) == 1


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a step is done again on the CPU only")
def test_steps_done_again_are_not_merged_by_the_compiler():
    def roots(f):
        return jax.jit(f).lower(X).compile().as_text().count(" sqrt(")

    def step(x):
        return jnp.sqrt(x * x + 1)

    def anew(x):
        again = repeated(step, x)
        return again() + 1, jnp.max(again()), again() * 3

    assert (roots(lambda x: (step(x) + 1, jnp.max(step(x)), step(x) * 3)), roots(anew)) == (1, 3)


PIPELINES = {
    "rmsprop nesterov": gradtx.rmsprop(0.1, momentum=0.9, nesterov=True),
    "clipped adam": optax.chain(gradtx.clip_by_global_norm(0.5), gradtx.adam(0.1)),
    "optax adamw": optax.adamw(0.1),
    "stored": gradtx.stored_as(gradtx.adam(0.1), "8bit", min_leaf_size=1),
    "twenty leaves": gradtx.sgd(0.1, 0.9),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_guarded_step_has_the_numbers_of_an_unguarded_one(name):
    tx = PIPELINES[name]
    params = {f"w{i}": X[: 300 + i] for i in range(20 if name == "twenty leaves" else 2)}

    def trained(tx):
        state = tx.init(params)
        for k in range(3):
            grads = jax.tree.map(lambda x, k=k: jnp.cos((k + 3) * x), params)
            updates, state = jax.jit(tx.update)(grads, state, params)
        return updates, state

    expected, expected_state = trained(tx)
    got, state = trained(gradtx.skip_nonfinite(tx))

    def assert_close(a, b):
        if a.dtype == jnp.uint8:  # where a number stands between two codes, one rounding decides
            assert np.mean(np.asarray(a) != np.asarray(b)) < 0.02
        else:
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)

    jax.tree.map(assert_close, (got, state.guarded_state), (expected, expected_state))
    assert not bool(state.skipped)


def test_a_guarded_instrument_measures_once_a_step():
    measured = []

    def loss(x):
        jax.debug.callback(lambda: measured.append(1))
        return jnp.sum(x**4)

    tx = gradtx.skip_nonfinite(optax.chain(gradtx.gain_ratio(), gradtx.adam(0.1)))
    state = tx.init(X)
    alone = optax.chain(gradtx.gain_ratio(), gradtx.adam(0.1))
    jax.jit(lambda g, s: alone.update(g, s, X, value=loss(X), value_fn=loss))(X, alone.init(X))
    jax.effects_barrier()
    once = len(measured)
    jax.jit(lambda g, s: tx.update(g, s, X, value=loss(X), value_fn=loss))(X, state)
    jax.effects_barrier()
    assert len(measured) == 2 * once > 0


def test_blocks_in_a_chain_have_the_bits_of_their_recipe_and_leave_nothing_behind():
    blocks = optax.chain(gradtx.scale_by_rms(0.9), gradtx.scale_by_learning_rate(0.1), gradtx.nesterov(0.9))
    recipe = gradtx.rmsprop(0.1, 0.9, momentum=0.9, nesterov=True)

    def trained(tx):
        params, state = X, tx.init(X)
        for _ in range(3):
            updates, state = jax.jit(tx.update)(jnp.sin(params), state, params)
            params = params + updates
        return params, jax.tree.leaves(state)

    jax.tree.map(np.testing.assert_array_equal, trained(blocks), trained(recipe))
    gc.collect()
    assert not again_module._recipes
