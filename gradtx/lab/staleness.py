"""Asynchrony begets momentum: an experiment of notebook size (Mitliagkas et al. 2016; chapter §3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradtx
from gradtx._core.arguments import checked_count


def worker_delays(workers: int, longest: int) -> np.ndarray:
    """[longest + 1] probabilities of the delays that M workers make: P(τ = i) ∝ (1 - 1/M)^i, cut off and normalised.

    >>> from gradtx.lab.staleness import worker_delays
    >>> worker_delays(2, 3)
    array([0.5333, 0.2667, 0.1333, 0.0667])
    """
    checked_count("worker_delays", "workers", workers)
    checked_count("worker_delays", "longest", longest, 0)
    weights = (1 - 1 / workers) ** np.arange(longest + 1) if workers > 1 else np.eye(1, longest + 1)[0]
    return weights / weights.sum()


def implied_momentum(workers: int) -> float:
    """1 - 1/M: the momentum that M workers bring along.

    >>> from gradtx.lab.staleness import implied_momentum
    >>> [implied_momentum(workers) for workers in (1, 2, 4)]
    [0.0, 0.5, 0.75]
    """
    return 1 - 1 / checked_count("implied_momentum", "workers", workers)


@dataclass(frozen=True)
class Staleness:
    """What `staleness` found; W numbers of workers, A momenta, R learning rates."""

    workers: np.ndarray  # [W]
    momenta: np.ndarray  # [A]
    learning_rates: np.ndarray  # [R]
    loss: np.ndarray  # [W, A, R] geometric mean over the seeds, after the last step

    @property
    def best_momentum(self) -> np.ndarray:
        """[W] the momentum with the lowest loss at its own best learning rate."""
        return self.momenta[self.loss.min(axis=2).argmin(axis=1)]

    @property
    def implied(self) -> np.ndarray:
        """[W] what the staleness brings along by itself."""
        return np.array([implied_momentum(int(workers)) for workers in self.workers])

    def __str__(self) -> str:
        """A row for each number of workers."""
        lines = ["workers  implied momentum  best momentum to ask for  loss there"]
        for row in zip(self.workers, self.implied, self.best_momentum, self.loss.min(axis=(1, 2)), strict=True):
            lines.append("{:7d}  {:16.3f}  {:24.2f}  {:10.3g}".format(*row))
        return "\n".join(lines)


def staleness(
    workers: Sequence[int] = (1, 2, 4, 8),
    momenta: Sequence[float] = tuple(np.linspace(0.0, 0.9, 10)),
    learning_rates: Sequence[float] = tuple(np.geomspace(0.03, 4.0, 15)),
    *,
    condition: float = 100.0,
    steps: int = 100,
    seeds: int = 32,
    key: jax.Array | None = None,
) -> Staleness:
    """Trains a quadratic with SGD under the delays of M workers, for every momentum and learning rate.

    Curvatures are 1 and 1/`condition`, the start is (1, 1), gradients are exact: staleness is the only noise.
    Some seconds as it stands; `print` shows the best momentum fall from 0.7 for one worker to 0.3 for two and 0 for
    four and eight.

    Args:
        workers: numbers M of workers to compare.
        momenta: momenta to ask for, in [0, 1).
        learning_rates: among which each momentum gets its best.
        condition: of the quadratic.
        steps: of each training.
        seeds: sequences of delays, averaged over.
        key: JAX random key that they come from; default `jax.random.key(0)`.
    """
    curvatures = jnp.array([1.0, 1.0 / condition])
    keys = jax.random.split(jax.random.key(0) if key is None else key, seeds)

    def final_loss(probabilities: np.ndarray, momentum: jax.Array, rate: jax.Array, delay_key: jax.Array) -> jax.Array:
        tx = gradtx.stale(gradtx.sgd(rate, momentum), probabilities, key=delay_key)

        def step(carry: tuple[jax.Array, optax.OptState], _: None) -> tuple[tuple[jax.Array, optax.OptState], None]:
            params, state = carry
            updates, state = tx.update(curvatures * params, state, params)
            return (optax.apply_updates(params, updates), state), None  # pyright: ignore[reportReturnType]

        start = jnp.ones(2)
        (params, _), _ = jax.lax.scan(step, (start, tx.init(start)), length=steps)
        loss = 0.5 * jnp.sum(curvatures * params**2)
        return jnp.where(jnp.isfinite(loss), loss, jnp.finfo(loss.dtype).max)

    def grid(number: int) -> np.ndarray:
        """[A, R]"""
        probabilities = worker_delays(number, 5 * (number - 1))
        over_seeds = jax.vmap(lambda m, r, k: final_loss(probabilities, m, r, k), in_axes=(None, None, 0))
        over_rates = jax.vmap(over_seeds, in_axes=(None, 0, None))
        losses = jax.jit(jax.vmap(over_rates, in_axes=(0, None, None)))(
            jnp.asarray(momenta), jnp.asarray(learning_rates), keys
        )
        return np.exp(np.log(np.asarray(losses, np.float64) + 1e-300).mean(axis=-1))

    loss = np.stack([grid(int(number)) for number in workers])
    return Staleness(np.asarray(workers), np.asarray(momenta), np.asarray(learning_rates), loss)
