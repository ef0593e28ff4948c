"""What a function is given and cannot use, it refuses by the names of both, and not with an error from deeper down."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

X = jnp.ones(2)


def total(x):
    return jnp.sum(x**2)


def updated(tx, **extra):
    return tx.update(X, tx.init(X), X, **extra)


def evaluated(metric):
    stopping = gradtx.early_stopping(2)
    return stopping.update(metric, stopping.init())


REFUSED = {
    "a range test of no function": (
        lambda: gradtx.lr_range_test(3, X),
        TypeError,
        "lr_range_test: value_fn must be a function of the parameters, got 3",
    ),
    "a range test of no method": (
        lambda: gradtx.lr_range_test(total, X, 0.1),
        TypeError,
        r"lr_range_test: make_tx must be a function of the learning rate, got 0\.1",
    ),
    "gradients through time of no function": (
        lambda: gradtx.temporal_gradients(3, X, X),
        TypeError,
        "temporal_gradients: value_fn must be a function of the parameters and the probes, got 3",
    ),
    "Newton without a function": (
        lambda: updated(gradtx.newton(), value_fn=3.0),
        TypeError,
        r"newton: value_fn must be a function of the parameters, got 3\.0",
    ),
    "Newton on a vector": (
        lambda: updated(gradtx.newton(), value_fn=lambda x: x),
        ValueError,
        r"newton: value_fn must return a real floating scalar, got shape \(2,\) and dtype float32",
    ),
    "a seed that is a word": (
        lambda: gradtx.sharpness(seed="a"),
        TypeError,
        "sharpness: seed must be an integer, got 'a'",
    ),
    "a broken seed of tests": (
        lambda: gradtx.gradient_tests(seed=1.5),
        TypeError,
        r"gradient_tests: seed must be an integer, got 1\.5",
    ),
    "a broken seed of the noise scale": (
        lambda: gradtx.gradient_noise_scale(seed=1.5),
        TypeError,
        r"gradient_noise_scale: seed must be an integer, got 1\.5",
    ),
    "the velocity in an unknown dtype": (
        lambda: gradtx.sgd(0.1, 0.9, accumulator_dtype="float33"),
        TypeError,
        "sgd: accumulator_dtype must be a floating dtype or None, got 'float33'",
    ),
    "the look-ahead in whole numbers": (
        lambda: gradtx.nesterov(0.9, accumulator_dtype=jnp.int32),
        TypeError,
        "nesterov: accumulator_dtype must be a floating dtype or None, got .*int32",
    ),
    "squares in whole numbers": (
        lambda: gradtx.scale_by_adagrad(accumulator_dtype=jnp.int32),
        TypeError,
        "scale_by_adagrad: accumulator_dtype must be a floating dtype or None, got .*int32",
    ),
    "mean squares in truth values": (
        lambda: gradtx.scale_by_rms(accumulator_dtype=bool),
        TypeError,
        "scale_by_rms: accumulator_dtype must be a floating dtype or None, got .*bool",
    ),
    "whole numbers for the only parameter": (
        lambda: gradtx.sgd(0.1).init(jnp.arange(3)),
        TypeError,
        "^sgd: params must be of a floating dtype, got int32: take it out",
    ),
    "a word among the parameters": (
        lambda: gradtx.sgd(0.1).init({"w": X, "name": "float32"}),  # which JAX takes for the dtype of that name
        TypeError,
        r"^sgd: params\['name'\] must be an array, got str",
    ),
    "a dtype among the parameters": (
        lambda: gradtx.sgd(0.1).init({"w": X, "dtype": np.float32}),
        TypeError,
        r"^sgd: params\['dtype'\] must be an array, got type",
    ),
    "the look-ahead of another tree": (
        lambda: gradtx.nesterov_eval_params({"a": X}, gradtx.nesterov(0.9).init(X)),
        ValueError,
        "nesterov_eval_params: params are not the tree that the state looks ahead for",
    ),
    "a vector of metrics": (
        lambda: evaluated(X),
        ValueError,
        r"early_stopping: metric must be a scalar, got shape \(2,\)",
    ),
    "a vector of losses to accumulate": (
        lambda: updated(gradtx.accumulate(gradtx.sgd(0.1), 2), value=X),
        ValueError,
        r"accumulate: value must be a scalar, got shape \(2,\)",
    ),
    "a weight for each parameter": (
        lambda: updated(gradtx.accumulate(gradtx.sgd(0.1), 2), weight=X),
        ValueError,
        r"accumulate: weight must be a scalar, got shape \(2,\)",
    ),
    "a weight for each parameter across devices": (
        lambda: updated(gradtx.mean_across(None), weight=X),
        ValueError,
        r"mean_across: weight must be a scalar, got shape \(2,\)",
    ),
    "a schedule that gives a vector": (
        lambda: gradtx.robbins_monro(lambda k: X),
        TypeError,
        r"robbins_monro: schedule, as a function of the step, must return a scalar, got shape \(2,\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_by_name(name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dtype", [None, jnp.float32, np.float32, "bfloat16", jnp.dtype("float16"), jnp.complex64])
def test_any_floating_dtype_of_accumulators_passes(dtype):
    gradtx.sgd(0.1, 0.9, accumulator_dtype=dtype).init(X)


def test_the_dtype_passes_through_optax_as_well():
    tx = optax.inject_hyperparams(gradtx.sgd)(0.1, 0.9, accumulator_dtype=jnp.float32)
    assert jax.tree.leaves(tx.init(X).inner_state)[1].dtype == jnp.float32
