"""Ritz values: estimates of the spectrum of a symmetric matrix from k products with it.

    T = Q A Qᵀ on the Krylov space of a start vector,  T = Y diag(θ) Yᵀ
    weights     τ_i = Y_{1i}²           the share of the start vector on θ_i; θ and τ form a Gauss quadrature
    residuals   r_i = β_k |Y_{ki}|      there is an eigenvalue of A within r_i of θ_i

**Source**: Lanczos 1950; Golub & Welsch 1969; Parlett 1980 (the residual bound).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from .lanczos import lanczos, new_restart, new_step


class Ritz(NamedTuple):
    """Ritz values in ascending order. If the space ended early, the last ones repeat the largest with weight 0."""

    values: jax.Array  # [k] θ
    weights: jax.Array  # [k] τ, which sum to 1
    residuals: jax.Array  # [k] r; 0 if the space is invariant
    vectors: jax.Array  # [k, k] Y: column i is the vector of θ_i in terms of `basis`; 0 if the value is a repetition
    largest_at: jax.Array  # [] the first place of the largest value, whose vector is not a repetition
    basis: list[Any]  # k trees, the rows of Q


def ritz(num_iterations: int) -> Callable[[Callable[[Any], Any], Any], Ritz]:
    """(product, start) -> the Ritz values after `num_iterations` Lanczos steps; compiled once for all starts.

    One more product gives the scale of the matrix. All products are divided by it, so that the squares inside Lanczos
    neither overflow nor underflow, whatever the unit of the matrix. The start itself must have a moderate length.
    """
    scale_of, step = jax.jit(lambda product, v: _scale(product(v))), new_step()

    def solve(product: Callable[[Any], Any], start: Any) -> Ritz:
        linear = product if isinstance(product, Partial) else Partial(product)
        scale = scale_of(linear, start)
        found = lanczos(Partial(_scaled, linear, scale), start, num_iterations, step)
        values, weights, residuals, vectors, largest_at = _from_tridiagonal(
            found.diagonal, found.off_diagonal, found.residual, scale
        )
        return Ritz(values, weights, residuals, vectors, largest_at, found.basis)

    return solve


class Eigenpairs(NamedTuple):
    """The largest eigenvalues that were found, in descending order."""

    values: jax.Array  # [k] θ
    vectors: Any  # as the start, with an axis [k] in front; they have length 1 and are orthogonal to each other
    residuals: jax.Array  # [k] r: an eigenvalue of A lies within r of θ; 0 if the Krylov space is the whole space


def largest_eigenpairs(
    product: Callable[[Any], Any], start: Any, k: int, num_iterations: int, draw: Callable[[Any], Any], key: jax.Array
) -> Eigenpairs:
    """The k largest of `num_iterations` Ritz pairs. A space that is exhausted early is extended from a new start.

    `draw(key)` returns a new start. `num_iterations` must not be above the number of entries of a vector.
    """
    linear = product if isinstance(product, Partial) else Partial(product)
    scale = jax.jit(lambda product, v: _scale(product(v)))(linear, start)
    found = lanczos(Partial(_scaled, linear, scale), start, num_iterations, restart=new_restart(draw, key))
    return _largest(k, found.basis, found.diagonal, found.off_diagonal, found.residual, scale)


@partial(jax.jit, static_argnums=0)
def _largest(
    k: int, basis: list[Any], diagonal: jax.Array, off: jax.Array, residual: jax.Array, scale: jax.Array
) -> Eigenpairs:
    values, vectors = jnp.linalg.eigh(jnp.diag(diagonal) + jnp.diag(off, 1) + jnp.diag(off, -1))
    top = vectors[:, ::-1][:, :k]
    trees = [combined(column, basis) for column in top.T]
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *trees)
    return Eigenpairs(scale * values[::-1][:k], stacked, scale * residual * jnp.abs(top[-1]))


def combined(coefficients: jax.Array, basis: Sequence[Any]) -> Any:
    """Σ_i c_i q_i: the tree that has these coefficients in a basis."""
    return jax.tree.map(
        lambda *rows: sum((c.astype(r.dtype) * r for c, r in zip(coefficients, rows, strict=True)), start=0 * rows[0]),
        *basis,
    )


def _scale(a: Any) -> jax.Array:
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(x), initial=0) for x in jax.tree.leaves(a)]))
    return jnp.where(largest > 0, largest, 1)  # 1 for NaN too: the NaN then shows in the products


def _scaled(product: Callable[[Any], Any], scale: jax.Array, v: Any) -> Any:
    return jax.tree.map(lambda x: x / scale, product(v))


@jax.jit
def _from_tridiagonal(
    diagonal: jax.Array, off: jax.Array, residual: jax.Array, scale: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """All of `Ritz` but the basis, from the entries of T."""
    in_space = jnp.cumprod(jnp.concatenate([jnp.ones(1, off.dtype), jnp.sign(off)])) == 1
    # Rows after a breakdown are not part of T. Placed beyond the spectrum (Gershgorin), they sort last.
    beyond = 1 + 2 * jnp.max(jnp.abs(diagonal)) + 2 * jnp.max(off, initial=0)
    diagonal = jnp.where(in_space, diagonal, beyond)
    values, vectors = jnp.linalg.eigh(jnp.diag(diagonal) + jnp.diag(off, 1) + jnp.diag(off, -1))
    last = jnp.sum(in_space) - 1
    is_used = jnp.arange(len(values)) <= last
    weights = jnp.where(is_used, vectors[0] ** 2, 0)
    return (
        scale * jnp.where(is_used, values, values[last]),
        weights / jnp.sum(weights),
        scale * residual * jnp.abs(vectors[-1]),
        jnp.where(is_used, vectors, 0),
        last,
    )
