"""AdaDelta: RMSProp whose learning rate is the running size of its past steps, so that the units match.

    r ← ρ r + (1 - ρ) g²
    u = √(s + δ) / √(r + δ) · g
    s ← ρ s + (1 - ρ) u²

| letter | argument              | shape, dtype                                         |
|--------|-----------------------|------------------------------------------------------|
| g, u   | updates               | any tree of floating (or complex: g² is |g|²) arrays |
| r      | `mean_square_gradient`| as the parameters, real, float32 or wider, starts 0  |
| s      | `mean_square_update`  | as the parameters, real, float32 or wider, starts 0  |
| ρ      | `decay`               | scalar or schedule, [0, 1)                           |
| δ      | `eps`                 | scalar or schedule, [0, inf)                         |

**Source**: Zeiler 2012 (arXiv:1212.5701), Alg. 1; named in chapter §5.

**Differs from** Optax and torch: the form is the same, but they call ρ `rho`, with default 0.9, and their buffers
follow the parameters' dtype. Optax squares complex gradients without a conjugate.

**Costs**: two numbers per parameter. u needs the s of the previous step, but the new s is written in its place. Putting
u² into the third line and solving for the old s gives

    s_old + δ = (s + ρ δ) (r + δ) / (ρ (r + δ) + (1 - ρ) g²)      u = √(s + ρ δ) / √(ρ (r + δ) + (1 - ρ) g²) · g

so u follows from the new s, without a difference that could cancel. The old s need not be kept.

**When**: if you do not want to choose a learning rate (1.0 is the paper's). Instead, δ sets the size of the first
steps: √(δ / (1 - ρ)), which is 0.0045 by default, if the gradient is much larger than √δ. The start is slow on costs
that need longer steps. With δ = 0 the parameters never move.
"""

from typing import Any, NamedTuple

import jax

from gradtx._core.arithmetic import abs2, divide, sqrt
from gradtx._core.hyperparameters import BELOW_ONE, NON_NEGATIVE, count_for, hyperparameter, next_count
from gradtx._core.lift import Scalars, composed, lift
from gradtx._core.trees import accumulators
from gradtx._core.types import FLOAT32, GradientTransformationExtraArgs, Params, ScalarOrSchedule, Updates

from .learning_rate import scale_by_learning_rate


class ScaleByAdadeltaState(NamedTuple):
    """State of `scale_by_adadelta`."""

    mean_square_gradient: Updates  # as the parameters, real: r
    mean_square_update: Updates  # as the parameters, real: s
    adadelta_count: jax.Array | None  # [] int32, if a hyper-parameter is scheduled


def scale_by_adadelta(decay: ScalarOrSchedule = 0.95, eps: ScalarOrSchedule = 1e-6) -> GradientTransformationExtraArgs:
    """u = RMS of past updates / RMS of past gradients · g. Does not flip the sign.

    Args:
        decay: ρ, in [0, 1).
        eps: δ, in [0, inf); sets the size of the first steps.

    **Differs from** `optax.scale_by_adadelta`: its `rho` is called `decay` here, and is 0.95 by default as in the
    paper.

    Raises:
        ValueError: a number out of range. TypeError: an argument of the wrong kind.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_adadelta(decay=0.75, eps=1e-4)
    >>> u, state = tx.update(jnp.array([1.0, -100.0]), tx.init(jnp.zeros(2)))
    >>> print(u)  # √δ / √(1 - ρ), for any size of the gradient
    [ 0.019996 -0.02    ]
    """
    rho = hyperparameter("scale_by_adadelta", "decay", decay, BELOW_ONE)
    delta = hyperparameter("scale_by_adadelta", "eps", eps, NON_NEGATIVE)

    def init(params: Params) -> ScaleByAdadeltaState:
        r, s = (accumulators(params, FLOAT32, real=True) for _ in range(2))
        return ScaleByAdadeltaState(r, s, count_for(rho, delta))

    def scalars(state: ScaleByAdadeltaState) -> tuple[Scalars, Scalars]:
        count = state.adadelta_count
        return {"ρ": rho(count), "δ": delta(count)}, {"adadelta_count": next_count(count)}

    def rule(store: Any, g: jax.Array, r: jax.Array, s: jax.Array, *, ρ: jax.Array, δ: jax.Array) -> jax.Array:
        r = store(ρ * r + (1 - ρ) * abs2(g))
        s = store(ρ * s + (1 - ρ) * divide((s + δ) * abs2(g), r + δ))
        return divide(sqrt(s + ρ * δ) * g, sqrt(ρ * (r + δ) + (1 - ρ) * abs2(g)))

    return lift(
        "scale_by_adadelta",
        init,
        scalars,
        rule,
        ("mean_square_gradient", "mean_square_update"),
    )


def adadelta(
    learning_rate: ScalarOrSchedule = 1.0, decay: ScalarOrSchedule = 0.95, eps: ScalarOrSchedule = 1e-6
) -> GradientTransformationExtraArgs:
    """AdaDelta (Zeiler 2012, Alg. 1): θ ← θ - ε_k √(s + δ) / √(r + δ) · g, with ε = 1 in the paper.

    Args:
        learning_rate: ε, in [0, inf).
        decay: ρ, in [0, 1).
        eps: δ, in [0, inf); sets the size of the first steps.

    **Differs from** `optax.adadelta`: its `rho` is called `decay` here, and is 0.95 by default as in the paper; the
    rate is 1 by default. There is no `weight_decay` and no `weight_decay_mask`. Use
    `optax.chain(optax.add_decayed_weights(weight_decay, weight_decay_mask), gradtx.adadelta())` instead.

    Raises:
        ValueError: a number out of range. TypeError: an argument of the wrong kind.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.adadelta()
    >>> updates, state = tx.update(jnp.array([3.0, -0.5]), tx.init(jnp.zeros(2)))
    >>> print(updates)
    [-0.00447213  0.00447196]
    """
    rate = hyperparameter("adadelta", "learning_rate", learning_rate, NON_NEGATIVE)
    rho = hyperparameter("adadelta", "decay", decay, BELOW_ONE)
    delta = hyperparameter("adadelta", "eps", eps, NON_NEGATIVE)
    return composed("adadelta", scale_by_adadelta(rho, delta), scale_by_learning_rate(rate))
