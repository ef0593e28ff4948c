"""Hessian-vector products, and the power iteration that is made of them."""

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._core.hvp import hvp, linear_hvp, normalised, power_step

CURVATURES = np.array([[4.0, 1.0], [1.0, -6.0]], np.float32)
POINT = {"x": jnp.array([1.0, 2.0])}


def cost(params):
    return params["x"] @ jnp.asarray(CURVATURES) @ params["x"] / 2


def test_both_products_are_those_of_the_matrix():
    v = {"x": jnp.array([3.0, -1.0])}
    value, gradient, product = linear_hvp(cost, POINT)
    np.testing.assert_allclose(value, cost(POINT))
    np.testing.assert_allclose(gradient["x"], CURVATURES @ np.array([1.0, 2.0]))
    for found in (hvp(cost, POINT, v), product(v)):
        np.testing.assert_allclose(found["x"], CURVATURES @ np.array([3.0, -1.0]))


def test_a_shifted_power_iteration_finds_the_largest_eigenvalue_and_not_the_largest_magnitude():
    @jax.jit
    def step(v):
        return power_step(hvp(cost, POINT, v), v, jnp.float32(8.0), fallback=v)

    v = {"x": jnp.array([0.6, 0.8])}
    for _ in range(30):
        v = step(v)
    largest = v["x"] @ CURVATURES @ v["x"]
    np.testing.assert_allclose(largest, np.linalg.eigvalsh(CURVATURES)[-1], rtol=1e-5)


def test_a_tree_without_a_usable_length_is_replaced():
    fallback = {"x": jnp.array([1.0, 0.0])}
    for values in ([0.0, 0.0], [jnp.inf, 1.0], [jnp.nan, 1.0]):
        np.testing.assert_array_equal(normalised({"x": jnp.array(values)}, fallback)["x"], fallback["x"])
    np.testing.assert_allclose(normalised({"x": jnp.array([3.0, -4.0])}, fallback)["x"], [0.6, -0.8], rtol=1e-6)
