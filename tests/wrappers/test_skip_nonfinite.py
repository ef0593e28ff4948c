"""A step with nonfinite gradients does not change parameters or state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.comparing import assert_same

NAN = jnp.array([1.0, jnp.nan])
GOOD = [jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0]), jnp.array([-1.0, 1.0])]


def run(tx, grads, compiled=False):
    params = jnp.array([1.0, 2.0])
    state = tx.init(params)
    update = jax.jit(tx.update) if compiled else tx.update
    for g in grads:
        updates, state = update(g, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


INNER = {
    "scheduled momentum": gradtx.sgd(lambda k: 0.1 / (k + 1), momentum=lambda k: 0.9 - 0.5 / (k + 1)),
    "adam": gradtx.adam(0.1),
    "clipped": optax.chain(gradtx.clip_by_global_norm(1.0), gradtx.rmsprop(0.1)),
    "optax": optax.adamw(0.1),
    "MultiSteps": optax.MultiSteps(gradtx.adam(0.1), 2),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", INNER)
def test_a_run_with_skipped_steps_is_bit_equal_to_one_without_them(name, compiled):
    tx = gradtx.skip_nonfinite(INNER[name])
    clean, clean_state = run(tx, GOOD, compiled)
    params, state = run(tx, [GOOD[0], NAN, NAN, GOOD[1], jnp.array([jnp.inf, 0.0]), GOOD[2]], compiled)
    np.testing.assert_array_equal(params, clean)
    assert_same(state.guarded_state, clean_state.guarded_state)
    assert (int(state.skipped_count), int(state.guarded_count), bool(state.skipped)) == (3, 6, False)


def test_consecutive_skipped_steps_are_counted():
    tx = gradtx.skip_nonfinite(gradtx.sgd(0.1))
    for grads, in_a_row in (([NAN], 1), ([NAN, NAN], 2), ([NAN, NAN, GOOD[0]], 0), ([NAN, GOOD[0], NAN], 1)):
        assert int(run(tx, grads)[1].consecutive_skipped_count) == in_a_row


def test_after_giving_up_further_steps_are_not_applied():
    tx = gradtx.skip_nonfinite(gradtx.sgd(0.1), give_up_after=2)
    params, state = run(tx, [GOOD[0], NAN, GOOD[1], NAN, NAN, GOOD[2], NAN, NAN, NAN])
    expected, _ = run(tx, GOOD[:2])
    np.testing.assert_array_equal(params, expected)
    assert bool(state.gave_up)
    assert not bool(run(tx, [NAN, GOOD[0], NAN])[1].gave_up)


def test_a_step_is_skipped_if_finite_gradients_give_nonfinite_updates():
    tx = gradtx.skip_nonfinite(gradtx.rmsprop(0.1))
    params, state = run(tx, [jnp.array([1e25, 1.0])])  # the square overflows
    np.testing.assert_array_equal(params, [1.0, 2.0])
    assert int(state.skipped_count) == 1


def test_a_nan_loss_skips_the_step():
    tx = gradtx.skip_nonfinite(gradtx.sgd(0.1))
    params = jnp.ones(2)
    updates, state = tx.update(GOOD[0], tx.init(params), params, value=jnp.nan)
    np.testing.assert_array_equal(updates, 0.0)
    assert bool(state.skipped)


def test_skip_nonfinite_works_in_a_scan_and_passes_extra_arguments_on():
    tx = gradtx.skip_nonfinite(gradtx.newton(0.1))
    params = jnp.ones(2)

    def loss(x):
        return jnp.sum(x**2)

    def step(carry, bad):
        params, state = carry
        grads = jnp.where(bad, jnp.nan, jax.grad(loss)(params))
        updates, state = tx.update(grads, state, params, value_fn=loss)
        return (optax.apply_updates(params, updates), state), None

    (params, state), _ = jax.lax.scan(step, (params, tx.init(params)), jnp.array([False, True, False]))
    assert float(loss(params)) < 1e-3
    assert int(state.skipped_count) == 1


def test_bad_arguments_are_refused_by_name():
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="give_up_after must be at least 1"):
            gradtx.skip_nonfinite(gradtx.sgd(0.1), wrong)
    with pytest.raises(TypeError, match="give_up_after must be an integer"):
        gradtx.skip_nonfinite(gradtx.sgd(0.1), 1.5)
    with pytest.raises(TypeError, match="tx must be a gradient transformation"):
        gradtx.skip_nonfinite(lambda g: g)


def test_one_nonfinite_shard_inside_shard_map_skips_the_step_on_all_devices():
    tx = gradtx.skip_nonfinite(gradtx.sgd(0.1, 0.9), axis_name="x")
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))

    def local(g):
        updates, state = tx.update(g, tx.init(g), g)
        return updates, state.skipped

    mapped = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=jax.P("x"), out_specs=(jax.P("x"), jax.P())))
    for bad, expected in ((1.0, -0.1), (jnp.nan, 0.0)):
        updates, skipped = mapped(jnp.ones(8).at[5].set(bad))
        np.testing.assert_allclose(updates, expected)
        assert bool(skipped) == (expected == 0)
