"""The learning rate: the only stage that flips the sign, so that the uphill gradient becomes a downhill step.

    u = -ε_k g

| letter | argument        | shape, dtype                                   |
|--------|-----------------|------------------------------------------------|
| g, u   | updates         | any tree of floating (or complex) arrays       |
| ε_k    | `learning_rate` | scalar or schedule, [0, inf)                   |

**Source**: Goodfellow et al. 2016, Alg. 8.1; chapter §4.1.

**Differs from** `optax.scale_by_learning_rate`: numbers and schedules have one kind of state, the update keeps the
gradient's dtype for any dtype of the rate, and the range is checked.

**Costs**: nothing for a number. A schedule stores a count and its last value (`learning_rate/value` in `readings`).

**When**: once in every chain of blocks (`scale_by_*`, `heavy_ball`, clipping). It comes before momentum, so that
`heavy_ball` keeps the learning rate inside the velocity. Recipes such as `sgd` already contain it.
"""

from typing import Any, NamedTuple

import jax

from gradtx._core.hyperparameters import NON_NEGATIVE, count_for, first_count, hyperparameter, next_count
from gradtx._core.lift import Scalars, lift
from gradtx._core.types import GradientTransformationExtraArgs, Params, ScalarOrSchedule


class ScaleByLearningRateState(NamedTuple):
    """State of `scale_by_learning_rate`."""

    learning_rate_count: jax.Array | None  # [] int32: steps done, the k of ε_k, if ε is scheduled
    learning_rate_value: jax.Array | None = None  # [] default float: ε of the last step, if it may change

    def readings(self) -> dict[str, jax.Array]:
        """The learning rate of the last step. Before the first step, the rate which that step will use."""
        return {} if self.learning_rate_value is None else {"learning_rate/value": self.learning_rate_value}


def scale_by_learning_rate(learning_rate: ScalarOrSchedule) -> GradientTransformationExtraArgs:
    """u = -ε_k g. This is the only stage that flips the sign.

    Args:
        learning_rate: ε, a number, 0-d array or `count -> value`, in [0, inf). The first update uses `schedule(0)`.

    **Differs from** `optax.scale_by_learning_rate`: it has no `flip_sign`, as it always flips. `optax.scale(rate)` does
    not.

    Raises:
        ValueError: `learning_rate` is negative, infinite or NaN.
        TypeError: it is none of the three kinds.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_learning_rate(lambda count: 1.0 / (count + 1))
    >>> state = tx.init(jnp.zeros(2))
    >>> for _ in range(3):
    ...     updates, state = tx.update(jnp.array([3.0, -6.0]), state)
    ...     print(updates)
    [-3.  6.]
    [-1.5  3. ]
    [-1.  2.]
    """
    rate = hyperparameter("scale_by_learning_rate", "learning_rate", learning_rate, NON_NEGATIVE)

    def init(params: Params) -> ScaleByLearningRateState:
        del params
        value = rate(first_count()) if rate.may_change else None
        return ScaleByLearningRateState(learning_rate_count=count_for(rate), learning_rate_value=value)

    def scalars(state: ScaleByLearningRateState) -> tuple[Scalars, dict[str, Any]]:
        count = state.learning_rate_count
        ε = rate(count)
        value = None if state.learning_rate_value is None else ε
        return {"ε": ε}, {"learning_rate_count": next_count(count), "learning_rate_value": value}

    def rule(store: Any, g: jax.Array, *, ε: jax.Array) -> jax.Array:
        del store
        return -ε * g

    return lift("scale_by_learning_rate", init, scalars, rule)
