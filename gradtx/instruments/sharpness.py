"""Follows the largest eigenvalue of the Hessian through the run, and compares it with the limit of the learning rate.

    lambda_max   λ_max of the Hessian of the step's batch
    stability    ε λ_max / 2;   with momentum ε λ_max / (2 + 2 α);   with Nesterov's ε λ_max (1 + 2 α) / (2 + 2 α)

| letter | argument        | shape, dtype                                                     |
|--------|-----------------|------------------------------------------------------------------|
| H      | `value_fn` or   | the Hessian of the step's batch; extra arguments of `update`,    |
|        | `losses_fn`     | params -> scalar or params -> [B], of which it is the mean       |
| ε      | `learning_rate` | scalar or schedule, [0, inf); None: `stability` is NaN           |
| α      | `momentum`      | scalar or schedule, [0, 1)                                       |
| v      |                 | as the parameters, float32 or wider: the eigenvector so far      |

The first measurement takes both ends of the spectrum by Lanczos. From then on v is kept, and each measurement is one
product: λ = v'Hv, then v ← Hv + s v, scaled to length 1. s >= 0 is as large as the most negative curvature met so far,
so that the largest eigenvalue wins and not the largest magnitude.

**Reads**: with a stability above 1 a run on a quadratic diverges. Training with full batches comes to hover about 1,
the edge of stability. With minibatches it is the curvature along the gradient that does so, not λ_max (see
`curvature_ratio`).

**Source**: Cohen, Kaur, Li, Kolter & Talwalkar 2021, "Gradient descent on neural networks typically occurs at the edge
of stability". The thresholds are derived here. Along an eigenvector of curvature λ a step is a linear recurrence. It
begins to grow when a root of its characteristic polynomial passes -1:

    momentum    z² - (1 + α - ε λ) z + α,               0 at z = -1 if ε λ = 2 + 2 α
    Nesterov    z² - (1 - ε λ) (1 + α) z + α (1 - ε λ), 0 at z = -1 if ε λ = (2 + 2 α) / (1 + 2 α)

**Differs from** power iteration, which finds the eigenvalue of largest magnitude: -3 for diag(1, -3, 2).

**Stands** anywhere, because it reads the parameters and the loss only.

**Costs**: one Hessian-vector product (two to three gradients) per measurement, and `num_iterations` + 1 more for the
first one. The state holds one number per parameter. But a compiled step reserves memory for about `num_iterations` + 6
copies of the parameters in float32, because it may have to make the first measurement. Under `vmap` both branches run,
so every measurement costs as much as the first; let the host choose the steps there (`measure`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.arguments import check_seed, checked_count
from gradtx._core.debugging import unknown
from gradtx._core.hvp import hvp, power_step
from gradtx._core.hyperparameters import BELOW_ONE, NON_NEGATIVE, first_count, hyperparameter
from gradtx._core.norms import tree_inner
from gradtx._core.ritz import combined, ritz
from gradtx._core.tracing import either
from gradtx._core.trees import accumulators, widen
from gradtx._core.types import FLOAT32, GradientTransformationExtraArgs, Params, ScalarOrSchedule, Updates

from .directional import two_sides, unless_blocked
from .instrument import Measurement, instrument, never, unmeasured
from .observation import Observation
from .point import normal_like


class SharpnessState(NamedTuple):
    """State of `sharpness`."""

    sharpness_vector: Updates  # as the parameters: v, of length 1
    sharpness_shift: jax.Array  # [] s
    lambda_max: jax.Array  # []
    stability: jax.Array  # []
    sharpness_count: jax.Array  # [] int32
    sharpness_measured_at: jax.Array  # [] int32

    def readings(self) -> dict[str, jax.Array]:
        """The readings, by name."""
        return {"sharpness/lambda_max": self.lambda_max, "sharpness/stability": self.stability}


def sharpness(
    learning_rate: ScalarOrSchedule | None = None,
    momentum: ScalarOrSchedule = 0.0,
    nesterov: bool = False,
    *,
    num_iterations: int = 10,
    seed: int = 0,
    every: int = 1,
) -> GradientTransformationExtraArgs:
    """λ_max of the Hessian, and its ratio to the largest value at which the learning rate is stable.

    Args:
        learning_rate: ε, the learning rate of the chain, in [0, inf); None leaves `stability` NaN.
        momentum: α, the momentum of the chain, in [0, 1).
        nesterov: whether the momentum is Nesterov's.
        num_iterations: Lanczos steps of the first measurement, >= 1; exact with as many as there are parameters.
        seed: seed of the first vector.
        every: steps from one measurement to the next.

    Inside `accumulate` and `optax.MultiSteps` H is the Hessian of the step's last micro-batch. The first reading is the
    λ_max of that micro-batch, which is larger than that of the whole step; later ones follow v over many micro-batches.

    Raises:
        ValueError: a number out of range; at `init`, a complex leaf; at `update`, no parameters or no loss.
        TypeError: one of the wrong kind.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> loss = lambda x: 0.5 * jnp.sum(jnp.array([1.0, -3.0, 2.0]) * x**2)
    >>> tx, x = gradtx.sharpness(learning_rate=0.5), jnp.ones(3)
    >>> _, state = tx.update(jax.grad(loss)(x), tx.init(x), x, value_fn=loss)
    >>> print({name: round(float(value), 3) for name, value in gradtx.readings(state).items()})
    {'sharpness/lambda_max': 2.0, 'sharpness/stability': 0.5}
    """
    rate = None if learning_rate is None else hyperparameter("sharpness", "learning_rate", learning_rate, NON_NEGATIVE)
    alpha = hyperparameter("sharpness", "momentum", momentum, BELOW_ONE)
    checked_count("sharpness", "num_iterations", num_iterations)
    check_seed("sharpness", seed)

    def init(params: Params) -> SharpnessState:
        unseen = unmeasured(), unmeasured()
        return SharpnessState(accumulators(params, FLOAT32), jnp.zeros_like(unseen[0]), *unseen, first_count(), never())

    def measure(state: SharpnessState, observation: Observation) -> SharpnessState:
        product = _hessian(observation)

        def first() -> tuple[Updates, jax.Array, jax.Array]:
            _, linear = jax.linearize(product, state.sharpness_vector)  # computes the gradient once, for all products
            return _both_ends(linear, state.sharpness_vector, num_iterations, jax.random.key(seed))

        # This is outside the `cond`, because XLA on CPUs runs convolutions inside one slowly. Only the first
        # measurement pays for that.
        followed = _followed(product, state.sharpness_vector, state.sharpness_shift)
        vector, shift, largest = either(state.sharpness_measured_at < 0, first, lambda: followed)
        a = alpha(observation.count)
        limit = (2 + 2 * a) / (1 + 2 * a) if nesterov else 2 + 2 * a
        stability = jnp.full_like(largest, unknown()) if rate is None else rate(observation.count) * largest / limit
        return state._replace(sharpness_vector=vector, sharpness_shift=shift, lambda_max=largest, stability=stability)

    measurement = Measurement("sharpness", init, measure, needs=("params", "value_fn"), allow_complex=False)
    return instrument(measurement, every)


def _hessian(observation: Observation) -> Any:
    """v -> Hv on trees of float32 or wider; the gradient's own passes are in the parameters' dtypes."""
    params = jax.tree.map(jnp.asarray, observation.params)

    def product(v: Updates) -> Updates:
        tangent = jax.tree.map(lambda x, p: x.astype(p.dtype), v, params)
        hv = unless_blocked(
            lambda: hvp(observation.value_fn, params, tangent),
            lambda: _product_by_differences(jax.grad(observation.value_fn), params, tangent),
        )
        return jax.tree.map(lambda x, like: widen(x, like.dtype), hv, v)

    return product


def _product_by_differences(gradient: Any, params: Params, v: Updates) -> Updates:
    ahead, behind, width = two_sides(params, v)
    return jax.tree.map(lambda a, b: (a - b) / width.astype(a.dtype), gradient(ahead), gradient(behind))


def _both_ends(
    product: Any, like: Updates, num_iterations: int, key: jax.Array
) -> tuple[Updates, jax.Array, jax.Array]:
    """Finds the eigenvector of the largest eigenvalue, the shift, and the largest eigenvalue, by Lanczos."""
    leaves, treedef = jax.tree.flatten(like)
    size = sum(x.size for x in leaves)
    float_dtype = jnp.result_type(float)
    if size == 0:
        return like, jnp.zeros((), float_dtype), jnp.zeros((), float_dtype)
    start = treedef.unflatten(normal_like(key, leaves))
    found = ritz(min(num_iterations, size))(product, start)
    vector = combined(found.vectors[:, found.largest_at], found.basis)
    return vector, jnp.maximum(0, -found.values[0]).astype(float_dtype), found.values[-1].astype(float_dtype)


def _followed(product: Any, v: Updates, shift: jax.Array) -> tuple[Updates, jax.Array, jax.Array]:
    """The next v, the next shift, and the Rayleigh quotient of v, by one product."""
    hv = product(v)
    quotient = tree_inner(v, hv)
    shift = jnp.maximum(shift, -quotient).astype(shift.dtype)
    return power_step(hv, v, shift, fallback=v), shift, quotient
