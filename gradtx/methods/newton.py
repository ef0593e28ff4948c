"""Newton's method for small problems: it removes ill-conditioning, but its plain form is attracted by saddles.

    plain          u = -(H + λI)⁻¹ g
    saddle-free    u = -(|H| + λI)⁻¹ g,   |H| with the eigenvalues' absolute values

| letter | argument    | shape, dtype                                             |
|--------|-------------|----------------------------------------------------------|
| g      | grads       | any tree of real floating arrays, n numbers in all       |
| H      | `value_fn`  | [n, n], the Hessian of `value_fn` at the parameters      |
| λ      | `damping`   | scalar or schedule, [0, inf), in units of H              |
| u      | updates     | as g; the whole step, so no learning rate is needed      |

**Source**: Goodfellow et al. 2016, Alg. 8.8 (damping: eq. 8.28); saddle-free: Dauphin et al. 2014 (arXiv:1406.2572),
Alg. 1; chapter §2.1 and §2.3.

**Differs from** Optax and torch: neither has it (their L-BFGS is an approximation).

**Costs**: `solver="dense"` needs n Hessian-vector products at once (n times the memory of one backward pass), n²
numbers and an O(n³) eigendecomposition. It suits n up to about a thousand. `solver="cg"` uses conjugate gradients: two
gradients per iteration and a few trees. It needs a positive definite H + λI. If it meets negative curvature, it may
succeed, or it may divide by 0 (NaN); then use "dense" or `saddle_free`. With `saddle_free`, "cg" uses a Krylov space
of at most 20 vectors instead, and stores as many trees. This is exact if n, or the number of distinct curvatures, is at
most 20. Do not use `newton` on explicitly sharded parameters, because a dense Hessian has no sharding to follow.

**When**: to show that the inverse Hessian removes ill-conditioning (one step reaches the minimum of any convex
quadratic), and that plain Newton goes to the nearest critical point, even if it is a saddle. Do not train networks on
minibatches with it: H needs far larger batches than g (chapter §3.1), and inverting H amplifies the noise.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg

from gradtx._core.arguments import check_function, loss_shape
from gradtx._core.arithmetic import divide
from gradtx._core.callers import update_call
from gradtx._core.foreign import check_state
from gradtx._core.gradients import aligned
from gradtx._core.hvp import linear_hvp
from gradtx._core.hyperparameters import NON_NEGATIVE, first_count, hyperparameter, next_count
from gradtx._core.norms import tree_norm
from gradtx._core.ritz import combined, ritz
from gradtx._core.trees import check_params, compute_dtype, leaf_dtype
from gradtx._core.types import GradientTransformationExtraArgs, Params, ScalarOrSchedule, Updates

ValueFn = Callable[[Params], jax.Array]
_KRYLOV_DIMENSION = 20


class NewtonState(NamedTuple):
    """State of `newton`."""

    newton_count: jax.Array  # [] int32


def newton(
    damping: ScalarOrSchedule = 0.0, *, saddle_free: bool = False, solver: Literal["dense", "cg"] = "dense"
) -> GradientTransformationExtraArgs:
    """The whole Newton step, ready for `apply_updates`; `update` needs `params` and `value_fn`.

    If λ plus an eigenvalue is 0, the step along its eigenvector is 0 if the gradient has no part there, else NaN.

    Args:
        damping: λ, added to every eigenvalue, in [0, inf). Above -λ_min it makes plain Newton a descent method again.
        saddle_free: use |H|, so that the step also descends along directions of negative curvature.
        solver: "dense" forms H. "cg" needs only products with H, but without `saddle_free` H + λI must be positive
            definite.

    Raises:
        ValueError: `damping` out of range, unknown `solver`; at init, complex parameters; at update, no `params` or
            `value_fn`, or a loss that is not a real scalar.
        TypeError: `damping` of the wrong kind; at init, parameters that are not floating arrays.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> loss = lambda x: 0.5 * (x[0] ** 2 + 1e4 * x[1] ** 2)  # condition number 10,000
    >>> params = jnp.array([3.0, -2.0])
    >>> tx = gradtx.newton()
    >>> updates, state = tx.update(jax.grad(loss)(params), tx.init(params), params, value_fn=loss)
    >>> print(params + updates)
    [0. 0.]
    """
    lam = hyperparameter("newton", "damping", damping, NON_NEGATIVE)
    solvers = {
        "dense": partial(_solve_dense, saddle_free=saddle_free),
        "cg": _solve_krylov if saddle_free else _solve_cg,
    }
    if solver not in solvers:
        raise ValueError(f'newton: solver must be "dense" or "cg", got {solver!r}.')
    solve = solvers[solver]

    # This function is long because `init` and `update` need the checked arguments.
    def init(params: Params) -> NewtonState:
        check_params("newton", params, allow_complex=False)
        return NewtonState(newton_count=first_count())

    def update(
        updates: Updates,
        state: Any,
        params: Params | None = None,
        *,
        value_fn: ValueFn | None = None,
        **extra: Any,
    ) -> tuple[Updates, NewtonState]:
        del extra
        check_state("newton", state, "newton_count")
        if params is None:
            raise ValueError(f"newton needs the parameters: {update_call(['value_fn=loss'])}.")
        if value_fn is None:
            raise ValueError(f"newton needs the loss: {update_call(['value_fn=loss'])}.")
        check_function("newton", "value_fn", value_fn, "the parameters")
        loss_shape("newton", value_fn, params)
        gradients, treedef = aligned("newton", updates, params)
        leaves = treedef.flatten_up_to(params)
        trained = [i for i, g in enumerate(gradients) if g is not None]
        if not trained:
            return updates, NewtonState(next_count(state.newton_count))
        dtype = compute_dtype(*(gradients[i].dtype for i in trained), *(leaf_dtype(leaves[i]) for i in trained))
        point = [jnp.asarray(leaves[i], dtype) for i in trained]

        def cost(at: list[jax.Array]) -> jax.Array:
            """The loss as a function of the leaves that have a gradient."""
            full = list(leaves)
            for i, x in zip(trained, at, strict=True):
                full[i] = x.astype(leaf_dtype(leaves[i]))
            return jnp.asarray(value_fn(treedef.unflatten(full)), dtype)

        g = [gradients[i].astype(dtype) for i in trained]
        step = solve(cost, point, g, lam(state.newton_count).astype(dtype))
        out: list[Any] = [None] * len(gradients)
        for i, u in zip(trained, step, strict=True):
            out[i] = -u.astype(gradients[i].dtype)
        return treedef.unflatten(out), NewtonState(next_count(state.newton_count))

    return GradientTransformationExtraArgs(init, update)


Leaves = list[jax.Array]
Cost = Callable[[Leaves], jax.Array]


def _solve_dense(cost: Cost, point: Leaves, g: Leaves, λ: jax.Array, *, saddle_free: bool) -> Leaves:
    """(H + λI)⁻¹ g, or (|H| + λI)⁻¹ g, by eigendecomposition."""
    flat, unravel = ravel_pytree(point)
    hessian = jax.hessian(lambda x: cost(unravel(x)))(flat)
    curvatures, directions = jnp.linalg.eigh(hessian)
    curvatures = jnp.abs(curvatures) if saddle_free else curvatures
    return unravel(directions @ _divided(directions.T @ ravel_pytree(g)[0], curvatures + λ))


def _solve_cg(cost: Cost, point: Leaves, g: Leaves, λ: jax.Array) -> Leaves:
    """(H + λI)⁻¹ g by conjugate gradients."""
    _, _, product = linear_hvp(cost, point)

    def damped(v: Leaves) -> Leaves:
        return [hv + λ * x for hv, x in zip(product(v), v, strict=True)]

    unit, scale = _scaled(g)
    # Pyright reads JAX 0.12's cg as a function that never returns.
    solution, _ = cast(Any, cg)(damped, unit, tol=4 * float(jnp.finfo(λ.dtype).eps))
    return [scale * x for x in solution]


def _solve_krylov(cost: Cost, point: Leaves, g: Leaves, λ: jax.Array) -> Leaves:
    """(|H| + λI)⁻¹ g on the Krylov space of g, as in Dauphin et al. 2014."""
    unit, scale = _scaled(g)
    _, _, product = linear_hvp(cost, point)
    size = sum(x.size for x in g)
    found = ritz(min(size, _KRYLOV_DIMENSION))(product, unit)
    parts = _divided(tree_norm(unit) * found.vectors[0], jnp.abs(found.values) + λ)
    return [scale * x for x in combined(found.vectors @ parts, found.basis)]


def _scaled(g: Leaves) -> tuple[Leaves, jax.Array]:
    """g divided by its largest entry, and that entry. The solve is linear in g, and no square over- or underflows."""
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(x), initial=0) for x in g]))
    scale = jnp.where(largest == 0, 1, largest)
    return [x / scale for x in g], scale


def _divided(g: jax.Array, curvatures: jax.Array) -> jax.Array:
    """Each component of g divided by its curvature. 0 / 0 gives 0; any other number / 0 gives NaN."""
    is_flat = (curvatures == 0) & (g != 0)
    return divide(g, curvatures) + (g - g) / jnp.where(is_flat, 0, 1)  # divides by 0 only if some component is flat
