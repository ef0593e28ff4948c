"""The slope of the loss and its standard error are right."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

from .runs import trained, watched


def slopes(losses, **options):
    losses = jnp.asarray(losses, jnp.float32)
    found = watched(gradtx.plateau(**options), jnp.zeros((len(losses), 1)), value=losses)
    return np.asarray(found["plateau/slope"]), np.asarray(found["plateau/slope_standard_error"])


@pytest.mark.parametrize("every", [1, 5])
def test_the_slope_of_a_straight_line_is_exact_and_its_error_is_zero(every):
    slope, error = slopes(3.0 - 0.25 * np.arange(50), every=every)
    np.testing.assert_allclose(slope[3 * every :], -0.25, rtol=1e-4)
    np.testing.assert_allclose(error[3 * every :], 0, atol=1e-3)


@pytest.mark.parametrize("true", [0.0, -0.02])
def test_two_standard_errors_cover_the_true_slope_in_19_of_20_runs(true):
    noise = jax.random.normal(jax.random.key(0), (300, 400))
    tx = gradtx.plateau()

    def run(losses):
        def step(state, loss):
            return tx.update(jnp.zeros(1), state, value=loss)[1], None

        found = gradtx.readings(jax.lax.scan(step, tx.init(jnp.zeros(1)), losses)[0])
        return found["plateau/slope"], found["plateau/slope_standard_error"]

    slope, error = jax.jit(jax.vmap(run))(5 + true * jnp.arange(400) + noise)
    covered = np.mean(np.abs(slope - true) < 2 * error)
    assert 0.91 < covered < 0.985
    np.testing.assert_allclose(np.std(slope), np.mean(error), rtol=0.15)


def test_the_slope_forgets_a_fall_that_has_ended():
    slope, error = slopes(np.maximum(1.0, 5 - 0.1 * np.arange(1200)) + 0.1 * np.random.default_rng(0).normal(size=1200))
    assert slope[30] < -2 * error[30]
    assert abs(slope[-1]) < 3 * error[-1]


def test_the_slope_on_x_to_the_fourth_follows_the_falling_loss():
    tx = optax.chain(gradtx.plateau(decay=0.9), gradtx.sgd(0.05))
    found, path = trained(tx, lambda x: jnp.sum(x**4), jnp.ones(1), 400)
    losses = np.asarray(path[:, 0], np.float64) ** 4
    slope = np.asarray(found["plateau/slope"])
    assert np.all(slope[2:] < 0)
    np.testing.assert_allclose(slope[200:], np.gradient(losses)[190:390], rtol=0.3)
    assert abs(slope[-1]) < 1e-4 * abs(slope[2])


def test_nonfinite_losses_are_left_out_of_the_slope():
    losses = 4 - 0.5 * np.arange(10)
    losses[[4, 6]] = np.nan, np.inf
    np.testing.assert_allclose(slopes(losses)[0][1:], -0.5, rtol=1e-4)


def test_a_missing_value_and_a_value_that_is_not_a_scalar_are_refused_by_name():
    tx = gradtx.plateau()
    with pytest.raises(ValueError, match=r"plateau needs the loss's value: call update.*value=value"):
        tx.update(jnp.zeros(1), tx.init(jnp.zeros(1)))
    with pytest.raises(ValueError, match=r"plateau: value must be a scalar, got shape \(3,\)"):
        tx.update(jnp.zeros(1), tx.init(jnp.zeros(1)), value=jnp.zeros(3))
