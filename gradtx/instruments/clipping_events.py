"""Measures how often and how much a clip at a threshold acts, and counts isolated spikes of the gradient norm.

    fraction   share of the measured steps with ‖g‖ > c      (here and below, only steps with a finite norm count)
    shrink     mean of min(1, c / ‖g‖) over the measured steps
    spikes     number of steps with z = (‖g‖ - μ) / σ > z_max; μ, σ: running mean and deviation of the earlier steps

| letter | argument    | shape, dtype                                                                  |
|--------|-------------|-------------------------------------------------------------------------------|
| g      | updates     | any tree of floating (or complex) arrays                                      |
| c      | `max_norm`  | [0, inf] or schedule; None: nothing is clipped, `fraction` and `shrink` NaN   |
| z_max  | `threshold` | scalar or schedule, (0, inf), default 2.5                                     |

A spike enters μ and σ as if its z were z_max, so that one cliff does not hide the next, and a lasting change of level
is learnt. σ is taken as at least 1 % of μ. Spikes are counted after the first 25 measurements.

**Reads**: a fraction near 1 means that the clip acts as the learning rate (raise the threshold, or lower the rate).
Isolated spikes are cliffs (chapter §2.4).

**Source**: Pascanu, Mikolov & Bengio 2013 (thresholds of half to ten times the average norm); Kumar et al. 2025,
"ZClip: adaptive spike mitigation for LLM pre-training" (z of 2.5, decay 0.97; 25 steps of warm-up in its code).

**Stands** before the clip, where the norm is still that of the gradient.

**Differs from** the states of gradtx's clips, which count every step they clip. This also sees spikes that are not
clipped, and `decay` limits how far back it looks for the usual level. Optax and torch have nothing like it.

**Costs**: one read of the updates; nine numbers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.collectives import AxisName
from gradtx._core.hyperparameters import (
    BELOW_ONE,
    NON_NEGATIVE_OR_INF,
    POSITIVE,
    first_count,
    hyperparameter,
    next_count,
)
from gradtx._core.types import GradientTransformationExtraArgs, Params, ScalarOrSchedule

from .averages import averaged, means_of, no_average
from .instrument import Measurement, instrument, never, unmeasured
from .observation import Observation

_WARM_UP = 25  # steps


class ClippingEventsState(NamedTuple):
    """State of `clipping_events`."""

    clip_fraction: jax.Array  # []
    clip_shrink: jax.Array  # []
    spike_count: jax.Array  # [] int32
    spike_level: jax.Array  # [3]: averages of ‖g‖ and of its squared deviation, and their weight
    clipping_seen: jax.Array  # [] int32: number of finite norms
    clipping_events_count: jax.Array  # [] int32
    clipping_events_measured_at: jax.Array  # [] int32

    def readings(self) -> dict[str, jax.Array]:
        """The readings, by name."""
        return {
            "clipping_events/fraction": self.clip_fraction,
            "clipping_events/shrink": self.clip_shrink,
            "clipping_events/spikes": self.spike_count,
        }


def clipping_events(
    max_norm: ScalarOrSchedule | None = None,
    *,
    threshold: ScalarOrSchedule = 2.5,
    decay: ScalarOrSchedule = 0.97,
    every: int = 1,
    axis_name: AxisName = None,
) -> GradientTransformationExtraArgs:
    """Fraction of the steps that a clip at `max_norm` changes, how much it shrinks them, and spikes of the norm.

    Args:
        max_norm: c, the limit of the clip that follows; None if there is none.
        threshold: z_max, in (0, inf).
        decay: decay of the averages μ and σ, in [0, 1).
        every: steps from one measurement to the next.
        axis_name: inside `shard_map`, the mesh axis or axes that gradients are sharded over.

    Inside `accumulate` and `optax.MultiSteps` it reads the mean gradient of the whole step, once per step.

    Raises:
        ValueError: a number out of range. TypeError: one of the wrong kind; at `init`, a leaf that is not a
            floating array.

    >>> import gradtx, jax.numpy as jnp, optax
    >>> tx = optax.chain(gradtx.clipping_events(1.0), gradtx.clip_by_global_norm(1.0))
    >>> state = tx.init(jnp.zeros(1))
    >>> for g in (0.5, 2.0, 4.0, 1.0):
    ...     _, state = tx.update(jnp.array([g]), state)
    >>> print({name: float(value) for name, value in gradtx.readings(state[0]).items()})  # shrink (1 + ½ + ¼ + 1) / 4
    {'clipping_events/fraction': 0.5, 'clipping_events/shrink': 0.6875, 'clipping_events/spikes': 0.0}
    """
    return instrument(clipping_measurement(max_norm, threshold, decay), every, axis_name)


def clipping_measurement(
    max_norm: ScalarOrSchedule | None = None, threshold: ScalarOrSchedule = 2.5, decay: ScalarOrSchedule = 0.97
) -> Measurement:
    """The measurement that `clipping_events` makes."""
    name = "clipping_events"
    limit = None if max_norm is None else hyperparameter(name, "max_norm", max_norm, NON_NEGATIVE_OR_INF)
    highest = hyperparameter(name, "threshold", threshold, POSITIVE)
    d = hyperparameter(name, "decay", decay, BELOW_ONE)

    def init(_: Params) -> ClippingEventsState:
        counts = first_count(), first_count(), never()
        return ClippingEventsState(unmeasured(), unmeasured(), first_count(), no_average(2), *counts)

    def measure(state: ClippingEventsState, observation: Observation) -> ClippingEventsState:
        norm = observation.norm
        mean, squares = means_of(state.spike_level)
        deviation = jnp.maximum(jnp.sqrt(squares), 0.01 * mean)
        top = mean + highest(observation.count) * deviation
        is_warm = state.clipping_seen >= _WARM_UP
        is_spike = is_warm & (norm > top)
        is_good = jnp.isfinite(norm)
        entered = jnp.where(is_spike, top, norm)
        off = jnp.where(state.clipping_seen > 0, entered - mean, 0)
        fraction, shrink = state.clip_fraction, state.clip_shrink
        if limit is not None:
            c = limit(observation.count)
            share = 1 / (state.clipping_seen.astype(norm.dtype) + 1)
            factor = jnp.where(norm > c, c / jnp.where(norm > 0, norm, 1), 1)

            def mean_with(mean: jax.Array, x: jax.Array) -> jax.Array:
                old = jnp.where(state.clipping_seen > 0, mean, 0)
                return jnp.where(is_good, old + share * (x - old), mean)

            fraction, shrink = mean_with(fraction, (norm > c).astype(norm.dtype)), mean_with(shrink, factor)
        return state._replace(
            clip_fraction=fraction,
            clip_shrink=shrink,
            spike_count=jnp.where(is_spike & is_good, next_count(state.spike_count), state.spike_count),
            spike_level=averaged(state.spike_level, d(observation.count), entered, off**2),
            clipping_seen=jnp.where(is_good, next_count(state.clipping_seen), state.clipping_seen),
        )

    return Measurement(name, init, measure)
