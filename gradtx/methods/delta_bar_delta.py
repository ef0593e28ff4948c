"""Delta-bar-delta: a learning rate per parameter that rises while the derivative keeps its sign, and falls if it flips.

    λ ← λ + κ        if d̄ d > 0
    λ ← (1 - φ) λ    if d̄ d < 0
    d̄ ← (1 - θ) d + θ d̄
    u = λ d

| letter | argument        | shape, dtype                                                     |
|--------|-----------------|------------------------------------------------------------------|
| d, u   | updates         | any tree of real floating arrays                                 |
| λ      | `rates`         | as the parameters, float32 or wider, starts at `learning_rate`   |
| d̄      | `mean_gradient` | as the parameters, float32 or wider, starts 0                    |
| κ      | `increase`      | scalar or schedule, [0, inf), in units of the learning rate      |
| φ      | `decrease`      | scalar or schedule, [0, 1]                                       |
| θ      | `decay`         | scalar or schedule, [0, 1)                                       |

The conditions use the d̄ from before this step. The rate is updated first, then used.

**Source**: Jacobs 1988, "Increased rates of convergence through learning rate adaptation"; chapter §5.1.

**Differs from** Optax and torch: neither has it. The nearest is `torch.optim.Rprop`, which both raises and lowers its
rates by factors and ignores the size of the derivative.

**Costs**: two numbers per parameter.

**When**: with full batches only, because minibatch noise flips signs on any surface. Rates grow by a constant and
shrink by a factor, so they rise slowly and fall fast.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.hyperparameters import (
    BELOW_ONE,
    NON_NEGATIVE,
    UNIT_INTERVAL,
    count_for,
    first_count,
    hyperparameter,
    next_count,
)
from gradtx._core.lift import Scalars, composed, lift
from gradtx._core.trees import accumulators
from gradtx._core.types import FLOAT32, GradientTransformationExtraArgs, Params, ScalarOrSchedule, Updates

from .learning_rate import scale_by_learning_rate


class ScaleByDeltaBarDeltaState(NamedTuple):
    """State of `scale_by_delta_bar_delta`."""

    rates: Updates  # as the parameters: λ
    mean_gradient: Updates  # as the parameters: d̄
    delta_bar_delta_count: jax.Array | None  # [] int32, if a hyper-parameter is scheduled


def scale_by_delta_bar_delta(
    learning_rate: ScalarOrSchedule,
    increase: ScalarOrSchedule = 0.05,
    decrease: ScalarOrSchedule = 0.2,
    decay: ScalarOrSchedule = 0.7,
) -> GradientTransformationExtraArgs:
    """u = λ d, with a rate λ for each parameter. Does not flip the sign.

    Args:
        learning_rate: the first rate of every parameter, in [0, inf); a schedule is read at 0.
        increase: κ, added to the rate while the sign stays the same, in [0, inf).
        decrease: φ, the fraction the rate loses when the sign flips, in [0, 1].
        decay: θ, the weight of the past in d̄, in [0, 1).

    Raises:
        ValueError: a number out of range; at init, complex parameters (they have no sign).
        TypeError: an argument of the wrong kind.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_delta_bar_delta(1.0, increase=0.5, decrease=0.5, decay=0.0)
    >>> state = tx.init(jnp.zeros(()))
    >>> for d in (1.0, 1.0, 1.0, -1.0):
    ...     u, state = tx.update(jnp.array(d), state)
    ...     print(u)
    1.0
    1.5
    2.0
    -1.0
    """
    first_rate = hyperparameter("scale_by_delta_bar_delta", "learning_rate", learning_rate, NON_NEGATIVE)
    kappa = hyperparameter("scale_by_delta_bar_delta", "increase", increase, NON_NEGATIVE)
    phi = hyperparameter("scale_by_delta_bar_delta", "decrease", decrease, UNIT_INTERVAL)
    theta = hyperparameter("scale_by_delta_bar_delta", "decay", decay, BELOW_ONE)

    def init(params: Params) -> ScaleByDeltaBarDeltaState:
        rates = accumulators(params, FLOAT32, fill=first_rate(first_count()))
        return ScaleByDeltaBarDeltaState(rates, accumulators(params, FLOAT32), count_for(kappa, phi, theta))

    def scalars(state: ScaleByDeltaBarDeltaState) -> tuple[Scalars, Scalars]:
        count = state.delta_bar_delta_count
        values = {"κ": kappa(count), "φ": phi(count), "θ": theta(count)}
        return values, {"delta_bar_delta_count": next_count(count)}

    def rule(store: Any, d: Any, λ: Any, mean: Any, *, κ: Any, φ: Any, θ: Any) -> jax.Array:
        agreement = jnp.sign(mean) * jnp.sign(d)  # the product itself could underflow
        λ = store(jnp.where(agreement > 0, λ + κ, jnp.where(agreement < 0, (1 - φ) * λ, λ)))
        mean = store((1 - θ) * d + θ * mean, after=λ)
        return λ * d

    return lift(
        "scale_by_delta_bar_delta",
        init,
        scalars,
        rule,
        ("rates", "mean_gradient"),
        allow_complex=False,
    )


def delta_bar_delta(
    learning_rate: ScalarOrSchedule,
    increase: ScalarOrSchedule = 0.05,
    decrease: ScalarOrSchedule = 0.2,
    decay: ScalarOrSchedule = 0.7,
) -> GradientTransformationExtraArgs:
    """Delta-bar-delta (Jacobs 1988): θ ← θ - λ d, with a rate λ for each parameter that starts at `learning_rate`.

    Args:
        learning_rate: the first rate of every parameter, in [0, inf); a schedule is read at 0.
        increase: κ, added to the rate while the sign stays the same, in [0, inf).
        decrease: φ, the fraction the rate loses when the sign flips, in [0, 1].
        decay: θ, the weight of the past in d̄, in [0, 1).

    Raises:
        ValueError: a number out of range; at init, complex parameters (they have no sign).
        TypeError: an argument of the wrong kind.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.delta_bar_delta(learning_rate=0.1, increase=0.1)
    >>> state = tx.init(jnp.zeros(2))
    >>> for d in (jnp.array([1.0, 1.0]), jnp.array([1.0, -1.0])):
    ...     updates, state = tx.update(d, state)
    >>> print(updates)  # the first kept its sign, the second flipped
    [-0.2  0.08]
    """
    first_rate = hyperparameter("delta_bar_delta", "learning_rate", learning_rate, NON_NEGATIVE)
    kappa = hyperparameter("delta_bar_delta", "increase", increase, NON_NEGATIVE)
    phi = hyperparameter("delta_bar_delta", "decrease", decrease, UNIT_INTERVAL)
    theta = hyperparameter("delta_bar_delta", "decay", decay, BELOW_ONE)
    return composed(
        "delta_bar_delta",
        scale_by_delta_bar_delta(first_rate, kappa, phi, theta),
        scale_by_learning_rate(1.0),
    )
