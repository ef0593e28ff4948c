"""Ritz values, vectors and residuals match the matrix in any unit, even if the Krylov space ends early."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx._core.ritz import combined, ritz
from tests.oracles import rotated


def found_for(matrix, num_iterations, start):
    return ritz(num_iterations)(lambda v: matrix @ v, start)


@pytest.mark.parametrize("unit", [1e-30, 1.0, 1e30])
def test_the_vector_of_the_largest_value_is_its_eigenvector_in_any_unit(unit):
    matrix = rotated([5.0, 2.0, -1.0, -7.0])
    found = found_for(jnp.asarray(unit * matrix, jnp.float32), 4, jnp.ones(4))
    np.testing.assert_allclose(found.values, unit * np.array([-7.0, -1.0, 2.0, 5.0]), rtol=1e-5)
    vector = np.asarray(combined(found.vectors[:, found.largest_at], found.basis), np.float64)
    np.testing.assert_allclose(matrix @ vector, 5 * vector, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vector), 1, rtol=1e-5)


def test_if_the_space_ends_early_the_largest_value_is_repeated_with_weight_zero():
    found = found_for(jnp.diag(jnp.array([1.0, 1.0, 1.0, 10.0])), 4, jnp.ones(4))
    np.testing.assert_allclose(found.values, [1, 10, 10, 10], rtol=1e-6)
    np.testing.assert_allclose(found.weights, [0.75, 0.25, 0, 0], atol=1e-6)
    assert found.largest_at == 1
    np.testing.assert_array_equal(found.vectors[:, 2:], 0)
    np.testing.assert_allclose(combined(found.vectors[:, 1], found.basis), [0, 0, 0, 1], atol=1e-6)


def test_an_eigenvalue_lies_within_the_residual_of_each_ritz_value():
    spectrum = np.linspace(-3.0, 8.0, 40)
    matrix = jnp.asarray(rotated(spectrum), jnp.float32)
    found = found_for(matrix, 8, jax.random.normal(jax.random.key(0), (40,)))
    off = np.abs(np.asarray(found.values)[:, None] - spectrum).min(axis=1)
    assert np.all(off <= np.asarray(found.residuals) + 1e-5)
    assert found.residuals.min() < 0.5 < found.residuals.max()
    vectors = jax.vmap(lambda column: combined(column, found.basis), in_axes=1, out_axes=1)(found.vectors)
    left = jnp.linalg.norm(matrix @ vectors - vectors * found.values, axis=0)
    np.testing.assert_allclose(found.residuals, left, atol=1e-4)


def test_a_tree_gives_the_same_result_as_its_flat_vector():
    matrix = jnp.asarray(rotated([4.0, 1.0, -2.0]), jnp.float32)

    def product(v):
        flat = matrix @ jnp.concatenate([v["a"], v["b"]])
        return {"a": flat[:1], "b": flat[1:]}

    start = jnp.array([1.0, 2.0, 3.0])
    tree = ritz(3)(product, {"a": start[:1], "b": start[1:]})
    flat = found_for(matrix, 3, start)
    np.testing.assert_allclose(tree.values, flat.values, rtol=1e-6)
    vector = combined(tree.vectors[:, 0], tree.basis)
    both = np.concatenate([vector["a"], vector["b"]])
    np.testing.assert_allclose(np.abs(both), np.abs(combined(flat.vectors[:, 0], flat.basis)), atol=1e-6)


def test_a_nan_in_the_products_appears_in_the_values():
    found = found_for(jnp.array([[1.0, 0.0], [0.0, jnp.nan]]), 2, jnp.ones(2))
    assert np.isnan(found.values).any()
