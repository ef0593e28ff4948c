"""g'Hg is exact, and the ratio shows whether a step raises the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

from .runs import mean, net, opaque, quadratic, rotation


def measured(tx, loss, params, **extra):
    grads = jax.grad(loss)(params)
    _, state = tx.update(grads, tx.init(params), params, **(extra or {"value_fn": loss}))
    return grads, gradtx.readings(state)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_all_three_readings_are_exact_on_a_quadratic(turned, unit):
    value_fn, h = quadratic(*(unit * np.array([1.0, 4.0, -2.0])), rotation=rotation(3) if turned else None)
    x = np.array([1.0, -2.0, 0.5])
    _, found = measured(gradtx.curvature_ratio(0.1 / unit), value_fn, jnp.asarray(x, jnp.float32))
    g = h @ x
    np.testing.assert_allclose(found["curvature_ratio/gHg"], g @ h @ g, rtol=1e-5)
    np.testing.assert_allclose(found["curvature_ratio/critical_learning_rate"], g @ g / (g @ h @ g), rtol=1e-5)
    np.testing.assert_allclose(found["curvature_ratio/ratio"], 0.1 / unit / 2 * (g @ h @ g) / (g @ g), rtol=1e-5)


def test_negative_curvature_gives_a_negative_ratio_and_an_infinite_critical_rate():
    value_fn, _ = quadratic(-1.0, -3.0)
    _, found = measured(gradtx.curvature_ratio(0.1), value_fn, jnp.ones(2))
    assert found["curvature_ratio/ratio"] < 0
    assert found["curvature_ratio/critical_learning_rate"] == np.inf


def test_a_step_raises_a_quadratic_loss_if_and_only_if_the_ratio_is_at_least_1():
    value_fn, _ = quadratic(1.0, 4.0, 9.0, rotation=rotation(3))
    x = jnp.array([1.0, -2.0, 0.5])
    rates = jnp.linspace(0.01, 0.6, 25)
    g, found = jax.vmap(lambda rate: measured(gradtx.curvature_ratio(rate), value_fn, x))(rates)
    change = jax.vmap(lambda rate, g: value_fn(x - rate * g))(rates, g) - value_fn(x)
    ratio = found["curvature_ratio/ratio"]
    assert 5 < int(jnp.sum(ratio >= 1)) < 20
    np.testing.assert_array_equal(ratio >= 1, change >= 0)
    np.testing.assert_allclose(-rates * jnp.sum(g**2, axis=1) * (1 - ratio), change, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("by", ["value_fn", "losses_fn"])
@pytest.mark.sampled(1)
def test_ghg_of_a_net_matches_the_product_with_the_hessian(by):
    params, losses_fn = net(8)
    extra = {"value_fn": mean(losses_fn)} if by == "value_fn" else {"losses_fn": losses_fn}
    g, found = measured(gradtx.curvature_ratio(0.1), mean(losses_fn), params, **extra)
    _, hg = jax.jvp(jax.grad(mean(losses_fn)), (params,), (g,))
    expected = sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), g, hg)))
    np.testing.assert_allclose(found["curvature_ratio/gHg"], expected, rtol=1e-4)


def test_finite_differences_agree_if_forward_mode_is_not_possible():
    params, losses_fn = net(8)
    _, exact = measured(gradtx.curvature_ratio(0.1), mean(losses_fn), params, losses_fn=losses_fn)
    _, found = measured(gradtx.curvature_ratio(0.1), mean(losses_fn), params, losses_fn=lambda p: opaque(losses_fn(p)))
    for name in exact:
        np.testing.assert_allclose(found[name], exact[name], rtol=1e-2)


def test_ratio_and_critical_rate_are_nan_at_a_zero_gradient():
    value_fn, _ = quadratic(1.0, 2.0)
    _, found = measured(gradtx.curvature_ratio(0.1), value_fn, jnp.zeros(2))
    assert np.isnan(found["curvature_ratio/ratio"])
    assert np.isnan(found["curvature_ratio/critical_learning_rate"])


def test_the_ratio_uses_the_scheduled_rate_of_the_current_step():
    value_fn, _ = quadratic(2.0)
    x = jnp.array([1.0])
    tx = gradtx.curvature_ratio(lambda k: 0.1 * (k + 1))
    state, seen = tx.init(x), []
    for _ in range(3):
        _, state = tx.update(jax.grad(value_fn)(x), state, x, value_fn=value_fn)
        seen.append(float(gradtx.readings(state)["curvature_ratio/ratio"]))
    np.testing.assert_allclose(seen, [0.1, 0.2, 0.3], rtol=1e-6)
