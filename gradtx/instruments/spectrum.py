"""Estimates the density and the trace of the whole spectrum of the Hessian, from a few products.

    spectral density   φ(λ) = 1/n Σ_i δ(λ - λ_i) ≈ 1/m Σ_p Σ_j τ_pj δ(λ - θ_pj)     stochastic Lanczos quadrature
    trace              tr H = E[vᵀ H v] ≈ 1/m Σ_p v_pᵀ H v_p                        Hutchinson

| letter | argument         | meaning                                             |
|--------|------------------|-----------------------------------------------------|
| v_p    | `key`            | probes of random signs, ±1 (Rademacher)             |
| m      | `num_probes`     | number of probes                                    |
| θ, τ   | nodes, weights   | Ritz values, and the share of the probe on each     |

**Source**: Hutchinson 1989; Ubaru, Chen & Saad 2017 (quadrature); Ghorbani, Krishnan & Xiao 2019 (for nets).

**Differs from** PyHessian and curvlinops (torch), which need a model, a loss and a data loader. Here only
`value_fn(params)` is needed. Unlike matfree, it has a guard for a Krylov space that ends early, so that I, 0 and
diag(1, ..., 1, 10) are exact.

**Reads**: mass at λ < 0 near a supposed minimum means a saddle. A bulk at 0 with a few large outliers is the usual
shape of a net and the cause of ill-conditioning: the outliers limit the learning rate, and the bulk learns slowly.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from gradtx._core.arguments import check_key, checked_count
from gradtx._core.debugging import unknown
from gradtx._core.ritz import ritz
from gradtx._core.types import Params

from .point import checked_finite, linearised, over, signs_like


def spectral_density(
    value_fn: Callable[[Params], Any],
    params: Params,
    *,
    key: jax.Array,
    num_probes: int = 8,
    num_iterations: int = 20,
) -> tuple[jax.Array, jax.Array]:
    """Nodes and weights of the density of the Hessian's eigenvalues, by stochastic Lanczos quadrature.

    The weights sum to 1 over all entries, and to 1/`num_probes` in each row. `sum(weights * nodes)` estimates tr H / n,
    and the same works for other functions of the eigenvalues. Each row is exact up to degree 2·`num_iterations` - 1, so
    only the error of the probes is left. A row with fewer distinct eigenvalues than iterations repeats its largest node
    with weight 0. Probes of signs are exact on diagonal Hessians, but can miss an eigenvector of a tiny problem.

    Args:
        value_fn: the loss, `params -> scalar`, twice differentiable.
        params: any tree of real floating arrays. Dtypes narrower than float32 are widened for `value_fn` too.
        key: a JAX random key, for the probes.
        num_probes: m, >= 1.
        num_iterations: Lanczos steps per probe, >= 1; at most as many as there are parameters are made.

    Returns:
        nodes and weights, each [num_probes, num_iterations], nodes ascending in each row.

    Costs: `num_probes * (num_iterations + 1)` products of two gradients. Memory: `num_iterations` + 3 copies of the
    parameters in float32 and one backward pass, for one probe at a time. Legal inside `jit` and `vmap`, where it
    compiles `num_iterations` products; outside it compiles one.

    Raises:
        ValueError: a number below 1; a loss that is not a real scalar; a complex leaf; a loss, gradient or Hessian
            that is not finite (outside `jit`).
        TypeError: a leaf is not a floating array, or `key` is not a key.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> curvatures = jnp.array([1.0, 1.0, 1.0, 10.0])
    >>> loss = lambda x: jnp.sum(curvatures * x**2) / 2
    >>> sizes = {"num_probes": 1, "num_iterations": 3}
    >>> nodes, weights = gradtx.spectral_density(loss, jnp.zeros(4), key=jax.random.key(0), **sizes)
    >>> print(nodes.round(3), weights.round(3))
    [[ 1. 10. 10.]] [[0.75 0.25 0.  ]]
    """
    check_key("spectral_density", key)
    checked_count("spectral_density", "num_probes", num_probes)
    checked_count("spectral_density", "num_iterations", num_iterations)
    point, value, gradient, product = linearised("spectral_density", value_fn, params)
    steps = min(num_iterations, sum(x.size for x in point))
    solve = ritz(steps)

    def density(product: Partial, probe_key: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = solve(product, signs_like(probe_key, point))
        return found.values, found.weights / num_probes

    nodes, weights = over(density, jax.random.split(key, num_probes), product, is_compiled=True)
    nodes, weights = checked_finite("spectral_density", value, gradient, nodes, weights)
    missing = ((0, 0), (0, num_iterations - steps))
    return jnp.pad(nodes, missing, mode="edge"), jnp.pad(weights, missing)


def hessian_trace(
    value_fn: Callable[[Params], Any],
    params: Params,
    *,
    key: jax.Array,
    num_probes: int = 32,
    per_leaf: bool = False,
) -> tuple[Any, Any]:
    """The trace of the Hessian, and the standard error of that estimate.

    The relative standard error is about √2 ‖H‖_F / (|tr H| √m). On a diagonal Hessian the trace is exact, with error 0.

    Args:
        value_fn: the loss, `params -> scalar`, twice differentiable.
        params: any tree of real floating arrays. Dtypes narrower than float32 are widened for `value_fn` too.
        key: a JAX random key, for the probes.
        num_probes: m, >= 1. One probe has no spread, so its standard error is NaN.
        per_leaf: return the trace of each leaf's block of the Hessian, from the same probes. They add up to the trace.
            The blocks between two leaves affect the standard errors only.

    Returns:
        the mean of vᵀHv over the probes, and their standard deviation / √m; scalars. With `per_leaf` two trees like
        `params`, a scalar for each leaf.

    Costs: `num_probes` products of two gradients, linearised once; memory for one backward pass. Legal inside `jit` and
    `vmap`.

    Raises:
        ValueError: `num_probes` below 1; a loss that is not a real scalar; a complex leaf; a loss, gradient or Hessian
            that is not finite (outside `jit`).
        TypeError: a leaf is not a floating array, or `key` is not a key.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> loss = lambda p: (p["a"] ** 2 + jnp.sum(jnp.array([2.0, 3.0]) * p["b"] ** 2)) / 2
    >>> params = {"a": jnp.ones(()), "b": jnp.ones(2)}
    >>> trace, standard_error = gradtx.hessian_trace(loss, params, key=jax.random.key(0), num_probes=2)
    >>> print(trace, standard_error)
    6.0 0.0
    >>> trace, _ = gradtx.hessian_trace(loss, params, key=jax.random.key(0), num_probes=2, per_leaf=True)
    >>> print(trace["a"], trace["b"])
    1.0 5.0
    """
    check_key("hessian_trace", key)
    checked_count("hessian_trace", "num_probes", num_probes)
    point, value, gradient, product = linearised("hessian_trace", value_fn, params)

    def one(product: Partial, probe_key: jax.Array) -> jax.Array:
        v = signs_like(probe_key, point)
        return jnp.stack([jnp.sum(x * hx) for x, hx in zip(v, product(v), strict=True)])

    samples = over(one, jax.random.split(key, num_probes), product)  # [probes, leaves]
    (samples,) = checked_finite("hessian_trace", value, gradient, samples)
    samples = samples if per_leaf else jnp.sum(samples, axis=1)
    mean = jnp.mean(samples, axis=0)
    spread = jnp.std(samples, axis=0, ddof=1) / num_probes**0.5 if num_probes > 1 else jnp.full_like(mean, unknown())
    if not per_leaf:
        return mean, spread
    treedef = jax.tree.structure(params)
    return treedef.unflatten(list(mean)), treedef.unflatten(list(spread))
