"""SGD, the learning rate, heavy ball and Nesterov's momentum match the chapter's algorithms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.oracles import NOISE, START, gradient, rate, train, updates_of


def alpha(k):
    return 0.9 - 0.5 / (k + 1)


def momentum_oracle(ε, α, steps=25):
    """Follows Goodfellow et al. 2016, Alg. 8.2."""
    θ, v, path = START.copy(), np.zeros(3), []
    for k in range(steps):
        v = α(k) * v - ε(k) * gradient(θ, k)
        θ = θ + v
        path.append(θ)
    return np.stack(path)


def nesterov_oracle(ε, α, steps=25):
    """Follows Goodfellow et al. 2016, Alg. 8.3, which takes the gradient at the interim point."""
    θ, v, path = START.copy(), np.zeros(3), []
    for k in range(steps):
        v = α(k) * v - ε(k) * gradient(θ + α(k) * v, k)
        θ = θ + v
        path.append(θ)
    return np.stack(path)


SCHEDULES = {
    "constant": (lambda k: 0.05, lambda k: 0.9),
    "scheduled rate": (rate, lambda k: 0.9),
    "scheduled momentum": (lambda k: 0.05, alpha),
    "both scheduled": (rate, alpha),
}


@pytest.mark.usefixtures("x64")
def test_sgd_is_algorithm_8_1():
    θ, expected = START.copy(), []
    for k in range(25):
        θ = θ - rate(k) * gradient(θ, k)
        expected.append(θ)
    np.testing.assert_allclose(train(gradtx.sgd(rate))[0], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SCHEDULES)
def test_momentum_is_algorithm_8_2(name):
    ε, α = SCHEDULES[name]
    np.testing.assert_allclose(train(gradtx.sgd(ε, momentum=α))[0], momentum_oracle(ε, α), rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SCHEDULES)
def test_nesterov_eval_params_are_those_of_algorithm_8_3(name):
    ε, α = SCHEDULES[name]
    tx = gradtx.sgd(ε, momentum=α, nesterov=True)
    params = jnp.asarray(START)
    state = tx.init(params)
    for k, expected in enumerate(nesterov_oracle(ε, α)):
        updates, state = tx.update(jnp.asarray(gradient(np.asarray(params), k)), state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(gradtx.nesterov_eval_params(params, state), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("tx", "size"),
    [(gradtx.sgd(0.1, 0.9), 0.2), (gradtx.sgd(0.1, 0.9, True), 0.2), (gradtx.heavy_ball(0.9), 2.0)],
    ids=["heavy", "nesterov", "block"],
)
def test_terminal_velocity_is_the_step_over_one_minus_momentum(tx, size):
    steps = updates_of(tx, np.full((400, 1), 2.0, np.float32))
    assert abs(steps[-1, 0]) == pytest.approx(size / (1 - 0.9), rel=1e-5)


def test_the_velocity_of_bfloat16_gradients_does_not_stall():
    steps = updates_of(gradtx.sgd(1.0, momentum=0.99), jnp.ones((1200, 1), jnp.bfloat16))
    assert -float(steps[-1, 0]) == pytest.approx(100.0, rel=0.03)


CURVATURES = np.array([1.0, 100.0])  # condition number 100


def contraction(tx, steps):
    """Returns the mean factor per step by which the distance to the minimum falls in the second half of the run."""
    params = jnp.ones(2)
    state = tx.init(params)
    distances = []
    for _ in range(steps):
        updates, state = tx.update(jnp.asarray(CURVATURES) * params, state, params)
        params = optax.apply_updates(params, updates)
        distances.append(float(jnp.linalg.norm(params)))
    return (distances[-1] / distances[steps // 2 - 1]) ** (1 / (steps - steps // 2))


@pytest.mark.usefixtures("x64")
def test_the_convergence_rates_on_a_quadratic_of_condition_number_100_match_the_theory():
    """The parameters are the optimal ones of Polyak 1964, of Nesterov 2004 and of gradient descent."""
    root = 10.0  # square root of the condition number
    descent = contraction(gradtx.sgd(2 / 101), 200)
    heavy = contraction(gradtx.sgd(4 / (root + 1) ** 2, ((root - 1) / (root + 1)) ** 2), 200)
    look = contraction(gradtx.sgd(1 / 100, (root - 1) / (root + 1), True), 200)
    assert descent == pytest.approx(99 / 101, rel=1e-6)
    assert heavy == pytest.approx((root - 1) / (root + 1), rel=0.02)
    assert look == pytest.approx((1 - 1 / root), rel=0.02)


@pytest.mark.usefixtures("x64")
def test_nesterov_eval_params_finds_the_state_in_any_nesting():
    params = {"a": jnp.asarray(START), "b": jnp.asarray(START)}
    grads = {"a": jnp.asarray(NOISE[0]), "b": jnp.asarray(NOISE[1])}
    nag = gradtx.sgd(0.1, 0.9, True)

    def behind(tx):
        state = tx.init(params)
        updates, state = tx.update(grads, state, params)
        return gradtx.nesterov_eval_params(optax.apply_updates(params, updates), state)

    expected = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    both = {"a": "x", "b": "y"}
    wrapped = {
        "chain": optax.chain(gradtx.clip_by_global_norm(1e9), nag),
        "masked": optax.masked(nag, True),
        "partition": optax.partition({"x": nag, "y": gradtx.sgd(0.1, 0.9, True)}, both),
        "inject": optax.inject_hyperparams(gradtx.sgd)(0.1, 0.9, True),
        "guard": gradtx.skip_nonfinite(nag),
        "multi": optax.MultiSteps(nag, 1),
    }
    for name, tx in wrapped.items():
        for k in params:
            np.testing.assert_allclose(behind(tx)[k], expected[k], rtol=1e-9, err_msg=name)
    half = behind(optax.masked(nag, {"a": True, "b": False}))
    np.testing.assert_allclose(half["a"], expected["a"], rtol=1e-9)
    np.testing.assert_allclose(half["b"], params["b"] + grads["b"])


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_nesterov_eval_params_of_a_stack_of_states_are_those_of_each_member(shape):
    """There are three members and leaves of length three, so that α could be broadcast along the wrong axis."""
    momenta, grads = jnp.array([0.0, 0.5, 0.9]), {"w": jnp.arange(1.0, 1 + np.prod(shape, dtype=int)).reshape(shape)}

    def run(momentum):
        tx = optax.chain(gradtx.gradient_norm(), gradtx.sgd(0.1, momentum, nesterov=True))
        params = jax.tree.map(jnp.ones_like, grads)
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    stack = jax.vmap(run)(momenta)
    found = gradtx.nesterov_eval_params(*stack)
    for member, momentum in enumerate((0.0, 0.5, 0.9)):  # θ = 1 - 0.1 g - (0.1 + 0.1 α) g
        expected = 1 - 0.1 * (2 + momentum) * grads["w"]
        np.testing.assert_allclose(found["w"][member], expected, rtol=1e-6, atol=1e-6)
        alone = gradtx.nesterov_eval_params(*jax.tree.map(lambda x, m=member: x[m], stack))
        np.testing.assert_allclose(found["w"][member], alone["w"], rtol=1e-6, atol=1e-6)


def test_nesterov_eval_params_refuses_states_with_no_or_two_nesterov_states():
    params = jnp.ones(2)
    with pytest.raises(ValueError, match="holds no NesterovState"):
        gradtx.nesterov_eval_params(params, gradtx.sgd(0.1).init(params))
    twice = optax.chain(gradtx.nesterov(0.9), gradtx.nesterov(0.5))
    with pytest.raises(ValueError, match="two NesterovStates"):
        gradtx.nesterov_eval_params(params, twice.init(params))


def test_nesterov_without_momentum_is_refused():
    for factory in (gradtx.sgd, gradtx.rmsprop):
        with pytest.raises(ValueError, match="nesterov=True needs a momentum"):
            factory(0.1, nesterov=True)


def test_the_recipe_equals_the_chain_of_its_blocks():
    grads = np.asarray(NOISE, np.float32)
    for accelerate, nesterov in ((gradtx.heavy_ball, False), (gradtx.nesterov, True)):
        blocks = optax.chain(gradtx.scale_by_learning_rate(rate), accelerate(alpha))
        np.testing.assert_array_equal(updates_of(gradtx.sgd(rate, alpha, nesterov), grads), updates_of(blocks, grads))


def test_optax_agrees_if_the_mathematics_is_the_same():
    grads = np.asarray(NOISE, np.float32)
    for kwargs in ({}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}):
        np.testing.assert_allclose(
            updates_of(gradtx.sgd(0.1, **kwargs), grads),
            updates_of(optax.sgd(0.1, **kwargs), grads),
            rtol=1e-4,
            atol=1e-6,
        )
    theirs = optax.sgd(rate, momentum=0.9)
    reordered = optax.chain(gradtx.heavy_ball(0.9), gradtx.scale_by_learning_rate(rate))
    np.testing.assert_allclose(updates_of(reordered, grads), updates_of(theirs, grads), rtol=1e-4, atol=1e-6)
    assert np.abs(updates_of(gradtx.sgd(rate, momentum=0.9), grads) - updates_of(theirs, grads)).max() > 1e-3
