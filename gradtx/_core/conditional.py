"""Helps wrappers: applies a transformation only at some steps, and counts the skipped steps."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .copies import once_known
from .hyperparameters import next_count
from .lift import row_of
from .tracing import is_known
from .trees import selected
from .types import GradientTransformationExtraArgs, Params, Updates


def update_if(
    is_due: jax.Array,
    tx: GradientTransformationExtraArgs,
    updates: Updates,
    state: Any,
    params: Params | None,
    dtypes: list[Any],
    extra: dict[str, Any],
) -> tuple[Updates, Any]:
    """The update of `tx` with its leaves in `dtypes`, if `is_due`; else zeros and the old state.

    A row of blocks always runs, and selects in the same pass. Any other transformation runs only if it is due.
    """
    if (row := row_of(tx)) is not None:
        new_updates, new_state = row.advance(updates, state, params, keep=is_due)
        leaves, treedef = jax.tree.flatten(new_updates)
        chosen = [jnp.where(is_due, u.astype(dtype), 0) for u, dtype in zip(leaves, dtypes, strict=True)]
        return treedef.unflatten(chosen), new_state

    def move() -> tuple[Updates, Any]:
        new_updates, new_state = tx.update(updates, state, params, **extra)
        leaves, treedef = jax.tree.flatten(new_updates)
        cast = [u.astype(dtype) for u, dtype in zip(leaves, dtypes, strict=True)]
        return treedef.unflatten(cast), jax.tree.map(partial(selected, None), new_state, state)

    if not is_known(is_due):
        # The zeros need the types that `move` returns, sharding included. They can differ from those of the gradients:
        # inside `shard_map` a mean over devices has another type than its terms.
        like, _ = jax.eval_shape(move)
        return jax.lax.cond(is_due, move, lambda: (jax.tree.map(jnp.zeros_like, like), state))
    if is_due:  # outside jit a conditional would be compiled anew at each call
        return move()
    leaves, treedef = jax.tree.flatten(updates)
    return treedef.unflatten([jnp.zeros_like(g, dtype=d) for g, d in zip(leaves, dtypes, strict=True)]), state


def skip_counts(is_taken: jax.Array, skipped: Any, consecutive: Any, seen: Any) -> tuple[Any, Any, Any]:
    """The next counts of the steps that were skipped, of those skipped in a row up to now, and of all steps."""
    in_a_row = jnp.where(is_taken, 0, next_count(consecutive))
    skipped = jnp.where(in_a_row > 0, next_count(skipped), skipped)
    # Each is computed from another one, so that XLA on GPUs can compute them in one kernel.
    return skipped, in_a_row, once_known(skipped, next_count(seen))
