"""These tests of hyper-parameters go beyond the tests of the contract."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx._core.hyperparameters import BELOW_ONE, NON_NEGATIVE, hyperparameter


def test_messages_name_the_transformation_the_argument_the_rule_and_the_value():
    with pytest.raises(ValueError, match=r"^rmsprop: decay must be in \[0, 1\), got 1\.5\.$"):
        gradtx.rmsprop(0.1, decay=1.5)
    with pytest.raises(
        TypeError,
        match=r"^sgd: learning_rate must be a number, a 0-d array or a function of the step, got '0\.1' \(str\)\.$",
    ):
        gradtx.sgd("0.1")


def test_a_half_precision_decay_rounded_to_one_becomes_the_largest_number_below_one():
    for dtype, below in ((jnp.bfloat16, 1 - 2**-8), (jnp.float16, 1 - 2**-11)):
        decay = hyperparameter("adam", "b2", jnp.asarray(0.99999, dtype), BELOW_ONE)
        assert float(decay(jnp.int32(0))) == below
    with pytest.raises(ValueError, match="must be in"):
        hyperparameter("adam", "b2", jnp.float32(1.0), BELOW_ONE)


def test_a_schedule_that_returns_a_vector_is_refused():
    schedule = hyperparameter("sgd", "learning_rate", lambda count: jnp.ones(3), NON_NEGATIVE)
    with pytest.raises(
        TypeError, match=r"sgd: learning_rate, as a function of the step, must return a scalar, got shape \(3,\)"
    ):
        schedule(jnp.int32(0))


def test_the_range_of_a_traced_value_is_not_checked():
    assert float(jax.jit(lambda v: hyperparameter("sgd", "momentum", v, BELOW_ONE)(jnp.int32(0)))(2.0)) == 2.0


def test_the_learning_rate_and_the_momentum_may_be_zero():
    params = jnp.ones(2)
    tx = gradtx.sgd(0, momentum=0)
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_array_equal(np.abs(updates), 0.0)


@pytest.mark.parametrize("recipe", [gradtx.sgd, gradtx.adam, gradtx.scale_by_learning_rate, gradtx.delta_bar_delta])
def test_the_message_for_a_negative_learning_rate_says_how_to_maximise(recipe):
    with pytest.raises(ValueError, match=r"got -0\.1\. To maximise, give the gradients of the negative loss\.$"):
        recipe(-0.1)


def test_the_message_for_a_negative_schedule_says_how_to_maximise():
    for make in (lambda: gradtx.inverse_time_decay(-0.1, 10), lambda: gradtx.linear_decay(0.1, -0.1, 10)):
        with pytest.raises(ValueError, match=r"got -0\.1\. To maximise, give the gradients of the negative loss\.$"):
            make()


@pytest.mark.parametrize("rates", [{"w": 0.1}, [0.1, 0.2], {"w": lambda count: 0.1}, np.ones(2), jnp.ones(2)])
def test_the_message_for_a_tree_of_learning_rates_recommends_partition(rates):
    with pytest.raises(TypeError, match=r"^sgd: learning_rate must be a number, .* with optax\.partition\.$"):
        gradtx.sgd(rates)
