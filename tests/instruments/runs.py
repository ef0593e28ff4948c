"""Helpers for the tests of the instruments: runs under one compiled scan that keep the readings of every step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradtx
from tests.oracles import rotation as rotation


def watched(instrument, updates, params=None, **extra):
    """Returns readings [steps] of an instrument that sees `updates` (a tree of [steps, ...]) and `extra` [steps]."""
    like = jax.tree.map(lambda x: jnp.zeros_like(x[0]), updates) if params is None else params

    @jax.jit
    def run(params, updates, extra):
        def step(state, seen):
            passed, state = instrument.update(seen[0], state, params, **seen[1])
            return state, (gradtx.readings(state), passed)

        return jax.lax.scan(step, instrument.init(like), (updates, extra))[1]

    readings, passed = run(params, updates, extra)
    for before, after in zip(jax.tree.leaves(updates), jax.tree.leaves(passed), strict=True):
        np.testing.assert_array_equal(before, after)
    return readings


def trained(tx, value_fn, params, steps, noise=None, losses_fn=None):
    """Trains, and returns readings [steps] and the parameters before each step. `noise` is added to the gradients."""
    losses = {} if losses_fn is None else {"losses_fn": losses_fn}

    def step(carry, kick):
        params, state = carry
        value, grads = jax.value_and_grad(value_fn)(params)
        grads = grads if noise is None else grads + kick
        updates, new = tx.update(grads, state, params, value=value, value_fn=value_fn, **losses)
        return (optax.apply_updates(params, updates), new), (gradtx.readings(new), params)

    run = jax.jit(lambda params: jax.lax.scan(step, (params, tx.init(params)), noise, length=steps)[1])
    return run(params)


def quadratic(*curvatures, rotation=None):
    """Returns the function ½ x'Hx with the given eigenvalues, and H."""
    h = np.diag(np.asarray(curvatures, np.float64))
    h = h if rotation is None else rotation @ h @ rotation.T
    matrix = jnp.asarray(h, jnp.float32)
    return (lambda x: 0.5 * x @ matrix @ x), h


def net(hidden, examples=12, seed=0):
    """Returns the parameters of a tanh net with 3 inputs and 1 output, and the squared errors of its examples."""
    keys = jax.random.split(jax.random.key(seed), 4)
    x = jax.random.normal(keys[0], (examples, 3))
    y = jnp.sin(2 * x[:, 0]) + 0.3 * jax.random.normal(keys[1], (examples,))
    params = {
        "b": jnp.zeros(hidden),
        "v": jax.random.normal(keys[2], (hidden,)) / hidden**0.5,
        "w": jax.random.normal(keys[3], (3, hidden)),
    }
    return params, lambda p: 0.5 * (jnp.tanh(x @ p["w"] + p["b"]) @ p["v"] - y) ** 2


def mean(losses_fn):
    return lambda p: jnp.mean(losses_fn(p))


@jax.custom_vjp
def opaque(x):
    """Returns x. Forward-mode differentiation of it is not possible."""
    return x


opaque.defvjp(lambda x: (x, None), lambda _, g: (g,))
