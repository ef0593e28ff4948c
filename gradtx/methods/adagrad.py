"""AdaGrad divides each parameter's learning rate by the root of the sum of its past squared gradients.

    r ← r + g²
    u = g / (δ + √r)

| letter | argument              | shape, dtype                                                |
|--------|-----------------------|-------------------------------------------------------------|
| g, u   | updates               | any tree of floating (or complex: g² is |g|²) arrays        |
| r      | `sum_of_squares`      | as the parameters, real, float32 or wider                   |
|        |                       | (`accumulator_dtype`), starts at r_0                        |
| r_0    | `initial_accumulator` | scalar, [0, inf); a schedule is read at 0                   |
| δ      | `eps`                 | scalar or schedule, [0, inf)                                |

**Source**: Duchi, Hazan & Singer 2011; Goodfellow et al. 2016, Alg. 8.4; chapter §5.2.

**Differs from** Optax (`scale_by_rss`): there r starts at 0.1 and δ stands inside the root. Here r starts at 0 and δ
stands outside, as in the chapter. To get theirs: `adagrad(rate, eps=0.0, initial_accumulator=0.1 + 1e-7)`. torch has
the chapter's form, with δ = 1e-10 by default.

**Costs**: one number per parameter.

**When**: for sparse features and convex costs. The step falls as 1/√k from the start (a constant gradient gives ε/√k,
for any size of the gradient). In deep learning that is often too early. RMSProp forgets the past and is then better.
"""

from typing import Any, NamedTuple

import jax

from gradtx._core.arithmetic import abs2, divide, sqrt
from gradtx._core.hyperparameters import NON_NEGATIVE, count_for, first_count, hyperparameter, next_count
from gradtx._core.lift import Scalars, composed, lift
from gradtx._core.trees import accumulators, check_accumulator_dtype
from gradtx._core.types import FLOAT32, DTypeLike, GradientTransformationExtraArgs, Params, ScalarOrSchedule, Updates

from .learning_rate import scale_by_learning_rate


class ScaleByAdagradState(NamedTuple):
    """State of `scale_by_adagrad`."""

    sum_of_squares: Updates  # as the parameters, real: r
    adagrad_count: jax.Array | None  # [] int32, if a hyper-parameter is scheduled


def scale_by_adagrad(
    eps: ScalarOrSchedule = 1e-7,
    initial_accumulator: ScalarOrSchedule = 0.0,
    *,
    accumulator_dtype: DTypeLike | None = FLOAT32,
) -> GradientTransformationExtraArgs:
    """u = g / (δ + √r), where r is the sum of all squared gradients. Does not flip the sign.

    Args:
        eps: δ, in [0, inf). With 0 a coordinate that never had a gradient gets the update 0.
        initial_accumulator: r before the first step, in [0, inf).
        accumulator_dtype: the dtype of r; None follows the parameters.

    **Differs from** `optax.scale_by_rss`: its first argument, `initial_accumulator_value`, is `initial_accumulator`
    here, comes second, and is 0 by default. So pass both by name.

    Raises:
        ValueError: a number out of range. TypeError: an argument of the wrong kind.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_adagrad(eps=0.0)
    >>> state = tx.init(jnp.zeros(2))
    >>> for _ in range(4):  # 1/√k, for any size of the gradient
    ...     u, state = tx.update(jnp.array([1.0, -100.0]), state)
    >>> print(u)
    [ 0.5 -0.5]
    """
    check_accumulator_dtype("scale_by_adagrad", accumulator_dtype)
    delta = hyperparameter("scale_by_adagrad", "eps", eps, NON_NEGATIVE)
    start = hyperparameter("scale_by_adagrad", "initial_accumulator", initial_accumulator, NON_NEGATIVE)

    def init(params: Params) -> ScaleByAdagradState:
        r = accumulators(params, accumulator_dtype, real=True, fill=start(first_count()))
        return ScaleByAdagradState(r, count_for(delta))

    def scalars(state: ScaleByAdagradState) -> tuple[Scalars, Scalars]:
        count = state.adagrad_count
        return {"δ": delta(count)}, {"adagrad_count": next_count(count)}

    def rule(store: Any, g: jax.Array, r: jax.Array, *, δ: jax.Array) -> jax.Array:
        r = store(r + abs2(g))
        return divide(g, δ + sqrt(r))

    return lift("scale_by_adagrad", init, scalars, rule, ("sum_of_squares",))


def adagrad(
    learning_rate: ScalarOrSchedule,
    eps: ScalarOrSchedule = 1e-7,
    initial_accumulator: ScalarOrSchedule = 0.0,
    *,
    accumulator_dtype: DTypeLike | None = FLOAT32,
) -> GradientTransformationExtraArgs:
    """AdaGrad (Alg. 8.4): θ ← θ - ε_k g / (δ + √r).

    Args:
        learning_rate: ε, in [0, inf).
        eps: δ, in [0, inf).
        initial_accumulator: r before the first step, in [0, inf).
        accumulator_dtype: the dtype of r; None follows the parameters.

    **Differs from** `optax.adagrad`: its second argument, `initial_accumulator_value`, is `initial_accumulator` here,
    comes third, and is 0 by default. So pass both by name.

    Raises:
        ValueError: a number out of range. TypeError: an argument of the wrong kind.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.adagrad(learning_rate=0.1)
    >>> updates, state = tx.update(jnp.array([3.0, -0.01]), tx.init(jnp.zeros(2)))
    >>> print(updates)
    [-0.1     0.09999]
    """
    check_accumulator_dtype("adagrad", accumulator_dtype)
    rate = hyperparameter("adagrad", "learning_rate", learning_rate, NON_NEGATIVE)
    delta = hyperparameter("adagrad", "eps", eps, NON_NEGATIVE)
    start = hyperparameter("adagrad", "initial_accumulator", initial_accumulator, NON_NEGATIVE)
    return composed(
        "adagrad",
        scale_by_adagrad(delta, start, accumulator_dtype=accumulator_dtype),
        scale_by_learning_rate(rate),
    )
