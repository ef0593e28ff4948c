"""Norms that neither overflow nor underflow, beside NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx._core.norms import scaled_norm


def norm(leaves):
    inverse, relative = scaled_norm(leaves)
    return float(np.float64(relative) / np.float64(inverse))


@pytest.mark.parametrize("size", [1e-37, 1e-25, 1e-18, 1.0, 1e18, 1e30, 3e38])
def test_the_norm_equals_that_in_float64(size):
    leaves = [jnp.asarray(size * np.array([0.3, -1.0, 0.7]), jnp.float32), jnp.asarray(0.5 * size, jnp.float32)]
    expected = np.linalg.norm(np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in leaves]))
    assert norm(leaves) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [1e-307, 1e-155, 1e155, 1.7e308])
def test_the_norm_of_float64_leaves_equals_that_in_long_double(x64, size):
    leaf = jnp.asarray(np.array([0.3, -1.0, 0.7, 0.5]) * size)
    expected = np.linalg.norm(np.asarray(leaf, np.longdouble))
    inverse, relative = scaled_norm([leaf])
    np.testing.assert_allclose(np.longdouble(relative) / np.longdouble(inverse), expected, rtol=1e-14)


def test_the_norm_of_a_mix_of_scales_is_that_of_the_large_entries():
    assert norm([jnp.full(4, 1e-30), jnp.full(1, 1e-12)]) == pytest.approx(1e-12, rel=1e-6)


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-30, 0.0], [1e25, 3.0], [3e38, 0.0]])
def test_constant_leaves_have_the_same_norm(values):
    leaf = jnp.array(values)
    inverse, relative = jax.jit(lambda: scaled_norm([leaf]))()
    np.testing.assert_allclose(np.float64(relative) / np.float64(inverse), np.linalg.norm(np.float64(leaf)), rtol=1e-6)


def test_no_leaves_and_no_entries_have_norm_zero():
    assert norm([]) == 0.0
    assert norm([jnp.zeros((0, 3))]) == 0.0


def test_the_derivative_of_the_norm_is_the_direction_also_if_the_squares_were_rescaled():
    for size in (1.0, 1e25, 1e-25):
        x = jnp.array([3.0, -4.0]) * size

        def of(x):
            inverse, relative = scaled_norm([x])
            return relative / inverse

        np.testing.assert_allclose(jax.grad(of)(x), [0.6, -0.8], rtol=1e-5)


def test_a_norm_most_of_whose_squares_underflow_is_right():
    x = jnp.array([1.2e-19] + 100 * [1e-19])  # the first square is a normal float32, the others are not
    inverse, relative = scaled_norm([x])
    np.testing.assert_allclose(relative / inverse, np.linalg.norm(np.asarray(x, np.float64)), rtol=1e-5)


@pytest.mark.slow
def test_the_compiled_norm_of_many_leaves_grows_in_proportion_to_their_number():
    def size(count):
        leaves = [jnp.ones(10 + i) for i in range(count)]
        return len(jax.jit(scaled_norm).lower(leaves).compile().as_text())

    assert size(96) < 2.5 * size(48)
