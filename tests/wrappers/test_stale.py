"""Delayed gradients are the right ones in a loop and in a scan. On average, delays act like momentum."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.comparing import assert_same

GRADIENTS = jax.random.normal(jax.random.key(0), (12, 3))


def updates_of(tx, gradients, params=None, compiled=False):
    params = jnp.zeros(gradients.shape[1:]) if params is None else params
    state, seen = tx.init(params), []
    update = jax.jit(tx.update) if compiled else tx.update
    for g in gradients:
        updates, state = update(g, state, params)
        seen.append(updates)
    return np.stack(seen), state


@pytest.mark.parametrize("delay", [0, 1, 3])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_fixed_delay_equals_the_method_on_shifted_gradients(delay, compiled):
    inner = gradtx.rmsprop(lambda k: 0.1 / (k + 1), momentum=0.9)
    late, state = updates_of(gradtx.stale(inner, delay), GRADIENTS, compiled=compiled)
    expected, expected_state = updates_of(inner, GRADIENTS[: 12 - delay], compiled=compiled)
    np.testing.assert_array_equal(late[:delay], 0)
    np.testing.assert_array_equal(late[delay:], expected)
    assert_same(state.stale_state, expected_state)


def test_a_drawn_delay_uses_the_gradient_of_that_age():
    tx = gradtx.stale(gradtx.sgd(1.0), (0.2, 0.3, 0.1, 0.4), key=jax.random.key(3))

    def step(state, g):
        updates, state = tx.update(g, state)
        return state, (updates, state.last_delay)

    gradients = jax.random.normal(jax.random.key(1), (40, 3))
    _, (updates, delays) = jax.lax.scan(step, tx.init(jnp.zeros(3)), gradients)
    assert set(delays.tolist()) == {0, 1, 2, 3}
    for k, τ in enumerate(delays.tolist()):
        expected = -gradients[k - τ] if τ <= k else jnp.zeros(3)
        np.testing.assert_array_equal(updates[k], expected)
    looped, _ = updates_of(tx, gradients[:8])
    np.testing.assert_array_equal(looped, updates[:8])


def test_drawn_delays_have_the_given_probabilities():
    probabilities = np.array([0.5, 0.0, 0.2, 0.3])
    tx = gradtx.stale(gradtx.sgd(1.0), probabilities, key=jax.random.key(0))
    state = tx.init(jnp.zeros(()))
    n = 4000
    _, delays = jax.lax.scan(lambda s, g: (lambda t: (t, t.last_delay))(tx.update(g, s)[1]), state, jnp.zeros(n))
    counts = np.bincount(np.asarray(delays), minlength=4)
    np.testing.assert_allclose(counts / n, probabilities, atol=4 * np.sqrt(0.25 / n))
    assert counts[1] == 0


def test_delayed_half_precision_gradients_are_unchanged():
    gradients = GRADIENTS.astype(jnp.bfloat16)
    late, _ = updates_of(gradtx.stale(optax.identity(), 2), gradients, jnp.zeros(3, jnp.bfloat16))
    np.testing.assert_array_equal(late[2:], gradients[:-2])


def worker_delays(workers, longest):
    """Probabilities of the delays that M workers make: P(τ = i) ∝ (1 - 1/M)^i, cut off and normalised."""
    weights = (1 - 1 / workers) ** np.arange(longest + 1)
    return weights / weights.sum()


def best_momentum(workers, momenta, rates, *, curvatures=(1.0, 0.01), steps=80, seeds=16):
    """The momentum that ends lowest on a quadratic, at its own best rate, under the delays of M workers.

    The loss is the geometric mean over sequences of delays. The gradients are exact, so staleness is the only noise.
    """
    c = jnp.array(curvatures)

    def final_loss(momentum, rate, key):
        tx = gradtx.stale(gradtx.sgd(rate, momentum), worker_delays(workers, 5 * (workers - 1)), key=key)

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(c * params, state, params)
            return (optax.apply_updates(params, updates), state), None

        start = jnp.ones(2)
        (params, _), _ = jax.lax.scan(step, (start, tx.init(start)), length=steps)
        loss = 0.5 * jnp.sum(c * params**2)
        return jnp.log(jnp.where(jnp.isfinite(loss), loss, jnp.finfo(loss.dtype).max) + 1e-30)

    over_seeds = jax.vmap(final_loss, in_axes=(None, None, 0))
    over_rates = jax.vmap(over_seeds, in_axes=(None, 0, None))
    over_all = jax.jit(jax.vmap(over_rates, in_axes=(0, None, None)))
    losses = over_all(jnp.asarray(momenta), jnp.asarray(rates), jax.random.split(jax.random.key(0), seeds))
    return momenta[int(np.asarray(losses).mean(axis=2).min(axis=1).argmin())]


def test_the_best_momentum_falls_as_workers_join():
    alone, two, four = (best_momentum(n, np.linspace(0, 0.8, 5), np.geomspace(0.1, 3.0, 8)) for n in (1, 2, 4))
    assert alone >= 0.6
    assert two <= alone - 0.3
    assert four <= two


@pytest.mark.parametrize("workers", [2, 4])
def test_the_mean_path_with_geometric_delays_is_that_of_momentum(workers):
    """By Mitliagkas et al. 2016 the mean path of SGD with geometric delays is heavy ball with momentum 1 - 1/M."""
    curvatures, rate, steps, runs = jnp.array([1.0, 0.3]), 0.4, 25, 4000
    probabilities = worker_delays(workers, 16 * workers)  # the tail that is left out weighs less than 1e-5

    def path(tx):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(curvatures * params, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        start = jnp.ones(2)
        return jax.lax.scan(step, (start, tx.init(start)), length=steps)[1]

    keys = jax.random.split(jax.random.key(0), runs)
    late = jax.jit(jax.vmap(lambda key: path(gradtx.stale(gradtx.sgd(rate), probabilities, key=key))))(keys)

    def standard_errors_off(momentum):
        expected = path(gradtx.sgd(rate * (1 - momentum), momentum))
        off = np.abs(late.mean(axis=0) - expected) / (late.std(axis=0) / np.sqrt(runs) + 1e-6)
        return off.max()

    momentum = 1 - 1 / workers
    assert standard_errors_off(momentum) < 5
    assert min(standard_errors_off(other) for other in (momentum - 0.1, momentum + 0.1)) > 10


def test_bad_arguments_are_refused_by_name():
    key = jax.random.key(0)
    for arguments, message in (
        ({"delay": -1}, "delay must be at least 0, got -1"),
        ({"delay": 2, "key": key}, "a key is not used if the delay is fixed"),
        ({"delay": (0.5, 0.4), "key": key}, "must be >= 0 and sum to 1"),
        ({"delay": (1.5, -0.5), "key": key}, "must be >= 0 and sum to 1"),
        ({"delay": (0.5, 0.5)}, "delays that are drawn need a key"),
    ):
        with pytest.raises(ValueError, match=f"^stale: .*{message}"):
            gradtx.stale(gradtx.sgd(0.1), **arguments)
    for wrong in (1.5, "1", [[0.5], [0.5]], True):
        with pytest.raises(TypeError, match="delay must be an integer or a list of probabilities"):
            gradtx.stale(gradtx.sgd(0.1), wrong)
    with pytest.raises(TypeError, match=r"stale: key must be a JAX random key, .* got 3"):
        gradtx.stale(gradtx.sgd(0.1), (0.5, 0.5), key=3)
    with pytest.raises(TypeError, match="tx must be a gradient transformation"):
        gradtx.stale(lambda g: g, 2)
