"""Accumulators for trees of arrays, and the leaves that no transformation can train."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import sparse

import gradtx
from gradtx._core.trees import accumulator_like


def test_accumulators_have_the_dtype_that_was_asked_for():
    half = jnp.ones(2, jnp.bfloat16)
    assert accumulator_like(half, jnp.float32).dtype == jnp.float32
    assert accumulator_like(half, None).dtype == jnp.bfloat16
    assert accumulator_like(jnp.ones(2), jnp.bfloat16).dtype == jnp.bfloat16
    assert accumulator_like(jnp.ones(2, jnp.complex64), jnp.float32).dtype == jnp.complex64
    assert accumulator_like(jnp.ones(2, jnp.complex64), jnp.float32, real=True).dtype == jnp.float32


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
