"""Fixtures for the tests of the lab: a small problem, and an instrument whose readings are scalars and a vector."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest

from gradtx import lab


class WatchState(NamedTuple):
    norm: jax.Array  # []
    norms: jax.Array  # [leaves]

    def readings(self):
        return {"watch/norm": self.norm, "watch/norms": self.norms, "watch/first": self.norms[0]}


@pytest.fixture(scope="session")
def watch():
    """Returns a pass-through transformation. Its readings are scalars and a vector, not in alphabetical order."""

    def init(params):
        return WatchState(jnp.full((), jnp.nan), jnp.full(len(jax.tree.leaves(params)), jnp.nan))

    def update(updates, state, params=None):
        norms = jnp.stack([jnp.linalg.norm(leaf.ravel()) for leaf in jax.tree.leaves(updates)])
        return updates, WatchState(jnp.linalg.norm(norms), norms)

    return optax.GradientTransformation(init, update)


@pytest.fixture(scope="session")
def digits():
    return lab.problems.digits(hidden=8)


@pytest.fixture(scope="session")
def key():
    return jax.random.key(3)


@pytest.fixture
def counted():
    """Returns a function that wraps a transformation and counts how often its update is traced."""

    def wrap(tx):
        calls = []

        def update(updates, state, params=None):
            calls.append(1)
            return tx.update(updates, state, params)

        return optax.GradientTransformation(tx.init, update), calls

    return wrap
