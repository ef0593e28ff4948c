"""The mean across devices: data parallelism as a transformation, for code inside `jax.shard_map`.

    u = Σ_i w_i g_i / Σ_i w_i        over the devices i along `axis_name`

| letter | argument        | shape, dtype                                                          |
|--------|-----------------|-----------------------------------------------------------------------|
| g, u   | updates         | any tree of floating (or complex) arrays                              |
| w      | `weight`, extra | scalar, the examples of this device's minibatch; 1 if absent          |

**Source**: chapter §3.2 (minibatches can be computed in parallel).

**When**: inside `shard_map`, if each device computes the gradient of its own minibatch. Under plain `jit` with sharded
arrays it is not needed: the compiler sees the whole batch. There is a trap: inside `shard_map` JAX returns the gradient
with respect to *replicated* parameters already summed (not averaged) over the devices. Either average the loss
(`jax.lax.pmean(loss, axis)`), and the gradient is right without this stage. Or make the parameters differ per device
before differentiating (`jax.lax.pcast(params, axis, to="varying")`, or `check_vma=False`), and put this stage first.
A gradient that JAX knows to be the same on every device is its own mean, so it passes unchanged.

**Differs from** `jax.lax.pmean`: half-precision gradients are summed in float32; uneven minibatches are weighted; a
device of weight 0 (only padding, a loss of 0/0) adds nothing, not even a NaN.

**Costs**: one all-reduce of the gradients.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.arguments import scalar
from gradtx._core.collectives import AxisName, check_axis_name, shard_axes, summed
from gradtx._core.foreign import check_state
from gradtx._core.gradients import aligned
from gradtx._core.trees import check_params, compute_dtype, selected, widen
from gradtx._core.types import GradientTransformationExtraArgs, Params, Updates


class MeanAcrossState(NamedTuple):
    """State of `mean_across`."""

    mean_weight: jax.Array  # [] default float: Σ w of the last step, the examples (or devices) that the mean is over


def mean_across(axis_name: AxisName) -> GradientTransformationExtraArgs:
    """The mean of the gradients over the devices along a mesh axis. Put it before clipping and the method.

    Args:
        axis_name: an axis of the surrounding `shard_map` (or `pmap`, `vmap`), or a tuple of axes. None changes nothing.

    `update` takes `weight`, the number of examples of this device's minibatch, as an extra argument. If all weights
    are 0, the mean is 0.

    Raises:
        TypeError: `axis_name` is of the wrong kind; at init, a leaf is not a floating array.

    >>> import gradtx, jax, jax.numpy as jnp, optax
    >>> tx = optax.chain(gradtx.mean_across("workers"), gradtx.sgd(0.1))
    >>> def step(g, examples):
    ...     return tx.update(g, tx.init(g), weight=examples)[0]
    >>> print(jax.vmap(step, axis_name="workers")(jnp.array([1.0, 4.0]), jnp.array([30.0, 10.0])))
    [-0.175 -0.175]
    """
    check_axis_name("mean_across", axis_name)

    def init(params: Params) -> MeanAcrossState:
        check_params("mean_across", params)
        return MeanAcrossState(jnp.zeros((), jnp.result_type(float)))

    def update(
        updates: Updates, state: Any, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, MeanAcrossState]:
        check_state("mean_across", state, "mean_weight")
        gradients, treedef = aligned("mean_across", updates, params)
        weight = jnp.maximum(scalar("mean_across", "weight", extra.get("weight", 1)), 0)
        total = summed(weight, axis_name)
        share = weight / jnp.where(total > 0, total, 1)

        def mean(g: jax.Array) -> jax.Array:
            return _weighted_mean(g, share, axis_name) if "weight" in extra else _mean(g, axis_name)

        if axis_name is not None:
            gradients = [None if g is None else mean(g) for g in gradients]
        return treedef.unflatten(gradients), MeanAcrossState(selected(None, total, state.mean_weight))

    return GradientTransformationExtraArgs(init, update)


def _mean(g: jax.Array, axis_name: AxisName) -> jax.Array:
    axes = shard_axes(g, axis_name)
    if not axes:
        return g
    wide = widen(g, compute_dtype(g.dtype))
    return summed(wide / jax.lax.axis_size(axes), axes).astype(g.dtype)  # divided first: a sum could overflow


def _weighted_mean(g: jax.Array, share: jax.Array, axis_name: AxisName) -> jax.Array:
    dtype = compute_dtype(g.dtype)
    part = jnp.where(share > 0, widen(g, dtype) * share.astype(dtype), 0)
    return summed(part, axis_name).astype(g.dtype)
