"""Norms and inner products of trees of arrays. The norms neither overflow nor underflow."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .arithmetic import sqrt
from .collectives import AxisName, each_over_shards, total_over_shards
from .copies import hidden_zero
from .tracing import either, is_traced
from .trees import compute_dtype


def scaled_norm(leaves: Sequence[jax.Array], axis_name: AxisName = None) -> tuple[jax.Array, jax.Array]:
    """Euclidean norm of all entries as a pair (inverse scale, norm * inverse scale), in float32 or wider.

    The pair and its squares stay finite even if the norm itself would not. One infinite or NaN entry makes the second
    number NaN, so that nothing downstream mistakes it for a very long vector. With `axis_name` the leaves are shards
    inside `shard_map`, and the norm is that of the whole. This takes one all-reduce of a scalar.
    """
    return _with_inverse_scale(*factored_norm(leaves, axis_name))


def scaled_norms(leaves: Sequence[jax.Array], axis_name: AxisName = None) -> tuple[jax.Array, jax.Array]:
    """`scaled_norm` of each leaf by itself, as two vectors [leaves]."""
    return _with_inverse_scale(*factored_norms(leaves, axis_name))


def _with_inverse_scale(factor: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
    limits = jnp.finfo(length.dtype)
    # The norm, or the nearest number to it for which neither 1 / scale nor the square overflows.
    scale = jnp.clip(jax.lax.stop_gradient(length) / factor, limits.tiny**0.5, limits.max / 8)
    is_plain = factor == 1
    return jnp.where(is_plain, 1, 1 / scale), jnp.where(is_plain, length, length / (factor * scale))


def factored_norm(leaves: Sequence[jax.Array], axis_name: AxisName = None) -> tuple[jax.Array, jax.Array]:
    """Euclidean norm of all entries as a pair (f, f * norm), in float32 or wider; f is 1 or a power of two.

    f is 1 unless the sum of the squares over- or underflows. The second number is NaN if an entry is infinite or NaN.
    """
    dtype = compute_dtype(*(x.dtype for x in leaves))
    return _factored(lambda sums: total_over_shards(sums, axis_name, dtype), leaves)


def factored_norms(leaves: Sequence[jax.Array], axis_name: AxisName = None) -> tuple[jax.Array, jax.Array]:
    """`factored_norm` of each leaf by itself, as two vectors [leaves]. All leaves share one conditional.

    With a conditional for each leaf, the time to compile would grow as the square of their number.
    """
    return _factored(lambda sums: each_over_shards(sums, axis_name), leaves)


Combine = Callable[[list[jax.Array]], jax.Array]  # from the leaves' sums to their total, or to a vector of them


def _factored(combine: Combine, leaves: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """`factored_norm` of all leaves together, or of each leaf, depending on `combine`.

    The leaves are read once, for three sums of squares: of the entries as they are, scaled up and scaled down. XLA on
    the CPU would read them three times, so there the scaled sum is computed only if it is needed.
    """
    if not is_traced(leaves):
        return _read_again(combine, *leaves)
    cpu, default = partial(_read_again, combine), partial(_read_once, combine)
    return jax.lax.platform_dependent(*leaves, cpu=cpu, default=default)


def _read_again(combine: Combine, *leaves: jax.Array) -> tuple[jax.Array, jax.Array]:
    dtype = compute_dtype(*(x.dtype for x in leaves))
    total = combine([_square_sum(x, dtype) for x in leaves])
    is_exact = _is_exact(total)

    def rescaled() -> tuple[jax.Array, jax.Array]:
        factor = jnp.where(is_exact, 1, _factor(total))
        factors = [factor] * len(leaves) if factor.ndim == 0 else list(factor)
        squares = [_square_sum(x, dtype, f) for x, f in zip(leaves, factors, strict=True)]
        return factor, _root(combine(squares))

    return either(jnp.all(is_exact), lambda: (jnp.ones_like(total), sqrt(total)), rescaled)


def _read_once(combine: Combine, *leaves: jax.Array) -> tuple[jax.Array, jax.Array]:
    dtype = compute_dtype(*(x.dtype for x in leaves))
    sums = [_square_sums(x, dtype) for x in leaves]
    total, up, down = (combine([s[i] for s in sums]) for i in range(3))
    is_exact = _is_exact(total)
    chosen = jnp.where(is_exact, total, jnp.where(total < 1, up, down))
    return jnp.where(is_exact, 1, _factor(total)), _root(chosen)


def _is_exact(total: jax.Array) -> jax.Array:
    """Whether no digits were lost. Squares below `tiny` lose them, so a sum near `tiny` may be far too small."""
    limits = jnp.finfo(total.dtype)
    return (total < limits.max) & (total > limits.tiny / limits.eps**2)


def _factor(total: jax.Array) -> jax.Array:
    return jnp.where(total < 1, _far(total.dtype), 1 / _far(total.dtype)).astype(total.dtype)


def _far(dtype: jnp.dtype) -> float:
    """2 to the power of 3/4 of the largest exponent. Squares of entries scaled by it do not over- or underflow."""
    return 2.0 ** (jnp.finfo(dtype).maxexp * 3 // 4)


def _root(total: jax.Array) -> jax.Array:
    """The square root of the total; NaN if the total is not finite."""
    return sqrt(total) + (total - total)  # inf - inf is NaN, and a finite total minus itself is 0


@partial(jax.jit, static_argnums=1)
def _square_sum(x: jax.Array, dtype: jnp.dtype, factor: jax.Array | None = None) -> jax.Array:
    """Σ |f x|²; compiled, so that leaves of the same shape are traced once."""
    x = _real_parts(x, dtype)
    if factor is not None:
        # If x is a constant, such as the gradient 0 of a parameter without influence, the compiler would split (f x)²
        # into f² x². Adding a zero that it cannot simplify prevents this.
        x = (x + hidden_zero(factor)) * factor
    return jnp.sum(x * x)


@partial(jax.jit, static_argnums=1)
def _square_sums(x: jax.Array, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Σ |x|², Σ |f x|² over the entries below 1, Σ |x / f|² over the others."""
    return _scaled_square_sums(_real_parts(x, dtype))


