"""A guard around a transformation: a step that is not finite is as if it had never been seen.

    u, s' = inner(g, s)        where g and u are finite
    0, s                       elsewhere

**Differs from** `optax.apply_if_finite`: that one accepts a NaN after `max_consecutive_errors` bad steps, and fails
under explicit sharding; this one never lets one through. It also catches a NaN that the inner transformation makes
from finite gradients (an overflow of a square).

**Costs**: three int32 and two booleans; one read of gradients and updates, one select on updates and state.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.hyperparameters import first_count, next_count
from gradtx._core.trees import check_params
from gradtx._core.types import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    MultiSteps,
    Params,
    Updates,
    with_extra_args_support,
)


class SkipNonfiniteState(NamedTuple):
    """State of `skip_nonfinite`."""

    guarded_state: Any  # state of the inner transformation, as the last good step left it
    skipped: jax.Array  # [] bool: whether the last step was skipped
    skipped_count: jax.Array  # [] int32: how many steps were skipped
    consecutive_skipped_count: jax.Array  # [] int32: how many in a row up to now
    guarded_count: jax.Array  # [] int32: how many steps were seen
    gave_up: jax.Array  # [] bool: `give_up_after` in a row were reached; stays true


def skip_nonfinite(
    tx: GradientTransformation | MultiSteps, give_up_after: int | None = None
) -> GradientTransformationExtraArgs:
    """Skips every step whose gradients or updates hold a NaN or an inf; counts them.

    A skipped step gives zero updates and leaves the inner state bit-equal to never having seen it: schedules do not
    advance, velocities do not decay. If `value` (the loss) is among the extra arguments, it has to be finite too.

    Args:
        tx: the transformation to guard. Put the guard outermost, around clipping too.
        give_up_after: after that many bad steps in a row `gave_up` turns true, and nothing is applied any more, also
            not later finite steps: the parameters stay what the last good step made them. Read `state.gave_up` where
            the loop is not compiled, and end it. None never gives up.

    Raises:
        ValueError: `give_up_after` is less than 1. TypeError: it is not an integer, or `tx` no transformation.

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
    if isinstance(tx, MultiSteps):  # an object that can become a transformation
        tx = tx.gradient_transformation()
    if not isinstance(tx, GradientTransformation):
        raise TypeError(f"skip_nonfinite: tx must be a gradient transformation, got {tx!r} ({type(tx).__name__}).")
    if give_up_after is not None and (not isinstance(give_up_after, int) or isinstance(give_up_after, bool)):
        raise TypeError(f"skip_nonfinite: give_up_after must be an integer or None, got {give_up_after!r}.")
    if give_up_after is not None and give_up_after < 1:
        raise ValueError(f"skip_nonfinite: give_up_after must be at least 1, got {give_up_after}.")
    inner = with_extra_args_support(tx)

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
        new_updates, new_state = inner.update(updates, state.guarded_state, params, **extra)
        is_good = _all_finite((updates, new_updates, extra.get("value"))) & ~state.gave_up
        consecutive = jnp.where(is_good, 0, next_count(state.consecutive_skipped_count))
        gave_up = state.gave_up
        if give_up_after is not None:
            gave_up = gave_up | (consecutive >= give_up_after)
        return (
            jax.tree.map(lambda u: jnp.where(is_good, u, jnp.zeros_like(u)), new_updates),
            SkipNonfiniteState(
                guarded_state=jax.tree.map(lambda new, old: _select(is_good, new, old), new_state, state.guarded_state),
                skipped=~is_good,
                skipped_count=jnp.where(is_good, state.skipped_count, next_count(state.skipped_count)),
                consecutive_skipped_count=consecutive,
                guarded_count=next_count(state.guarded_count),
                gave_up=gave_up,
            ),
        )

    return GradientTransformationExtraArgs(init, update)


def _all_finite(tree: Any) -> jax.Array:
    finite = jnp.ones((), bool)
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            finite = finite & jnp.all(jnp.isfinite(leaf))
    return finite


def _select(is_good: jax.Array, new: Any, old: Any) -> jax.Array:
    """`new` in the dtype of `old`: some inner transformations change theirs, a scan carry may not."""
    old = jnp.asarray(old)
    return jnp.where(is_good, jnp.asarray(new, old.dtype), old)
