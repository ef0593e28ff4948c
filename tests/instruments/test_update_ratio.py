"""The update ratio is the quotient of two norms."""

import jax.numpy as jnp
import numpy as np
import optax

import gradtx

from .runs import watched


def test_the_update_ratio_is_the_norm_of_the_step_over_that_of_the_parameters():
    tx = optax.chain(gradtx.sgd(0.1), gradtx.update_ratio(per_leaf=True))
    params = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}
    _, state = tx.update({"a": jnp.array([0.0, 6.0]), "b": jnp.array([[8.0]])}, tx.init(params), params)
    found = gradtx.readings(state)
    np.testing.assert_allclose(found["update_ratio/global"], 0.1 * 10 / 5, rtol=1e-6)
    np.testing.assert_allclose(found["update_ratio/leaves"], [0.1 * 6 / 3, 0.1 * 8 / 4], rtol=1e-6)


def test_the_update_ratio_is_0_for_a_zero_step_and_inf_for_zero_parameters():
    steps = jnp.array([[0.0, 0.0], [1.0, 0.0]])
    np.testing.assert_array_equal(
        watched(gradtx.update_ratio(), steps, jnp.zeros(2))["update_ratio/global"], [0, np.inf]
    )


def test_the_update_ratio_is_right_if_the_squares_of_both_norms_overflow():
    steps = jnp.full((1, 3, 4), 1e30)
    np.testing.assert_allclose(
        watched(gradtx.update_ratio(), steps, jnp.full((3, 4), 2e33))["update_ratio/global"], 5e-4, rtol=1e-5
    )


def test_a_leaf_without_an_update_is_left_out_of_the_global_ratio_and_keeps_its_own():
    tx = gradtx.update_ratio(per_leaf=True)
    params = {"a": jnp.array([2.0]), "b": jnp.array([4.0])}
    state = tx.init(params)
    _, state = tx.update({"a": jnp.array([1.0]), "b": jnp.array([1.0])}, state, params)
    _, state = tx.update({"a": None, "b": jnp.array([2.0])}, state, params)
    found = gradtx.readings(state)
    np.testing.assert_allclose(found["update_ratio/leaves"], [0.5, 0.5])
    np.testing.assert_allclose(found["update_ratio/global"], 0.5)
