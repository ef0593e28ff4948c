"""Distance, path length and straightness are right for known paths."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

from .runs import quadratic, trained


def followed(steps, dtype=jnp.float32, start=None, **options):
    """Returns the readings [steps] of a given path."""
    tx = gradtx.trajectory(**options)
    start = jnp.zeros(steps.shape[1], dtype) if start is None else start

    def step(carry, u):
        params, state = carry
        _, state = tx.update(u, state, params)
        return (params + u, state), gradtx.readings(state)

    found = jax.jit(lambda steps: jax.lax.scan(step, (start, tx.init(start)), steps)[1])(jnp.asarray(steps, dtype))
    return {name.split("/")[1]: np.asarray(value) for name, value in found.items()}


@pytest.mark.parametrize("every", [1, 4])
def test_gradient_descent_on_an_isotropic_bowl_has_straightness_1(every):
    value_fn, _ = quadratic(2.0, 2.0, 2.0)
    tx = optax.chain(gradtx.sgd(0.05), gradtx.trajectory(every=every))
    found, _ = trained(tx, value_fn, jnp.array([3.0, -4.0, 12.0]), 41)
    np.testing.assert_allclose(found["trajectory/straightness"], 1.0, atol=1e-6)
    np.testing.assert_allclose(found["trajectory/distance"][-1], 13 * (1 - 0.9**41), rtol=1e-5)


def test_distance_and_path_length_are_right_for_a_path_that_turns_back_halfway():
    found = followed(np.array([[4.0, 0.0], [-2.0, 0.0], [0.0, 0.0]]))
    np.testing.assert_allclose(found["distance"], [4, 2, 2])
    np.testing.assert_allclose(found["path_length"], [4, 6, 6])
    np.testing.assert_allclose(found["straightness"], [1, 1 / 3, 1 / 3], rtol=1e-6)


def test_the_straightness_of_a_random_walk_of_k_steps_is_one_over_the_root_of_k():
    steps = np.random.default_rng(0).normal(size=(400, 200))
    found = followed(steps)
    k = np.arange(1, 401)
    np.testing.assert_allclose(found["straightness"][20:], 1 / np.sqrt(k)[20:], rtol=0.15)


def test_the_path_between_two_measurements_counts_as_a_straight_line():
    steps = np.random.default_rng(1).normal(size=(10, 3))
    found = followed(steps, every=4)
    at = np.cumsum(steps, axis=0)[[0, 4, 8]]  # after the measured steps 0, 4, 8
    length = np.cumsum(np.linalg.norm(np.diff(at, axis=0, prepend=0), axis=1))
    np.testing.assert_allclose(found["path_length"], np.repeat(length, [4, 4, 2]), rtol=1e-5)
    np.testing.assert_allclose(found["distance"], np.repeat(np.linalg.norm(at, axis=1), [4, 4, 2]), rtol=1e-5)


def test_short_steps_far_from_the_origin_are_measured_precisely():
    start = jnp.full(3, 1000.0)
    found = followed(np.array([[1e-6, 2e-6, 2e-6]]), start=start)
    np.testing.assert_allclose(found["distance"], 3e-6, rtol=1e-5)
    np.testing.assert_allclose(found["straightness"], 1, rtol=1e-5)


@pytest.mark.parametrize("every", [1, 100])
def test_steps_with_measure_false_still_count_in_the_path(every):
    tx = gradtx.trajectory(every=every)
    params, state = jnp.zeros(1), tx.init(jnp.zeros(1))
    for measure in (True, False, False, True):
        _, state = tx.update(jnp.ones(1), state, params, measure=measure)
        params = params + 1
    found = gradtx.readings(state)
    np.testing.assert_allclose([found["trajectory/distance"], found["trajectory/path_length"]], [4, 4])
