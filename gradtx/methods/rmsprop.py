"""RMSProp: AdaGrad with an exponentially weighted average in place of the sum, alone or with momentum.

    r ← ρ r + (1 - ρ) g²
    u = g / √(δ + r)

| letter | argument              | shape, dtype                                         |
|--------|-----------------------|------------------------------------------------------|
| g, u   | updates               | any tree of floating (or complex: g² is |g|²) arrays |
| r      | `mean_square`         | as the parameters, real, float32 or wider            |
|        |                       | (`accumulator_dtype`), starts 0                      |
| ρ      | `decay`               | scalar or schedule, [0, 1)                           |
| δ      | `eps`                 | scalar or schedule, [0, inf)                         |

With `momentum` the step -ε_k u goes through `heavy_ball`, or with `nesterov=True` through `nesterov`.

**Source**: Hinton 2012, lecture 6; Goodfellow et al. 2016, Alg. 8.5 and 8.6; chapter §5.3.

**Differs from** Optax: the form is the same, and its momentum also comes after the learning rate. But its `eps` is 1e-8
by default, its Nesterov looks ahead with α_k, which is right for a constant α only, and its accumulators follow the
parameters' dtype. torch has δ outside the root (1e-8 by default), calls ρ `alpha` (0.99 by default), and applies
momentum to the scaled gradient, before the learning rate. With δ = 0 and a constant learning rate all agree.

**Costs**: one number per parameter; with momentum two.

**When**: a good default for deep networks, recurrent ones included. r has no bias correction, so the first steps are
the longest: under a constant gradient of any size the step falls from ε / √(1 - ρ) to ε.
"""

from typing import Any, NamedTuple

import jax

from gradtx._core.arithmetic import abs2, divide, sqrt
from gradtx._core.hyperparameters import BELOW_ONE, NON_NEGATIVE, count_for, hyperparameter, next_count
from gradtx._core.lift import Scalars, composed, lift
from gradtx._core.trees import accumulators, check_accumulator_dtype
from gradtx._core.types import FLOAT32, DTypeLike, GradientTransformationExtraArgs, Params, ScalarOrSchedule, Updates

from .learning_rate import scale_by_learning_rate
from .momentum import heavy_ball
from .momentum import nesterov as nesterov_momentum


class ScaleByRmsState(NamedTuple):
    """State of `scale_by_rms`."""

    mean_square: Updates  # as the parameters, real: r
    rms_count: jax.Array | None  # [] int32, if a hyper-parameter is scheduled


def scale_by_rms(
    decay: ScalarOrSchedule = 0.9,
    eps: ScalarOrSchedule = 1e-6,
    *,
    accumulator_dtype: DTypeLike | None = FLOAT32,
) -> GradientTransformationExtraArgs:
    """u = g / √(δ + r), where r is the running mean of squared gradients. Does not flip the sign.

    Args:
        decay: ρ, the weight of the past in r, in [0, 1).
        eps: δ, in [0, inf). With 0 a coordinate that never had a gradient gets the update 0.
        accumulator_dtype: the dtype of r; None follows the parameters.

    **Differs from** `optax.scale_by_rms`: `eps` is 1e-6 by default, not 1e-8. It has no `initial_scale` (r starts at
    0), no `eps_in_sqrt` (δ is always inside the root) and no `bias_correction`.

    Raises:
        ValueError: a number out of range. TypeError: an argument of the wrong kind.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_rms(decay=0.75, eps=0.0)
    >>> state = tx.init(jnp.zeros(2))
    >>> for _ in range(3):  # 1/√(1 - ρᵏ), for any size of the gradient
    ...     u, state = tx.update(jnp.array([1.0, -100.0]), state)
    ...     print(u)
    [ 2. -2.]
    [ 1.5119 -1.5119]
    [ 1.3152 -1.3152]
    """
    check_accumulator_dtype("scale_by_rms", accumulator_dtype)
    rho = hyperparameter("scale_by_rms", "decay", decay, BELOW_ONE)
    delta = hyperparameter("scale_by_rms", "eps", eps, NON_NEGATIVE)

    def init(params: Params) -> ScaleByRmsState:
        return ScaleByRmsState(accumulators(params, accumulator_dtype, real=True), count_for(rho, delta))

    def scalars(state: ScaleByRmsState) -> tuple[Scalars, Scalars]:
        count = state.rms_count
        return {"ρ": rho(count), "δ": delta(count)}, {"rms_count": next_count(count)}

    def rule(store: Any, g: jax.Array, r: jax.Array, *, ρ: jax.Array, δ: jax.Array) -> jax.Array:
        r = store(ρ * r + (1 - ρ) * abs2(g))
        return divide(g, sqrt(δ + r))

    return lift("scale_by_rms", init, scalars, rule, ("mean_square",))


def rmsprop(
    learning_rate: ScalarOrSchedule,
    decay: ScalarOrSchedule = 0.9,
    eps: ScalarOrSchedule = 1e-6,
    momentum: ScalarOrSchedule | None = None,
    nesterov: bool = False,
    *,
    accumulator_dtype: DTypeLike | None = FLOAT32,
) -> GradientTransformationExtraArgs:
    """RMSProp (Alg. 8.5). With `momentum` the scaled step feeds a velocity; with `nesterov=True` too, it is Alg. 8.6.

    Alg. 8.6 has no δ under its root. Here it keeps the δ of Alg. 8.5; `eps=0.0` gives exactly Alg. 8.6.

    Args:
        learning_rate: ε, in [0, inf).
        decay: ρ, in [0, 1).
        eps: δ, in [0, inf).
        momentum: α, in [0, 1); None for no momentum.
        nesterov: keep the parameters at the look-ahead point; see `nesterov_eval_params`.
        accumulator_dtype: the dtype of r and of the velocity; None follows the parameters.

    **Differs from** `optax.rmsprop`: `eps` is 1e-6 by default, not 1e-8. It has no `initial_scale` (r starts at 0), no
    `eps_in_sqrt` (δ is always inside the root), no `centered` (Optax's `scale_by_stddev` has it) and no
    `bias_correction`. `momentum` is the fourth argument here, so pass it by name.

    Raises:
        ValueError: a number out of range, or `nesterov` without `momentum`.
        TypeError: an argument of the wrong kind.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.rmsprop(learning_rate=0.01, decay=0.9)
    >>> updates, state = tx.update(jnp.array([3.0, -0.1]), tx.init(jnp.zeros(2)))
    >>> print(updates)  # 0.01 / √(1 - 0.9) on the first step
    [-0.03162  0.03161]
    """
    check_accumulator_dtype("rmsprop", accumulator_dtype)
    rate = hyperparameter("rmsprop", "learning_rate", learning_rate, NON_NEGATIVE)
    rho = hyperparameter("rmsprop", "decay", decay, BELOW_ONE)
    delta = hyperparameter("rmsprop", "eps", eps, NON_NEGATIVE)
    scaled = scale_by_rms(rho, delta, accumulator_dtype=accumulator_dtype), scale_by_learning_rate(rate)
    if momentum is None:
        if nesterov:
            raise ValueError("rmsprop: nesterov=True needs a momentum, got momentum=None.")
        return composed("rmsprop", *scaled)
    alpha = hyperparameter("rmsprop", "momentum", momentum, BELOW_ONE)
    accelerate = nesterov_momentum if nesterov else heavy_ball
    return composed("rmsprop", *scaled, accelerate(alpha, accumulator_dtype=accumulator_dtype))
