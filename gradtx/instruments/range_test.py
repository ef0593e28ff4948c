"""Learning-rate range test: one short run in which the rate grows from far too low to far too high.

    ε_i = lowest (highest / lowest)^(i / (steps - 1)),    θ_{i+1} = θ_i - ε_i g_i    (or what `make_tx(ε_i)` does)

| number       | what                                                                                             |
|--------------|--------------------------------------------------------------------------------------------------|
| `steepest`   | the rate whose step lowers its own batch's loss most, smoothed: a rate to train with             |
| `divergence` | from this rate on the loss rises for good: inf where it never does                               |
| `minimum`    | the rate at which the smoothed loss is lowest: the upper end of the useful range                 |

**Divergence**: on curvature λ_max, gradient descent diverges above 2/λ_max. The sweep itself notices late, because the
rates below have all but removed the component that diverges, and it must grow from almost nothing. But the rise tells
the rate: a step multiplies the gradient by 1 - ε λ, so 2/λ = 2ε / (1 + ‖g_after‖ / ‖g_before‖). Where updates are -ε g
and the last two steps turned a growing gradient around and agree on that number (to one ratio of rates), it is
`divergence`, whether or not the loss had the time to blow up: on a quadratic, 2/λ_max. Else, with momentum or scaled
gradients or a loss that is no quadratic there, it is the rate of the first step of the unbroken rise that ended the run.

**Source**: Smith 2017; chapter §4.1.

**Differs from** the usual tools: `losses[i]` is the loss after the step with rate i on that step's own batch, so that a
rise is the step's doing and no other batch's; smoothing is centred, so that it shifts no number to later rates.

**Costs**: two gradients a step until it diverges, nothing then; one compiled loop, which on CPUs is slow for
convolutions. Runs on the host's order: not legal inside `jit`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._core.trees import scaled_norm
from gradtx._core.types import GradientTransformation, Params, with_extra_args_support

from .point import check_at_least, check_leaves, check_scalar


class RangeTest(NamedTuple):
    """What `lr_range_test` found. Print it for a sentence."""

    learning_rates: np.ndarray  # [steps] ε_i
    losses: np.ndarray  # [steps] the loss after the step with that rate; NaN from the divergence on
    steepest: float  # learning rate; NaN where it diverged before there was anything to see
    divergence: float  # learning rate; inf where it did not diverge
    minimum: float  # learning rate

    def __str__(self) -> str:
        return f"steepest at {self.steepest:.3g}, lowest at {self.minimum:.3g}, diverges from {self.divergence:.3g}"


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
    skip_first: int = 10,
    skip_last: int = 5,
    batches: Any = None,
) -> RangeTest:
    """Steepest, divergence and minimum learning rate, from one run with growing rates.

    Args:
        value_fn: `params -> scalar` loss, or `(params, batch) -> scalar` with `batches`.
        params: where the run starts; it is not changed. Any tree of real floating arrays.
        make_tx: `learning_rate -> transformation`; None is plain gradient descent, -ε g. It is called with a traced
            rate, and its states must have one structure for all rates.
        lowest, highest: the ends of the range, 0 < lowest < highest < inf.
        steps: how many rates, >= 2.
        smooth: width of the centred mean over the losses, as a fraction of the steps, in [0, 1).
        diverge: > 1. The run ends where the loss is over best + (diverge - 1) max(|best|, first - best): at `diverge`
            times the best loss, or where that is near 0, back at as many times the first.
        skip_first, skip_last: steps at either end in which `steepest` is not looked for, >= 0.
        batches: a tree of arrays with a leading axis [steps], one slice a step.

    Raises:
        ValueError: a number out of range; batches of another length; a loss that is no real scalar, or is not finite
            at the start; a complex leaf. TypeError: a leaf is no floating array.

    >>> import gradtx, jax.numpy as jnp
    >>> loss = lambda x: jnp.sum(jnp.array([1.0, 20.0]) * x**2) / 2
    >>> print(gradtx.lr_range_test(loss, jnp.ones(2)).divergence)  # 2/20
    0.100
    """
    _check(lowest, highest, steps, smooth, diverge, skip_first, skip_last, batches)
    check_leaves("lr_range_test", params)
    params = jax.tree.map(jnp.asarray, params)
    rates = np.geomspace(lowest, highest, steps)
    first_batch = () if batches is None else (jax.tree.map(lambda x: x[0], batches),)
    check_scalar("lr_range_test", jax.eval_shape(value_fn, params, *first_batch))
    sweep = jax.jit(lambda *arguments: _sweep(value_fn, make_tx or _descent, diverge, *arguments))
    run = jax.tree.map(np.asarray, sweep(params, jnp.asarray(rates, jnp.result_type(float)), batches))
    if not np.isfinite(run.first):
        raise ValueError(f"lr_range_test: the loss must be finite at the start, got {run.first}.")
    losses = np.where(run.taken & np.isfinite(run.loss), run.loss, np.nan).astype(float)
    smoothed = _smoothed(losses, smooth * steps)
    falls = _smoothed(np.where(np.isnan(losses), np.nan, run.fall), smooth * steps)
    lowest_at = int(np.nanargmin(smoothed)) if np.isfinite(smoothed).any() else 0
    return RangeTest(
        learning_rates=rates,
        losses=np.where(np.arange(steps) < np.sum(run.taken) - run.diverged.any(), losses, np.nan),
        steepest=_steepest(rates, falls, skip_first, min(lowest_at + 1, np.isfinite(losses).sum() - skip_last)),
        divergence=_divergence(rates, run),
        minimum=float(rates[lowest_at]),
    )


class _Run(NamedTuple):
    first: Any  # [] the loss at the start
    loss: Any  # [steps] after the step, on its batch
    fall: Any  # [steps] by how much the step lowered the loss of its batch
    growth: Any  # [steps] ‖g_after‖ / ‖g_before‖ on its batch; NaN unless the update was -ε g and turned g around
    diverged: Any  # [steps] bool: this step ended the run
    taken: Any  # [steps] bool: the run had not ended before


def _sweep(
    value_fn: Callable[..., Any], make_tx: Callable[..., Any], diverge: float, params: Params, rates: Any, batches: Any
) -> _Run:
    def at(params: Params, batch: tuple[Any, ...]) -> tuple[jax.Array, Params]:
        value, gradient = jax.value_and_grad(value_fn)(params, *batch)
        return value.astype(rates.dtype), gradient

    def step(carry: Any, x: Any) -> tuple[Any, tuple[Any, ...]]:
        params, state, best = carry
        rate, *batch = x
        value, g = at(params, tuple(batch))
        tx = with_extra_args_support(make_tx(rate))
        updates, state = tx.update(g, state, params, value=value, grad=g, value_fn=lambda p: value_fn(p, *batch))
        new_params = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates)
        after, g_after = at(new_params, tuple(batch))
        off = _norm(jax.tree.map(lambda u, d: u + rate * d, updates, g))
        norm = _norm(g)
        turned = _inner(g, g_after) < -0.5 * norm * _norm(g_after)  # the step overshot what the gradient is made of
        growth = jnp.where(turned & (off <= 0.01 * rate * norm), _norm(g_after) / norm, jnp.nan)
        best = jnp.fmin(best, after)
        diverged = ~(after <= best + (diverge - 1) * jnp.maximum(jnp.abs(best), first - best))
        return (new_params, state, best), (after, value - after, growth, diverged)

    def guarded(carry: Any, x: Any) -> tuple[Any, tuple[Any, ...]]:
        ended, rest = carry
        nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(step, rest, x)[1])
        rest, out = jax.lax.cond(ended, lambda: (rest, nothing), lambda: step(rest, x))
        return (ended | out[3], rest), (*out, ~ended)

    xs = (rates,) if batches is None else (rates, batches)
    first, _ = at(params, tuple(jax.tree.map(lambda x: x[0], xs[1:])))
    start = (params, make_tx(rates[0]).init(params), first)
    _, (loss, fall, growth, diverged, taken) = jax.lax.scan(guarded, (jnp.zeros((), bool), start), xs)
    return _Run(first, loss, fall, growth, diverged, taken)


def _descent(learning_rate: Any) -> GradientTransformation:
    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        return jax.tree.map(lambda g: (-learning_rate * g).astype(g.dtype), updates), state

    return GradientTransformation(lambda params: (), update)


def _norm(a: Any) -> jax.Array:
    inverse_scale, relative = scaled_norm(jax.tree.leaves(a))
    return relative / inverse_scale


def _inner(a: Any, b: Any) -> jax.Array:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    dtype = jnp.result_type(float)
    return sum((jnp.sum(x.astype(dtype) * y.astype(dtype)) for x, y in pairs), start=jnp.zeros((), dtype))


def _smoothed(losses: np.ndarray, width: float) -> np.ndarray:
    """Centred mean over 2 half + 1 losses, fewer at the ends; NaN where the loss is."""
    half = int(round(width / 2))
    windows = np.pad(losses, half, constant_values=np.nan)
    rows = np.lib.stride_tricks.sliding_window_view(windows, 2 * half + 1)
    counted = np.isfinite(rows)
    means = np.where(counted, rows, 0).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
    return np.where(np.isfinite(losses), means, np.nan)


def _steepest(rates: np.ndarray, falls: np.ndarray, start: int, stop: int) -> float:
    return float(rates[start + np.argmax(falls[start:stop])]) if start < stop else float("nan")


def _divergence(rates: np.ndarray, run: _Run) -> float:
    last = int(run.taken.sum()) - 1
    critical = 2 * rates / (1 + run.growth)
    if last > 0 and (run.growth[last - 1 : last + 1] > 1).all():  # false where NaN
        before, after = critical[last - 1 : last + 1]
        if abs(np.log(after / before)) <= np.log(rates[1] / rates[0]):
            return float(min(before, after))
    if not run.diverged.any():
        return float("inf")
    onset = last
    while onset > 0 and not run.fall[onset - 1] >= 0:
        onset -= 1
    return float(rates[onset])


def _check(
    lowest: float, highest: float, steps: int, smooth: float, diverge: float, first: int, last: int, batches: Any
) -> None:
    name = "lr_range_test"
    if not 0 < lowest < highest < float("inf"):
        raise ValueError(f"{name}: lowest and highest must be 0 < lowest < highest < inf, got {lowest} and {highest}.")
    check_at_least(name, "steps", steps, 2)
    check_at_least(name, "skip_first", first, 0)
    check_at_least(name, "skip_last", last, 0)
    if not 0 <= smooth < 1:
        raise ValueError(f"{name}: smooth must be in [0, 1), got {smooth}.")
    if not 1 < diverge < float("inf"):
        raise ValueError(f"{name}: diverge must be in (1, inf), got {diverge}.")
    lengths = {x.shape[0] if getattr(x, "ndim", 0) else None for x in jax.tree.leaves(batches)}
    if batches is not None and lengths != {steps}:
        found = ", ".join(map(str, sorted(lengths, key=str))) or "no array"
        raise ValueError(f"{name}: batches must be arrays with a leading axis of steps = {steps}, got {found}.")
