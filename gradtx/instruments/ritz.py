"""Ritz values: what k products with a matrix tell about its spectrum.

    T = Q A Qᵀ on the Krylov space of a start vector,  T = Y diag(θ) Yᵀ
    weights     τ_i = Y_{1i}²           the share of the start vector on θ_i: nodes and weights of a Gauss quadrature
    residuals   r_i = β_k |Y_{ki}|      there is an eigenvalue of A within r_i of θ_i

**Source**: Lanczos 1950; Golub & Welsch 1969; Parlett 1980 (the residual bound).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from gradtx._core.lanczos import LanczosResult, lanczos, new_step


class Ritz(NamedTuple):
    """Ritz values in ascending order; where the space ended early, the last ones repeat the largest at weight 0."""

    values: jax.Array  # [k] θ
    weights: jax.Array  # [k] τ, of sum 1
    residuals: jax.Array  # [k] r; 0 where the space is invariant


def ritz(num_iterations: int) -> Callable[[Partial, Any], Ritz]:
    """(product, start) -> the Ritz values after `num_iterations` Lanczos steps; compiled once for all starts."""
    scale_of, step = jax.jit(lambda product, v: _scale(product(v))), new_step()

    def solve(product: Partial, start: Any) -> Ritz:
        # Scaled to entries of about 1, the squares inside Lanczos neither overflow nor underflow, whatever the unit.
        scale = scale_of(product, start)
        return _from_tridiagonal(lanczos(Partial(_scaled, product, scale), start, num_iterations, step), scale)

    return solve


def _scale(a: Any) -> jax.Array:
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(x), initial=0) for x in jax.tree.leaves(a)]))
    return jnp.where(largest > 0, largest, 1)  # not NaN either: NaN is then found in the products


def _scaled(product: Callable[[Any], Any], scale: jax.Array, v: Any) -> Any:
    return jax.tree.map(lambda x: x / scale, product(v))


@jax.jit
def _from_tridiagonal(found: LanczosResult, scale: jax.Array) -> Ritz:
    off = found.off_diagonal
    in_space = jnp.cumprod(jnp.concatenate([jnp.ones(1, off.dtype), jnp.sign(off)])) == 1
    # Rows after a breakdown are no part of T. Beyond the spectrum (Gershgorin) they sort last and are masked.
    beyond = 1 + 2 * jnp.max(jnp.abs(found.diagonal)) + 2 * jnp.max(off, initial=0)
    diagonal = jnp.where(in_space, found.diagonal, beyond)
    values, vectors = jnp.linalg.eigh(jnp.diag(diagonal) + jnp.diag(off, 1) + jnp.diag(off, -1))
    used = jnp.sum(in_space)
    is_used = jnp.arange(len(values)) < used
    weights = jnp.where(is_used, vectors[0] ** 2, 0)
    return Ritz(
        values=scale * jnp.where(is_used, values, values[used - 1]),
        weights=weights / jnp.sum(weights),
        residuals=scale * found.residual * jnp.abs(vectors[-1]),
    )
