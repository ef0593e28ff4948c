"""The update ratio is the quotient of two norms, by hand."""

import jax.numpy as jnp
import numpy as np
import optax

import gradtx

from .runs import watched


def test_is_the_norm_of_the_step_over_the_norm_of_the_parameters_before_it():
    tx = optax.chain(gradtx.sgd(0.1), gradtx.update_ratio(per_leaf=True))
    params = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}
    _, state = tx.update({"a": jnp.array([0.0, 6.0]), "b": jnp.array([[8.0]])}, tx.init(params), params)
    found = gradtx.readings(state)
    np.testing.assert_allclose(found["update_ratio/global"], 0.1 * 10 / 5, rtol=1e-6)
    np.testing.assert_allclose(found["update_ratio/leaves"], [0.1 * 6 / 3, 0.1 * 8 / 4], rtol=1e-6)


def test_is_0_where_nothing_moves_and_inf_where_zeros_move():
    steps = jnp.array([[0.0, 0.0], [1.0, 0.0]])
    np.testing.assert_array_equal(
        watched(gradtx.update_ratio(), steps, jnp.zeros(2))["update_ratio/global"], [0, np.inf]
    )


def test_is_right_where_neither_norm_is_finite_in_float32():
    steps = jnp.full((1, 3, 4), 1e30)
    np.testing.assert_allclose(
        watched(gradtx.update_ratio(), steps, jnp.full((3, 4), 2e33))["update_ratio/global"], 5e-4, rtol=1e-5
    )


def test_a_leaf_without_update_is_left_out_and_keeps_its_ratio():
    tx = gradtx.update_ratio(per_leaf=True)
    params = {"a": jnp.array([2.0]), "b": jnp.array([4.0])}
    state = tx.init(params)
    _, state = tx.update({"a": jnp.array([1.0]), "b": jnp.array([1.0])}, state, params)
    _, state = tx.update({"a": None, "b": jnp.array([2.0])}, state, params)
    found = gradtx.readings(state)
    np.testing.assert_allclose(found["update_ratio/leaves"], [0.5, 0.5])
    np.testing.assert_allclose(found["update_ratio/global"], 0.5)
