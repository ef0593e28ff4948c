"""gradtx where Optax stands today: Optax's kinds of tests over gradtx's recipes, and the libraries above it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

RECIPES = {
    "sgd": lambda: gradtx.sgd(1e-2),
    "sgd momentum": lambda: gradtx.sgd(1e-3, momentum=0.9),
    "sgd nesterov": lambda: gradtx.sgd(1e-3, momentum=0.9, nesterov=True),
    "delta_bar_delta": lambda: gradtx.delta_bar_delta(1e-3, increase=1e-4, decrease=0.5),
    "adagrad": lambda: gradtx.adagrad(0.5),
    "rmsprop": lambda: gradtx.rmsprop(gradtx.linear_decay(5e-2, 1e-4, 1500)),
    "rmsprop momentum": lambda: gradtx.rmsprop(gradtx.linear_decay(5e-3, 1e-5, 1500), momentum=0.9),
    "adadelta": lambda: gradtx.adadelta(gradtx.linear_decay(10.0, 0.01, 1500)),
    "adam": lambda: gradtx.adam(1e-1),
}


def parabola(dtype):
    goal = jnp.array([-1.0, 1.0], dtype)
    return jnp.array([1.0, -1.0], dtype), goal, lambda x: jnp.sum(jnp.abs(x - goal) ** 2)


def rosenbrock(dtype):
    return jnp.zeros(2, dtype), jnp.ones(2, dtype), lambda x: (1 - x[0]) ** 2 + 5 * (x[1] - x[0] ** 2) ** 2


def matrix_parabola(dtype):
    goal = jnp.array([[1.0, -2.0], [0.5, 3.0]], dtype)
    return jnp.zeros((2, 2), dtype), goal, lambda x: jnp.sum(jnp.abs(x - goal) ** 2)


PROBLEMS = {"parabola": parabola, "rosenbrock": rosenbrock, "matrix parabola": matrix_parabola}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_converges(recipe, problem, dtype):
    if dtype == jnp.complex64 and (recipe == "delta_bar_delta" or problem == "rosenbrock"):
        pytest.skip("needs the sign of a gradient, or a real-valued cost")
    start, goal, cost = PROBLEMS[problem](dtype)
    tx = RECIPES[recipe]()

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jnp.conj(jax.grad(cost)(params)), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (start, tx.init(start)), length=4000)
    np.testing.assert_allclose(params, goal, atol=3e-2)


def test_trains_a_flax_nnx_module():
    nnx = pytest.importorskip("flax.nnx", reason="Flax comes with the test extra")
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    tx = optax.chain(gradtx.clip_by_global_norm(1.0), gradtx.rmsprop(1e-2, momentum=0.9, nesterov=True))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    x = jax.random.normal(jax.random.key(0), (64, 3))
    y = x @ jnp.array([[1.0], [-2.0], [0.5]])

    def cost(model):
        return jnp.mean((model(x) - y) ** 2)

    @nnx.jit
    def step(model, optimizer):
        loss, grads = nnx.value_and_grad(cost)(model)
        optimizer.update(model, grads)
        return loss

    losses = [float(step(model, optimizer)) for _ in range(300)]
    assert losses[-1] < 1e-2 * losses[0]


@pytest.mark.parametrize("pass_model_as_params", [False, True])
def test_trains_an_equinox_module_with_leaves_that_are_no_arrays(pass_model_as_params):
    eqx = pytest.importorskip("equinox", reason="Equinox comes with the test extra")
    model = eqx.nn.MLP(2, "scalar", 8, 1, activation=jax.nn.tanh, key=jax.random.key(0))
    tx = optax.chain(gradtx.clip_by_norm(1.0), gradtx.sgd(0.1, momentum=0.9, nesterov=True))
    state = tx.init(eqx.filter(model, eqx.is_array))
    x = jax.random.normal(jax.random.key(1), (64, 2))
    y = x[:, 0] * 0.5 - x[:, 1]

    @eqx.filter_jit
    def step(model, state):
        loss, grads = eqx.filter_value_and_grad(lambda m: jnp.mean((jax.vmap(m)(x) - y) ** 2))(model)
        params = model if pass_model_as_params else eqx.filter(model, eqx.is_array)
        updates, state = tx.update(grads, state, params)
        return eqx.apply_updates(model, updates), state, loss

    losses = []
    for _ in range(200):
        model, state, loss = step(model, state)
        losses.append(float(loss))
    assert losses[-1] < 0.05 * losses[0]


def test_injected_bfloat16_hyperparameters_train():
    """`inject_hyperparams` casts 0.999 to bfloat16, where it is 1: `optax.adam` is NaN from the first step on."""
    params = jnp.ones(4, jnp.bfloat16)
    tx = optax.inject_hyperparams(gradtx.adam)(learning_rate=0.1)
    state = tx.init(params)
    for _ in range(30):
        updates, state = tx.update(params, state, params)
        params = optax.apply_updates(params, updates)
    assert float(jnp.max(jnp.abs(params))) < 0.3
