"""Arguments of the wrong kind or out of range are named where they are given, in every function that takes them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

KEY = jax.random.key(0)


def epochs(**change):
    return gradtx.shuffled_epochs(**({"key": KEY, "num_examples": 6, "batch_size": 3, "epochs": 1} | change))


def feed(**change):
    return gradtx.minibatch_feed(np.arange(6), [[0, 1], [2, 3]], **change)


def stopping(**change):
    return gradtx.early_stopping(**({"patience": 3} | change))


WRONG = [
    (epochs, {"num_examples": 6.0}, TypeError, "shuffled_epochs: num_examples must be an integer, got 6.0 (float)"),
    (epochs, {"num_examples": None}, TypeError, "num_examples must be an integer, got None"),
    (epochs, {"batch_size": "all"}, TypeError, "batch_size must be an integer, got 'all' (str)"),
    (epochs, {"batch_size": True}, TypeError, "batch_size must be an integer, got True"),
    (epochs, {"epochs": float("inf")}, TypeError, "epochs must be an integer, got inf"),
    (epochs, {"epochs": np.ones(2)}, TypeError, "epochs must be an integer, got array"),
    (epochs, {"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
    (epochs, {"key": 0}, TypeError, "shuffled_epochs: key must be a JAX random key, as jax.random.key(0), got 0"),
    (epochs, {"key": jax.random.split(KEY)}, ValueError, "key must be one key, got an array of keys of shape (2,)"),
    (gradtx.online_pass, {"key": None, "num_examples": 6, "batch_size": 2}, TypeError, "online_pass: key must be a"),
    (feed, {"start": "2"}, TypeError, "minibatch_feed: start must be an integer, got '2' (str)"),
    (feed, {"start": 3}, ValueError, "minibatch_feed: start must be from 0 to 2, the number of steps, got 3"),
    (feed, {"process": 0, "processes": 0.5}, TypeError, "minibatch_feed: processes must be an integer, got 0.5"),
    (feed, {"process": -1, "processes": 2}, ValueError, "minibatch_feed: process must be at least 0, got -1"),
    (feed, {"process": 2, "processes": 2}, ValueError, "minibatch_feed: process must be from 0 to 1, got 2"),
    (stopping, {"patience": 2.0}, TypeError, "early_stopping: patience must be an integer, got 2.0 (float)"),
    (stopping, {"min_delta": "0.1"}, TypeError, "early_stopping: min_delta must be a number, got '0.1' (str)"),
    (stopping, {"min_delta": float("nan")}, ValueError, "early_stopping: min_delta must be in [0, inf), got nan"),
    (gradtx.gradient_tests, {"seed": KEY}, TypeError, "gradient_tests: seed must be an integer, got Array"),
    (gradtx.gradient_noise_scale, {"seed": 0.5}, TypeError, "gradient_noise_scale: seed must be an integer, got 0.5"),
    (gradtx.sharpness, {"seed": None}, TypeError, "sharpness: seed must be an integer, got None"),
    (gradtx.panel, {"learning_rate": 0.1, "seed": "0"}, TypeError, "seed must be an integer, got '0' (str)"),
    *(
        (recipe, arguments | {"accumulator_dtype": dtype}, TypeError, f"{recipe.__name__}: accumulator_dtype must be a "
         f"floating dtype or None, got {dtype!r}.")
        for recipe, arguments in (
            (gradtx.sgd, {"learning_rate": 0.1}), (gradtx.heavy_ball, {"momentum": 0.9}),
            (gradtx.nesterov, {"momentum": 0.9}), (gradtx.adagrad, {"learning_rate": 0.1}),
            (gradtx.scale_by_adagrad, {}),
            (gradtx.rmsprop, {"learning_rate": 0.1}), (gradtx.scale_by_rms, {}),
        )
        for dtype in ("bf16", jnp.int32)
    ),
]  # fmt: skip


@pytest.mark.parametrize(("function", "arguments", "error", "message"), WRONG)
def test_a_wrong_argument_is_named(function, arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        function(**arguments)


@pytest.mark.parametrize("leaf", ["float32", float, object()])
@pytest.mark.parametrize("tx", [gradtx.sgd(0.1), gradtx.clip_by_norm(1.0), gradtx.gradient_norm()])
def test_a_leaf_that_is_no_array_is_named(tx, leaf):
    with pytest.raises(TypeError, match=r"params\['w'\] must be an array, got \w+\."):
        tx.init({"w": leaf})


def test_another_tree_is_refused_by_clip_by_norm_without_parameters_too():
    tx = gradtx.clip_by_norm(1.0)
    with pytest.raises(ValueError, match="clip_by_norm: the gradients have 2 leaves, but init saw 1: call init with"):
        tx.update((jnp.ones(2), jnp.ones(2)), tx.init(jnp.ones(2)))


def test_a_metric_of_every_example_is_refused_instead_of_stopping_each_by_itself():
    patience = gradtx.early_stopping(3)
    with pytest.raises(ValueError, match=r"metric must be a scalar, got shape \(3,\): take the mean"):
        patience.update(jnp.ones(3), patience.init())


def test_diagnose_refuses_complex_numbers():
    with pytest.raises(TypeError, match="diagnose: loss must be an array of numbers"):
        gradtx.diagnose({"loss": np.ones(5) * 1j})


@pytest.mark.parametrize("tx", [gradtx.sharpness(), gradtx.curvature_ratio(0.1), gradtx.gradient_tests()])
def test_what_the_loss_raises_comes_through(tx):
    def losses(params):
        if isinstance(params, jax.core.Tracer):
            raise TypeError("of the user's own making")
        return params

    params = jnp.ones(2)
    extra = {"value_fn": lambda params: jnp.mean(losses(params)), "losses_fn": losses}
    with pytest.raises(TypeError, match="of the user's own making"):
        tx.update(params, tx.init(params), params, **extra)


def test_seeds_and_dtypes_may_be_traced():
    tx = optax.inject_hyperparams(gradtx.sgd)(learning_rate=0.1, accumulator_dtype=jnp.float32)
    assert tx.init(jnp.ones(2)).inner_state[0] is not None

    def start(seed):
        return gradtx.sharpness(seed=seed).init(jnp.ones(2))

    jax.eval_shape(start, jnp.int32(3))
