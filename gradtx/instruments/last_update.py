"""The update ratio of the previous step, for a place in the chain that does not see the updates of this step.

    update_ratio/global     ‖θ_k - θ_{k-1}‖ / ‖θ_{k-1}‖

**Costs**: the last parameters are kept, one number per parameter.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.hyperparameters import first_count
from gradtx._core.trees import accumulators, widen
from gradtx._core.types import FLOAT32, Params

from .instrument import Measurement, never, unmeasured
from .observation import Observation
from .update_ratio import ratio


class LastUpdateRatioState(NamedTuple):
    """The state that is kept to measure the update of the previous step."""

    last_params: Params  # as the parameters: θ_{k-1}
    last_params_at: jax.Array  # [] int32: the step of those parameters, -1 if there is none
    last_update_ratio: jax.Array  # []
    last_update_count: jax.Array  # [] int32
    last_update_measured_at: jax.Array  # [] int32

    def readings(self) -> dict[str, jax.Array]:
        """The readings, by name."""
        return {"update_ratio/global": self.last_update_ratio}


def last_update_measurement() -> Measurement:
    """The measurement of the update ratio in the panel."""

    def init(params: Params) -> LastUpdateRatioState:
        return LastUpdateRatioState(accumulators(params, FLOAT32), never(), unmeasured(), first_count(), never())

    def remember(state: LastUpdateRatioState, observation: Observation) -> LastUpdateRatioState:
        kept = jax.tree.map(lambda p, old: widen(jnp.asarray(p), old.dtype), observation.params, state.last_params)
        return state._replace(last_params=kept, last_params_at=observation.count)

    def measure(state: LastUpdateRatioState, observation: Observation) -> LastUpdateRatioState:
        last, now = jax.tree.leaves(state.last_params), jax.tree.leaves(observation.params)
        way = [widen(jnp.asarray(n), o.dtype) - o for n, o in zip(now, last, strict=True)]
        is_next = (state.last_params_at >= 0) & (state.last_params_at == observation.count - 1)
        found = jnp.where(is_next, ratio(way, last), state.last_update_ratio)
        return remember(state, observation)._replace(last_update_ratio=found)

    return Measurement("last_update", init, measure, remember, kept=("last_params",), needs=("params",))
