"""The guarded Lanczos iteration is exact if the Krylov space ends early. Otherwise its basis is orthonormal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.sparse.linalg import eigsh

from gradtx._core.lanczos import lanczos, new_step
from tests.oracles import rotated

SPECTRA = {
    "identity": [1.0] * 6,
    "three times identity": [3.0] * 6,
    "zero": [0.0] * 6,
    "one outlier": [1.0] * 5 + [10.0],
    "both signs": [3.0, -3.0, 1.0],
    "tiny and large": [1e-3] * 5 + [1e3, -1e3],
}


def tridiagonal(found):
    off = np.asarray(found.off_diagonal)
    return np.diag(np.asarray(found.diagonal)) + np.diag(off, 1) + np.diag(off, -1)


def used(found):
    """Returns a mask of the rows of T before the breakdown."""
    return np.concatenate([[True], np.cumprod(np.asarray(found.off_diagonal) > 0).astype(bool)])


def ritz_values(found):
    rows = used(found)
    return np.linalg.eigvalsh(tridiagonal(found)[np.ix_(rows, rows)])


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.sampled(5)
def test_lanczos_finds_each_distinct_eigenvalue_of_a_degenerate_spectrum_and_stops(name, compiled):
    spectrum = jnp.array(SPECTRA[name])
    start = {"a": jax.random.normal(jax.random.key(1), (len(spectrum),))}

    def find(start):
        return lanczos(lambda v: {"a": spectrum * v["a"]}, start, len(spectrum))

    found = (jax.jit(find) if compiled else find)(start)
    distinct = sorted(set(SPECTRA[name]))
    assert used(found).sum() == len(distinct)
    np.testing.assert_allclose(ritz_values(found), distinct, atol=3e-6 * max(1, np.abs(spectrum).max()))
    assert found.residual == 0
    rows = np.stack([row["a"] for row in found.basis])
    np.testing.assert_allclose(rows @ rows.T, np.diag(used(found)), atol=1e-5)  # rows after the breakdown are zero
    after = ~used(found)
    assert not np.asarray(found.diagonal)[after].any()


@pytest.mark.parametrize(("value", "size"), [(3.0, 300), (-1e4, 300), (1.0, 100_000)])
@pytest.mark.sampled(2)
def test_lanczos_stops_after_one_step_on_a_multiple_of_the_identity_despite_rounding(value, size):
    matrix = None if size > 1000 else jnp.asarray(rotated([value] * size), jnp.float32)
    start = jax.random.normal(jax.random.key(0), (size,))
    found = lanczos(lambda v: value * v if matrix is None else matrix @ v, start, 5)
    assert used(found).sum() == 1
    np.testing.assert_allclose(found.diagonal[0], value, rtol=1e-5)


def test_the_basis_is_orthonormal_and_makes_the_matrix_tridiagonal(x64):
    matrix = jnp.asarray(rotated(np.random.default_rng(1).normal(size=5)))
    found = lanczos(lambda v: matrix @ v, jnp.ones(5), 5)
    rows = np.stack(found.basis)
    np.testing.assert_allclose(rows @ rows.T, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(rows @ matrix @ rows.T, tridiagonal(found), atol=1e-12)


def test_the_basis_stays_orthonormal_in_float32_after_outliers_have_converged():
    spectrum = [*np.linspace(0, 1, 57), 1e3, 2e3, 4e3]  # one pass of Gram-Schmidt would find converged outliers twice
    matrix = jnp.asarray(rotated(spectrum), jnp.float32)
    found = lanczos(lambda v: matrix @ v, jax.random.normal(jax.random.key(0), (60,)), 30)
    rows = np.stack(found.basis)[used(found)]
    np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=2e-6)
    values = ritz_values(found)
    assert np.sum(values > 500) == 3
    np.testing.assert_allclose(values[-3:], [1e3, 2e3, 4e3], rtol=1e-5)


def test_the_smallest_and_largest_ritz_values_match_scipy(x64):
    matrix = rotated(np.random.default_rng(2).normal(size=100))
    expected = np.sort(eigsh(matrix, k=2, which="BE", return_eigenvectors=False))
    device_matrix = jnp.asarray(matrix)
    found = lanczos(lambda v: device_matrix @ v, jax.random.normal(jax.random.key(0), (100,)), 60)
    np.testing.assert_allclose(ritz_values(found)[[0, -1]], expected, rtol=1e-8)


def test_an_eigenvalue_lies_within_the_residual_of_each_ritz_value(x64):
    matrix = rotated(np.linspace(-1, 3, 40))
    device_matrix = jnp.asarray(matrix)
    found = lanczos(lambda v: device_matrix @ v, jnp.ones(40), 6)
    values, vectors = np.linalg.eigh(tridiagonal(found))
    vectors_of_matrix = np.stack(found.basis).T @ vectors
    for value, vector, last in zip(values, vectors_of_matrix.T, vectors[-1], strict=True):
        residual = np.linalg.norm(matrix @ vector - value * vector)
        np.testing.assert_allclose(residual, found.residual * abs(last), rtol=1e-8)
        assert np.min(np.abs(np.linspace(-1, 3, 40) - value)) <= residual


def test_a_tree_gives_the_same_result_as_its_flat_vector(x64):
    matrix = jnp.asarray(rotated(np.random.default_rng(3).normal(size=7)))
    tree = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.array(2.0), "none": None}
    flat, unravel = jax.flatten_util.ravel_pytree(tree)
    found = lanczos(lambda v: unravel(matrix @ jax.flatten_util.ravel_pytree(v)[0]), tree, 4)
    expected = lanczos(lambda v: matrix @ v, flat, 4)
    np.testing.assert_allclose(found.diagonal, expected.diagonal, rtol=1e-10)
    np.testing.assert_allclose(found.off_diagonal, expected.off_diagonal, rtol=1e-10)
    assert jax.tree.structure(found.basis[3]) == jax.tree.structure(tree)


def test_a_start_of_zeros_gives_zeros_and_a_nan_product_gives_nan():
    found = lanczos(lambda v: 2 * v, jnp.zeros(3), 2)
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(found))
    assert np.isnan(lanczos(lambda v: jnp.nan * v, jnp.ones(3), 2).diagonal[0])


def test_the_product_is_traced_once_for_all_iterations_and_starts_that_share_a_step():
    traced = []

    def times(matrix, v):
        traced.append(1)
        return matrix @ v

    step = new_step()
    for seed in range(3):
        matrix = jnp.asarray(rotated(range(5), seed), jnp.float32)
        start = jax.random.normal(jax.random.key(seed), (5,))
        found = lanczos(Partial(times, matrix), start, 4, step)
        expected = lanczos(lambda v, m=matrix: m @ v, start, 4)
        np.testing.assert_allclose(found.diagonal, expected.diagonal, rtol=1e-4)
    assert len(traced) == 1
