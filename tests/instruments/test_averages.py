"""The running averages and the trend match weighted formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.instruments.averages import averaged, means_of, no_average, no_trend, slope_of, trend_with

VALUES = np.random.default_rng(0).normal(size=(60, 2))


def averages(values, decay):
    def step(state, pair):
        state = averaged(state, decay, *pair)
        return state, state

    return jax.lax.scan(step, no_average(values.shape[1]), jnp.asarray(values, jnp.float32))[1]


def trend(times, values, decay):
    elapsed = jnp.asarray(np.diff(times, prepend=times[0] - 1), jnp.int32)

    def step(state, pair):
        return trend_with(state, decay, *pair), None

    return jax.lax.scan(step, no_trend(), (elapsed, jnp.asarray(values, jnp.float32)))[0]


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.97])
def test_the_average_with_a_decay_is_the_exponentially_weighted_mean(decay):
    weights = decay ** np.arange(59, -1, -1.0)
    np.testing.assert_allclose(
        means_of(averages(VALUES, decay)[-1]), weights @ VALUES / weights.sum(), rtol=1e-4, atol=1e-6
    )


def test_the_weights_of_the_average_without_a_decay_grow_as_the_eighth_power():
    n = np.arange(1, 61.0)
    weights = np.array([np.prod([m + i for i in range(8)]) for m in n])  # m (m + 1) ... (m + 7), about m⁸
    np.testing.assert_allclose(
        means_of(averages(VALUES, None)[-1]), weights @ VALUES / weights.sum(), rtol=1e-4, atol=1e-6
    )


def test_the_average_without_a_decay_forgets_the_start_in_short_and_long_runs():
    for steps in (100, 1000):
        started_badly = np.where(np.arange(steps) < steps // 2, 1e3, 1.0)[:, None]
        means = np.asarray(means_of(averages(started_badly, None)))[:, 0]
        assert means[steps // 2 - 1] == pytest.approx(1e3)
        assert 1 < means[-1] < 4  # 1 + 999 · 2⁻⁹ in the long run
        assert np.mean(started_badly) > 500


def test_the_average_is_nan_before_the_first_value_and_ignores_nonfinite_values():
    assert np.isnan(means_of(no_average(2))).all()
    values = np.array([[1.0, 2.0], [np.nan, 5.0], [np.inf, 5.0], [3.0, 4.0]])
    np.testing.assert_allclose(
        means_of(averages(values, 0.5)[-1]), [(0.5 * 1 + 3) / 1.5, (0.5 * 2 + 4) / 1.5], rtol=1e-6
    )


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.98])
@pytest.mark.parametrize("gap", [1, 16])
def test_the_trend_is_the_weighted_least_squares_line_with_its_standard_error(decay, gap):
    times, y = 5 + gap * np.arange(40), VALUES[:40, 0] + 100
    w = decay ** np.arange(39, -1, -1.0)
    design = np.stack([np.ones(40), times], axis=1)
    inverse = np.linalg.inv(design.T * w @ design)
    fit = inverse @ (design.T * w) @ y
    left = y - design @ fit
    freedom = w.sum() - np.trace(inverse @ (design.T * w**2 @ design))
    covariance = w @ left**2 / freedom * inverse @ (design.T * w**2 @ design) @ inverse
    slope, error = slope_of(trend(times, y, decay))
    np.testing.assert_allclose([slope, error], [fit[1], np.sqrt(covariance[1, 1])], rtol=2e-3)


def test_equal_weights_give_the_standard_error_of_least_squares():
    y = VALUES[:10, 0]
    t = np.arange(10.0)
    slope, error = slope_of(trend(np.arange(10), y, 0.9999999))
    fit, covariance = np.polyfit(t, y, 1, cov=True)
    np.testing.assert_allclose([slope, error], [fit[0], np.sqrt(covariance[0, 0])], rtol=1e-3)


def test_the_slope_needs_two_values_and_its_standard_error_three():
    for n, known in ((0, (False, False)), (1, (False, False)), (2, (True, False)), (3, (True, True))):
        found = slope_of(trend(np.arange(n), VALUES[:n, 0], 0.9)) if n else slope_of(no_trend())
        assert tuple(np.isfinite(found)) == known
