"""The tests of all promises share the programs of a row, because compiling takes most of the time of a test run.

`loop` runs op by op. All rows share its small programs, because all trees have the same shapes. The others are
compiled: one step per dtype, a run, many runs side by side, and the derivative of a run.
"""

from functools import cache, cached_property, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.zoo import Row

SHAPES = {"w": (2, 3), "b": (3,), "s": ()}
STEPS = 4


def tree(dtype=jnp.float32, seed=0):
    """Returns leaves of ranks 2, 1 and 0. NumPy draws them, so that nothing is compiled for them."""
    random = np.random.default_rng(seed)
    return {name: jnp.asarray(random.normal(size=shape), dtype) for name, shape in SHAPES.items()}


def stacked(*trees):
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack([np.asarray(leaf) for leaf in leaves])), *trees)


def part(tree, number):
    """Returns one of the trees that were stacked."""
    return jax.tree.map(lambda x: x[number], tree)


def step(row: Row, tx, grads, state, params):
    return tx.update(grads, state, params, **row.extra())


def advance(row: Row, tx, params, state, grads):
    updates, state = step(row, tx, grads, state, params)
    return optax.apply_updates(params, updates), state, updates


def loop(row: Row, tx, params, gradients, state=None):
    """Returns parameters, state and updates after each step. It runs op by op, so a `cond` inside is a Python `if`."""
    state, path = tx.init(params) if state is None else state, []
    with jax.disable_jit():
        for grads in gradients:
            params, state, updates = advance(row, tx, params, state, grads)
            path.append((params, state, updates))
    return path


def run(row: Row, hyperparameters, params, gradients):
    """Scans over the stacked gradients from `init` on. Returns the last parameters and state, and all updates."""
    tx = row.make(**hyperparameters)

    def body(carry, grads):
        params, state, updates = advance(row, tx, *carry, grads)
        return (params, state), updates

    (params, state), updates = jax.lax.scan(body, (params, tx.init(params)), gradients)
    return params, state, updates


class Programs:
    """Holds the programs of one row and their results."""

    def __init__(self, row: Row):
        self.row = row
        self.tx = row.make()
        self.params = tree()
        self.gradients = [tree(seed=1 + k) for k in range(STEPS)]
        self.values = {name: np.float32(value) for name, value in row.hyperparameters.items()}

    @cached_property
    def path(self):
        """Returns the result of `loop` over the gradients."""
        return loop(self.row, self.tx, self.params, self.gradients)

    @property
    def state(self):
        """Returns the state after the last step."""
        return self.path[-1][1]

    @cached_property
    def abstract_state(self):
        """Returns the shapes and dtypes of the state, without running `init`."""
        return jax.eval_shape(self.tx.init, self.params)

    @cache  # noqa: B019 (one row's programs live as long as the row's tests)
    def step_of(self, dtype):
        """Returns `update` compiled for trees of that dtype. A second trace is an error (promise 13)."""

        def update(grads, state, params):
            return step(self.row, self.tx, grads, state, params)

        update.__name__ = f"update_{self.row}_{jnp.dtype(dtype)}"  # chex counts traces by name
        return jax.jit(chex.assert_max_traces(update, n=1))

    @property
    def step(self):
        """Returns `update` compiled for float32."""
        return self.step_of(jnp.float32)

    @cached_property
    def run(self):
        """Returns `run` compiled, with the hyper-parameters as arguments."""
        return jax.jit(partial(run, self.row))

    @cached_property
    def runs(self):
        """Returns `run` compiled for many hyper-parameters and parameters side by side."""
        return jax.jit(jax.vmap(partial(run, self.row), in_axes=(0, 0, None)))

    @cached_property
    def derivative(self):
        """Returns the derivative of the summed sine of all updates, by the hyper-parameters and by the gradients."""

        def summed(hyperparameters, params, gradients):
            updates = run(self.row, hyperparameters, params, gradients)[2]
            return sum(jnp.sum(jnp.sin(u)) for u in jax.tree.leaves(updates))

        return jax.jit(jax.grad(summed, argnums=(0, 2)))
