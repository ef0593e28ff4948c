"""The gradient norm matches closed forms for entries of any size, and its slope is the rate of growth."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

from .runs import quadratic, rotation, trained, watched


def test_the_gradient_norms_on_a_quadratic_match_the_closed_form():
    value_fn, h = quadratic(1.0, 4.0, 9.0, rotation=rotation(3))
    x = np.array([1.0, -2.0, 0.5])
    tx = optax.chain(gradtx.gradient_norm(), gradtx.sgd(0.05))
    found, _ = trained(tx, value_fn, jnp.asarray(x, jnp.float32), 30)
    expected = [np.linalg.norm(np.linalg.matrix_power(np.eye(3) - 0.05 * h, t) @ h @ x) for t in range(30)]
    np.testing.assert_allclose(found["gradient_norm/global"], expected, rtol=1e-5)


@pytest.mark.parametrize(("rate", "decay"), [(0.1, 0.95), (0.9, 0.5), (1.5, 0.95)])
def test_the_slope_on_a_quadratic_is_the_logarithm_of_one_minus_rate_times_curvature(rate, decay):
    value_fn, _ = quadratic(2.0)
    tx = optax.chain(gradtx.gradient_norm(decay=decay), gradtx.sgd(rate))
    found, _ = trained(tx, value_fn, jnp.ones(1), 20)
    assert np.isnan(found["gradient_norm/slope"][0])
    np.testing.assert_allclose(found["gradient_norm/slope"][1:], np.log(abs(1 - rate * 2)), rtol=1e-4)


def test_the_slope_is_per_step_even_if_every_fourth_step_is_measured():
    found = watched(gradtx.gradient_norm(every=4), jnp.exp(0.1 * jnp.arange(20))[:, None])
    np.testing.assert_allclose(found["gradient_norm/slope"][8:], 0.1, rtol=1e-4)


def test_the_norm_of_entries_of_1e30_does_not_overflow():
    found = watched(gradtx.gradient_norm(per_leaf=True), {"a": jnp.full((1, 100), 1e30), "b": jnp.full((1, 4), 1e-30)})
    np.testing.assert_allclose(found["gradient_norm/global"], 1e31, rtol=1e-6)
    np.testing.assert_allclose(found["gradient_norm/leaves"], [[1e31, 2e-30]], rtol=1e-6)


def test_the_norm_of_a_thousand_ones_in_bfloat16_is_right():
    found = watched(gradtx.gradient_norm(), jnp.ones((1, 1000), jnp.bfloat16))
    np.testing.assert_allclose(found["gradient_norm/global"], 1000**0.5, rtol=1e-6)


def test_nonfinite_entries_are_counted_over_all_steps():
    g = jnp.ones((4, 5)).at[1, 2].set(jnp.nan).at[3, :2].set(-jnp.inf)
    found = watched(gradtx.gradient_norm(), {"a": g, "b": g})
    np.testing.assert_array_equal(found["gradient_norm/nonfinite"], [0, 2, 2, 6])
    np.testing.assert_array_equal(np.isnan(found["gradient_norm/global"]), [False, True, False, True])
    np.testing.assert_allclose(found["gradient_norm/slope"][1:], [np.nan, 0, 0], atol=1e-6)


def test_a_zero_gradient_is_left_out_of_the_slope():
    norms = np.exp(-0.5 * np.arange(6.0)) * [1, 1, 0, 1, 0, 1]
    found = watched(gradtx.gradient_norm(), jnp.asarray(norms, jnp.float32)[:, None])
    np.testing.assert_allclose(found["gradient_norm/slope"][1:], -0.5, rtol=1e-4)


def test_a_leaf_without_a_gradient_keeps_its_last_norm():
    tx = gradtx.gradient_norm(per_leaf=True)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    state = tx.init(params)
    _, state = tx.update({"a": jnp.array([3.0, 4.0]), "b": jnp.array([0.0, 1.0])}, state, params)
    _, state = tx.update({"a": None, "b": jnp.array([0.0, 2.0])}, state, params)
    found = gradtx.readings(state)
    np.testing.assert_allclose(found["gradient_norm/leaves"], [5.0, 2.0])
    assert found["gradient_norm/global"] == 2.0
