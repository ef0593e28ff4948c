"""Adam: momentum and RMSProp, with running means that are corrected for starting at zero.

    m ← β₁ m + (1 - β₁) g       w₁ ← β₁ w₁ + (1 - β₁)
    v ← β₂ v + (1 - β₂) g²      w₂ ← β₂ w₂ + (1 - β₂)
    u = (m / w₁) / (√(v / w₂) + δ)

| letter | argument              | shape, dtype                                            |
|--------|-----------------------|---------------------------------------------------------|
| g, u   | updates               | any tree of floating (or complex: g² is |g|²) arrays    |
| m      | `mu`                  | as the parameters, float32 or wider, starts 0           |
| v      | `nu`                  | as the parameters, real, float32 or wider, starts 0     |
| w₁, w₂ | `mu_weight`, `nu_weight` | scalars of the default float dtype, start 0          |
| β₁, β₂ | `b1`, `b2`            | scalars or schedules, [0, 1)                            |
| δ      | `eps`                 | scalar or schedule, [0, inf)                            |

**Source**: Kingma & Ba 2015 (arXiv:1412.6980), Alg. 1; named in chapter §5.

**Bias correction**: w is the same running mean as m, but of ones instead of gradients. It is the total weight of the
gradients seen so far. For a constant β it is 1 - βᵏ after k steps, the divisor in the paper. It is also right for a
scheduled β, and it loses no digits if βᵏ is near 1.

**Differs from** Optax and torch: the form is the same, but there m and v follow the parameters' dtype. In float16,
δ = 1e-8 is 0, so that a gradient of zeros gives NaN. Here everything is computed in float32.

**Costs**: two numbers per parameter.

**When**: as a first try on deep networks. It is fairly robust to its hyper-parameters, though the learning rate
sometimes needs changing from the paper's 1e-3. No method is best everywhere (chapter §5), so compare it with
momentum at a tuned learning rate.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.arithmetic import abs2, divide, sqrt
from gradtx._core.hyperparameters import BELOW_ONE, NON_NEGATIVE, first_count, hyperparameter, next_count
from gradtx._core.lift import Scalars, composed, lift
from gradtx._core.trees import accumulators
from gradtx._core.types import FLOAT32, GradientTransformationExtraArgs, Params, ScalarOrSchedule, Updates

from .learning_rate import scale_by_learning_rate


class ScaleByAdamState(NamedTuple):
    """State of `scale_by_adam`."""

    mu: Updates  # as the parameters: m
    nu: Updates  # as the parameters, real: v
    mu_weight: jax.Array | None  # [] default float: w₁, if β₁ is scheduled
    nu_weight: jax.Array | None  # [] default float: w₂, if β₂ is scheduled
    adam_count: jax.Array  # [] int32


def scale_by_adam(
    b1: ScalarOrSchedule = 0.9, b2: ScalarOrSchedule = 0.999, eps: ScalarOrSchedule = 1e-8
) -> GradientTransformationExtraArgs:
    """u = m̂ / (√v̂ + δ): the corrected mean over the root of the corrected mean square. Does not flip the sign.

    Args:
        b1: β₁, in [0, 1).
        b2: β₂, in [0, 1).
        eps: δ, in [0, inf). With 0 a coordinate that never had a gradient gets the update 0.

    **Differs from** `optax.scale_by_adam`: it has no `eps_root` and no `nesterov` (use Optax's `nadam` for that).
    There is no `mu_dtype`: both averages are kept in float32, or in the form that `gradtx.stored_as` gives them.

    Raises:
        ValueError: a number out of range. TypeError: an argument of the wrong kind.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_adam(b1=0.5, b2=0.75, eps=0.0)
    >>> state = tx.init(jnp.zeros(2))
    >>> for g in (jnp.array([1.0, -100.0]), jnp.array([0.0, -100.0])):
    ...     u, state = tx.update(g, state)
    ...     print(u.round(3))
    [ 1. -1.]
    [ 0.509 -1.   ]
    """
    beta1 = hyperparameter("scale_by_adam", "b1", b1, BELOW_ONE)
    beta2 = hyperparameter("scale_by_adam", "b2", b2, BELOW_ONE)
    delta = hyperparameter("scale_by_adam", "eps", eps, NON_NEGATIVE)

    def init(params: Params) -> ScaleByAdamState:
        return ScaleByAdamState(
            mu=accumulators(params, FLOAT32),
            nu=accumulators(params, FLOAT32, real=True),
            mu_weight=jnp.zeros((), jnp.result_type(float)) if beta1.is_scheduled else None,
            nu_weight=jnp.zeros((), jnp.result_type(float)) if beta2.is_scheduled else None,
            adam_count=first_count(),
        )

    def scalars(state: ScaleByAdamState) -> tuple[Scalars, dict[str, Any]]:
        count, steps = state.adam_count, next_count(state.adam_count)
        β1, β2 = beta1(count), beta2(count)
        w1, w2 = _weight(β1, steps, state.mu_weight), _weight(β2, steps, state.nu_weight)
        values = {"β1": β1, "β2": β2, "w1": w1, "w2": w2, "δ": delta(count)}
        mu_weight, nu_weight = (None if state.mu_weight is None else w1), (None if state.nu_weight is None else w2)
        return values, {"mu_weight": mu_weight, "nu_weight": nu_weight, "adam_count": steps}

    def rule(store: Any, g: Any, m: Any, v: Any, *, β1: Any, β2: Any, w1: Any, w2: Any, δ: Any) -> jax.Array:
        m = store(β1 * m + (1 - β1) * g)
        v = store(β2 * v + (1 - β2) * abs2(g))
        return divide(m / w1, sqrt(v / w2) + δ)

    return lift("scale_by_adam", init, scalars, rule, ("mu", "nu"))


def _weight(β: jax.Array, steps: jax.Array, before: jax.Array | None) -> jax.Array:
    """w. For a constant β it is 1 - βᵏ, to all digits. For a scheduled β it is updated from the previous weight."""
    if before is not None:
        return β * before + (1 - β)
    positive = jnp.maximum(β, jnp.finfo(β.dtype).tiny)
    return -jnp.expm1(steps.astype(β.dtype) * jnp.log(positive))


def adam(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
) -> GradientTransformationExtraArgs:
    """Adam (Kingma & Ba 2015, Alg. 1): θ ← θ - ε_k m̂ / (√v̂ + δ), with m̂ = m / w₁ and v̂ = v / w₂.

    Args:
        learning_rate: ε, in [0, inf); 0.001 in the paper.
        b1: β₁, in [0, 1).
        b2: β₂, in [0, 1).
        eps: δ, in [0, inf).

    **Differs from** `optax.adam`: it has no `eps_root` and no `nesterov` (use Optax's `nadam` for that). There is no
    `mu_dtype`: both averages are kept in float32, or in the form that `gradtx.stored_as` gives them.

    Raises:
        ValueError: a number out of range. TypeError: an argument of the wrong kind.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.adam(learning_rate=0.001)
    >>> updates, state = tx.update(jnp.array([3.0, -0.01]), tx.init(jnp.zeros(2)))
    >>> print(updates)
    [-0.001  0.001]
    """
    rate = hyperparameter("adam", "learning_rate", learning_rate, NON_NEGATIVE)
    beta1 = hyperparameter("adam", "b1", b1, BELOW_ONE)
    beta2 = hyperparameter("adam", "b2", b2, BELOW_ONE)
    delta = hyperparameter("adam", "eps", eps, NON_NEGATIVE)
    return composed("adam", scale_by_adam(beta1, beta2, delta), scale_by_learning_rate(rate))
