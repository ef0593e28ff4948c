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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._core.arguments import check_function, checked_count, checked_number, loss_shape
from gradtx._core.hyperparameters import ABOVE_ONE, BELOW_ONE, POSITIVE
from gradtx._core.types import GradientTransformation, Params

from .lr_range_run import Run, sweep
from .point import check_leaves


class RangeTest(NamedTuple):
    """The result of `lr_range_test`. Printing it gives a sentence."""

    learning_rates: np.ndarray  # [steps] ε_i
    losses: np.ndarray  # [steps] the loss after the step with that rate; NaN from the step that ended the run
    steepest: float  # learning rate; NaN if it could not be found (see `remark`)
    divergence: float  # learning rate; inf if it did not diverge
    minimum: float  # learning rate; NaN if the first step ended the run, or no step changed the loss
    remark: str = ""  # why `steepest` is NaN, and what to do

    def __str__(self) -> str:
        steepest = f"steepest at {self.steepest:.3g}" if np.isfinite(self.steepest) else "no steepest rate"
        minimum = f", lowest at {self.minimum:.3g}" if np.isfinite(self.minimum) else ""
        diverges = f"diverges from {self.divergence:.3g}" if np.isfinite(self.divergence) else "does not diverge"
        return f"{steepest}{minimum}, {diverges}{self.remark and f': {self.remark}'}"


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
    check_function("lr_range_test", "value_fn", value_fn, "the parameters")
    if make_tx is not None:
        example = "make_tx=lambda learning_rate: gradtx.sgd(learning_rate)"
        check_function("lr_range_test", "make_tx", make_tx, "the learning rate", example)
    _check(lowest, highest, steps, smooth, diverge, batches)
    first, last = _skipped(steps, skip_first, skip_last)
    check_leaves("lr_range_test", params)
    params = jax.tree.map(jnp.asarray, params)
    rates = np.geomspace(lowest, highest, steps)
    first_batch = () if batches is None else (jax.tree.map(lambda x: x[0], batches),)
    loss_shape("lr_range_test", value_fn, params, *first_batch)
    if make_tx is not None:
        _check_states(make_tx, params, rates)
    run_all = jax.jit(lambda *arguments: sweep(value_fn, make_tx, diverge, *arguments))
    run = jax.tree.map(np.asarray, run_all(params, jnp.asarray(rates, jnp.result_type(float)), batches))
    if not np.isfinite(run.first):
        raise ValueError(f"lr_range_test: the loss must be finite at the start, got {run.first}.")
    return _concluded(rates, run, smooth, first, last)


def _concluded(rates: np.ndarray, run: Run, smooth: float, first: int, last: int) -> RangeTest:
    is_kept = run.taken & ~run.diverged
    # A step without an update does not test its rate, so only the steps that moved the parameters count.
    at = np.flatnonzero(run.taken & run.moved)
    losses = np.where(np.isfinite(run.loss), run.loss, np.nan).astype(float)
    width = smooth * len(rates) * len(at) / max(1, int(run.taken.sum()))
    # The loss that ended the run enters the mean of its neighbours, but is not a candidate itself.
    smoothed = np.where(is_kept[at], _smoothed(losses[at], width), np.inf)
    falls = _smoothed(np.where(np.isnan(losses), np.nan, run.fall)[at], width)
    is_seen = bool(is_kept[at].any()) and bool(np.any(run.fall[at] != 0))
    lowest_at = int(np.argmin(smoothed)) if is_seen else 0
    start = int(np.searchsorted(at, first))
    stop = min(lowest_at + 1, int(np.searchsorted(at, int(is_kept.sum()) - last)))
    has_steepest = is_seen and start < stop
    return RangeTest(
        learning_rates=rates,
        losses=np.where(is_kept, losses, np.nan),
        steepest=float(rates[at][start + np.argmax(falls[start:stop])]) if has_steepest else float("nan"),
        divergence=_divergence(rates[at], run, at),
        minimum=float(rates[at][lowest_at]) if is_seen else float("nan"),
        remark="" if has_steepest else _remark(run, at, int(is_kept.sum()), first, last),
    )


def _remark(run: Run, at: np.ndarray, kept: int, first: int, last: int) -> str:
    """Why no rate is the steepest, and what to do."""
    if not run.taken.any() or kept == 0:
        return "the first step ended the run; start with a lower rate"
    if len(at) == 0:
        return "no step moved the parameters; take more steps than the transformation waits for"
    if not np.any(run.fall[at] != 0):
        if not np.any(run.slope[at] != 0):
            return "the gradient is 0 at every step; start elsewhere, and see that value_fn uses the parameters"
        return "no step changed the loss by more than its rounding error; raise highest"
    if kept - last <= first:
        return (
            f"the run ended after {kept} steps, of which skip_first={first} and skip_last={last} leave none; start "
            "with a lower rate, or skip fewer"
        )
    return f"the loss is lowest in the first skip_first={first} steps; start with a lower rate"


def _smoothed(losses: np.ndarray, width: float) -> np.ndarray:
    """Centred mean over 2 half + 1 losses, fewer at the ends. It is NaN if the loss is NaN."""
    if len(losses) == 0:
        return losses
    half = round(width / 2)
    windows = np.pad(losses, half, constant_values=np.nan)
    rows = np.lib.stride_tricks.sliding_window_view(windows, 2 * half + 1)
    counted = np.isfinite(rows)
    means = np.where(counted, rows, 0).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
    return np.where(np.isfinite(losses), means, np.nan)


def _divergence(rates: np.ndarray, run: Run, at: np.ndarray) -> float:
    """The rate of divergence, from the steps `at` that moved and their rates."""
    if len(at) == 0:
        return float("inf")
    has_blown_up = bool(run.diverged.any())
    onset = rates[_lasts_from(run.fall[at][:-1] < 0)] if has_blown_up else float("inf")  # of the rise
    # The product is 0 if the sharpness is unknown.
    unstable_from = _lasts_from(rates * run.sharpness[at] >= 2)
    sharpness = run.sharpness[at][unstable_from:]
    if len(sharpness) == 0 or not (has_blown_up or _agree(sharpness[-2:], rates[-2:])):
        return float(onset)
    stable_to = rates[unstable_from - 1] if unstable_from > 0 else 0.0
    return float(min(max(2 / sharpness[0], stable_to), onset))


def _lasts_from(is_so: np.ndarray) -> int:
    """The first step from which on it is so up to the last; the number of steps if it is not so at the last."""
    return len(is_so) - int(np.argmin([*is_so[::-1], False]))


def _agree(sharpness: np.ndarray, rates: np.ndarray) -> bool:
    """Whether the last two steps see the same λ_max, to within the ratio of their rates."""
    return len(sharpness) == 2 and bool(abs(np.log(sharpness[1] / sharpness[0])) <= np.log(rates[1] / rates[0]))


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


def _check(lowest: float, highest: float, steps: int, smooth: float, diverge: float, batches: Any) -> None:
    name = "lr_range_test"
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
