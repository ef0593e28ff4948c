"""A guard against spikes: a step whose gradient is far longer than usual has no effect on the inner transformation.

    z = (‖g‖ - μ) / σ
    u, s' = inner(g, s)        if z ≤ z_max, and during the first n steps
    0, s                       otherwise, and if ‖g‖ is not finite

| letter | argument     | shape, dtype                                                                     |
|--------|--------------|----------------------------------------------------------------------------------|
| g, u   | updates      | any tree of floating (or complex) arrays                                         |
| z_max  | `threshold`  | scalar or schedule, (0, inf)                                                     |
| μ, σ   | in the state | running mean and deviation of ‖g‖ over the steps before, with weight `decay`     |
| n      | `warm_up`    | int >= 1, steps that are never skipped while μ and σ are learnt                  |

A spike enters μ and σ as if its z were z_max. So one spike does not hide the next, and a lasting change of the level is
learnt. σ counts as at least 1 % of μ.

**Source**: Kumar et al. 2025, "ZClip: adaptive spike mitigation for LLM pre-training" (z of 2.5, decay 0.97, 25 steps
of warm-up). ZClip shortens such a gradient. This skips it, as Chowdhery et al. 2022 (PaLM, §5.1) skip data batches.

**Differs from** `skip_nonfinite`, which checks whether gradients and updates are finite, and from
`clip_by_global_norm`, which has a fixed limit and takes the step. Optax and torch have nothing like it.

**Costs**: one read of the gradients; seven numbers.

**When**: if single minibatches throw a run back. If it skips more than one step in a hundred, the cause is another one:
too high a rate, or too low a threshold.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.arguments import checked_count, inner_transformation
from gradtx._core.collectives import AxisName, check_axis_name
from gradtx._core.conditional import skip_counts, update_if
from gradtx._core.foreign import check_state
from gradtx._core.gradients import aligned
from gradtx._core.hyperparameters import BELOW_ONE, POSITIVE, first_count, hyperparameter
from gradtx._core.norms import factored_norm
from gradtx._core.trees import check_params, selected
from gradtx._core.types import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    MultiSteps,
    Params,
    ScalarOrSchedule,
    Updates,
)


class SkipSpikesState(NamedTuple):
    """State of `skip_spikes`."""

    unspiked_state: Any  # state of the inner transformation, as the last step that was taken left it
    spike_skipped: jax.Array  # [] bool: whether the last step was skipped
    spike_skipped_count: jax.Array  # [] int32: how many steps were skipped
    consecutive_spike_count: jax.Array  # [] int32: how many in a row up to now
    spike_guarded_count: jax.Array  # [] int32: how many steps were seen
    usual_norm: jax.Array  # [] default float: μ
    usual_deviation: jax.Array  # [] default float: σ


def skip_spikes(
    tx: GradientTransformation | MultiSteps,
    threshold: ScalarOrSchedule = 4.0,
    decay: ScalarOrSchedule = 0.97,
    warm_up: int = 25,
    *,
    axis_name: AxisName = None,
) -> GradientTransformationExtraArgs:
    """Skips every step whose gradient norm is far above those before, and counts these steps.

    A skipped step gives zero updates and leaves the inner state as it was, bit for bit.

    Args:
        tx: the transformation to guard. Put the guard around clipping too.
        threshold: z_max, in (0, inf), in standard deviations of the norm.
        decay: the weight of the past in μ and σ, in [0, 1).
        warm_up: n, at least 1: the first steps are taken whatever their norm, if it is finite.
        axis_name: inside `shard_map`, the mesh axis or axes that gradients are sharded over.

    Raises:
        ValueError: a number out of range. TypeError: an argument is of the wrong kind, or `tx` is not a transformation.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.skip_spikes(gradtx.sgd(0.1), warm_up=3)
    >>> state = tx.init(jnp.zeros(()))
    >>> for g in (1.0, 1.1, 0.9, 50.0, 1.0):
    ...     updates, state = tx.update(jnp.array(g), state)
    ...     print(updates, state.spike_skipped)
    -0.1 False
    -0.11 False
    -0.09 False
    0.0 True
    -0.1 False
    """
    inner = inner_transformation("skip_spikes", tx)
    check_axis_name("skip_spikes", axis_name)
    checked_count("skip_spikes", "warm_up", warm_up)
    limit = hyperparameter("skip_spikes", "threshold", threshold, POSITIVE)
    forget = hyperparameter("skip_spikes", "decay", decay, BELOW_ONE)

    # This function is long because `init` and `update` need the checked arguments.
    def init(params: Params) -> SkipSpikesState:
        check_params("skip_spikes", params)
        return SkipSpikesState(
            unspiked_state=inner.init(params),
            spike_skipped=jnp.zeros((), bool),
            spike_skipped_count=first_count(),
            consecutive_spike_count=first_count(),
            spike_guarded_count=first_count(),
            usual_norm=jnp.zeros((), jnp.result_type(float)),
            usual_deviation=jnp.zeros((), jnp.result_type(float)),
        )

    def update(
        updates: Updates, state: Any, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, SkipSpikesState]:
        check_state("skip_spikes", state, "spike_guarded_count")
        gradients, treedef = aligned("skip_spikes", updates, params)
        present = [g for g in gradients if g is not None]
        count, dtype = state.spike_guarded_count, jnp.result_type(float)
        mean, deviation = state.usual_norm.astype(dtype), state.usual_deviation.astype(dtype)
        factor, length = factored_norm(present, axis_name)
        norm, z_max, rho = (length / factor).astype(dtype), limit(count), forget(count)
        highest = mean + z_max * jnp.maximum(deviation, 0.01 * mean)
        is_finite = jnp.isfinite(norm)
        is_good = is_finite & ((count < warm_up) | (norm <= highest))
        # For the first 1 / (1 - decay) steps this gives a plain mean, later a running mean.
        share = jnp.maximum(1 - rho, 1 / (count.astype(dtype) + 1))
        away = jnp.where(is_good, norm, jnp.where(is_finite, highest, mean)) - mean
        new_deviation = jnp.sqrt(1 - share) * jnp.hypot(deviation, jnp.sqrt(share) * away)  # squares could overflow
        new_updates, inner_state = update_if(
            is_good,
            inner,
            treedef.unflatten(gradients),
            state.unspiked_state,
            params,
            [g.dtype for g in present],
            extra,
        )
        skipped, consecutive, seen = skip_counts(
            is_good, state.spike_skipped_count, state.consecutive_spike_count, count
        )
        return new_updates, SkipSpikesState(
            unspiked_state=inner_state,
            spike_skipped=consecutive > 0,
            spike_skipped_count=skipped,
            consecutive_spike_count=consecutive,
            spike_guarded_count=seen,
            usual_norm=selected(None, mean + share * away, state.usual_norm),
            usual_deviation=selected(None, new_deviation, state.usual_deviation),
        )

    return GradientTransformationExtraArgs(init, update)
