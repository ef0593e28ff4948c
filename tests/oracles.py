"""Helpers for oracles: a problem, a schedule, a training loop with gradtx, and matrices of a known spectrum."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

H = np.diag([1.0, 4.0, 9.0]) + 0.3
START = np.array([1.0, -2.0, 0.5])
NOISE = np.random.default_rng(0).normal(size=(25, 3))

Gradient = Callable[[np.ndarray, int], np.ndarray]


def gradient(theta: np.ndarray, k: int) -> np.ndarray:
    """Returns the gradient of a quadratic plus the noise of step k, like a minibatch gradient."""
    return H @ theta + NOISE[k]


def rate(k: Any) -> Any:
    """Returns a learning rate that falls with k."""
    return 0.05 / (1 + 0.3 * k)


def rotation(size: int, seed: int = 0) -> np.ndarray:
    """Returns an orthogonal matrix."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def rotated(spectrum: Any, seed: int = 0) -> np.ndarray:
    """Returns a symmetric matrix with these eigenvalues, whose eigenvectors are not the axes."""
    directions = rotation(len(spectrum), seed)
    return directions * np.array(spectrum) @ directions.T


def train(tx: Any, steps: int = 25, dtype: Any = jnp.float64) -> tuple[np.ndarray, Any]:
    """Returns the parameters after each step, [steps, 3], and the last state."""
    params = jnp.asarray(START, dtype)
    state = tx.init(params)
    path = []
    for k in range(steps):
        grads = jnp.asarray(gradient(np.asarray(params, np.float64), k), dtype)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        path.append(np.asarray(params))
    return np.stack(path), state


def updates_of(tx: Any, gradients: Any) -> np.ndarray:
    """Returns the updates for a given sequence of gradients."""
    gradients = jnp.asarray(gradients)
    state = tx.init(jnp.zeros(gradients.shape[1:]))
    out = []
    for g in gradients:
        u, state = tx.update(g, state)
        out.append(np.asarray(u))
    return np.stack(out)
