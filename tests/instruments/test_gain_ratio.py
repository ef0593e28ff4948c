"""The gain ratio is 1 if the quadratic model holds, and alpha shows how far the step went."""

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
def test_the_gain_ratio_on_a_quadratic_is_1_or_1_minus_the_curvature_ratio_by_order(rate):
    value_fn, _ = quadratic(1.0, 4.0, -2.0, rotation=rotation(3))
    x = jnp.array([1.0, -2.0, 0.5])
    second, first = (measured(gradtx.gain_ratio(order=order), rate, value_fn, x) for order in (2, 1))
    np.testing.assert_allclose(second["gain_ratio/gain_ratio"], 1, rtol=1e-4)
    np.testing.assert_allclose(first["gain_ratio/gain_ratio"], 1 - first["curvature_ratio/ratio"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("rate", "alpha"), [(1e-3, -0.995), (0.2, 0.0), (0.4, 1.0), (0.6, 2.0)])
def test_alpha_is_minus_1_at_the_start_0_at_the_minimum_and_1_at_the_mirror_point(rate, alpha):
    found = measured(gradtx.gain_ratio(), rate, lambda x: 2.5 * x**2, jnp.array(3.0))
    np.testing.assert_allclose(found["gain_ratio/alpha"], alpha, atol=1e-5)


def test_the_gain_ratio_of_a_step_onto_a_cliff_is_very_negative():
    def cliff(x):
        return jnp.where(x < 0, 100.0, 0.5 * x)

    assert measured(gradtx.gain_ratio(), 1.0, cliff, jnp.array(0.2))["gain_ratio/gain_ratio"] < -100


def test_finite_differences_agree_for_large_and_small_steps_if_forward_mode_is_not_possible():
    params, losses_fn = net(8)
    for rate in (0.3, 1e-2):
        exact = measured(gradtx.gain_ratio(), rate, mean(losses_fn), params)
        found = measured(gradtx.gain_ratio(), rate, mean(losses_fn), params, lambda f: lambda p: opaque(f(p)))
        for name in exact:
            np.testing.assert_allclose(found[name], exact[name], rtol=2e-2, err_msg=f"{name} at {rate}")


def test_gain_ratio_and_alpha_are_nan_for_a_step_of_zero():
    value_fn, _ = quadratic(1.0, 2.0)
    found = measured(gradtx.gain_ratio(), 0.1, value_fn, jnp.zeros(2))
    assert np.isnan(found["gain_ratio/gain_ratio"])
    assert np.isnan(found["gain_ratio/alpha"])


def test_an_order_of_3_is_refused():
    with pytest.raises(ValueError, match="gain_ratio: order must be 1 or 2, got 3"):
        gradtx.gain_ratio(order=3)
