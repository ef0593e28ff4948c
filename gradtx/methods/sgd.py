"""Stochastic gradient descent, plain and with momentum.

    θ ← θ - ε_k g                                  (plain)
    v ← α_k v - ε_k g;  θ ← θ + v                  (momentum)

| letter | argument        | shape, dtype                                              |
|--------|-----------------|-----------------------------------------------------------|
| θ, g   | params, grads   | any tree of floating (or complex) arrays                  |
| ε_k    | `learning_rate` | scalar or schedule, [0, inf)                              |
| α_k    | `momentum`      | scalar or schedule, [0, 1)                                |
| v      | `velocity`      | as θ, float32 or wider (`accumulator_dtype`)              |

**Source**: Robbins & Monro 1951; Goodfellow et al. 2016, Alg. 8.1 to 8.3; chapter §4.1 and §4.2.

**Differs from** Optax and torch: there the learning rate multiplies the buffer *after* the momentum. Here it is inside
the velocity, as in the chapter. Both give the same result for a constant learning rate. Under a schedule, a past
gradient here keeps the learning rate of its step. To get theirs:
`optax.chain(gradtx.heavy_ball(0.9), gradtx.scale_by_learning_rate(schedule))`.

**Costs**: nothing for plain SGD; momentum adds one number per parameter. A scheduled rate adds two numbers in all.

**When**: as the baseline for every other method. Its cost per step does not depend on the size of the training set. Its
excess error falls as O(1/√k) (convex) or O(1/k) (strongly convex). Do not use it if curvatures differ by orders of
magnitude between parameters and you cannot set separate learning rates by hand.
"""

from gradtx._core.hyperparameters import BELOW_ONE, NON_NEGATIVE, hyperparameter
from gradtx._core.lift import composed
from gradtx._core.trees import check_accumulator_dtype
from gradtx._core.types import FLOAT32, DTypeLike, GradientTransformationExtraArgs, ScalarOrSchedule

from .learning_rate import scale_by_learning_rate
from .momentum import heavy_ball
from .momentum import nesterov as nesterov_momentum


def sgd(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule | None = None,
    nesterov: bool = False,
    *,
    accumulator_dtype: DTypeLike | None = FLOAT32,
) -> GradientTransformationExtraArgs:
    """SGD (Alg. 8.1). With `momentum` it is the heavy ball (Alg. 8.2), with `nesterov=True` too Nesterov's (Alg. 8.3).

    Args:
        learning_rate: ε, in [0, inf).
        momentum: α, in [0, 1); None for plain SGD, whose state holds no velocity.
        nesterov: keep the parameters at the look-ahead point θ + α v. `nesterov_eval_params` gives θ itself.
        accumulator_dtype: the dtype of the velocity; None follows the parameters.

    **Differs from** `optax.sgd`: the same arguments, but `accumulator_dtype` is passed by name and is float32 by
    default. The updates differ if the learning rate, or with `nesterov` the momentum, is scheduled, as the docstring
    of the module explains.

    Raises:
        ValueError: a number out of range, or `nesterov` without `momentum`.
        TypeError: an argument of the wrong kind.

    >>> import gradtx, jax, jax.numpy as jnp, optax
    >>> tx = gradtx.sgd(learning_rate=0.1, momentum=0.9)
    >>> params = jnp.array([1.0, -2.0])
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     grads = jax.grad(lambda x: 0.5 * jnp.sum(x**2))(params)
    ...     updates, state = tx.update(grads, state, params)
    ...     params = optax.apply_updates(params, updates)
    ...     print(params)
    [ 0.9 -1.8]
    [ 0.71999997 -1.4399999 ]
    [ 0.486 -0.972]
    """
    check_accumulator_dtype("sgd", accumulator_dtype)
    rate = hyperparameter("sgd", "learning_rate", learning_rate, NON_NEGATIVE)
    if momentum is None:
        if nesterov:
            raise ValueError("sgd: nesterov=True needs a momentum, got momentum=None.")
        return composed("sgd", scale_by_learning_rate(rate))
    alpha = hyperparameter("sgd", "momentum", momentum, BELOW_ONE)
    accelerate = nesterov_momentum if nesterov else heavy_ball
    return composed("sgd", scale_by_learning_rate(rate), accelerate(alpha, accumulator_dtype=accumulator_dtype))
