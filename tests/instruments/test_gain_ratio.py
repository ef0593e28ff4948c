"""The gain ratio is 1 where the model holds, and alpha tells where the step landed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

from .runs import mean, net, opaque, quadratic, rotation


def measured(instrument, rate, value_fn, params, wrapped=lambda f: f):
    tx = optax.chain(gradtx.curvature_ratio(rate), gradtx.sgd(rate), instrument)
    _, state = tx.update(jax.grad(value_fn)(params), tx.init(params), params, value_fn=wrapped(value_fn))
    return gradtx.readings(state)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.7])
def test_on_a_quadratic_it_is_1_with_the_curvature_and_1_minus_the_curvature_ratio_without(rate):
    value_fn, _ = quadratic(1.0, 4.0, -2.0, rotation=rotation(3))
    x = jnp.array([1.0, -2.0, 0.5])
    second, first = (measured(gradtx.gain_ratio(order=order), rate, value_fn, x) for order in (2, 1))
    np.testing.assert_allclose(second["gain_ratio/gain_ratio"], 1, rtol=1e-4)
    np.testing.assert_allclose(first["gain_ratio/gain_ratio"], 1 - first["curvature_ratio/ratio"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("rate", "alpha"), [(1e-3, -0.995), (0.2, 0.0), (0.4, 1.0), (0.6, 2.0)])
def test_alpha_is_minus_1_at_the_start_0_at_the_minimum_and_1_at_the_mirror_point(rate, alpha):
    found = measured(gradtx.gain_ratio(), rate, lambda x: 2.5 * x**2, jnp.array(3.0))
    np.testing.assert_allclose(found["gain_ratio/alpha"], alpha, atol=1e-5)


def test_beyond_a_cliff_the_gain_is_not_what_was_predicted():
    def cliff(x):
        return jnp.where(x < 0, 100.0, 0.5 * x)

    assert measured(gradtx.gain_ratio(), 1.0, cliff, jnp.array(0.2))["gain_ratio/gain_ratio"] < -100


def test_where_forward_mode_is_blocked_finite_differences_agree_also_for_a_tiny_step():
    params, losses_fn = net(8)
    for rate in (0.3, 1e-2):
        exact = measured(gradtx.gain_ratio(), rate, mean(losses_fn), params)
        found = measured(gradtx.gain_ratio(), rate, mean(losses_fn), params, lambda f: lambda p: opaque(f(p)))
        for name in exact:
            np.testing.assert_allclose(found[name], exact[name], rtol=2e-2, err_msg=f"{name} at {rate}")


def test_where_nothing_moves_there_is_nothing_to_compare():
    value_fn, _ = quadratic(1.0, 2.0)
    found = measured(gradtx.gain_ratio(), 0.1, value_fn, jnp.zeros(2))
    assert np.isnan(found["gain_ratio/gain_ratio"])
    assert np.isnan(found["gain_ratio/alpha"])


def test_an_order_of_3_is_refused():
    with pytest.raises(ValueError, match="gain_ratio: order must be 1 or 2, got 3"):
        gradtx.gain_ratio(order=3)
