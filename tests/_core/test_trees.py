"""Norms neither overflow nor underflow, and they match NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse

import gradtx
from gradtx._core.trees import accumulator_like, scaled_norm


def norm(leaves):
    inverse, relative = scaled_norm(leaves)
    return float(np.float64(relative) / np.float64(inverse))


@pytest.mark.parametrize("size", [1e-37, 1e-25, 1e-18, 1.0, 1e18, 1e30, 3e38])
def test_a_float32_norm_matches_numpy_in_float64(size):
    leaves = [jnp.asarray(size * np.array([0.3, -1.0, 0.7]), jnp.float32), jnp.asarray(0.5 * size, jnp.float32)]
    expected = np.linalg.norm(np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in leaves]))
    assert norm(leaves) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [1e-307, 1e-155, 1e155, 1.7e308])
def test_a_float64_norm_matches_numpy_in_extended_precision(x64, size):
    leaf = jnp.asarray(np.array([0.3, -1.0, 0.7, 0.5]) * size)
    expected = np.linalg.norm(np.asarray(leaf, np.longdouble))
    inverse, relative = scaled_norm([leaf])
    np.testing.assert_allclose(np.longdouble(relative) / np.longdouble(inverse), expected, rtol=1e-14)


def test_the_norm_of_mixed_scales_is_that_of_the_large_entry():
    assert norm([jnp.full(4, 1e-30), jnp.full(1, 1e-12)]) == pytest.approx(1e-12, rel=1e-6)


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-30, 0.0], [1e25, 3.0], [3e38, 0.0]])
def test_the_norm_of_compile_time_constants_is_right(values):
    leaf = jnp.array(values)
    inverse, relative = jax.jit(lambda: scaled_norm([leaf]))()
    np.testing.assert_allclose(np.float64(relative) / np.float64(inverse), np.linalg.norm(np.float64(leaf)), rtol=1e-6)


def test_an_empty_tree_and_an_empty_leaf_have_norm_zero():
    assert norm([]) == 0.0
    assert norm([jnp.zeros((0, 3))]) == 0.0


def test_the_derivative_of_the_norm_is_the_unit_vector_at_every_scale():
    for size in (1.0, 1e25, 1e-25):
        x = jnp.array([3.0, -4.0]) * size

        def of(x):
            inverse, relative = scaled_norm([x])
            return relative / inverse

        np.testing.assert_allclose(jax.grad(of)(x), [0.6, -0.8], rtol=1e-5)


def test_accumulators_have_the_dtype_that_was_asked_for():
    half = jnp.ones(2, jnp.bfloat16)
    assert accumulator_like(half, jnp.float32).dtype == jnp.float32
    assert accumulator_like(half, None).dtype == jnp.bfloat16
    assert accumulator_like(jnp.ones(2), jnp.bfloat16).dtype == jnp.bfloat16
    assert accumulator_like(jnp.ones(2, jnp.complex64), jnp.float32).dtype == jnp.complex64
    assert accumulator_like(jnp.ones(2, jnp.complex64), jnp.float32, real=True).dtype == jnp.float32


def test_the_norm_is_right_if_most_squares_underflow():
    x = jnp.array([1.2e-19] + 100 * [1e-19])  # the first square is a normal float32, the others are not
    inverse, relative = scaled_norm([x])
    np.testing.assert_allclose(relative / inverse, np.linalg.norm(np.asarray(x, np.float64)), rtol=1e-5)


@pytest.mark.slow
def test_the_compiled_norm_grows_linearly_with_the_number_of_leaves():
    def size(count):
        leaves = [jnp.ones(10 + i) for i in range(count)]
        return len(jax.jit(scaled_norm).lower(leaves).compile().as_text())

    assert size(96) < 2.5 * size(48)


def test_the_message_for_integers_in_an_equinox_model_names_the_filter_to_use():
    eqx = pytest.importorskip("equinox", reason="Equinox comes with the test extra")

    class Counting(eqx.Module):
        weight: jax.Array
        count: jax.Array

    model = Counting(jnp.ones(2), jnp.arange(3))
    with pytest.raises(TypeError, match=r"^adam: params\.count must be .* eqx\.filter\(model, eqx\.is_inexact_array\)"):
        gradtx.adam(0.1).init(eqx.filter(model, eqx.is_array))
    gradtx.adam(0.1).init(eqx.filter(model, eqx.is_inexact_array))


def test_a_sparse_parameter_is_refused_with_advice_to_make_it_dense():
    with pytest.raises(TypeError, match=r"^adam: params\['w'\] \(BCOO\) is sparse: make it dense with todense\(\)\.$"):
        gradtx.adam(0.1).init({"w": sparse.BCOO.fromdense(jnp.eye(2))})
