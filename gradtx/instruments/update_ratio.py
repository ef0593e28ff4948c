"""The length of a step relative to the length of the parameters: a first check of a learning rate.

    global   ‖Δθ_k‖ / ‖θ_k‖

| letter | argument | shape, dtype                                   |
|--------|----------|------------------------------------------------|
| Δθ     | updates  | as the parameters; added by `apply_updates`    |
| θ      | params   | before the step                                |

**Reads**: about 1e-3 is usual. Far above 1e-2 the rate is high, far below 1e-4 it is low. This is a rule of thumb only.

**Source**: the CS231n course notes, "Ratio of weights:updates".

**Stands** last in the chain, where the updates are those that will be added.

**Differs from** Optax and torch, which have nothing like it. It is correct even if the norms are beyond float32.

**Costs**: one read of updates and parameters, with `per_leaf` two.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.collectives import AxisName
from gradtx._core.debugging import unbounded
from gradtx._core.hyperparameters import first_count
from gradtx._core.norms import scaled_norm, scaled_norms
from gradtx._core.trees import accumulators, widen
from gradtx._core.types import FLOAT32, GradientTransformationExtraArgs, Params

from .instrument import Measurement, instrument, never, unmeasured
from .observation import Observation


class UpdateRatioState(NamedTuple):
    """State of `update_ratio`."""

    update_ratio: jax.Array  # []
    update_leaf_ratios: jax.Array | None  # [leaves]; None unless `per_leaf`
    update_ratio_count: jax.Array  # [] int32
    update_ratio_measured_at: jax.Array  # [] int32

    def readings(self) -> dict[str, jax.Array]:
        """The readings, by name."""
        found = {"update_ratio/global": self.update_ratio}
        return found if self.update_leaf_ratios is None else found | {"update_ratio/leaves": self.update_leaf_ratios}


def update_ratio(
    *, per_leaf: bool = False, every: int = 1, axis_name: AxisName = None
) -> GradientTransformationExtraArgs:
    """‖Δθ‖ / ‖θ‖ over all leaves that have an update; 0 if nothing moves, inf if all moving parameters are 0.

    Args:
        per_leaf: also read `update_ratio/leaves`, the ratio of each leaf.
        every: steps from one measurement to the next.
        axis_name: inside `shard_map`, the mesh axis or axes that updates and parameters are sharded over.

    Inside `accumulate` and `optax.MultiSteps` it reads the update of the whole step.

    Raises:
        ValueError: `every` out of range; at `update`, no parameters. TypeError: one of the wrong kind, a leaf that is
            not a floating array.

    >>> import gradtx, jax.numpy as jnp, optax
    >>> tx = optax.chain(optax.sgd(0.01), gradtx.update_ratio())
    >>> params = jnp.array([3.0, 4.0])
    >>> _, state = tx.update(jnp.array([0.0, 1.0]), tx.init(params), params)
    >>> print(gradtx.readings(state)["update_ratio/global"])  # 0.01 / 5
    0.002
    """

    def init(params: Params) -> UpdateRatioState:
        leaves = unmeasured(len(jax.tree.leaves(params))) if per_leaf else None
        return UpdateRatioState(unmeasured(), leaves, first_count(), never())

    def measure(state: UpdateRatioState, observation: Observation) -> UpdateRatioState:
        moving = observation.moving(observation.params)
        us, ps = [u for u, _ in moving.values()], [p for _, p in moving.values()]
        leaves = state.update_leaf_ratios
        if leaves is not None and moving:
            ratios = _quotient(scaled_norms(us, axis_name), scaled_norms(ps, axis_name))
            leaves = ratios if len(moving) == len(leaves) else leaves.at[jnp.array(list(moving))].set(ratios)
        return state._replace(update_ratio=ratio(us, ps, axis_name), update_leaf_ratios=leaves)

    return instrument(Measurement("update_ratio", init, measure, needs=("params",)), every, axis_name)


def ratio(updates: list[jax.Array], params: list[jax.Array], axis_name: AxisName = None) -> jax.Array:
    """‖updates‖ / ‖params‖, even if a norm is not finite. 0 / 0 gives 0."""
    return _quotient(scaled_norm(updates, axis_name), scaled_norm(params, axis_name))


def _quotient(u: tuple[jax.Array, jax.Array], p: tuple[jax.Array, jax.Array]) -> jax.Array:
    """The quotient of two norms, or of two vectors of norms, as `scaled_norm` gives them."""
    float_dtype = jnp.result_type(float)
    inverse_u, relative_u = (x.astype(float_dtype) for x in u)
    inverse_p, relative_p = (x.astype(float_dtype) for x in p)
    is_zero = relative_p == 0
    quotient = relative_u / jnp.where(is_zero, 1, relative_p) * (inverse_p / inverse_u)
    return jnp.where(relative_u == 0, 0, jnp.where(is_zero, unbounded(), quotient))


class LastUpdateRatioState(NamedTuple):
    """State of the ratio of the previous step, ‖θ_k - θ_{k-1}‖ / ‖θ_{k-1}‖, for the panel, which sees no updates."""

    last_params: Params  # as the parameters: θ_{k-1}
    last_params_at: jax.Array  # [] int32: the step of those parameters, -1 if there is none
    last_update_ratio: jax.Array  # []
    last_update_count: jax.Array  # [] int32
    last_update_measured_at: jax.Array  # [] int32

    def readings(self) -> dict[str, jax.Array]:
        """The readings, by name."""
        return {"update_ratio/global": self.last_update_ratio}


def last_update_measurement() -> Measurement:
    """The measurement of the ratio of the previous step."""

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
