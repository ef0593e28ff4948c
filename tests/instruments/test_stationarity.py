"""The balance of fluctuation and dissipation holds at stationarity, and not on the way there."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

from .runs import quadratic, trained

NOISE = jax.random.normal(jax.random.key(0), (20_000, 2)) * jnp.array([1.0, 3.0])


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_ratio_is_1_on_a_noisy_quadratic_once_it_hovers_and_far_from_1_on_the_way(momentum):
    value_fn, _ = quadratic(1.0, 0.3)
    tx = optax.chain(gradtx.stationarity(0.1, momentum), gradtx.sgd(0.1, momentum))
    found, _ = trained(tx, value_fn, jnp.array([300.0, 300.0]), len(NOISE), NOISE)
    ratio = np.asarray(found["stationarity/ratio"])
    assert ratio[0] > 5
    assert ratio[-1] == pytest.approx(1, abs=0.06)
    assert np.all(np.abs(ratio[10_000:] - 1) < 0.25)


def test_the_momentum_counts_without_it_the_ratio_is_another():
    value_fn, _ = quadratic(1.0, 0.3)
    tx = optax.chain(gradtx.stationarity(0.1), gradtx.sgd(0.1, 0.9))
    found, _ = trained(tx, value_fn, jnp.zeros(2), len(NOISE), NOISE)
    assert abs(found["stationarity/ratio"][-1] - 1) > 0.5


def test_without_noise_it_is_two_over_rate_times_curvature():
    value_fn, _ = quadratic(2.0)
    found, _ = trained(optax.chain(gradtx.stationarity(0.1), gradtx.sgd(0.1)), value_fn, jnp.ones(1), 10)
    np.testing.assert_allclose(found["stationarity/ratio"], 2 / (0.1 * 2), rtol=1e-5)


def test_a_step_that_is_not_to_be_measured_still_moves_the_velocity():
    tx = gradtx.stationarity(0.5, 0.5)
    x, state = jnp.array([2.0]), tx.init(jnp.zeros(1))
    for measure in (True, False, True):
        _, state = tx.update(jnp.array([1.0]), state, x, measure=measure)
    np.testing.assert_allclose(state.stationarity_velocity, [-0.5 * (1 + 0.5 + 0.25)])
