"""Consecutive gradients are compared by their cosine, Pflug's sum and the agreement of their signs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

from .runs import quadratic, trained, watched


@pytest.mark.parametrize("rate", [0.2, 0.9, 1.1, 1.9])
def test_the_cosine_on_a_quadratic_is_the_sign_of_one_minus_rate_times_curvature(rate):
    value_fn, _ = quadratic(1.0)
    found, _ = trained(optax.chain(gradtx.gradient_alignment(), gradtx.sgd(rate)), value_fn, jnp.ones(1), 12)
    assert np.isnan(found["gradient_alignment/cosine"][0])
    np.testing.assert_allclose(found["gradient_alignment/cosine"][1:], np.sign(1 - rate), rtol=1e-6)


def test_pflugs_sum_rises_during_descent_and_falls_at_stationarity():
    value_fn, _ = quadratic(1.0, 0.5)
    noise = jax.random.normal(jax.random.key(0), (4000, 2))
    tx = optax.chain(gradtx.gradient_alignment(), gradtx.sgd(0.1))
    found, path = trained(tx, value_fn, jnp.array([100.0, 100.0]), 4000, noise)
    s = np.asarray(found["gradient_alignment/pflug"])
    arrived = int(np.argmax(np.linalg.norm(path, axis=1) < 2))
    assert arrived > 30
    assert np.all(np.diff(s[1 : arrived // 2]) > 0)
    assert s[-1] < s[2000] < s[arrived + 200]


def test_pflugs_sum_with_a_burn_in_is_negative_at_stationarity():
    value_fn, _ = quadratic(1.0, 0.5)
    noise = jax.random.normal(jax.random.key(0), (4000, 2))
    tx = optax.chain(gradtx.gradient_alignment(burn_in=300), gradtx.sgd(0.1))
    found, _ = trained(tx, value_fn, jnp.array([100.0, 100.0]), 4000, noise)
    s = np.asarray(found["gradient_alignment/pflug"])
    assert np.isnan(s[:301]).all()
    assert s[-1] < 0


def test_all_three_readings_match_numpy_on_a_tree_of_two_leaves():
    g = np.random.default_rng(0).normal(size=(8, 7)).astype(np.float32)
    g[3, :4] = 0
    found = watched(
        gradtx.gradient_alignment(), {"a": jnp.asarray(g[:, :3]), "b": jnp.asarray(g[:, 3:].reshape(8, 2, 2))}
    )
    products = np.sum(g[1:] * g[:-1], axis=1)
    lengths = np.linalg.norm(g, axis=1)
    np.testing.assert_allclose(found["gradient_alignment/cosine"][1:], products / lengths[1:] / lengths[:-1], rtol=1e-4)
    np.testing.assert_allclose(found["gradient_alignment/pflug"][1:], np.cumsum(products), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        found["gradient_alignment/sign_agreement"][1:], np.mean(g[1:] * g[:-1] > 0, axis=1), rtol=1e-6
    )


def test_the_cosine_of_gradients_of_1e30_and_of_1e_minus_30_is_right():
    g = jnp.stack([1e30 * jnp.array([1.0, 1.0]), 1e-30 * jnp.array([1.0, 0.0])])
    np.testing.assert_allclose(
        watched(gradtx.gradient_alignment(), g)["gradient_alignment/cosine"][1], 0.5**0.5, rtol=1e-6
    )


def test_with_every_the_gradient_is_compared_with_that_of_the_step_before():
    g = jnp.array([1.0, 2.0, -3.0, 4.0, 5.0, 6.0, 7.0])[:, None]
    found = watched(gradtx.gradient_alignment(every=3), g)
    np.testing.assert_array_equal(found["gradient_alignment/cosine"], [np.nan] * 3 + [-1.0] * 3 + [1.0])
    np.testing.assert_array_equal(found["gradient_alignment/pflug"], [np.nan] * 3 + [-12.0] * 3 + [30.0])


def test_the_cosine_is_nan_until_the_host_has_measured_two_steps_in_a_row():
    tx = gradtx.gradient_alignment()
    g = jnp.array([1.0, 2.0])
    state, seen = tx.init(g), []
    for measure in (True, False, True, True):
        _, state = tx.update(g, state, measure=measure)
        seen.append(float(gradtx.readings(state)["gradient_alignment/cosine"]))
    np.testing.assert_allclose(seen, [np.nan, np.nan, np.nan, 1.0], rtol=1e-6)
