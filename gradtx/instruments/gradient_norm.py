"""The norm of the gradient: whether it has become small, and whether it grows.

    global      ‖g_k‖, over all leaves
    slope       of log ‖g_k‖ per step, by a weighted least-squares line: weights decay^age, age in measurements
    nonfinite   number of entries of g that were NaN or inf, summed over the measured steps

| letter | argument | shape, dtype                                          |
|--------|----------|-------------------------------------------------------|
| g      | updates  | any tree of floating (or complex) arrays              |

**Reads**: if the norm of the gradient of *all* examples never becomes small, the cause is not a critical point: not a
minimum, a saddle or any other (chapter §2.2). The norm of a minibatch gradient does not show this, because noise keeps
it large at a minimum too. A small norm means that a critical point of some kind may be near; `critical_point` tells
which. A positive slope while the loss falls is typical of ill-conditioning (§2.1). A steep positive slope is an
explosion (§2.5).

**Source**: Goodfellow et al. 2016, §8.2.1-8.2.2.

**Stands** at the place whose norm you need: first in the chain for the raw gradient, after a clip for the clipped one.

**Differs from** `optax.global_norm`: it is accumulated in float32 or wider, and correct even for entries of 1e30.

**Costs**: one read of the updates, with `per_leaf` two (two more if squares over- or underflow); a dozen numbers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.collectives import AxisName, total_over_shards
from gradtx._core.hyperparameters import BELOW_ONE, first_count, hyperparameter
from gradtx._core.norms import scaled_norms
from gradtx._core.tracing import either
from gradtx._core.types import GradientTransformationExtraArgs, Params, ScalarOrSchedule

from .averages import no_trend, slope_of, trend_with
from .instrument import Measurement, instrument, never, unmeasured
from .observation import Observation


class GradientNormState(NamedTuple):
    """State of `gradient_norm`."""

    gradient_norm: jax.Array  # [] ‖g‖
    gradient_leaf_norms: jax.Array | None  # [leaves], in the order of the tree's leaves; None unless `per_leaf`
    gradient_norm_trend: jax.Array  # [9]
    nonfinite_count: jax.Array  # [] int32
    gradient_norm_count: jax.Array  # [] int32: number of steps seen
    gradient_norm_measured_at: jax.Array  # [] int32: the last measured step, -1 if there is none

    def readings(self) -> dict[str, jax.Array]:
        """The readings, by name."""
        found = {
            "gradient_norm/global": self.gradient_norm,
            "gradient_norm/slope": slope_of(self.gradient_norm_trend)[0],
            "gradient_norm/nonfinite": self.nonfinite_count,
        }
        return found if self.gradient_leaf_norms is None else found | {"gradient_norm/leaves": self.gradient_leaf_norms}


def gradient_norm(
    per_leaf: bool = False, *, decay: ScalarOrSchedule = 0.95, every: int = 1, axis_name: AxisName = None
) -> GradientTransformationExtraArgs:
    """‖g‖, the slope of its logarithm, and the number of entries that were not finite.

    Args:
        per_leaf: also read `gradient_norm/leaves`, the norm of each leaf.
        decay: decay of the slope's weights, in [0, 1); 0.95 looks back over some 40 measurements.
        every: steps from one measurement to the next.
        axis_name: inside `shard_map`, the mesh axis or axes that gradients are sharded over.

    Inside `accumulate` and `optax.MultiSteps` it reads the mean gradient of the whole step, once per step.

    Raises:
        ValueError: `decay` or `every` out of range. TypeError: one of the wrong kind; at `init`, a leaf that is not a
            floating array.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.gradient_norm()
    >>> state = tx.init(jnp.zeros(2))
    >>> for g in (8.0, 4.0, 2.0):  # halves each step: slope -log 2
    ...     _, state = tx.update(g * jnp.array([0.6, 0.8]), state)
    >>> print({name: round(float(value), 3) for name, value in gradtx.readings(state).items()})
    {'gradient_norm/global': 2.0, 'gradient_norm/slope': -0.693, 'gradient_norm/nonfinite': 0.0}
    """
    return instrument(norm_measurement(per_leaf, decay), every, axis_name)


def norm_measurement(per_leaf: bool = False, decay: ScalarOrSchedule = 0.95) -> Measurement:
    """The measurement that `gradient_norm` makes."""
    d = hyperparameter("gradient_norm", "decay", decay, BELOW_ONE)

    def init(params: Params) -> GradientNormState:
        leaves = unmeasured(len(jax.tree.leaves(params))) if per_leaf else None
        return GradientNormState(unmeasured(), leaves, no_trend(), first_count(), first_count(), never())

    def measure(state: GradientNormState, observation: Observation) -> GradientNormState:
        elapsed = observation.count - state.gradient_norm_measured_at
        has_log = observation.norm > 0  # a zero gradient is left out of the line
        log_norm = jnp.log(jnp.where(has_log, observation.norm, 1))
        # An entry that is not finite makes the norm NaN. The entries are counted only in that case.
        relative = observation.relative_norm[1]
        none = jnp.zeros_like(relative, jnp.int32)
        bad = either(jnp.isnan(relative), lambda: none + _nonfinite(observation), lambda: none)
        room = jnp.iinfo(jnp.int32).max - state.nonfinite_count
        return state._replace(
            gradient_norm=observation.norm,
            gradient_leaf_norms=_leaf_norms(observation, state.gradient_leaf_norms),
            gradient_norm_trend=trend_with(state.gradient_norm_trend, d(observation.count), elapsed, log_norm, has_log),
            nonfinite_count=state.nonfinite_count + jnp.minimum(bad, room),
        )

    return Measurement("gradient_norm", init, measure)


def _nonfinite(observation: Observation) -> jax.Array:
    counts = [jnp.sum(~jnp.isfinite(g), dtype=jnp.int32) for g in observation.gradients]
    return total_over_shards(counts, observation.axis_name, jnp.int32)


def _leaf_norms(observation: Observation, old: jax.Array | None) -> jax.Array | None:
    """The norm of each leaf. A leaf without a gradient at this step keeps its last norm."""
    if old is None:
        return None
    present = dict(enumerate(observation.gradients))
    if len(present) < len(old):
        present = {i: g for i, (g, _) in observation.moving(observation.params).items()}
    if not present:
        return old
    inverse_scale, relative = scaled_norms(list(present.values()), observation.axis_name)
    norms = (relative / inverse_scale).astype(old.dtype)
    return norms if len(present) == len(old) else old.at[jnp.array(list(present))].set(norms)
