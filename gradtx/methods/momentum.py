"""Momentum in velocity form: the heavy ball and Nesterov's look-ahead.

    heavy ball    v ← α_k v + d;            u = v
    Nesterov      w ← α_{k+1} (w + d);      u = w + d          with w = α v, the look-ahead

where d = -ε_k g comes from the previous stage, `scale_by_learning_rate`.

| letter | argument   | shape, dtype                                                        |
|--------|------------|---------------------------------------------------------------------|
| d, u   | updates    | any tree of floating (or complex) arrays; in and out                |
| α_k    | `momentum` | scalar or schedule, [0, 1)                                          |
| v, w   | `velocity` | as the parameters, float32 or wider (`accumulator_dtype`), starts 0 |

**Source**: Polyak 1964; Nesterov 1983; Sutskever et al. 2013; Goodfellow et al. 2016, Alg. 8.2 and 8.3; chapter §4.2.

**Nesterov without a second gradient.** Alg. 8.3 takes the gradient at φ_k = θ_k + α_k v_k. If the parameters hold φ
instead of θ, every gradient is already taken there:

    φ_{k+1} = θ_{k+1} + α_{k+1} v_{k+1} = φ_k + d_k + α_{k+1} v_{k+1}

This is exact for any schedule of ε and of α. `nesterov_eval_params` gives θ_k = φ_k - α_k v_k, the point to evaluate.
The relation holds only if `u` is added unchanged, so put clipping and weight decay before this stage, not after.

**Differs from** Optax (`trace`) and torch: their learning rate stands after the momentum. To get theirs, use
`optax.chain(gradtx.nesterov(0.9), gradtx.scale_by_learning_rate(rate))`. Their Nesterov looks ahead with α_k, which is
right for a constant α only. Their buffer has the parameters' dtype by default, and in bfloat16 it stalls. torch starts
the buffer at the first gradient, which for `dampening=0` gives the same as a start at 0.

**Costs**: one number per parameter.

**When**: for high curvature, small but consistent gradients, or noisy gradients. Under a constant gradient the step
approaches ε|g| / (1 - α). Nesterov's O(1/k²) needs a convex cost and full batches. With minibatches both are close.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.hyperparameters import BELOW_ONE, count_for, first_count, hyperparameter, next_count
from gradtx._core.lift import Scalars, lift
from gradtx._core.packing import is_packed
from gradtx._core.trees import (
    accumulators,
    check_accumulator_dtype,
    compute_dtype,
    leaf_dtype,
    restored,
    without_variables,
)
from gradtx._core.types import (
    FLOAT32,
    DTypeLike,
    GradientTransformationExtraArgs,
    MaskedNode,
    Params,
    ScalarOrSchedule,
    Updates,
)


class HeavyBallState(NamedTuple):
    """State of `heavy_ball`."""

    velocity: Updates  # as the parameters: v
    heavy_ball_count: jax.Array | None  # [] int32, if α is scheduled


class NesterovState(NamedTuple):
    """State of `nesterov`."""

    velocity: Updates  # as the parameters: w = α v, by which the parameters look ahead
    nesterov_count: jax.Array | None  # [] int32, if α is scheduled


def heavy_ball(
    momentum: ScalarOrSchedule, *, accumulator_dtype: DTypeLike | None = FLOAT32
) -> GradientTransformationExtraArgs:
    """v ← α_k v + d, u = v. Put it after `scale_by_learning_rate`, so that the learning rate is inside the velocity.

    Args:
        momentum: α, a number, 0-d array or `count -> value`, in [0, 1).
        accumulator_dtype: the dtype of the velocity; None follows the parameters.

    **Differs from** `optax.trace`: its `decay` is called `momentum` here, and its `nesterov` is a separate function.

    Raises:
        ValueError: `momentum` is out of range. TypeError: it is of the wrong kind.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.heavy_ball(0.5)
    >>> state = tx.init(jnp.zeros(()))
    >>> for _ in range(4):  # towards the terminal velocity 1 / (1 - 0.5)
    ...     u, state = tx.update(jnp.array(1.0), state)
    ...     print(u)
    1.0
    1.5
    1.75
    1.875
    """
    check_accumulator_dtype("heavy_ball", accumulator_dtype)
    alpha = hyperparameter("heavy_ball", "momentum", momentum, BELOW_ONE)

    def init(params: Params) -> HeavyBallState:
        return HeavyBallState(velocity=accumulators(params, accumulator_dtype), heavy_ball_count=count_for(alpha))

    def scalars(state: HeavyBallState) -> tuple[Scalars, Scalars]:
        count = state.heavy_ball_count
        return {"α": alpha(count)}, {"heavy_ball_count": next_count(count)}

    def rule(store: Any, d: jax.Array, v: jax.Array, *, α: jax.Array) -> jax.Array:
        v = store(α * v + d)
        return v

    return lift("heavy_ball", init, scalars, rule, ("velocity",))


def nesterov(
    momentum: ScalarOrSchedule, *, accumulator_dtype: DTypeLike | None = FLOAT32
) -> GradientTransformationExtraArgs:
    """v ← α_k v + d, u = α_{k+1} v + d: the parameters stay at the look-ahead point φ.

    Args:
        momentum: α, a number, 0-d array or `count -> value`, in [0, 1). The schedule is read one step ahead too.
        accumulator_dtype: the dtype of the velocity; None follows the parameters.

    **Differs from** `optax.trace` with its `nesterov`: its `decay` is called `momentum` here, and the learning rate
    stands before it.

    Raises:
        ValueError: `momentum` is out of range. TypeError: it is of the wrong kind.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.nesterov(0.5)
    >>> params = jnp.array(0.0)
    >>> state = tx.init(params)
    >>> u, state = tx.update(jnp.array(1.0), state)
    >>> print(u, gradtx.nesterov_eval_params(params + u, state))  # φ = θ + α v
    1.5 1.0
    """
    check_accumulator_dtype("nesterov", accumulator_dtype)
    alpha = hyperparameter("nesterov", "momentum", momentum, BELOW_ONE)

    def init(params: Params) -> NesterovState:
        if alpha.is_scheduled:
            alpha(first_count())  # α₀ is not used, as v₀ = 0. It is read here so that a wrong schedule fails at once.
        return NesterovState(velocity=accumulators(params, accumulator_dtype), nesterov_count=count_for(alpha))

    def scalars(state: NesterovState) -> tuple[Scalars, Scalars]:
        count = next_count(state.nesterov_count)
        return {"α": alpha(count)}, {"nesterov_count": count}

    def rule(store: Any, d: jax.Array, w: jax.Array, *, α: jax.Array) -> jax.Array:
        w = store(α * w + α * d)
        return w + d

    return lift("nesterov", init, scalars, rule, ("velocity",))


def nesterov_eval_params(params: Params, state: Any) -> Params:
    """θ = φ - α v: the parameters behind the look-ahead point that `nesterov` trains at.

    Args:
        params: φ, the parameters as `optax.apply_updates` left them.
        state: any optimizer state that holds a `NesterovState`: chained, masked, partitioned, in `MultiSteps`, in
            `packed` or `stored_as`, in flax's `nnx.Optimizer`... A stack of states and parameters, as `jax.vmap` or a
            scan returns it, works too: the stack's axes come first, and each member has its own α.

    Returns:
        θ, a tree like `params` with the same dtypes. A parameter without a `NesterovState` is returned unchanged.

    Raises:
        ValueError: `state` holds no `NesterovState`, or two for one parameter, or one for another tree.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.sgd(0.1, momentum=0.9, nesterov=True)
    >>> params = jnp.array([1.0])
    >>> updates, state = tx.update(jnp.array([2.0]), tx.init(params), params)
    >>> print(params + updates, gradtx.nesterov_eval_params(params + updates, state))
    [0.62] [0.8]
    """
    treedef = jax.tree.structure(params)
    params, state = without_variables(params), without_variables(state)
    if not any(is_packed(x) for x in jax.tree.leaves(params, is_leaf=is_packed)):
        state = restored(state)
    found = [s for s in jax.tree.leaves(state, is_leaf=_is_nesterov) if _is_nesterov(s)]
    if not found:
        raise ValueError("nesterov_eval_params: the state holds no NesterovState: was it made by another method?")
    seen: set[str] = set()
    for nesterov_state in found:
        for path, _ in jax.tree_util.tree_leaves_with_path(nesterov_state.velocity):
            if (name := jax.tree_util.keystr(path)) in seen:
                raise ValueError(f"nesterov_eval_params: two NesterovStates look ahead for params{name}.")
            seen.add(name)
        params = _step_back(params, nesterov_state)
    return treedef.unflatten(jax.tree.leaves(params))


def _is_nesterov(x: Any) -> bool:
    return isinstance(x, NesterovState)


def _is_masked(x: Any) -> bool:
    return isinstance(x, MaskedNode)


def _step_back(params: Params, state: NesterovState) -> Params:
    velocities, treedef = jax.tree.flatten(state.velocity, is_leaf=_is_masked)
    try:
        leaves = treedef.flatten_up_to(params)
    except (ValueError, TypeError):
        leaves = None
    if leaves is None or not all(map(_fits, leaves, velocities)):
        got = jax.tree.map(jnp.shape, params)
        raise ValueError(
            f"nesterov_eval_params: params are not the tree that the state looks ahead for, got the shapes {got}."
        )

    def step_back(p: Any, v: Any) -> Any:
        if _is_masked(v):
            return p
        dtype = compute_dtype(v.dtype, leaf_dtype(p))
        return (p - v.astype(dtype)).astype(leaf_dtype(p))

    return treedef.unflatten(map(step_back, leaves, velocities))


def _fits(p: Any, v: Any) -> bool:
    return _is_masked(v) or (jax.tree_util.all_leaves([p]) and jnp.shape(p) == v.shape)
