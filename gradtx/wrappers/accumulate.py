"""Gradient accumulation: several micro-batches make one step, which is the step of the big batch.

    W ← W + w;    m ← m + (w / W) (g - m)         for each micro-batch with w > 0
    u, s' = inner(m, s)                           on every n_k-th of them; then W, m ← 0
    0, s                                          on the others

| letter | argument               | shape, dtype                                                   |
|--------|------------------------|----------------------------------------------------------------|
| g, u   | updates                | any tree of floating (or complex) arrays                       |
| w      | `weight`, extra        | scalar, the examples of this micro-batch; 1 if it is absent    |
| m      | `accumulated_mean`     | as the parameters, float32 or wider                            |
| W      | `accumulated_weight`   | scalar                                                         |
| n_k    | `every`                | int, or a schedule of the steps that `inner` has done          |

If g is the mean gradient of a micro-batch and w its number of examples, m is Σ w g / Σ w. To rounding, this is the mean
gradient of all examples, also if the micro-batches are uneven. The inner transformation gets it in float32 or wider.

**Source**: chapter §3.1 (larger batches estimate better) and §4.1 (the batch size may grow during training).

**Differs from** `optax.MultiSteps`: micro-batches may be uneven; half-precision gradients reach the inner
transformation as their float32 mean (there the mean is rounded to their dtype first); a bad micro-batch spoils only its
own step (there the mean is multiplied by 0 to clear it, but 0 · inf is NaN); a micro-batch of weight 0 (all padding,
a loss of 0/0) has no effect. `value`, the loss, is averaged likewise.

**Bad micro-batches**: `skip_nonfinite(accumulate(tx, n))` drops the micro-batch and waits for another in its place;
`accumulate(skip_nonfinite(tx), n)` drops the step.

**Costs**: one number per parameter, beside the inner state. Each micro-batch reads and writes it once.

**When**: if a batch needs more memory than there is, or should grow during the run. It does not give more steps from
the same examples: n micro-batches make one step.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.arguments import checked_count, inner_transformation, scalar
from gradtx._core.conditional import update_if
from gradtx._core.foreign import check_state
from gradtx._core.gradients import aligned
from gradtx._core.hyperparameters import first_count, next_count
from gradtx._core.micro_batches import SHARE
from gradtx._core.trees import accumulators, check_params, selected, widen
from gradtx._core.types import (
    FLOAT32,
    GradientTransformation,
    GradientTransformationExtraArgs,
    MultiSteps,
    Params,
    Schedule,
    Updates,
)


class AccumulateState(NamedTuple):
    """State of `accumulate`."""

    accumulating_state: Any  # state of the inner transformation, as its last step left it
    accumulated_mean: Updates  # as the parameters: m
    accumulated_value: jax.Array  # [] default float: the mean of `value`
    accumulated_weight: jax.Array  # [] default float: W
    micro_count: jax.Array  # [] int32: micro-batches since the last step
    accumulated_count: jax.Array  # [] int32: k, steps of the inner transformation


def accumulate(tx: GradientTransformation | MultiSteps, every: int | Schedule) -> GradientTransformationExtraArgs:
    """One step of `tx` for every n micro-batches, from the weighted mean of their gradients; zero updates in between.

    Two extra arguments are combined: `weight` (examples of the micro-batch, >= 0) and `value` (its mean loss). The
    inner transformation gets the sum of the weights and the mean value. Others, such as `value_fn` and `losses_fn`,
    are those of the last micro-batch. Instruments inside get that batch's share in the mean, so that they count the
    examples of the whole step. Each instrument's docstring explains what it measures inside `accumulate`.

    Args:
        tx: the transformation. Put clippings and instruments of the big batch's gradient inside.
        every: n, the micro-batches per step, >= 1; or a schedule of k, as `growing_batch_sizes` makes it.

    **Differs from** `optax.MultiSteps`: its `opt` and `every_k_schedule` are called `tx` and `every` here. There is no
    `use_grad_mean`: it is always true. There is no `accumulator_dtype`: the mean is kept in float32 or wider. There
    is no `should_skip_update_fn`: put `gradtx.skip_nonfinite` around it.

    Raises:
        ValueError: `every` is less than 1. TypeError: it is of the wrong kind, or `tx` is not a transformation; at
            init, a leaf is not a floating array.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.accumulate(gradtx.sgd(0.1), every=2)
    >>> state = tx.init(jnp.zeros(()))
    >>> for g, examples in ((1.0, 30), (4.0, 10)):  # uneven: the mean is 1.75
    ...     updates, state = tx.update(jnp.array(g), state, weight=examples)
    ...     print(updates)
    0.0
    -0.175
    """
    inner, micro_batches = inner_transformation("accumulate", tx), _every(every)

    # This function is long because `init` and `update` need the checked arguments.
    def init(params: Params) -> AccumulateState:
        check_params("accumulate", params)
        return AccumulateState(
            accumulating_state=inner.init(params),
            accumulated_mean=accumulators(params, FLOAT32),
            accumulated_value=jnp.zeros((), jnp.result_type(float)),
            accumulated_weight=jnp.zeros((), jnp.result_type(float)),
            micro_count=first_count(),
            accumulated_count=first_count(),
        )

    def update(
        updates: Updates, state: Any, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, AccumulateState]:
        check_state("accumulate", state, "accumulated_mean")
        gradients, treedef = aligned("accumulate", updates, state.accumulated_mean)
        means = treedef.flatten_up_to(state.accumulated_mean)
        weight = scalar("accumulate", "weight", extra.get("weight", 1))
        total = jnp.where(weight > 0, state.accumulated_weight + weight, state.accumulated_weight)
        # 0 if there is nothing to add. 0 times NaN or inf is NaN, so `add` also selects the old mean then.
        share = jnp.where(weight > 0, weight, 0) / jnp.where(total > 0, total, 1)

        def add(mean: jax.Array, x: Any) -> jax.Array:
            step = share.astype(mean.real.dtype) * (widen(x, mean.real.dtype) - mean)
            return jnp.where(weight > 0, mean + step, mean)

        added = [m if g is None else add(m, g) for g, m in zip(gradients, means, strict=True)]
        if extra.get("value") is not None:
            extra["value"] = add(state.accumulated_value, scalar("accumulate", "value", extra["value"]))
        if "weight" in extra:
            extra["weight"] = total
        extra[SHARE] = share * extra.get(SHARE, 1.0)
        micro_count = next_count(state.micro_count)
        is_due = (micro_count >= micro_batches(state.accumulated_count)) & (total > 0)
        present = treedef.unflatten([None if g is None else m for g, m in zip(gradients, added, strict=True)])
        dtypes = [g.dtype for g in gradients if g is not None]
        new_updates, inner_state = update_if(is_due, inner, present, state.accumulating_state, params, dtypes, extra)

        new_means = [_cleared(is_due, m) for m in added]
        micro_count = _cleared(is_due, micro_count)
        is_due = micro_count == 0  # the same value. From the new count, XLA on GPUs computes the rest in one kernel
        value = state.accumulated_value if extra.get("value") is None else extra["value"]
        return new_updates, AccumulateState(
            accumulating_state=inner_state,
            accumulated_mean=treedef.unflatten(new_means),
            accumulated_value=selected(None, _cleared(is_due, value), state.accumulated_value),
            accumulated_weight=selected(None, _cleared(is_due, total), state.accumulated_weight),
            micro_count=micro_count,
            accumulated_count=jnp.where(is_due, next_count(state.accumulated_count), state.accumulated_count),
        )

    return GradientTransformationExtraArgs(init, update)


def _cleared(is_due: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.where(is_due, jnp.zeros_like(x), x)


def _every(every: Any) -> Any:
    if callable(every):
        return every
    number = checked_count("accumulate", "every", every, or_else=" or a function of the step")
    return lambda count: number
