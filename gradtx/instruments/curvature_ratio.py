"""The chapter's test of ill-conditioning: the ratio of a step's second-order term to its first-order term.

    J(θ - ε g) ≈ J(θ) - ε g'g + ½ ε² g'Hg

    ratio                    ½ ε² g'Hg / (ε g'g)
    gHg                      g'Hg
    critical_learning_rate   g'g / g'Hg, which lowers the model of the cost most; inf if g'Hg <= 0

| letter | argument        | shape, dtype                                                       |
|--------|-----------------|--------------------------------------------------------------------|
| g      | updates         | as the parameters, real: the gradient                              |
| ε      | `learning_rate` | scalar or schedule, [0, inf)                                       |
| H      | `losses_fn` or  | the Hessian of the step's batch; extra arguments of `update`,      |
|        | `value_fn`      | params -> [B] losses or params -> their mean                       |

**Reads**: from a ratio of 1 on, the step is expected to raise the loss of its own batch. Far below 1 the rate could be
higher. If the ratio is negative, so is the curvature along the gradient. Averaged over batches, the ratio is ε/2 times
the Batch Sharpness, which SGD drives to 2/ε. So a minibatch run at the edge of stability hovers about 1. If g'Hg grows
by orders of magnitude while the loss hardly falls, the problem is ill-conditioned.

**Source**: Goodfellow et al. 2016, eq. 8.10; chapter §2.1; Andreyev & Beneventano 2024 (arXiv:2412.20553), Def. 3.

**Stands** first in the chain, where the updates are still the gradient.

**Differs from** a Hessian-vector product: it takes one nested forward pass, without a backward pass or stored
activations.

**Costs**: about one and a half gradients; the state holds no array of the parameters' size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.debugging import unbounded, unknown
from gradtx._core.hyperparameters import NON_NEGATIVE, first_count, hyperparameter
from gradtx._core.types import GradientTransformationExtraArgs, Params, ScalarOrSchedule

from .instrument import Measurement, instrument, never, unmeasured
from .observation import Observation


class CurvatureRatioState(NamedTuple):
    """State of `curvature_ratio`."""

    curvature_ratio: jax.Array  # []
    gHg: jax.Array  # []  # noqa: N815 (the quantity is written so)
    critical_learning_rate: jax.Array  # []
    curvature_ratio_count: jax.Array  # [] int32
    curvature_ratio_measured_at: jax.Array  # [] int32

    def readings(self) -> dict[str, jax.Array]:
        """The readings, by name."""
        return {
            "curvature_ratio/ratio": self.curvature_ratio,
            "curvature_ratio/gHg": self.gHg,
            "curvature_ratio/critical_learning_rate": self.critical_learning_rate,
        }


def curvature_ratio(learning_rate: ScalarOrSchedule, *, every: int = 1) -> GradientTransformationExtraArgs:
    """½ε²g'Hg / (εg'g), g'Hg, and the learning rate that would lower the cost most.

    Args:
        learning_rate: ε, the learning rate of the chain, in [0, inf).
        every: steps from one measurement to the next.

    Inside `accumulate` and `optax.MultiSteps` g is the mean gradient of the whole step, and H is the Hessian of its
    last micro-batch. So the readings scatter like those of one micro-batch; their mean is that of the whole step.

    Raises:
        ValueError: a number out of range; at `init`, a complex leaf; at `update`, no parameters or no loss.
        TypeError: one of the wrong kind.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> loss = lambda x: 0.5 * (x[0] ** 2 + 10 * x[1] ** 2)
    >>> tx = gradtx.curvature_ratio(0.1)
    >>> x = jnp.array([0.0, 1.0])
    >>> _, state = tx.update(jax.grad(loss)(x), tx.init(x), x, value_fn=loss)
    >>> print({name: round(float(value), 3) for name, value in gradtx.readings(state).items()})
    {'curvature_ratio/ratio': 0.5, 'curvature_ratio/gHg': 1000.0, 'curvature_ratio/critical_learning_rate': 0.1}
    """
    return instrument(curvature_measurement(learning_rate), every)


def curvature_measurement(learning_rate: ScalarOrSchedule) -> Measurement:
    """The measurement that `curvature_ratio` makes."""
    rate = hyperparameter("curvature_ratio", "learning_rate", learning_rate, NON_NEGATIVE)

    def init(_: Params) -> CurvatureRatioState:
        return CurvatureRatioState(unmeasured(), unmeasured(), unmeasured(), first_count(), never())

    def measure(state: CurvatureRatioState, observation: Observation) -> CurvatureRatioState:
        curvature = observation.along.curvature.astype(jnp.result_type(float))  # d'Hd = g'Hg / g'g
        norm = observation.norm
        goes_up = curvature > 0
        critical = jnp.where(goes_up, 1 / jnp.where(goes_up, curvature, 1), unbounded())
        has_direction = (norm > 0) & jnp.isfinite(norm)
        return state._replace(
            curvature_ratio=jnp.where(has_direction, rate(observation.count) * curvature / 2, unknown()),
            gHg=norm * curvature * norm,
            critical_learning_rate=jnp.where(has_direction & ~jnp.isnan(curvature), critical, unknown()),
        )

    return Measurement("curvature_ratio", init, measure, needs=("params", "value_fn"), allow_complex=False)
