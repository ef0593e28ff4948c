"""Does the loss still fall? Measures its slope, and the standard error of the slope due to noise.

    slope                  of the loss per step, by a weighted least-squares line with weights decay^age
    slope_standard_error   of that slope, if the losses scatter independently about the line

| letter | argument            | shape, dtype                                                 |
|--------|---------------------|--------------------------------------------------------------|
| L_k    | `value` of `update` | scalar: the loss of the step's batch                         |

**Reads**: if the slope is within two standard errors of 0, the loss has stopped falling, as far as its noise shows. If
the gradient norm is large, the cause is noise or oscillation. If the norm is small and there is no curvature, the
region is flat (chapter §2.3). If the norm is small at a low loss, the run has arrived.

**Source**: Goodfellow et al. 2016, §8.2.3; weighted least squares.

**Stands** anywhere, because it reads `value` only.

**Differs from** `optax.contrib.reduce_on_plateau`, which compares with the best value so far and acts on it. This only
measures, and it distinguishes noise from standstill.

**Costs**: eleven numbers.
"""

from typing import NamedTuple

import jax

from gradtx._core.hyperparameters import BELOW_ONE, first_count, hyperparameter
from gradtx._core.types import GradientTransformationExtraArgs, Params, ScalarOrSchedule

from .averages import no_trend, slope_of, trend_with
from .instrument import Measurement, instrument, never
from .observation import Observation


class PlateauState(NamedTuple):
    """State of `plateau`."""

    loss_trend: jax.Array  # [9]
    plateau_count: jax.Array  # [] int32
    plateau_measured_at: jax.Array  # [] int32

    def readings(self) -> dict[str, jax.Array]:
        """The readings, by name."""
        slope, standard_error = slope_of(self.loss_trend)
        return {"plateau/slope": slope, "plateau/slope_standard_error": standard_error}


def plateau(*, decay: ScalarOrSchedule = 0.98, every: int = 1) -> GradientTransformationExtraArgs:
    """The slope of the loss and its standard error.

    Args:
        decay: decay of the weights, in [0, 1); 0.98 looks back over about 100 measurements.
        every: steps from one measurement to the next.

    Inside `accumulate` it reads the mean loss of the whole step; inside `optax.MultiSteps`, that of the last
    micro-batch.

    Raises:
        ValueError: a number out of range; at `update`, no `value`. TypeError: one of the wrong kind.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.plateau()
    >>> params = jnp.zeros(1)
    >>> state = tx.init(params)
    >>> for loss in (5.0, 4.5, 4.0, 3.5):
    ...     _, state = tx.update(params, state, value=loss)
    >>> print({name: round(float(value), 3) for name, value in gradtx.readings(state).items()})
    {'plateau/slope': -0.5, 'plateau/slope_standard_error': 0.0}
    """
    d = hyperparameter("plateau", "decay", decay, BELOW_ONE)

    def init(_: Params) -> PlateauState:
        return PlateauState(no_trend(), first_count(), never())

    def measure(state: PlateauState, observation: Observation) -> PlateauState:
        elapsed = observation.count - state.plateau_measured_at
        return state._replace(loss_trend=trend_with(state.loss_trend, d(observation.count), elapsed, observation.value))

    return instrument(Measurement("plateau", init, measure, needs=("value",)), every)
