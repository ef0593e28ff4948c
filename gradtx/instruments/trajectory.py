"""The path through parameter space: its distance from the start, its length and its straightness.

    distance       ‖θ_{k+1} - θ_0‖
    path_length    Σ_{j <= k} ‖Δθ_j‖
    straightness   distance / path_length, from 0 to 1

| letter | argument | shape, dtype                                    |
|--------|----------|-------------------------------------------------|
| Δθ     | updates  | as the parameters; added by `apply_updates`     |
| θ_0    | params   | at the first step, kept in float32 or wider     |

**Reads**: a straightness of 1 is a straight line, as of gradient descent on an isotropic bowl. If it is far below 1 and
the loss hardly falls, the run wanders: it circles, jumps from wall to wall, or follows noise (a random walk of k steps
has 1/√k).

**Source**: Goodfellow, Vinyals & Saxe 2015; chapter §2.7.

**Stands** last in the chain, where the updates are those that will be added.

**Differs from** Cockpit's distance, which is the first of the three. Optax and torch have nothing like it.

**Costs**: two reads of updates and parameters; one copy of the parameters. With `every=N`, N > 1, the path between two
measurements counts as a straight line, and a second copy is kept to measure it from. If the host chooses the steps
(`measure=True | False`), use such an N: with `every=1` each step is measured, even with `measure=False`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.collectives import AxisName
from gradtx._core.debugging import quotient
from gradtx._core.hyperparameters import first_count
from gradtx._core.norms import scaled_norm
from gradtx._core.trees import accumulators, widen
from gradtx._core.types import FLOAT32, GradientTransformationExtraArgs, Params, Updates

from .instrument import Measurement, instrument, never, unmeasured
from .observation import Observation


class TrajectoryState(NamedTuple):
    """State of `trajectory`."""

    trajectory_start: Params  # as the parameters: θ_0
    trajectory_last: Params | None  # as the parameters, after the last measured step; None with every=1
    distance: jax.Array  # []
    path_length: jax.Array  # []
    trajectory_count: jax.Array  # [] int32
    trajectory_measured_at: jax.Array  # [] int32

    def readings(self) -> dict[str, jax.Array]:
        """The readings, by name."""
        path = self.path_length
        return {
            "trajectory/distance": self.distance,
            "trajectory/path_length": path,
            "trajectory/straightness": quotient(self.distance, path, path > 0),
        }


def trajectory(*, every: int = 1, axis_name: AxisName = None) -> GradientTransformationExtraArgs:
    """Distance from the start, length of the path, straightness.

    Args:
        every: steps from one measurement to the next.
        axis_name: inside `shard_map`, the mesh axis or axes that updates and parameters are sharded over.

    Inside `accumulate` and `optax.MultiSteps` it follows the updates of whole steps.

    Raises:
        ValueError: `every` out of range; at `update`, no parameters. TypeError: one of the wrong kind, a leaf that is
            not a floating array.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.trajectory()
    >>> params = jnp.zeros(2)
    >>> state = tx.init(params)
    >>> for step in (jnp.array([3.0, 0.0]), jnp.array([0.0, 4.0])):
    ...     _, state = tx.update(step, state, params)
    ...     params += step
    >>> print({name: round(float(value), 3) for name, value in gradtx.readings(state).items()})  # 5 of 7
    {'trajectory/distance': 5.0, 'trajectory/path_length': 7.0, 'trajectory/straightness': 0.714}
    """

    def init(params: Params) -> TrajectoryState:
        start = accumulators(params, FLOAT32)
        last = accumulators(params, FLOAT32) if every != 1 else None
        return TrajectoryState(start, last, unmeasured(), unmeasured(), first_count(), never())

    def measure(state: TrajectoryState, observation: Observation) -> TrajectoryState:
        is_first = state.trajectory_measured_at < 0

        def kept(old: jax.Array, p: jax.Array) -> jax.Array:
            return jnp.where(is_first, widen(jnp.asarray(p), old.dtype), old)

        start = jax.tree.map(kept, state.trajectory_start, observation.params)
        before, last = observation.params, None
        if state.trajectory_last is not None:
            before = jax.tree.map(kept, state.trajectory_last, observation.params)
            moved = [p + u for p, u, _ in _rows(observation, state.trajectory_last)]
            last = jax.tree.unflatten(jax.tree.structure(before), moved)
        path = jnp.where(is_first, 0, state.path_length)
        return state._replace(
            trajectory_start=start,
            trajectory_last=last,
            distance=_way(observation, start),
            path_length=path + _way(observation, before),
        )

    measurement = Measurement("trajectory", init, measure, needs=("params",), sees_every_step=every == 1)
    return instrument(measurement, every, axis_name)


def _way(observation: Observation, since: Updates) -> jax.Array:
    """‖θ_k + Δθ_k - since‖, which is the norm of the updates if `since` is θ_k."""
    if since is observation.params:
        return observation.norm
    # θ - since comes first. It is exact if the two are close, and a short update then keeps its digits.
    way = [p - s + u for p, u, s in _rows(observation, since)]
    inverse_scale, relative = scaled_norm(way, observation.axis_name)
    return (relative / inverse_scale).astype(jnp.result_type(float))


def _rows(observation: Observation, like: Params) -> list[tuple[jax.Array, jax.Array | int, jax.Array]]:
    """θ_k and Δθ_k of each leaf, in the dtype of the leaf of `like`, and that leaf. Δθ_k is 0 if there is none."""
    params, updates = jax.tree.leaves(observation.params), observation.updates_like(observation.params)
    rows = zip(params, updates, jax.tree.leaves(like), strict=True)
    return [(widen(jnp.asarray(p), x.dtype), 0 if u is None else widen(u, x.dtype), x) for p, u, x in rows]
