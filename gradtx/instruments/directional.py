"""Passes over the model: the losses of a batch along a direction, L_i(θ + s d) at s = 0, and their derivatives.

These come from one nested forward-mode pass over the vector of losses, without a backward pass, stored activations or
gradients of single examples. If a `custom_vjp` in the loss blocks forward mode, finite differences are used instead, at
the cost of two more losses and two more gradients.

The slopes also give the trace of the covariance Σ of the gradients g_i of single examples, without these gradients:

    tr Σ = Σ_j Var_i(e_j'g_i)      exactly, over the unit vectors e_j of all parameters
         ≈ mean of Var_i(v'g_i)    over probes v of random signs
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

from gradtx._core.debugging import unknown
from gradtx._core.tracing import equations
from gradtx._core.trees import compute_dtype, widen
from gradtx._core.types import Params

EXACT_UP_TO = 128  # parameters: with at most this many, the slopes are taken one coordinate at a time


class Along(NamedTuple):
    """The losses of B examples along a direction d."""

    losses: jax.Array  # [B]
    slopes: jax.Array  # [B] d'g_i
    curvature: jax.Array  # [] d'Hd, where H is the Hessian of the mean loss


def along(losses_fn: Callable[[Params], jax.Array], params: Params, direction: Params) -> Along:
    """Losses at `params`, their slopes, and the curvature of their mean, along `direction`."""
    params = jax.tree.map(jnp.asarray, params)

    def first(at: Params) -> tuple[jax.Array, jax.Array]:
        return jax.jvp(losses_fn, (at,), (direction,))

    def forward() -> Along:
        (losses, slopes), (_, curvatures) = _apart(lambda: jax.jvp(first, (params,), (direction,)))
        return Along(losses, slopes, jnp.mean(curvatures))

    return unless_blocked(forward, lambda: _along_by_differences(losses_fn, params, direction))


def _apart(function: Callable[[], Any]) -> Any:
    """Returns `function()`, traced separately first. If that fails, nothing of it is left in the program around it."""
    closed, shape = jax.make_jaxpr(function, return_shape=True)()
    # Under `jit`, JAX would reject a `custom_vjp` in forward mode only when it compiles.
    if any(equation.primitive.name == "custom_lin" for equation in equations(closed)):
        raise TypeError("forward mode met a custom_vjp")
    return jax.tree.unflatten(jax.tree.structure(shape), jaxpr_as_fun(closed)())


def unless_blocked(forward: Callable[[], Any], by_differences: Callable[[], Any]) -> Any:
    """Returns `forward()`, or `by_differences()` if forward mode met a `custom_vjp`."""
    try:
        return forward()
    except (TypeError, NotImplementedError) as error:
        # The error names `custom_lin` if forward mode met it inside another forward mode.
        if "custom_vjp" not in str(error) and "custom_lin" not in str(error):
            raise
    return by_differences()


def slopes_along(losses_fn: Callable[[Params], jax.Array], params: Params, direction: Params) -> jax.Array:
    """Only the slopes, by one forward pass."""
    return unless_blocked(
        lambda: _apart(lambda: jax.jvp(losses_fn, (params,), (direction,))[1]),
        lambda: _along_by_differences(losses_fn, params, direction).slopes,
    )


def _along_by_differences(losses_fn: Callable[[Params], jax.Array], params: Params, direction: Params) -> Along:
    """Computes slopes by central differences of the losses, and the curvature by those of the mean's gradient."""
    losses = losses_fn(params)
    ahead, behind, width = two_sides(params, direction)
    width = width.astype(losses.dtype)

    def slope(at: Params) -> jax.Array:
        gradient = jax.grad(lambda p: jnp.mean(losses_fn(p)))(at)
        products = jax.tree.map(
            lambda g, d: jnp.sum(widen(g, losses.dtype) * widen(d, losses.dtype)), gradient, direction
        )
        return sum(jax.tree.leaves(products), start=jnp.zeros((), losses.dtype))

    return Along(losses, (losses_fn(ahead) - losses_fn(behind)) / width, (slope(ahead) - slope(behind)) / width)


def two_sides(params: Params, direction: Params) -> tuple[Params, Params, jax.Array]:
    """The two points of a central difference along `direction` (of any length), and its divisor.

    Their distance is set by the length of the parameters times the cube root of their rounding, so that the step is
    visible in each parameter.
    """
    leaves, towards = jax.tree.leaves(params), jax.tree.leaves(direction)
    dtype = compute_dtype(*(x.dtype for x in leaves))
    rounding = max((float(jnp.finfo(x.dtype).eps) for x in leaves), default=1.0)
    length, reach = (jnp.sqrt(sum((jnp.sum(widen(x, dtype) ** 2) for x in tree), start=jnp.zeros((), dtype)))
                     for tree in (leaves, towards))  # fmt: skip
    step = rounding ** (1 / 3) * jnp.maximum(1, length) / jnp.where(reach > 0, reach, 1)

    def shifted(sign: int) -> Params:
        def moved(x: jax.Array, d: jax.Array) -> jax.Array:
            wide = compute_dtype(x.dtype)
            return (widen(x, wide) + sign * step.astype(wide) * widen(d, wide)).astype(x.dtype)

        return jax.tree.map(moved, params, direction)

    return shifted(1), shifted(-1), 2 * step


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
