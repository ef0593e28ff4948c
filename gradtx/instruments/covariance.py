"""How much the gradients of single examples differ: the trace of their covariance, without any of these gradients.

    tr Σ = Σ_j Var_i(e_j'g_i)      exactly, over the unit vectors e_j of all parameters
         ≈ mean of Var_i(v'g_i)    over probes v of random signs

Both need only the slopes v'g_i of the losses of all examples i along a direction, from one forward pass each.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gradtx._core.debugging import unknown
from gradtx._core.types import Params

from .directional import slopes_along

EXACT_UP_TO = 128  # parameters: with at most this many, per-example gradients are taken one coordinate at a time


def trace_covariance(
    losses_fn: Callable[[Params], jax.Array], params: Params, count: jax.Array, num_probes: int, seed: int
) -> tuple[jax.Array, int]:
    """tr Σ and B. Σ is the covariance of the gradients of B single examples (divisor B - 1); NaN for one example.

    It is exact up to `EXACT_UP_TO` parameters. Above, it is the mean over `num_probes` probes; each step draws its own.
    """
    leaves, treedef = jax.tree.flatten(params)
    size = sum(x.size for x in leaves)
    if size == 0:
        return jnp.zeros((), jnp.result_type(float)), len(losses_fn(params))
    if size <= EXACT_UP_TO:
        ends = itertools.accumulate(x.size for x in leaves)
        places = [end - x.size + jnp.arange(x.size).reshape(x.shape) for end, x in zip(ends, leaves, strict=True)]

        def slopes(j: jax.Array) -> jax.Array:
            coordinate = [_placed(p == j, x) for p, x in zip(places, leaves, strict=True)]
            return slopes_along(losses_fn, params, treedef.unflatten(coordinate))

        found = jax.vmap(slopes)(jnp.arange(size))
        return jnp.sum(_variance(found)), found.shape[1]
    probe_keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), count), num_probes)
    keys = [jax.random.split(key, len(leaves)) for key in probe_keys]
    probes = [treedef.unflatten(map(_signs, row, leaves)) for row in keys]
    found = jnp.stack([slopes_along(losses_fn, params, probe) for probe in probes])
    return jnp.mean(_variance(found)), found.shape[1]


def _variance(found: jax.Array) -> jax.Array:
    """The variance of each row, with divisor B - 1; unknown for one example."""
    if found.shape[1] == 1:
        return jnp.full_like(found[:, 0], unknown())
    return jnp.var(found, axis=1, ddof=1)


def _signs(key: jax.Array, like: jax.Array) -> jax.Array:
    """Independent signs, 32 from each random word. Drawn one by one, they would cost more than the pass itself."""
    columns = like.shape[-1] if like.ndim else 1
    rows = like.size // max(columns, 1)
    words = jax.random.bits(key, (-(-rows // 32), 1, columns), jnp.uint32)
    bits = (words >> jnp.arange(32, dtype=jnp.uint32)[None, :, None]) & jnp.uint32(1)
    return 2 * _placed(bits.reshape(32 * len(words), columns)[:rows].reshape(like.shape), like) - 1


def _placed(x: jax.Array, like: jax.Array) -> jax.Array:
    """Returns x in the dtype and sharding of `like`."""
    return jnp.zeros_like(like) + x.astype(like.dtype)