@jax.custom_jvp
def _scaled_square_sums(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    zero = jnp.zeros((), x.dtype)

    def add(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        return tuple(map(jax.lax.add, a, b))

    # One reduction with three results: XLA on GPUs keeps it in one kernel, but would split three reductions into six.
    squares = tuple(y * y for y in _scaled(x))
    return tuple(jax.lax.reduce(squares, (zero, zero, zero), add, tuple(range(x.ndim))))


@_scaled_square_sums.defjvp
def _scaled_square_sums_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    slopes = tuple(2 * jnp.sum(y * dy) for y, dy in zip(_scaled(x), jax.jvp(_scaled, (x,), (dx,))[1], strict=True))
    return _scaled_square_sums(x), slopes


def _scaled(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    far, is_small = _far(x.dtype), jnp.abs(x) < 1
    return x, jnp.where(is_small, x * far, 0), jnp.where(is_small, 0, x / far)


def tree_norm(tree: Any) -> jax.Array:
    """Euclidean norm of all entries of a tree; inf if the dtype cannot hold it."""
    inverse_scale, relative = scaled_norm(jax.tree.leaves(tree))
    return relative / inverse_scale


def tree_inner(a: Any, b: Any) -> jax.Array:
    """Inner product of two real trees, in JAX's default float dtype."""
    dtype = jnp.result_type(float)
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum((jnp.sum(x.astype(dtype) * y.astype(dtype)) for x, y in pairs), start=jnp.zeros((), dtype))


def _real_parts(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The array in the real dtype to compute in; a complex one as its real and imaginary parts, stacked."""
    if jnp.iscomplexobj(x):
        return jnp.stack([x.real, x.imag]).astype(dtype)
    return x.astype(dtype)
