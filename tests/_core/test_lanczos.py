"""The guarded Lanczos is exact where the Krylov space ends early."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx._core.lanczos import lanczos

SPECTRA = {
    "identity": [1.0] * 6,
    "three times identity": [3.0] * 6,
    "zero": [0.0] * 6,
    "one outlier": [1.0] * 5 + [10.0],
    "both signs": [3.0, -3.0, 1.0],
}


@pytest.mark.parametrize("name", SPECTRA)
def test_finds_both_ends_of_a_degenerate_spectrum(name):
    spectrum = jnp.array(SPECTRA[name])
    start = {"a": jax.random.normal(jax.random.key(1), (len(spectrum),))}
    found = lanczos(lambda v: {"a": spectrum * v["a"]}, start, len(spectrum))
    used = np.concatenate([[True], np.cumprod(np.asarray(found.off_diagonal) > 0).astype(bool)])
    off = np.asarray(found.off_diagonal)
    tridiagonal = np.diag(np.asarray(found.diagonal)) + np.diag(off, 1) + np.diag(off, -1)
    ritz = np.linalg.eigvalsh(tridiagonal[np.ix_(used, used)])
    assert used.sum() == len(set(SPECTRA[name]))
    np.testing.assert_allclose([ritz[0], ritz[-1]], [min(spectrum), max(spectrum)], atol=1e-5)


def test_the_basis_is_orthonormal_and_turns_the_matrix_into_t(x64):
    root = np.random.default_rng(0).normal(size=(5, 5))
    matrix = jnp.asarray(root + root.T)
    found = lanczos(lambda v: matrix @ v, jnp.ones(5), 5)
    rows = np.stack(found.basis)
    np.testing.assert_allclose(rows @ rows.T, np.eye(5), atol=1e-12)
    expected = np.diag(found.diagonal) + np.diag(found.off_diagonal, 1) + np.diag(found.off_diagonal, -1)
    np.testing.assert_allclose(rows @ matrix @ rows.T, expected, atol=1e-12)
