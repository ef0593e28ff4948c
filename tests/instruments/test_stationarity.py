"""The fluctuation-dissipation ratio is 1 at stationarity and not before."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

from .runs import quadratic, trained

NOISE = jax.random.normal(jax.random.key(0), (20_000, 2)) * jnp.array([1.0, 3.0])


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_ratio_on_a_noisy_quadratic_is_large_during_descent_and_1_at_stationarity(momentum):
    value_fn, _ = quadratic(1.0, 0.3)
    tx = optax.chain(gradtx.stationarity(0.1, momentum), gradtx.sgd(0.1, momentum))
    found, _ = trained(tx, value_fn, jnp.array([300.0, 300.0]), len(NOISE), NOISE)
    ratio = np.asarray(found["stationarity/ratio"])
    assert ratio[0] > 5
    assert ratio[-1] == pytest.approx(1, abs=0.06)
    assert np.all(np.abs(ratio[10_000:] - 1) < 0.25)


def test_the_ratio_is_wrong_if_the_momentum_is_not_given():
    value_fn, _ = quadratic(1.0, 0.3)
    tx = optax.chain(gradtx.stationarity(0.1), gradtx.sgd(0.1, 0.9))
    found, _ = trained(tx, value_fn, jnp.zeros(2), len(NOISE), NOISE)
    assert abs(found["stationarity/ratio"][-1] - 1) > 0.5


def test_the_ratio_without_noise_is_two_over_rate_times_curvature():
    value_fn, _ = quadratic(2.0)
    found, _ = trained(optax.chain(gradtx.stationarity(0.1), gradtx.sgd(0.1)), value_fn, jnp.ones(1), 10)
    np.testing.assert_allclose(found["stationarity/ratio"], 2 / (0.1 * 2), rtol=1e-5)


def test_a_step_with_measure_false_still_updates_the_velocity():
    tx = gradtx.stationarity(0.5, 0.5)
    x, state = jnp.array([2.0]), tx.init(jnp.zeros(1))
    for measure in (True, False, True):
        _, state = tx.update(jnp.array([1.0]), state, x, measure=measure)
    np.testing.assert_allclose(state.stationarity_velocity, [-0.5 * (1 + 0.5 + 0.25)])
