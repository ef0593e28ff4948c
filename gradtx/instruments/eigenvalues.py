"""The largest eigenvalues of the Hessian with their eigenvectors: the sharpest directions of the loss at one point.

    H v_i = λ_i v_i,    λ_1 >= λ_2 >= ... >= λ_k,    ‖v_i‖ = 1, v_i orthogonal to v_j

| letter | meaning                                                                                 |
|--------|-----------------------------------------------------------------------------------------|
| H      | the Hessian of `value_fn` at `params`, n x n                                            |
| λ, v   | the k largest eigenvalues and their eigenvectors, by Lanczos from a random start        |
| r      | residuals β |y_i|: an eigenvalue lies within r_i of λ_i, and r_i = ‖H v_i - λ_i v_i‖     |

**Reads**: a few eigenvalues far above the rest are the usual shape of a net (about as many as it has classes). Their
directions limit the learning rate, and most of the gradient lies in them. In the rest of the space learning is slow.

**Source**: Lanczos 1950; Parlett 1980 (the residual bound); Sagun, Evci, Guney, Dauphin & Bottou 2017 (nets).

**Differs from** PyHessian (torch), which runs power iteration once for each eigenvalue and orders them by magnitude.
For diag(1, -3, 2) it gives -3 first, but here 2 is first. For the smallest eigenvalues, take the largest of
`lambda params: -loss(params)` and change the sign. Unlike in `scipy.sparse.linalg.eigsh` and matfree, a Krylov space
that ends early is extended from a new start, so that a repeated eigenvalue of a small problem is found as often as it
occurs.

**When**: now and then, at a point. To follow λ_1 at each step of a run, use `sharpness`.
"""

from collections.abc import Callable
from typing import Any

import jax

from gradtx._core.arguments import check_key, checked_count
from gradtx._core.ritz import Eigenpairs, largest_eigenpairs
from gradtx._core.types import Params

from .point import checked_finite, linearised, normal_like


def top_eigenvalues(
    value_fn: Callable[[Params], Any],
    params: Params,
    k: int = 1,
    *,
    key: jax.Array,
    num_iterations: int | None = None,
) -> Eigenpairs:
    """The k largest eigenvalues of the Hessian, their eigenvectors, and how far each may be off.

    Lanczos never finds more than the true λ_i. If the residual is small against λ_i, the value has converged. Of a
    repeated eigenvalue of a large problem it may find only one eigenvector.

    Args:
        value_fn: the loss, `params -> scalar`, twice differentiable.
        params: any tree of real floating arrays, n numbers. Dtypes narrower than float32 are widened, and `value_fn`
            sees float32.
        k: number of eigenvalues, from 1 to n.
        key: a JAX random key, for the start vector.
        num_iterations: Lanczos steps, >= k; None makes 4 k + 20. With n or more, the result is exact to rounding.

    Returns:
        a named tuple: `values` [k], in descending order; `vectors`, a tree like `params` in float32 or wider, with an
        axis [k] in front of each leaf; `residuals` [k].

    Costs: `num_iterations` + 1 products of two gradients each; memory for `num_iterations` + k + 3 copies of the
    parameters in float32 and one backward pass. Legal inside `jit` and `vmap`, where it compiles that many products.

    Raises:
        ValueError: `k` or `num_iterations` out of range; a loss that is not a real scalar; a complex leaf; a loss,
            gradient or Hessian that is not finite (outside `jit`).
        TypeError: a leaf is not a floating array, `key` is not a key, or a number is of the wrong kind.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> loss = lambda p: (p["a"] ** 2 + jnp.sum(jnp.array([-7.0, 3.0]) * p["b"] ** 2)) / 2
    >>> params = {"a": jnp.zeros(()), "b": jnp.zeros(2)}
    >>> values, vectors, residuals = gradtx.top_eigenvalues(loss, params, 2, key=jax.random.key(0))
    >>> print([round(float(value), 3) for value in values], abs(vectors["b"][0]).round(3), residuals)
    [3.0, 1.0] [0. 1.] [0. 0.]
    """
    name = "top_eigenvalues"
    check_key(name, key)
    checked_count(name, "k", k)
    point, value, gradient, product = linearised(name, value_fn, params)
    size = sum(x.size for x in point)
    if k > size:
        raise ValueError(f"{name}: k must be at most the number of parameters, {size}, got {k}.")
    if num_iterations is not None:
        checked_count(name, "num_iterations", num_iterations, k)
    steps = min(size, 4 * k + 20 if num_iterations is None else num_iterations)
    start_key, restart_key = jax.random.split(key)

    def draw(key: jax.Array) -> list[jax.Array]:
        return normal_like(key, point)

    found = largest_eigenpairs(product, draw(start_key), k, steps, draw, restart_key)
    values, residuals = checked_finite(name, value, gradient, found.values, found.residuals)
    vectors = jax.tree.structure(params).unflatten(found.vectors)
    return Eigenpairs(values, vectors, residuals)
