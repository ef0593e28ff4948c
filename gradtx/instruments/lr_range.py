"""Learning-rate range test: one short run in which the rate grows from far too low to far too high.

    ε_i = lowest (highest / lowest)^(i / (steps - 1)),    θ_{i+1} = θ_i - ε_i g_i    (or what `make_tx(ε_i)` does)

| number       | meaning                                                                                          |
|--------------|--------------------------------------------------------------------------------------------------|
| `steepest`   | the rate whose step lowers its own batch's loss most, smoothed: a rate to train with             |
| `divergence` | from this rate on the loss keeps rising; inf if it never does                                    |
| `minimum`    | the rate at which the smoothed loss is lowest; above `divergence` if the rise comes late         |

**Divergence**: on curvature λ_max, gradient descent diverges above 2/λ_max. The losses show it late or, in a long run,
never. The lower rates have almost removed the component that diverges, so it has to grow from a tiny value. So if the
updates are -ε g, a power iteration runs along with the descent, with one Hessian product per step. Then steps with
ε λ_max >= 2 are known to be unstable. `divergence` is 2/λ_max at the start of the unstable steps that lasted to the
end. On a quadratic this is exactly 2/λ_max, for any start. If the loss did not blow up by the end of the range, this
is used only if the last two steps agree on λ_max. Otherwise the loss is not quadratic there, and may keep the iterate
from diverging. In all other cases (with momentum or scaled gradients, or over a cliff), the run ends in an unbroken
rise of the loss, and `divergence` is the rate of its first step. This shows the divergence late.

Frozen entries are left out: λ_max is that of the Hessian of the entries that move. `accumulate` and `optax.MultiSteps`
step along the mean of the gradients since their last step. The steps at which they wait are not counted.

**Source**: Smith 2017; chapter §4.1.

**Differs from** the usual tools: `losses[i]` is the loss after the step with rate i on that step's own batch, so that a
rise is due to the step and not to another batch. The smoothing is centred, so that it shifts no number to later rates.

**When**: before a run, to find the range in which to look. `steepest` is a first guess, not the best rate for a long
run.

**Costs**: per step until it diverges, a gradient and a loss, and one product of two gradients if the updates are -ε g.
It is one compiled loop, which is slow for convolutions on CPUs. The results are NumPy arrays and floats, so it does not
work inside `jit`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._core.arguments import check_function, checked_count, checked_number, loss_shape
from gradtx._core.hyperparameters import ABOVE_ONE, BELOW_ONE, POSITIVE
from gradtx._core.types import GradientTransformation, Params

from .lr_range_result import RangeTest, concluded
from .lr_range_run import sweep
from .point import check_leaves


def lr_range_test(
    value_fn: Callable[..., Any],
    params: Params,
    make_tx: Callable[[Any], GradientTransformation] | None = None,
    *,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 100,
    smooth: float = 0.05,
    diverge: float = 5.0,
    skip_first: int | None = None,
    skip_last: int | None = None,
    batches: Any = None,
) -> RangeTest:
    """Steepest, divergence and minimum learning rate, from one run with growing rates.

    Args:
        value_fn: `params -> scalar` loss, or `(params, batch) -> scalar` with `batches`.
        params: the start of the run, which is not changed. Any tree of real floating arrays.
        make_tx: `learning_rate -> transformation`; None is plain gradient descent, -ε g. It is called with a traced
            rate, and the rate must not be kept in the state (as `optax.inject_hyperparams` and `delta_bar_delta` do).
        lowest, highest: the ends of the range, 0 < lowest < highest < inf.
        steps: number of rates, >= 2.
        smooth: width of the centred mean over the losses, as a fraction of the steps, in [0, 1).
        diverge: > 1. The run ends when the loss is over best + (diverge - 1) max(|best|, first - best). It has then
            risen by more than `diverge` - 1 times the best loss, and by as many times the decrease so far.
        skip_first, skip_last: number of steps at either end that `steepest` ignores, >= 0, together less than `steps`.
            None leaves out 10 and 5, or a third and a sixth of fewer than 30 steps.
        batches: a tree of arrays with a leading axis [steps], one slice per step.

    Raises:
        ValueError: a number out of range; no step between the skipped ones; batches of another length; a loss that is
            not a real scalar, or is not finite at the start; a complex leaf; a state that keeps the rate.
        TypeError: a leaf is not a floating array, or `make_tx` does not give a transformation.

    >>> import gradtx, jax.numpy as jnp
    >>> loss = lambda x: jnp.sum(jnp.array([1.0, 20.0]) * x**2) / 2
    >>> print(gradtx.lr_range_test(loss, jnp.ones(2)).divergence)  # 2/20
    0.100
    """
    name = "lr_range_test"
    check_function(name, "value_fn", value_fn, "the parameters")
    if make_tx is not None:
        example = "make_tx=lambda learning_rate: gradtx.sgd(learning_rate)"
        check_function(name, "make_tx", make_tx, "the learning rate", example)
    checked_number(name, "lowest", lowest, POSITIVE)
    checked_number(name, "highest", highest, POSITIVE)
    if not lowest < highest:
        raise ValueError(f"{name}: lowest must be below highest, got {lowest} and {highest}.")
    checked_count(name, "steps", steps, 2)
    checked_number(name, "smooth", smooth, BELOW_ONE)
    checked_number(name, "diverge", diverge, ABOVE_ONE)
    lengths = {x.shape[0] if getattr(x, "ndim", 0) else None for x in jax.tree.leaves(batches)}
    if batches is not None and lengths != {steps}:
        found = ", ".join(map(str, sorted(lengths, key=str))) or "no array"
        raise ValueError(f"{name}: batches must be arrays with a leading axis of steps = {steps}, got {found}.")
    first, last = _skipped(steps, skip_first, skip_last)
    check_leaves(name, params)
    params = jax.tree.map(jnp.asarray, params)
    rates = np.geomspace(lowest, highest, steps)
    first_batch = () if batches is None else (jax.tree.map(lambda x: x[0], batches),)
    loss_shape(name, value_fn, params, *first_batch)
    if make_tx is not None:
        _check_states(make_tx, params, rates)
    run_all = jax.jit(lambda *arguments: sweep(value_fn, make_tx, diverge, *arguments))
    run = jax.tree.map(np.asarray, run_all(params, jnp.asarray(rates, jnp.result_type(float)), batches))
    if not np.isfinite(run.first):
        raise ValueError(f"{name}: the loss must be finite at the start, got {run.first}.")
    return concluded(rates, run, smooth, first, last)


def _skipped(steps: int, first: int | None, last: int | None) -> tuple[int, int]:
    """The number of steps to ignore at either end."""
    for argument, value in (("skip_first", first), ("skip_last", last)):
        if value is not None:
            checked_count("lr_range_test", argument, value, 0)
    given = (first or 0) + (last or 0)
    if given >= steps:
        raise ValueError(
            f"lr_range_test: skip_first + skip_last must be less than steps = {steps}, got {given}: skip fewer, or "
            "take more steps."
        )
    first = min(10, steps // 3, steps - 1 - given) if first is None else first
    return first, min(5, steps // 6, steps - 1 - first) if last is None else last


def _check_states(make_tx: Callable[[Any], Any], params: Params, rates: np.ndarray) -> None:
    """Raises if a state depends on the rate it was made with, because the sweep makes one state, for its first rate."""
    states = []
    for rate in (float(rates[0]), float(rates[-1])):
        tx = make_tx(rate)
        if not isinstance(tx, GradientTransformation):
            raise TypeError(f"lr_range_test: make_tx must give a gradient transformation, got {type(tx).__name__}.")
        states.append(jax.tree.leaves_with_path(tx.init(params)))
    for (path, low), (_, high) in zip(*states, strict=True):
        if jnp.issubdtype(jnp.result_type(low), jnp.floating) and not np.array_equal(low, high, equal_nan=True):
            raise ValueError(
                "lr_range_test: the learning rate must not be kept in the state of make_tx's transformation, got one "
                f"that depends on it at state{jax.tree_util.keystr(path)}."
            )
