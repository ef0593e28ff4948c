"""Adds gradient noise to any landscape (chapter §2.6), as minibatches add noise to the gradient of the data set."""

import dataclasses

from gradtx._core.arguments import checked_number
from gradtx._core.hyperparameters import NON_NEGATIVE

from .landscape import Landscape


def noisy(landscape: Landscape, sigma: float) -> Landscape:
    """The same landscape, but the gradient of its `sample(x, key)` has noise N(0, σ² I).

    Called with a vector it still returns f(x), the mean of `sample`, and all facts remain true for f.

    Args:
        landscape: such as `landscapes.saddle` or `landscapes.quadratic(10.0)`.
        sigma: σ, in [0, inf); replaces the noise that the landscape had.

    Raises:
        ValueError: `sigma` is negative, infinite or NaN. TypeError: one argument is of the wrong kind.

    **Source**: chapter §2.6 and §3.

    >>> import jax, jax.numpy as jnp
    >>> from gradtx import landscapes
    >>> f = landscapes.noisy(landscapes.saddle, sigma=0.5)
    >>> x, key = jnp.zeros(2), jax.random.key(0)
    >>> print(f, jax.grad(f)(x), jax.grad(f.sample)(x, key))
    Landscape(noisy_saddle, dim=2, sigma=0.5) [0. 0.] [0.811 1.013]
    """
    if not isinstance(landscape, Landscape):
        got = f"{landscape!r} ({type(landscape).__name__})"
        raise TypeError(f"noisy: landscape must be a Landscape, as saddle or quadratic() is, got {got}.")
    σ = checked_number("noisy", "sigma", sigma, NON_NEGATIVE)
    return dataclasses.replace(landscape, name=f"noisy_{landscape.name}", sigma=σ)
