"""AdaGrad, RMSProp, AdaDelta, Adam and delta-bar-delta match oracles of their formulas and closed forms."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.oracles import NOISE, START, gradient, rate, train, updates_of


def adagrad_oracle(ε, δ=1e-7, r0=0.0):
    """Follows Goodfellow et al. 2016, Alg. 8.4."""
    θ, r = START.copy(), np.full(3, r0)
    for k in range(25):
        g = gradient(θ, k)
        r = r + g * g
        θ = θ - ε(k) / (δ + np.sqrt(r)) * g
        yield θ


def rmsprop_oracle(ε, ρ=0.9, δ=1e-6):
    """Follows Alg. 8.5."""
    θ, r = START.copy(), np.zeros(3)
    for k in range(25):
        g = gradient(θ, k)
        r = ρ * r + (1 - ρ) * g * g
        θ = θ - ε(k) / np.sqrt(δ + r) * g
        yield θ


def rmsprop_momentum_oracle(ε, ρ=0.9, δ=1e-6, α=0.9):
    """Uses the step of Alg. 8.5 in Alg. 8.2."""
    θ, r, v = START.copy(), np.zeros(3), np.zeros(3)
    for k in range(25):
        g = gradient(θ, k)
        r = ρ * r + (1 - ρ) * g * g
        v = α * v - ε(k) / np.sqrt(δ + r) * g
        θ = θ + v
        yield θ


def rmsprop_nesterov_oracle(ε, ρ=0.9, δ=1e-6, α=0.9):
    """Follows Alg. 8.6. It yields the look-ahead point θ + α v, at which gradtx keeps its parameters."""
    θ, r, v = START.copy(), np.zeros(3), np.zeros(3)
    for k in range(25):
        g = gradient(θ + α * v, k)
        r = ρ * r + (1 - ρ) * g * g
        v = α * v - ε(k) / np.sqrt(δ + r) * g
        θ = θ + v
        yield θ + α * v


def adadelta_oracle(ε, ρ=0.95, δ=1e-6):
    """Follows Zeiler 2012, Alg. 1."""
    θ, r, s = START.copy(), np.zeros(3), np.zeros(3)
    for k in range(25):
        g = gradient(θ, k)
        r = ρ * r + (1 - ρ) * g * g
        step = np.sqrt(s + δ) / np.sqrt(r + δ) * g
        s = ρ * s + (1 - ρ) * step * step
        θ = θ - ε(k) * step
        yield θ


def adam_oracle(ε, β1=0.9, β2=0.999, δ=1e-8):
    """Follows Kingma & Ba 2015, Alg. 1."""
    θ, m, v = START.copy(), np.zeros(3), np.zeros(3)
    for k in range(25):
        g = gradient(θ, k)
        m = β1 * m + (1 - β1) * g
        v = β2 * v + (1 - β2) * g * g
        θ = θ - ε(k) * (m / (1 - β1 ** (k + 1))) / (np.sqrt(v / (1 - β2 ** (k + 1))) + δ)
        yield θ


def delta_bar_delta_oracle(first, κ=0.05, φ=0.2, decay=0.7):
    """Follows Jacobs 1988, eq. 5 and 6."""
    θ, rates, mean = START.copy(), np.full(3, first), np.zeros(3)
    for k in range(25):
        d = gradient(θ, k)
        rates = np.where(mean * d > 0, rates + κ, np.where(mean * d < 0, rates * (1 - φ), rates))
        mean = (1 - decay) * d + decay * mean
        θ = θ - rates * d
        yield θ


ORACLES = {
    "adagrad": (gradtx.adagrad(rate), adagrad_oracle(rate)),
    "adagrad from 0.1": (gradtx.adagrad(rate, 0.0, 0.1), adagrad_oracle(rate, 0.0, 0.1)),
    "rmsprop": (gradtx.rmsprop(rate), rmsprop_oracle(rate)),
    "rmsprop momentum": (gradtx.rmsprop(rate, momentum=0.9), rmsprop_momentum_oracle(rate)),
    "rmsprop nesterov": (gradtx.rmsprop(rate, momentum=0.9, nesterov=True), rmsprop_nesterov_oracle(rate)),
    "adadelta": (gradtx.adadelta(lambda k: 20 * rate(k)), adadelta_oracle(lambda k: 20 * rate(k))),
    "adam": (gradtx.adam(rate), adam_oracle(rate)),
    "delta_bar_delta": (gradtx.delta_bar_delta(0.02, 0.002), delta_bar_delta_oracle(0.02, 0.002)),
}


@pytest.mark.parametrize("name", ORACLES)
def test_a_training_matches_the_oracle_of_the_method(name, x64):
    tx, oracle = ORACLES[name]
    np.testing.assert_allclose(train(tx)[0], list(oracle), rtol=1e-9, atol=1e-12)


def test_adam_with_scheduled_decays_divides_the_averages_by_their_total_weight(x64):
    def decay(k):
        return 0.9 - 0.5 / (k + 1)

    updates = updates_of(
        gradtx.scale_by_adam(b1=decay, b2=lambda k: 0.99 - 0.3 / (k + 1), eps=0.0), np.full((20, 1), -7.0)
    )
    np.testing.assert_allclose(updates, -1.0, rtol=1e-12)  # an average of equal numbers is that number


STEPS = np.arange(1, 41)
CLOSED_FORMS = {
    "adagrad": (gradtx.adagrad(0.1, eps=0.0), 0.1 / np.sqrt(STEPS)),
    "rmsprop": (gradtx.rmsprop(0.1, decay=0.9, eps=0.0), 0.1 / np.sqrt(1 - 0.9**STEPS)),
    "adam": (gradtx.adam(0.1, eps=0.0), np.full(40, 0.1)),
}


@pytest.mark.parametrize("size", [1e-6, 1.0, -1e6])
@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_steps_under_a_constant_gradient_of_any_size_match_the_closed_form(name, size):
    tx, expected = CLOSED_FORMS[name]
    updates = updates_of(tx, np.full((40, 1), size, np.float32))[:, 0]
    np.testing.assert_allclose(updates, -np.sign(size) * expected, rtol=2e-5)


@pytest.mark.parametrize("factory", [gradtx.scale_by_adagrad, gradtx.scale_by_rms, gradtx.scale_by_adam])
def test_adaptive_methods_ignore_the_scale_of_the_gradient(factory):
    grads = np.asarray(NOISE, np.float32)
    np.testing.assert_allclose(
        updates_of(factory(eps=0.0), grads), updates_of(factory(eps=0.0), 1024 * grads), rtol=1e-5
    )


def test_the_first_step_of_adadelta_matches_the_closed_form():
    """The first step is RMS(0) / RMS(g) times g, as in Zeiler §3.2, which has the units of the parameters."""
    grads = np.asarray(NOISE, np.float32)
    first = updates_of(gradtx.scale_by_adadelta(eps=1e-6), grads)[0]
    expected = np.sqrt(1e-6) / np.sqrt(1e-6 + 0.05 * grads[0] ** 2) * grads[0]
    np.testing.assert_allclose(first, expected, rtol=1e-5)


def test_adadelta_with_eps_zero_does_not_move():
    np.testing.assert_array_equal(updates_of(gradtx.adadelta(eps=0.0), np.ones((5, 2), np.float32)), 0)


def test_updates_of_half_precision_gradients_are_right():
    for dtype, size in ((jnp.float16, 1e-4), (jnp.float16, 400.0), (jnp.bfloat16, 1e-4)):
        grads = jnp.full((3, 1), size, dtype)
        np.testing.assert_allclose(
            updates_of(gradtx.adagrad(0.1), grads)[:, 0].astype(float), -0.1 / np.sqrt([1, 2, 3]), rtol=0.02
        )
        np.testing.assert_allclose(updates_of(gradtx.adam(0.01), grads).astype(float), -0.01, rtol=0.02)


def test_the_accumulator_of_bfloat16_gradients_does_not_stall():
    steps = updates_of(gradtx.adagrad(1.0), jnp.ones((2000, 1), jnp.bfloat16))
    assert -float(steps[-1, 0]) == pytest.approx(1 / np.sqrt(2000), rel=0.03)


@pytest.mark.parametrize("tiny", [1e-25, 1e-40])
def test_gradients_whose_squares_underflow_give_bounded_updates(tiny):
    for tx in (gradtx.scale_by_adagrad(0.0), gradtx.scale_by_rms(eps=0.0), gradtx.scale_by_adam(eps=0.0)):
        assert np.all(np.abs(updates_of(tx, np.full((3, 1), tiny, np.float32))) < 10)


def test_a_sum_of_squares_that_overflowed_gives_nan_instead_of_zero_steps():
    grads = np.array([[1e25], [1.0]], np.float32)
    for tx in (gradtx.adagrad(0.1), gradtx.rmsprop(0.1), gradtx.adam(0.1)):
        assert np.all(np.isnan(updates_of(tx, grads)))


def test_optax_agrees_if_the_mathematics_is_the_same():
    grads = np.asarray(NOISE, np.float32)
    pairs = [
        (gradtx.rmsprop(0.1), optax.rmsprop(0.1, eps=1e-6)),
        (gradtx.rmsprop(0.1, momentum=0.9), optax.rmsprop(0.1, eps=1e-6, momentum=0.9)),
        (gradtx.rmsprop(0.1, momentum=0.9, nesterov=True), optax.rmsprop(0.1, eps=1e-6, momentum=0.9, nesterov=True)),
        (gradtx.adam(0.1), optax.adam(0.1)),
        (gradtx.adagrad(0.1, eps=0.0, initial_accumulator=0.1), optax.adagrad(0.1, eps=0.0)),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(updates_of(ours, grads), updates_of(theirs, grads), rtol=1e-4, atol=1e-6)
    params = jnp.zeros(3)
    ours, theirs = gradtx.adadelta(), optax.adadelta(1.0, rho=0.95)
    state, other = ours.init(params), theirs.init(params)
    for g in grads:
        u, state = ours.update(g, state, params)
        w, other = theirs.update(g, other, params)
        np.testing.assert_allclose(u, w, rtol=1e-4, atol=1e-8)
