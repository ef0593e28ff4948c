"""The lift leaves no gradient-sized temporaries where the compiler alone would."""

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx

SIZE = 1_000_000

WITHOUT_TEMPORARIES = {
    "sgd": gradtx.sgd(0.1),
    "sgd momentum": gradtx.sgd(0.1, 0.9),
    "sgd nesterov": gradtx.sgd(0.1, 0.9, True),
    "adagrad": gradtx.adagrad(0.1),
    "rmsprop": gradtx.rmsprop(0.1),
    "rmsprop momentum": gradtx.rmsprop(0.1, momentum=0.9),
    "rmsprop nesterov": gradtx.rmsprop(0.1, momentum=0.9, nesterov=True),
    "adam": gradtx.adam(0.1),
    "clip, adam": optax.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1)),
    "clip, rmsprop nesterov": optax.chain(
        gradtx.clip_by_global_norm(1.0), gradtx.rmsprop(0.1, momentum=0.9, nesterov=True)
    ),
}


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the barriers are for XLA:CPU, others fuse several outputs")
@pytest.mark.parametrize("name", WITHOUT_TEMPORARIES)
def test_a_donated_step_has_no_gradient_sized_temporaries(name):
    if name.startswith("clip") and jax.__version_info__ < (0, 10):
        pytest.skip("XLA of JAX 0.7.2 writes the clipped gradient out; from 0.10 on it does not")
    tx = WITHOUT_TEMPORARIES[name]
    params = jnp.ones(SIZE)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params), params).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < SIZE  # a quarter of one leaf
