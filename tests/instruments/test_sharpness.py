"""λ_max is the largest eigenvalue, not the largest in magnitude. Descent diverges if stability is above 1."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

from .runs import mean, net, opaque, quadratic, rotation, trained


def measured(tx, value_fn, params, **extra):
    extra = extra or {"value_fn": value_fn}
    return jax.jit(lambda p: gradtx.readings(tx.update(p, tx.init(p), p, **extra)[1]))(params)


@pytest.mark.parametrize(
    "spectrum", [(1.0, -3.0, 2.0), (3.0, -3.0, 1.0), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (-1.0, -2.0, -3.0)], ids=str
)
def test_lambda_max_is_the_largest_eigenvalue_and_not_the_largest_in_magnitude(spectrum):
    value_fn, _ = quadratic(*spectrum, rotation=rotation(3))
    tx = gradtx.sharpness(0.5)
    step = jax.jit(lambda state, x: tx.update(x, state, x, value_fn=value_fn)[1])
    state = tx.init(jnp.ones(3))
    for _ in range(12):  # the first step uses Lanczos, later ones start from the stored vector
        state = step(state, jnp.ones(3))
        found = gradtx.readings(state)
        np.testing.assert_allclose(found["sharpness/lambda_max"], max(spectrum), atol=2e-5)
        np.testing.assert_allclose(found["sharpness/stability"], 0.5 * max(spectrum) / 2, atol=1e-5)


@pytest.mark.parametrize("unit", [1e-24, 1e24], ids=str)
def test_lambda_max_scales_with_the_unit_of_the_loss(unit):
    value_fn, _ = quadratic(1.0, -3.0, 2.0, rotation=rotation(3))
    tx, x = gradtx.sharpness(), jnp.ones(3)
    state = tx.init(x)
    for _ in range(3):
        _, state = tx.update(x, state, x, value_fn=lambda p: unit * value_fn(p))
        np.testing.assert_allclose(gradtx.readings(state)["sharpness/lambda_max"], 2 * unit, rtol=1e-5)


def test_lambda_max_follows_a_quadratic_that_turns_and_stretches():
    tx = gradtx.sharpness()

    @jax.jit
    def run():
        def step(state, t):
            c, s = jnp.cos(0.03 * t), jnp.sin(0.03 * t)
            turn = jnp.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
            h = turn @ jnp.diag(jnp.array([5.0 + 0.02 * t, 1.0, -4.0])) @ turn.T
            _, state = tx.update(jnp.ones(3), state, jnp.ones(3), value_fn=lambda x: 0.5 * x @ h @ x)
            return state, gradtx.readings(state)["sharpness/lambda_max"]

        return jax.lax.scan(step, tx.init(jnp.ones(3)), jnp.arange(200.0))[1]

    np.testing.assert_allclose(run(), 5 + 0.02 * np.arange(200.0), rtol=0.01)


def test_lambda_max_follows_the_training_of_a_net():
    params, losses_fn = net(6)
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def value_fn(p):
        return mean(losses_fn)(unravel(p))

    tx = optax.chain(gradtx.sharpness(0.2), gradtx.sgd(0.2))
    found, path = trained(tx, value_fn, flat, 150)
    exact = jax.jit(jax.vmap(lambda p: jnp.linalg.eigvalsh(jax.hessian(value_fn)(p))[-1]))(path)
    np.testing.assert_allclose(found["sharpness/lambda_max"][0], exact[0], rtol=1e-3)
    off = np.abs(np.asarray(found["sharpness/lambda_max"]) / np.asarray(exact) - 1)
    assert np.ptp(exact) > 0.2 * exact[0]
    assert np.median(off) < 0.01
    assert off.max() < 0.1


@pytest.mark.parametrize(("rate", "diverges"), [(0.49, False), (0.51, True)])
def test_gradient_descent_on_a_quadratic_diverges_if_and_only_if_stability_is_above_1(rate, diverges):
    value_fn, _ = quadratic(4.0, 1.0, -0.0)
    found, path = trained(optax.chain(gradtx.sharpness(rate), gradtx.sgd(rate)), value_fn, jnp.ones(3), 100)
    assert (found["sharpness/stability"][0] > 1) == diverges
    assert (jnp.abs(path[-1, 0]) > 1) == diverges


@pytest.mark.parametrize("nesterov", [False, True])
def test_descent_with_momentum_diverges_if_and_only_if_stability_is_above_1(nesterov):
    value_fn, _ = quadratic(1.0)
    rates, alphas = (x.ravel() for x in np.meshgrid(np.linspace(0.05, 3.99, 30), [0.0, 0.3, 0.9, 0.99]))

    def radius(rate, alpha):  # of (θ_k, θ_{k-1}) -> (θ_{k+1}, θ_k), curvature 1
        ahead = [[(1 + alpha) * (1 - rate), -alpha * (1 - rate)], [1, 0]]
        heavy = [[1 + alpha - rate, -alpha], [1, 0]]
        return np.abs(np.linalg.eigvals(ahead if nesterov else heavy)).max()

    def stability(rate, alpha):
        return measured(gradtx.sharpness(rate, alpha, nesterov), value_fn, jnp.ones(1))["sharpness/stability"]

    found = jax.jit(jax.vmap(stability))(jnp.asarray(rates, jnp.float32), jnp.asarray(alphas, jnp.float32))
    radii = np.array([radius(*pair) for pair in zip(rates, alphas, strict=True)])
    clear = np.abs(found - 1) > 1e-4
    assert 0 < np.sum(radii[clear] > 1) < len(rates)
    np.testing.assert_array_equal(found[clear] > 1, radii[clear] > 1)


def test_stability_is_nan_without_a_learning_rate():
    value_fn, _ = quadratic(1.0)
    assert np.isnan(measured(gradtx.sharpness(), value_fn, jnp.ones(1))["sharpness/stability"])


def test_finite_differences_agree_if_forward_mode_is_not_possible():
    params, losses_fn = net(6)
    exact, found = (
        measured(gradtx.sharpness(), None, params, losses_fn=f) for f in (losses_fn, lambda p: opaque(losses_fn(p)))
    )
    np.testing.assert_allclose(found["sharpness/lambda_max"], exact["sharpness/lambda_max"], rtol=1e-2)
