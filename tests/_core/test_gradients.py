"""Transformations refuse sparse gradients and say how to make them dense."""

import jax.numpy as jnp
import pytest
from jax.experimental import sparse

import gradtx

PARAMS = {"w": jnp.eye(2)}


@pytest.mark.parametrize("kind", [sparse.BCOO, sparse.BCSR])
@pytest.mark.parametrize(
    "tx", [gradtx.sgd(0.1), gradtx.adam(0.1), gradtx.clip_by_norm(1.0), gradtx.packed(gradtx.adam(0.1))]
)
def test_a_sparse_gradient_is_refused_with_advice_to_make_it_dense(tx, kind):
    grads = {"w": kind.fromdense(jnp.eye(2))}
    message = rf"the gradient of params\['w'\] \({kind.__name__}\) is sparse: make it dense with todense\(\)\.$"
    with pytest.raises(TypeError, match=message):
        tx.update(grads, tx.init(PARAMS))
