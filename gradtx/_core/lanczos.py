"""The Lanczos iteration on trees: estimates the ends of a spectrum from products with the matrix alone."""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from .arithmetic import sqrt


class LanczosResult(NamedTuple):
    """T = Q A Qᵀ on the Krylov space of the start vector."""

    basis: list[Any]  # k trees, the orthonormal rows of Q; zeros from the breakdown on
    diagonal: jax.Array  # [k] of T
    off_diagonal: jax.Array  # [k - 1] of T; 0 from the breakdown on
    residual: jax.Array  # [] norm of the part of A q_k outside the space; 0 if the space is invariant


def lanczos(
    product: Callable[[Any], Any],
    start: Any,
    num_iterations: int,
    step: Callable[..., Any] | None = None,
    restart: Callable[[Any, Any, jax.Array, int], Any] | None = None,
) -> LanczosResult:
    """Takes `num_iterations` steps from `start`, with Gram-Schmidt twice and a guard against breakdown.

    The loop is unrolled, so use at most a few dozen steps. It holds k trees. Outside `jit` one step is compiled and
    called k times, so compiling takes the time of one product. If `product` is a `Partial`, as `jax.linearize` returns
    it, its arrays are arguments of the step and not constants in it. Pass the same `new_step()` for several starts, so
    that it is compiled once. If the Krylov space is exhausted (for H = I after one step), only rounding error is left.
    Normalising it would invent eigenvalues, so the basis stops there: later rows and entries of T are 0. With a
    `restart` from `new_restart` the basis goes on from a new vector instead, and a repeated eigenvalue is found as
    often as it occurs.
    """
    dtype = jnp.result_type(*jax.tree.leaves(start))
    step = step or new_step()
    linear = product if isinstance(product, Partial) else Partial(product)

    q, largest = _scaled(start, _safe_reciprocal(_norm(start))), jnp.zeros((), dtype)
    rows = jax.tree.map(lambda x: jnp.stack([jnp.zeros_like(x)] * num_iterations), q)
    diagonal, off_diagonal = [], []
    for number, at in enumerate(np.eye(num_iterations, dtype=dtype)):
        rows, q, alpha, beta, largest = step(linear, rows, q, at, largest)
        if restart is not None:
            q = restart(rows, q, beta, number)
        diagonal.append(alpha)
        off_diagonal.append(beta)
    basis = [jax.tree.map(lambda r, k=k: r[k], rows) for k in range(num_iterations)]
    return LanczosResult(basis, jnp.stack(diagonal), jnp.stack(off_diagonal)[:-1], off_diagonal[-1])


def new_step() -> Callable[..., Any]:
    """One step, compiled at its first call. Do not keep it longer: its cache holds the loss and its data."""
    return jax.jit(partial(_step))


def new_restart(draw: Callable[[Any], Any], key: jax.Array) -> Callable[[Any, Any, jax.Array, int], Any]:
    """(rows, q, beta, number) -> the next q. After a breakdown that is a vector from `draw`, orthogonal to the rows.

    After a breakdown the space so far is invariant, so nothing is known yet about the matrix on the rest of the space.
    """

    @jax.jit
    def restart(rows: Any, q: Any, beta: jax.Array, number: int) -> Any:
        def fresh() -> Any:
            w = draw(jax.random.fold_in(key, number))
            length = _norm(w)
            w = _without(rows, _without(rows, w))
            left = _norm(w)
            is_new = left > 32 * jnp.finfo(left.dtype).eps * length
            return _scaled(w, jnp.where(is_new, _safe_reciprocal(left), 0))

        return jax.lax.cond(beta > 0, lambda: q, fresh)

    return restart


def _without(rows: Any, w: Any) -> Any:
    """The part of `w` that is orthogonal to all rows."""
    overlaps = _overlaps(rows, w)
    return jax.tree.map(lambda x, r: x - jnp.sum(_column(overlaps, r.ndim) * r, axis=0), w, rows)


def _step(linear: Partial, rows: Any, q: Any, at: jax.Array, largest: jax.Array) -> tuple[Any, ...]:
    """Sets row `at` of the basis to q. The next q is the part of A q that is orthogonal to all rows.

    If that part is only rounding error, the next q is 0.
    """
    rows = jax.tree.map(lambda r, x: r + _column(at, r.ndim) * x[None], rows, q)
    w = linear(q)
    alpha = jnp.sum(at * _overlaps(rows, w))
    w = _without(rows, _without(rows, w))
    beta = _norm(w)
    largest = jnp.maximum(largest, jnp.abs(alpha) + beta)
    beta = jnp.where(beta > 32 * jnp.finfo(at.dtype).eps * largest, beta, 0)
    return rows, _scaled(w, _safe_reciprocal(beta)), alpha, beta, largest


def _overlaps(rows: Any, w: Any) -> jax.Array:
    """[k], the inner product of `w` with each row; products and sums only, which any sharding allows."""
    pairs = zip(jax.tree.leaves(rows), jax.tree.leaves(w), strict=True)
    return reduce(jnp.add, (jnp.sum(r * x[None], axis=tuple(range(1, r.ndim))) for r, x in pairs))


def _column(c: jax.Array, ndim: int) -> jax.Array:
    return jax.lax.expand_dims(c, tuple(range(1, ndim)))


def _norm(a: Any) -> jax.Array:
    return sqrt(reduce(jnp.add, (jnp.sum(x * x) for x in jax.tree.leaves(a))))


def _scaled(a: Any, factor: jax.Array) -> Any:
    return jax.tree.map(lambda x: factor * x, a)


def _safe_reciprocal(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0)
