"""Hessian-vector products on trees."""

from collections.abc import Callable
from typing import Any

import jax


def linear_hvp(value_fn: Callable[[Any], jax.Array], params: Any) -> Callable[[Any], Any]:
    """v -> H v at `params`, forward over reverse: the gradient is linearised once, each product costs two gradients.

    Holds the residuals of one gradient for as long as the returned function lives.
    """
    _, product = jax.linearize(jax.grad(value_fn), params)
    return product
