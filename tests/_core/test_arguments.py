"""Every function refuses an argument of the wrong kind or out of range, and its message names the argument."""

import re

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
    "a range test without a function": (
        lambda: gradtx.lr_range_test(3, X),
        TypeError,
        "lr_range_test: value_fn must be a function of the parameters, got 3",
    ),
    "a range test without a method": (
        lambda: gradtx.lr_range_test(total, X, 0.1),
        TypeError,
        r"lr_range_test: make_tx must be a function of the learning rate, got 0\.1",
    ),
    "gradients through time without a function": (
        lambda: gradtx.temporal_gradients(3, X, X),
        TypeError,
        "temporal_gradients: value_fn must be a function of the parameters and the probes, got 3",
    ),
    "a curvature without a function": (
        lambda: updated(gradtx.curvature_ratio(0.1), value_fn=3.0),
        TypeError,
        r"curvature_ratio: value_fn must be a function of the parameters, got 3\.0",
    ),
    "gradient tests without a function": (
        lambda: updated(gradtx.gradient_tests(), losses_fn=X),
        TypeError,
        "gradient_tests: losses_fn must be a function of the parameters, got Array",
    ),
    "an array instead of the tree of init": (
        lambda: gradtx.sgd(0.1, 0.9).update(X, gradtx.sgd(0.1, 0.9).init({"w": X})),
        ValueError,
        "^sgd: the gradients are not the tree that init saw: a leaf without a name is in the gradients only",
    ),
    "parameters instead of a state": (
        lambda: gradtx.sgd(0.1, 0.9).update(X, X, gradtx.sgd(0.1, 0.9).init(X)),
        TypeError,
        r"^sgd: the state is not one that its init made: call update\(updates, state, params\)",
    ),
    "None instead of a state": (
        lambda: gradtx.scale_by_rms().update(X, None, X),
        TypeError,
        "^scale_by_rms: the state is not one that its init made",
    ),
    "another method's state": (
        lambda: gradtx.adam(0.1).update(X, gradtx.rmsprop(0.1).init(X), X),
        TypeError,
        "^adam: the state is not one that its init made",
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
    "a seed that is a string": (
        lambda: gradtx.sharpness(seed="a"),
        TypeError,
        "sharpness: seed must be an integer, got 'a'",
    ),
    "a fractional seed of the gradient tests": (
        lambda: gradtx.gradient_tests(seed=1.5),
        TypeError,
        r"gradient_tests: seed must be an integer, got 1\.5",
    ),
    "a fractional seed of the noise scale": (
        lambda: gradtx.gradient_noise_scale(seed=1.5),
        TypeError,
        r"gradient_noise_scale: seed must be an integer, got 1\.5",
    ),
    "the velocity in an unknown dtype": (
        lambda: gradtx.sgd(0.1, 0.9, accumulator_dtype="float33"),
        TypeError,
        "sgd: accumulator_dtype must be a floating dtype or None, got 'float33'",
    ),
    "the look-ahead in integers": (
        lambda: gradtx.nesterov(0.9, accumulator_dtype=jnp.int32),
        TypeError,
        "nesterov: accumulator_dtype must be a floating dtype or None, got .*int32",
    ),
    "squares in integers": (
        lambda: gradtx.scale_by_adagrad(accumulator_dtype=jnp.int32),
        TypeError,
        "scale_by_adagrad: accumulator_dtype must be a floating dtype or None, got .*int32",
    ),
    "mean squares in booleans": (
        lambda: gradtx.scale_by_rms(accumulator_dtype=bool),
        TypeError,
        "scale_by_rms: accumulator_dtype must be a floating dtype or None, got .*bool",
    ),
    "integers as the only parameter": (
        lambda: gradtx.sgd(0.1).init(jnp.arange(3)),
        TypeError,
        "^sgd: params must be of a floating dtype, got int32: take it out",
    ),
    "a string among the parameters": (
        lambda: gradtx.sgd(0.1).init({"w": X, "name": "float32"}),  # JAX reads this string as a dtype
        TypeError,
        r"^sgd: params\['name'\] must be an array, got str",
    ),
    "a dtype among the parameters": (
        lambda: gradtx.sgd(0.1).init({"w": X, "dtype": np.float32}),
        TypeError,
        r"^sgd: params\['dtype'\] must be an array, got type",
    ),
    "parameters with another tree than the look-ahead": (
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
def test_a_wrong_call_is_refused_with_the_name_of_the_argument(name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dtype", [None, jnp.float32, np.float32, "bfloat16", jnp.dtype("float16")])
def test_accumulators_have_the_floating_dtype_that_was_asked_for(dtype):
    (velocity,) = jax.tree.leaves(gradtx.sgd(0.1, 0.9, accumulator_dtype=dtype).init(X))
    assert velocity.dtype == (X.dtype if dtype is None else jnp.dtype(dtype))


def test_a_real_parameter_keeps_a_real_accumulator_if_a_complex_one_is_asked_for():
    (velocity,) = jax.tree.leaves(gradtx.sgd(0.1, 0.9, accumulator_dtype=jnp.complex64).init(X))
    assert velocity.dtype == jnp.float32


def test_inject_hyperparams_accepts_accumulator_dtype():
    tx = optax.inject_hyperparams(gradtx.sgd)(0.1, 0.9, accumulator_dtype=jnp.float32)
    assert jax.tree.leaves(tx.init(X).inner_state)[1].dtype == jnp.float32


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
def test_a_wrong_argument_of_a_constructor_is_refused_by_name(function, arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        function(**arguments)


@pytest.mark.parametrize("leaf", ["float32", float, object()])
@pytest.mark.parametrize("tx", [gradtx.sgd(0.1), gradtx.clip_by_norm(1.0), gradtx.gradient_norm()])
def test_a_leaf_that_is_not_an_array_is_refused_by_name(tx, leaf):
    with pytest.raises(TypeError, match=r"params\['w'\] must be an array, got \w+\."):
        tx.init({"w": leaf})


def test_clip_by_norm_refuses_another_tree_if_params_are_not_given():
    tx = gradtx.clip_by_norm(1.0)
    with pytest.raises(ValueError, match="clip_by_norm: the gradients have 2 leaves, but init saw 1: call init with"):
        tx.update((jnp.ones(2), jnp.ones(2)), tx.init(jnp.ones(2)))


def test_early_stopping_refuses_a_metric_per_example():
    patience = gradtx.early_stopping(3)
    with pytest.raises(ValueError, match=r"metric must be a scalar, got shape \(3,\)"):
        patience.update(jnp.ones(3), patience.init())


def test_diagnose_refuses_complex_numbers():
    with pytest.raises(TypeError, match="diagnose: loss must be an array of numbers"):
        gradtx.diagnose({"loss": np.ones(5) * 1j})


@pytest.mark.parametrize("tx", [gradtx.sharpness(), gradtx.curvature_ratio(0.1), gradtx.gradient_tests()])
def test_an_error_raised_in_the_loss_reaches_the_caller(tx):
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
