"""Gradient clipping: bounds the step at a cliff; clipping by norm also keeps the direction.

    by value         u_i = max(-c, min(c, g_i))
    by norm          u = g min(1, c / ‖g‖)      each leaf by its own norm
    by global norm   u = g min(1, c / ‖g‖)      all leaves by one norm

| letter | argument               | shape, dtype                              |
|--------|------------------------|-------------------------------------------|
| g, u   | updates                | any tree of floating arrays; by norm also |
|        |                        | complex ones, but not by value            |
| c      | `max_abs`, `max_norm`  | scalar or schedule, [0, inf]              |
| ‖g‖    | in the state           | float32 or wider, for any dtype of leaves |

**Source**: Mikolov 2012 (by value); Pascanu, Mikolov & Bengio 2013 (by norm); chapter §2.4 and §2.5.

**Differs from** Optax (`clip`, `clip_by_global_norm`) and torch (`clip_grad_value_`, `clip_grad_norm_`): norms neither
overflow nor underflow (entries of 1e30 in float32, a thousand entries in bfloat16). A gradient at or under the limit is
returned bit for bit (torch divides by the norm plus 1e-6). Zero gradients under a zero limit stay zero. The state holds
the norm before clipping, whether the last step was clipped, and the number of clipped steps. Optax does not clip each
leaf by its norm; `clip_by_block_rms` comes nearest.

**Not finite**: by value, inf becomes the limit and NaN stays NaN. By norm, one NaN or inf makes the whole leaf NaN (by
global norm, the whole tree), because there is no direction to keep. Such a step does not count as clipped. Wrap the
pipeline in `skip_nonfinite` to skip it.

**Costs**: one more read of the gradients (by norm two reads, if squares over- or underflow) and a few scalars.

**When**: against cliffs and exploding gradients, clip by global norm, at about the usual norm of the run. Clip by value
or by leaf if single entries or leaves explode and the direction may change. Do not clip to repair a learning rate that
is too high: if the limit acts at every step, the limit and not the rate sets the length of the steps.

**Across devices**: under jit, norms are taken over whole arrays, sharded or not. Inside `shard_map` an array is only
a shard. Set `axis_name` to the mesh axis (or axes) that gradients are sharded over. Then norms and readings are those
of the whole. A leaf that JAX knows to be replicated counts once. With `check_vma=False` JAX does not know this, and
every leaf is treated as a shard. Average the gradients of different minibatches first (`mean_across`), then clip: a
mean of clipped gradients is another vector.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ._core.collectives import AxisName, check_axis_name, largest_everywhere, largest_over_shards
from ._core.hyperparameters import NON_NEGATIVE_OR_INF, count_for, first_count, hyperparameter, next_count
from ._core.lift import Scalars, lift
from ._core.norms import factored_norm, factored_norms
from ._core.types import GradientTransformationExtraArgs, Params, ScalarOrSchedule


class ClipByValueState(NamedTuple):
    """State of `clip_by_value`."""

    max_abs: jax.Array  # [] default float: the largest |g_i| before clipping (the norm that this clipping bounds)
    value_clipped: jax.Array  # [] bool: whether the last step was clipped
    value_clip_count: jax.Array  # [] int32: number of clipped steps
    value_count: jax.Array | None  # [] int32: steps done, if the limit is scheduled

    def readings(self) -> dict[str, jax.Array]:
        """The largest entry before clipping, and whether the last step was clipped."""
        return {"clip_by_value/max_abs": self.max_abs, "clip_by_value/clipped": self.value_clipped.astype(jnp.int32)}


class ClipByNormState(NamedTuple):
    """State of `clip_by_norm`. Leaves are in the order of `jax.tree.leaves(params)`."""

    leaf_norms: jax.Array  # [leaves] default float: ‖g‖ of each leaf before clipping
    leaf_clipped: jax.Array  # [leaves] bool
    leaf_clip_counts: jax.Array  # [leaves] int32
    leaf_count: jax.Array | None  # [] int32: steps done, if the limit is scheduled

    def readings(self) -> dict[str, jax.Array]:
        """The largest leaf norm before clipping, and whether any leaf was clipped at the last step."""
        return {
            "clip_by_norm/largest": jnp.max(self.leaf_norms, axis=-1, initial=0),
            "clip_by_norm/clipped": jnp.any(self.leaf_clipped, axis=-1).astype(jnp.int32),
        }


class ClipByGlobalNormState(NamedTuple):
    """State of `clip_by_global_norm`."""

    global_norm: jax.Array  # [] default float: ‖g‖ before clipping
    global_clipped: jax.Array  # [] bool: whether the last step was clipped
    global_clip_count: jax.Array  # [] int32: number of clipped steps
    global_count: jax.Array | None  # [] int32: steps done, if the limit is scheduled

    def readings(self) -> dict[str, jax.Array]:
        """The norm before clipping, and whether the last step was clipped."""
        clipped = self.global_clipped.astype(jnp.int32)
        return {"clip_by_global_norm/norm": self.global_norm, "clip_by_global_norm/clipped": clipped}


def clip_by_value(max_abs: ScalarOrSchedule, *, axis_name: AxisName = None) -> GradientTransformationExtraArgs:
    """Clips each entry to [-c, c]. This can change the direction.

    Args:
        max_abs: c, in [0, inf].
        axis_name: inside `shard_map`, the mesh axis or axes that gradients are sharded over. It is needed only with
            `check_vma=False`. Otherwise JAX knows these axes, and the state describes the whole gradient without it.
            The updates are the same in any case.

    **Differs from** `optax.clip`: its `max_delta` is called `max_abs` here.

    **Limits**: a NaN stays a NaN in the updates. But on a CPU `jnp.max` of a large array ignores a NaN (JAX 0.10 to
    0.12), and then `max_abs` is the largest of the other entries. The global norm shows every NaN.

    Raises:
        ValueError: `max_abs` is negative or NaN; at init, complex parameters (they have no order).
        TypeError: an argument is of the wrong kind.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.clip_by_value(1.0)
    >>> updates, state = tx.update(jnp.array([0.5, -3.0, jnp.inf]), tx.init(jnp.zeros(3)))
    >>> print(updates, state.max_abs, state.value_clipped)
    [ 0.5 -1.   1. ] inf True
    """
    check_axis_name("clip_by_value", axis_name)
    limit = hyperparameter("clip_by_value", "max_abs", max_abs, NON_NEGATIVE_OR_INF)

    def init(params: Params) -> ClipByValueState:
        del params
        return ClipByValueState(_zero(), jnp.zeros((), bool), first_count(), count_for(limit))

    def scalars(state: ClipByValueState, gradients: list[Any]) -> tuple[Scalars, Scalars]:
        c, largest = limit(state.value_count), _zero()
        for g in gradients:
            if g is not None:
                largest = jnp.maximum(largest, jnp.max(jnp.abs(g), initial=0).astype(largest.dtype))
        largest = largest_everywhere(largest_over_shards(largest, axis_name))
        clipped = largest > c
        return {"c": c}, {
            "max_abs": largest,
            "value_clipped": clipped,
            "value_clip_count": _count_if(clipped, state.value_clip_count),
            "value_count": next_count(state.value_count),
        }

    def rule(store: Any, g: jax.Array, *, c: jax.Array) -> jax.Array:
        del store
        return jnp.clip(g, -c, c)

    return lift("clip_by_value", init, scalars, rule, reduces=True, allow_complex=False)


def clip_by_norm(max_norm: ScalarOrSchedule, *, axis_name: AxisName = None) -> GradientTransformationExtraArgs:
    """Scales each leaf down to a norm of at most c.

    Args:
        max_norm: c, in [0, inf].
        axis_name: inside `shard_map`, the mesh axis or axes that gradients are sharded over.

    Raises:
        ValueError: `max_norm` is negative or NaN. TypeError: an argument is of the wrong kind.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.clip_by_norm(1.0)
    >>> params = {"b": jnp.zeros(2), "w": jnp.zeros(2)}
    >>> updates, state = tx.update({"b": jnp.array([0.3, 0.4]), "w": jnp.array([30.0, 40.0])}, tx.init(params))
    >>> print(updates["b"], updates["w"], state.leaf_norms, state.leaf_clipped)
    [0.3 0.4] [0.6 0.8] [ 0.5 50. ] [False  True]
    """
    check_axis_name("clip_by_norm", axis_name)
    limit = hyperparameter("clip_by_norm", "max_norm", max_norm, NON_NEGATIVE_OR_INF)

    def init(params: Params) -> ClipByNormState:
        leaves = len(jax.tree.leaves(params))
        return ClipByNormState(
            leaf_norms=jnp.zeros(leaves, jnp.result_type(float)),
            leaf_clipped=jnp.zeros(leaves, bool),
            leaf_clip_counts=jnp.zeros(leaves, jnp.int32),
            leaf_count=count_for(limit),
        )

    def scalars(state: ClipByNormState, gradients: list[Any]) -> tuple[list[Scalars], Scalars]:
        leaves = len(state.leaf_norms)
        if leaves not in (len(gradients), sum(g is not None for g in gradients)):
            raise ValueError(
                f"clip_by_norm: the gradients have {len(gradients)} leaves, but init saw {leaves}: "
                "call init with the same tree."
            )
        c, present = limit(state.leaf_count), [g for g in gradients if g is not None]
        norms, hit = state.leaf_norms, jnp.zeros(leaves, bool)
        values: list[Scalars] = [{}] * len(gradients)
        if present:
            factors, measured = _shrink_to(c, *factored_norms(present, axis_name))
            each = iter(range(len(present)))
            values = [_factors(factors[:, next(each)]) if g is not None else {} for g in gradients]
            if len(present) == leaves:
                norms, hit = measured, measured > c
            else:  # a parameter without a gradient keeps its norm
                at = [number for number, g in enumerate(gradients) if g is not None]
                norms, hit = norms.at[jnp.array(at)].set(measured), hit.at[jnp.array(at)].set(measured > c)
        return values, {
            "leaf_norms": norms,
            "leaf_clipped": hit,
            "leaf_clip_counts": _count_if(hit, state.leaf_clip_counts),
            "leaf_count": next_count(state.leaf_count),
        }

    return lift("clip_by_norm", init, scalars, _shrink, reduces=True)


def clip_by_global_norm(max_norm: ScalarOrSchedule, *, axis_name: AxisName = None) -> GradientTransformationExtraArgs:
    """Scales the whole tree down to a norm of at most c. The direction of the step does not change.

    Args:
        max_norm: c, in [0, inf].
        axis_name: inside `shard_map`, the mesh axis or axes that gradients are sharded over.

    Raises:
        ValueError: `max_norm` is negative or NaN. TypeError: an argument is of the wrong kind.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.clip_by_global_norm(1.0)
    >>> params = {"b": jnp.zeros(()), "w": jnp.zeros(())}
    >>> updates, state = tx.update({"b": jnp.array(3e30), "w": jnp.array(4e30)}, tx.init(params))
    >>> print(updates["b"], updates["w"], state.global_norm, state.global_clip_count)
    0.6 0.8 5e+30 1
    """
    check_axis_name("clip_by_global_norm", axis_name)
    limit = hyperparameter("clip_by_global_norm", "max_norm", max_norm, NON_NEGATIVE_OR_INF)

    def init(params: Params) -> ClipByGlobalNormState:
        del params
        return ClipByGlobalNormState(_zero(), jnp.zeros((), bool), first_count(), count_for(limit))

    def scalars(state: ClipByGlobalNormState, gradients: list[Any]) -> tuple[Scalars, Scalars]:
        present = [g for g in gradients if g is not None]
        c = limit(state.global_count)
        factors, norm = _shrink_to(c, *factored_norm(present, axis_name))
        clipped = norm > c
        return _factors(factors), {
            "global_norm": norm,
            "global_clipped": clipped,
            "global_clip_count": _count_if(clipped, state.global_clip_count),
            "global_count": next_count(state.global_count),
        }

    return lift("clip_by_global_norm", init, scalars, _shrink, reduces=True)


def _shrink_to(c: jax.Array, factor: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the two factors [2, ...] that shrink norms to c, and the norms, given them as `factored_norm` does."""
    norm = (length / factor).astype(c.dtype)
    is_within = norm <= c
    # There are two factors because c / norm itself may underflow. Within the limit both are 1, which changes no bit.
    # The compiler can multiply by them again in each loop that reads the clipped gradient, instead of storing it.
    # The factors are computed as one array, so that they take one kernel on a GPU.
    share = c.astype(length.dtype) / jnp.where(length == 0, 1, length)
    return jnp.where(is_within, 1, jnp.stack([factor, share])), norm


def _factors(both: jax.Array) -> Scalars:
    return {"first": both[0], "second": both[1]}


def _shrink(store: Any, g: jax.Array, *, first: jax.Array, second: jax.Array) -> jax.Array:
    """Multiplies the leaf by both factors."""
    del store
    return g * first * second


def _zero() -> jax.Array:
    return jnp.zeros((), jnp.result_type(float))


def _count_if(condition: jax.Array, count: jax.Array) -> jax.Array:
    return jnp.where(condition, next_count(count), count)
