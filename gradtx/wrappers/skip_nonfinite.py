"""A guard around a transformation: a step with a NaN or an inf has no effect.

    u, s' = inner(g, s)        if g and u are finite
    0, s                       otherwise

**Differs from** `optax.apply_if_finite`: that accepts a NaN after `max_consecutive_errors` bad steps, and fails under
explicit sharding. This never accepts a NaN. It also catches a NaN that the inner transformation makes from finite
gradients (an overflow of a square).

**Costs**: three int32 and two booleans, and one more read of the gradients and the state, to find out whether the
update is finite. A method, a clipping or a `gradtx.chain` of them is computed twice, to judge the update and to
apply it. On a CPU that takes about twice as long, and a byte per entry. Any other transformation is computed once,
and its results are stored until they are judged.

**Across devices**: inside `shard_map` over sharded parameters give `axis_name`, so that all shards skip the same steps.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.arguments import checked_count, inner_transformation
from gradtx._core.collectives import AxisName, check_axis_name, largest_over_shards
from gradtx._core.conditional import skip_counts
from gradtx._core.copies import unmerged
from gradtx._core.foreign import check_state
from gradtx._core.hyperparameters import first_count
from gradtx._core.lift import row_of
from gradtx._core.trees import check_params, selected
from gradtx._core.types import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    MultiSteps,
    Params,
    Updates,
)


class SkipNonfiniteState(NamedTuple):
    """State of `skip_nonfinite`."""

    guarded_state: Any  # state of the inner transformation, as the last good step left it
    skipped: jax.Array  # [] bool: whether the last step was skipped
    skipped_count: jax.Array  # [] int32: how many steps were skipped
    consecutive_skipped_count: jax.Array  # [] int32: how many in a row up to now
    guarded_count: jax.Array  # [] int32: how many steps were seen
    gave_up: jax.Array  # [] bool: whether `give_up_after` skips in a row have occurred; stays true


def skip_nonfinite(
    tx: GradientTransformation | MultiSteps, give_up_after: int | None = None, *, axis_name: AxisName = None
) -> GradientTransformationExtraArgs:
    """Skips every step whose gradients or updates hold a NaN or an inf, and counts these steps.

    A skipped step gives zero updates and leaves the inner state as it was, bit for bit: schedules do not
    advance, velocities do not decay. If `value` (the loss) is among the extra arguments, it has to be finite too.

    Args:
        tx: the transformation to guard. Put the guard outermost, around clipping too.
        give_up_after: after that many bad steps in a row `gave_up` turns true, and no later step is applied, even if it
            is finite: the parameters stay as the last good step left them. Read `state.gave_up` outside the compiled
            part of the loop, and end the loop. None never gives up.

    **Differs from** `optax.apply_if_finite`: its `inner` is called `tx` here. Its `max_consecutive_errors` accepts a
    bad step after that many; `give_up_after` never does.

    Raises:
        ValueError: `give_up_after` is less than 1. TypeError: it is not an integer, or `tx` is not a transformation.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.skip_nonfinite(gradtx.sgd(0.1, momentum=0.9))
    >>> state = tx.init(jnp.zeros(2))
    >>> for g in (jnp.array([1.0, 1.0]), jnp.array([1.0, jnp.nan]), jnp.array([0.0, 0.0])):
    ...     updates, state = tx.update(g, state)
    ...     print(updates, state.skipped)
    [-0.1 -0.1] False
    [0. 0.] True
    [-0.09 -0.09] False
    """
    inner = inner_transformation("skip_nonfinite", tx)
    row = row_of(inner)
    check_axis_name("skip_nonfinite", axis_name)
    if give_up_after is not None:
        checked_count("skip_nonfinite", "give_up_after", give_up_after)

    # This function is long because `init` and `update` need the checked arguments.
    def init(params: Params) -> SkipNonfiniteState:
        check_params("skip_nonfinite", params)
        return SkipNonfiniteState(
            guarded_state=inner.init(params),
            skipped=jnp.zeros((), bool),
            skipped_count=first_count(),
            consecutive_skipped_count=first_count(),
            guarded_count=first_count(),
            gave_up=jnp.zeros((), bool),
        )

    def update(
        updates: Updates, state: Any, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, SkipNonfiniteState]:
        check_state("skip_nonfinite", state, "guarded_state")
        before, loss = state.guarded_state, extra.get("value")
        if row is not None:  # computed twice on a CPU, so that no result has to wait in memory
            new_updates, new_state = row.advance(updates, before, params, plainly=True)
        else:
            new_updates, new_state = inner.update(updates, before, params, **extra)
        is_good = _all_finite((updates, loss), (new_updates, loss), axis_name)
        if give_up_after is not None:
            is_good = is_good & ~state.gave_up
        if row is not None:
            again, old = unmerged((updates, before))
            new_updates, new_state = row.advance(again, old, params, keep=is_good)
        else:
            new_state = jax.tree.map(partial(selected, is_good), new_state, before)
        skipped, consecutive, seen = skip_counts(
            is_good, state.skipped_count, state.consecutive_skipped_count, state.guarded_count
        )
        gave_up = state.gave_up
        if give_up_after is not None:
            gave_up = gave_up | (consecutive >= give_up_after)
        return (
            jax.tree.map(lambda u: jnp.where(is_good, u, jnp.zeros_like(u)), new_updates),
            SkipNonfiniteState(
                guarded_state=new_state,
                skipped=consecutive > 0,
                skipped_count=skipped,
                consecutive_skipped_count=consecutive,
                guarded_count=seen,
                gave_up=gave_up,
            ),
        )

    return GradientTransformationExtraArgs(init, update)


def _all_finite(gradients: Any, updates: Any, axis_name: AxisName) -> jax.Array:
    """Whether all entries of both trees are finite. Each leaf is read in one pass."""
    both = jax.tree.map(lambda g, u: jnp.all(_is_finite(g) & _is_finite(u)), gradients, updates)
    flags = jax.tree.leaves(both)
    is_good = jnp.all(jnp.stack(flags)) if flags else jnp.ones((), bool)
    return is_good if axis_name is None else largest_over_shards((~is_good).astype(jnp.int32), axis_name) == 0


def _is_finite(x: Any) -> jax.Array:
    return jnp.isfinite(x) if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else jnp.ones((), bool)
