"""Hessian-vector products on trees, forward over reverse, and a step of power iteration from them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from .norms import tree_norm

Cost = Callable[[Any], jax.Array]


def hvp(cost: Cost, params: Any, v: Any) -> Any:
    """H v at `params`, for one v. It costs about three gradients."""
    _, product = jax.jvp(jax.grad(cost), (params,), (v,))
    return product


def linear_hvp(cost: Cost, params: Any) -> tuple[jax.Array, Any, Partial]:
    """Value, gradient and v -> H v at `params`. The gradient is linearised once; each product costs two gradients.

    The product keeps the residuals of one gradient in memory.
    """

    def gradient(at: Any) -> tuple[Any, jax.Array]:
        value, slopes = jax.value_and_grad(cost)(at)
        # Adding zeros that depend on v keeps JAX 0.7 from leaking a tracer if H is 0.
        return jax.tree.map(lambda slope, x: slope + 0 * x, slopes, at), value

    linearised: Any = jax.linearize(gradient, params, has_aux=True)  # JAX does not say that the product is a `Partial`
    slopes, product, value = linearised
    return value, slopes, product


def power_step(product: Any, v: Any, shift: jax.Array, fallback: Any) -> Any:
    """H v + s v scaled to length 1, from the product H v; `fallback` if its length is 0 or not finite.

    With a shift s larger than half of |λ_min| - λ_max, the iteration tends to the largest eigenvalue, and not to the
    eigenvalue of largest magnitude.
    """
    return normalised(jax.tree.map(lambda h, x: h + shift.astype(x.dtype) * x, product, v), fallback)


def normalised(tree: Any, fallback: Any) -> Any:
    """The tree scaled to length 1; `fallback` if its length is 0 or not finite."""
    length = tree_norm(tree)
    is_usable = (length > 0) & jnp.isfinite(length)
    scale = 1 / jnp.where(is_usable, length, 1)
    return jax.tree.map(lambda x, y: jnp.where(is_usable, scale.astype(x.dtype) * x, y), tree, fallback)
