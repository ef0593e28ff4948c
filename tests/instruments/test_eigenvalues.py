"""The largest eigenvalues and their eigenvectors match NumPy, even if eigenvalues repeat. The residuals are right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracles import rotated

KEY = jax.random.key(0)


def quadratic(matrix):
    matrix = jnp.asarray(matrix)
    return lambda x: x @ matrix @ x / 2


def test_as_many_iterations_as_parameters_give_numpys_eigenvalues_and_eigenvectors(x64):
    root = np.random.default_rng(0).normal(size=(12, 12))
    matrix = root + root.T
    found = gradtx.top_eigenvalues(quadratic(matrix), jnp.zeros(12), 4, key=KEY)
    values, vectors = np.linalg.eigh(matrix)
    np.testing.assert_allclose(found.values, values[::-1][:4], rtol=1e-10)
    overlaps = np.abs(np.asarray(found.vectors) @ vectors[:, ::-1][:, :4])
    np.testing.assert_allclose(overlaps, np.eye(4), atol=1e-8)
    np.testing.assert_allclose(found.residuals, 0, atol=1e-10)


@pytest.mark.slow
def test_the_residuals_after_few_iterations_are_those_of_the_eigenpairs(x64):
    matrix = rotated(np.linspace(-3, 10, 60))
    found = gradtx.top_eigenvalues(quadratic(matrix), jnp.zeros(60), 3, key=KEY, num_iterations=12)
    vectors, spectrum = np.asarray(found.vectors), np.linspace(-3, 10, 60)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-10)
    off = np.linalg.norm(matrix @ vectors.T - vectors.T * np.asarray(found.values), axis=0)
    np.testing.assert_allclose(found.residuals, off, rtol=1e-6)
    assert found.residuals[2] > 1e-3  # the third has not converged
    assert np.all(found.values <= spectrum[::-1][:3])
    for value, residual in zip(found.values, found.residuals, strict=True):
        assert np.min(np.abs(spectrum - value)) <= residual


SPECTRA = {
    "repeated": [3.0, 3.0, 3.0, 1.0, -5.0],
    "identity": [1.0] * 5,
    "zero": [0.0] * 5,
    "one outlier": [10.0, 1.0, 1.0, 1.0, 1.0],
    "all negative": [-1.0, -1.0, -2.0, -3.0, -4.0],
    "large unit": [3e30, 2e30, 2e30, 1e30, -5e30],
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.sampled(3)
def test_a_repeated_eigenvalue_is_found_as_often_as_it_occurs(name):
    spectrum = np.array(SPECTRA[name])

    def loss(x):
        return jnp.sum(jnp.asarray(spectrum, jnp.float32) * x**2) / 2

    values, vectors, residuals = gradtx.top_eigenvalues(loss, jnp.zeros(5), 4, key=KEY)
    size = max(1.0, np.abs(spectrum).max())
    np.testing.assert_allclose(values / size, np.sort(spectrum)[::-1][:4] / size, atol=2e-6)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(4), atol=1e-5)
    np.testing.assert_allclose(spectrum / size * vectors, values[:, None] / size * vectors, atol=1e-5)
    assert np.all(residuals <= 1e-5 * size)


def test_the_negative_loss_gives_the_smallest_eigenvalues():
    def loss(x):
        return jnp.sum(jnp.array([1.0, -3.0, 2.0]) * x**2) / 2

    found = gradtx.top_eigenvalues(lambda x: -loss(x), jnp.zeros(3), key=KEY)
    np.testing.assert_allclose(-found.values, [-3.0], rtol=1e-5)


def test_eigenvectors_have_the_structure_of_the_parameters_in_float32():
    params = {"w": jnp.ones((2, 3), jnp.bfloat16), "none": None, "b": jnp.zeros(2, jnp.bfloat16)}

    def loss(p):
        assert p["w"].dtype == jnp.float32
        return jnp.sum(p["w"] ** 2) / 2 + 2 * jnp.sum(p["b"] ** 2)

    found = gradtx.top_eigenvalues(loss, params, 2, key=KEY)
    np.testing.assert_allclose(found.values, [4.0, 4.0], rtol=1e-5)
    assert jax.tree.map(lambda x: (x.shape, x.dtype.name), found.vectors) == {
        "w": ((2, 2, 3), "float32"), "none": None, "b": ((2, 2), "float32"),
    }  # fmt: skip


def test_top_eigenvalues_agree_under_jit_and_repeat_with_the_same_key():
    matrix = np.float32(rotated([5.0, 3.0, 1.0, -2.0]))

    def top(x):
        return gradtx.top_eigenvalues(quadratic(matrix), x, 2, key=KEY)

    once, again, compiled = top(jnp.zeros(4)), top(jnp.zeros(4)), jax.jit(top)(jnp.zeros(4))
    for a, b, c in zip(once, again, compiled, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 0}, ValueError, "top_eigenvalues: k must be at least 1, got 0"),
        ({"k": 3}, ValueError, "k must be at most the number of parameters, 2, got 3"),
        ({"k": 1.0}, TypeError, "k must be an integer, got 1.0"),
        ({"k": 2, "num_iterations": 1}, ValueError, "num_iterations must be at least 2, got 1"),
        ({"key": 3}, TypeError, "key must be a JAX random key"),
        ({"value_fn": lambda p: (jnp.sum(p), p)}, TypeError, "value_fn must return a scalar, got tuple"),
        ({"value_fn": lambda p: jnp.sum(jnp.log(p - 2))}, ValueError, "top_eigenvalues: the loss, .* is not finite"),
    ],
)
def test_bad_arguments_are_refused_by_name(change, error, message):
    arguments = {"value_fn": lambda p: jnp.sum(p**2), "params": jnp.ones(2), "k": 1, "key": KEY} | change
    with pytest.raises(error, match=message):
        gradtx.top_eigenvalues(**arguments)
