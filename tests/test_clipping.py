"""Clipping bounds the step, keeps its direction, and records what it did."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx


def test_global_norm_clipping_keeps_the_direction():
    grads = {"a": jnp.array([3.0, -4.0]), "b": jnp.array(12.0)}
    tx = gradtx.clip_by_global_norm(6.5)
    updates, _ = tx.update(grads, tx.init(grads))
    np.testing.assert_allclose(updates["a"], grads["a"] / 2, rtol=1e-6)
    np.testing.assert_allclose(updates["b"], 6.0, rtol=1e-6)


def test_the_state_holds_the_norm_before_clipping_whether_it_clipped_and_how_often():
    scripted = [1.0, 5.0, 0.5, 7.0]
    seen = {"value": [], "norm": [], "global": []}
    rows = {
        "value": (gradtx.clip_by_value(2.0), lambda s: (s.max_abs, s.value_clipped, s.value_clip_count)),
        "norm": (gradtx.clip_by_norm(2.0), lambda s: (s.leaf_norms[0], s.leaf_clipped[0], s.leaf_clip_counts[0])),
        "global": (gradtx.clip_by_global_norm(2.0), lambda s: (s.global_norm, s.global_clipped, s.global_clip_count)),
    }
    for name, (tx, read) in rows.items():
        state = tx.init(jnp.zeros(1))
        for g in scripted:
            _, state = tx.update(jnp.array([g]), state)
            seen[name].append(tuple(x.item() for x in read(state)))
        assert seen[name] == [(1.0, False, 0), (5.0, True, 1), (0.5, False, 1), (7.0, True, 2)]


@pytest.mark.parametrize("factory", [gradtx.clip_by_norm, gradtx.clip_by_global_norm])
def test_a_gradient_at_or_below_the_limit_is_returned_bit_for_bit(factory):
    g = jnp.array([3.0, 4.0])
    for limit in (5.0, 5.1, float("inf")):
        tx = factory(limit)
        np.testing.assert_array_equal(tx.update(g, tx.init(g))[0], g)


@pytest.mark.parametrize("factory", [gradtx.clip_by_norm, gradtx.clip_by_global_norm])
@pytest.mark.parametrize("over", [1.001, 1.5, 3.0])
def test_a_gradient_above_the_limit_is_scaled_to_the_limit(factory, over):
    tx = factory(5.0)
    updates, _ = tx.update(over * jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
    np.testing.assert_allclose(updates, [3.0, 4.0], rtol=1e-6)


def test_a_float16_leaf_is_right_if_the_global_norm_exceeds_the_range_of_float16():
    grads = {"half": jnp.array([1000.0], jnp.float16), "full": jnp.array([1e6])}
    tx = gradtx.clip_by_global_norm(1.0)
    updates, state = tx.update(grads, tx.init(grads))
    np.testing.assert_allclose(updates["half"], [1e-3], rtol=1e-3)
    assert float(state.global_norm) == pytest.approx(1e6, rel=1e-5)


@pytest.mark.parametrize("largest", [3e38, 1e30, 1e-25, 1e-37])
def test_gradients_with_extreme_norms_are_scaled_to_the_limit(largest):
    g = jnp.array([largest, -largest, largest, 0.0], jnp.float32)
    limit = 0.5 * min(largest, 1.0)
    tx = gradtx.clip_by_global_norm(limit)
    updates, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose(np.asarray(updates, np.float64), limit / np.sqrt(3) * np.sign(g), rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_nonfinite_entry_makes_its_leaf_nan_by_norm_and_the_tree_by_global_norm(bad):
    grads = {"bad": jnp.array([1.0, bad]), "good": jnp.array([3.0, 4.0])}
    by_leaf, by_tree = gradtx.clip_by_norm(1.0), gradtx.clip_by_global_norm(1.0)
    u, _ = by_leaf.update(grads, by_leaf.init(grads))
    assert np.isnan(u["bad"]).all()
    np.testing.assert_allclose(u["good"], [0.6, 0.8], rtol=1e-6)
    u, _ = by_tree.update(grads, by_tree.init(grads))
    assert np.isnan(u["bad"]).all()
    assert np.isnan(u["good"]).all()


def test_clipping_by_value_limits_infinities_and_keeps_nan():
    tx = gradtx.clip_by_value(1.0)
    u, _ = tx.update(jnp.array([np.inf, -np.inf, np.nan, 0.5]), tx.init(jnp.zeros(4)))
    np.testing.assert_array_equal(u, [1.0, -1.0, np.nan, 0.5])


def test_the_norm_of_a_complex_leaf_counts_both_parts():
    g = jnp.array([3.0 + 4.0j])
    tx = gradtx.clip_by_global_norm(1.0)
    u, state = tx.update(g, tx.init(g))
    np.testing.assert_allclose(u, [0.6 + 0.8j], rtol=1e-6)
    assert float(state.global_norm) == pytest.approx(5.0)


def test_a_scheduled_limit_is_read_at_each_step():
    tx = gradtx.clip_by_global_norm(lambda count: 1.0 / (count + 1))
    state = tx.init(jnp.zeros(1))
    for k in range(3):
        u, state = tx.update(jnp.array([10.0]), state)
        assert float(u[0]) == pytest.approx(1 / (k + 1))


@pytest.mark.parametrize("scale", [1.0, 0.0, 1e-25])
@pytest.mark.parametrize("clip", [gradtx.clip_by_norm, gradtx.clip_by_global_norm])
def test_a_parameter_that_the_loss_does_not_use_gets_a_zero_update_under_jit(clip, scale):
    tx, params = clip(1e-3), {"used": jnp.ones(2), "unused": jnp.ones(3)}

    @jax.jit
    def step(params):  # the gradient of `unused` is the constant 0
        grads = jax.grad(lambda p: scale * jnp.sum(p["used"]))(params)
        return tx.update(grads, tx.init(params), params)[0]

    updates = step(params)
    np.testing.assert_array_equal(updates["unused"], 0.0)
    np.testing.assert_allclose(updates["used"], min(scale, 1e-3 / 2**0.5), rtol=1e-5)


def test_optax_agrees_on_ordinary_gradients():
    grads = {"a": jnp.array([3.0, -4.0]), "b": jnp.array([12.0, 0.1])}
    for ours, theirs in (
        (gradtx.clip_by_global_norm(1.0), optax.clip_by_global_norm(1.0)),
        (gradtx.clip_by_value(1.0), optax.clip(1.0)),
        (gradtx.clip_by_norm(1.0), optax.clip_by_block_rms(1.0)),
    ):
        u, _ = ours.update(grads, ours.init(grads))
        w, _ = theirs.update(grads, theirs.init(grads))
        scale = np.sqrt(2) if theirs is not None and "rms" in repr(theirs) else 1.0
        for k in grads:
            np.testing.assert_allclose(u[k] * scale, w[k], rtol=1e-5)


@pytest.mark.parametrize("axis_name", [None, "x"])
def test_the_state_of_clip_by_value_inside_shard_map_is_that_of_the_whole_gradient(axis_name):
    tx = gradtx.clip_by_value(3.0, axis_name=axis_name)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    g = jnp.arange(8.0)
    mapped = jax.shard_map(
        lambda g: tx.update(g, tx.init(g)), mesh=mesh, in_specs=jax.P("x"), out_specs=(jax.P("x"), jax.P())
    )
    updates, state = jax.jit(mapped)(g)
    np.testing.assert_array_equal(updates, np.minimum(g, 3.0))
    assert (float(state.max_abs), bool(state.value_clipped), int(state.value_clip_count)) == (7.0, True, 1)


@pytest.mark.parametrize("largest", [3e38, 1e30, 1.0, 1e-25, 1e-37, 0.0, jnp.inf, jnp.nan])
def test_the_norm_and_its_derivative_from_one_pass_equal_those_from_two_passes(largest):
    """GPUs and TPUs read the leaves once. A CPU reads them twice and gets the same numbers."""
    from gradtx._core import norms

    leaves = [largest * jnp.array([1.0, -0.5]), largest * jnp.array([0.25])]
    once, again = norms._read_once(sum, *leaves), norms._read_again(sum, *leaves)
    np.testing.assert_allclose(once, again, rtol=1e-6)
    slope = jax.grad(lambda x: norms._read_once(sum, x, leaves[1])[1])(leaves[0])
    expected = jax.grad(lambda x: norms._read_again(sum, x, leaves[1])[1])(leaves[0])
    if jnp.isfinite(largest):
        np.testing.assert_allclose(slope, expected, rtol=1e-5)


def test_every_clip_and_a_scheduled_learning_rate_have_readings():
    tx = gradtx.chain(
        gradtx.clip_by_norm(4.0),
        gradtx.clip_by_global_norm(9.0),
        gradtx.clip_by_global_norm(2.0),
        gradtx.sgd(lambda count: 0.5 / (count + 1)),
    )
    g = jnp.array([3.0, 4.0])
    _, state = tx.update(g, tx.init(g))
    _, state = tx.update(g, state)
    found = {name: float(value) for name, value in gradtx.readings(state).items()}
    assert found == pytest.approx({
        "clip_by_norm/largest": 5.0, "clip_by_norm/clipped": 1, "clip_by_global_norm/norm": 4.0,
        "clip_by_global_norm/clipped": 0, "clip_by_global_norm@2/norm": 4.0, "clip_by_global_norm@2/clipped": 1,
        "learning_rate/value": 0.25,
    })  # fmt: skip
    assert gradtx.readings(gradtx.adam(0.1).init(g)) == {}
