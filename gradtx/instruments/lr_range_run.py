"""The run of a learning-rate range test: steps with growing rates, and the curvature of the loss at each step."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.hvp import hvp, normalised, power_step
from gradtx._core.norms import tree_inner, tree_norm
from gradtx._core.trees import accumulators
from gradtx._core.types import FLOAT32, GradientTransformation, Params, with_extra_args_support

from .point import normal_like


class Run(NamedTuple):
    """The numbers of each step; zeros after the run has ended."""

    first: Any  # [] the loss at the start
    loss: Any  # [steps] after the step, on its batch
    fall: Any  # [steps] the decrease of the loss of the step's batch
    sharpness: Any  # [steps] λ_max of the moving entries before the step, on its batch; 0 unless the update was -ε g
    moved: Any  # [steps] bool: False if the transformation held an update back, as `accumulate` does
    slope: Any  # [steps] ‖g‖
    diverged: Any  # [steps] bool: this step ended the run
    taken: Any  # [steps] bool: the run had not ended before


class _Probe(NamedTuple):
    """A power iteration w = H v + s v, with one product per step of the run, in the space of the entries that move."""

    v: Any  # unit vector, a tree like the parameters
    shift: jax.Array  # [] s: the largest (‖H v‖ - vᵀH v) / 2 so far; 0 on the way to λ_max, |λ_min| on the way to λ_min
    moving: Any  # a tree like the parameters: 1 if the last update that was not held back moved the entry, else 0


class _Waiting(NamedTuple):
    """The gradients since the last update: `accumulate` and `optax.MultiSteps` step along their mean."""

    mean: Any  # a tree like the parameters, float32 or wider
    gradients: jax.Array  # [] number of gradients
    was_descent: jax.Array  # [] bool: the last update was -ε times that mean


def sweep(
    value_fn: Callable[..., Any],
    make_tx: Callable[[Any], GradientTransformation] | None,
    diverge: float,
    params: Params,
    rates: jax.Array,
    batches: Any,
) -> Run:
    """One step for each rate, until the loss is over best + (diverge - 1) max(|best|, first - best)."""
    # This function is long because the body of the loop needs its arguments.
    make_tx = make_tx or _descent
    xs = (rates,) if batches is None else (rates, batches)
    first_batch = jax.tree.map(lambda x: x[0], xs[1:])
    sees_curvature = _is_twice_differentiable(value_fn, params, first_batch)

    def step(carry: Any, x: Any) -> tuple[Any, tuple[Any, ...]]:
        params, state, best, probe, waiting = carry
        rate, *batch = x

        def cost(p: Params) -> Any:
            return value_fn(p, *batch)

        value, g = jax.value_and_grad(cost)(params)
        tx = with_extra_args_support(make_tx(rate))
        updates, state = tx.update(g, state, params, value=value, grad=g, value_fn=cost)
        new_params = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates)
        value, after = value.astype(rates.dtype), jnp.asarray(cost(new_params)).astype(rates.dtype)
        is_held, moving, waiting = _judged(rate, g, updates, waiting)
        moving = jax.tree.map(partial(jnp.where, is_held), probe.moving, moving)
        probe, sharpness = jax.lax.cond(
            waiting.was_descent & sees_curvature,
            lambda probe: _sharper(cost, params, probe) if sees_curvature else (probe, unknown),
            lambda probe: (probe, unknown),
            probe._replace(moving=moving),
        )
        best = jnp.fmin(best, after)
        is_within = after <= best + (diverge - 1) * jnp.maximum(jnp.abs(best), first - best)
        observation = (after, value - after, sharpness, ~is_held, tree_norm(g).astype(rates.dtype))
        return (new_params, state, best, probe, waiting), (*observation, ~(is_within & jnp.isfinite(after)))

    def guarded(carry: Any, x: Any) -> tuple[Any, tuple[Any, ...]]:
        ended, rest = carry
        nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(step, rest, x)[1])
        rest, out = jax.lax.cond(ended, lambda: (rest, nothing), lambda: step(rest, x))
        return (ended | out[-1], rest), (*out, ~ended)

    first = jnp.asarray(value_fn(params, *first_batch)).astype(rates.dtype)
    unknown = jnp.zeros((), rates.dtype)
    waiting = _Waiting(accumulators(params, FLOAT32), jnp.zeros((), rates.dtype), jnp.ones((), bool))
    start = (params, make_tx(rates[0]).init(params), first, _first_probe(params, rates.dtype), waiting)
    _, numbers = jax.lax.scan(guarded, (jnp.zeros((), bool), start), xs)
    return Run(first, *numbers)


def _judged(rate: jax.Array, g: Any, updates: Any, waiting: _Waiting) -> tuple[jax.Array, Any, _Waiting]:
    """Whether the update was held back, the entries that it moves, and the gradients that wait for the next update.

    An entry whose mean gradient is 0 counts as moving; one that has a gradient and no update is frozen.
    """
    count = waiting.gradients + 1
    mean = jax.tree.map(lambda m, x: m + (x - m) / count.astype(m.dtype), waiting.mean, g)
    moving = jax.tree.map(lambda u, m, x: ((u != 0) | (m == 0)).astype(x.dtype), updates, mean, g)
    is_held = ~_any_nonzero(updates) & _any_nonzero(mean)
    along = jax.tree.map(jnp.multiply, moving, mean)
    off = tree_norm(jax.tree.map(lambda u, d: u + rate.astype(d.dtype) * d, updates, along))
    is_descent = jnp.where(is_held, waiting.was_descent, off <= 0.01 * rate * tree_norm(along))
    kept = jax.tree.map(lambda m: jnp.where(is_held, m, 0), mean)
    return is_held, moving, _Waiting(kept, jnp.where(is_held, count, 0), is_descent)


def _any_nonzero(tree: Any) -> jax.Array:
    return jnp.stack([jnp.any(x != 0) for x in jax.tree.leaves(tree)]).any()


def _descent(learning_rate: Any) -> GradientTransformation:
    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        return jax.tree.map(lambda g: (-learning_rate * g).astype(g.dtype), updates), state

    return GradientTransformation(lambda params: (), update)


def _is_twice_differentiable(value_fn: Callable[..., Any], params: Params, batch: tuple[Any, ...]) -> bool:
    """Whether forward mode works on the gradient. A kernel or a callback in a `custom_vjp` may prevent it."""
    try:
        jax.eval_shape(lambda p: hvp(lambda q: value_fn(q, *batch), p, p), params)
    except (TypeError, ValueError, NotImplementedError):
        return False
    return True


def _first_probe(params: Params, dtype: Any) -> _Probe:
    leaves, treedef = jax.tree.flatten(params)
    v = treedef.unflatten(normal_like(jax.random.key(0), leaves))
    return _Probe(normalised(v, v), jnp.zeros((), dtype), jax.tree.map(jnp.ones_like, v))


def _sharper(cost: Callable[[Params], Any], params: Params, probe: _Probe) -> tuple[_Probe, jax.Array]:
    """One step of the power iteration, and vᵀH v. The shift lets λ_max win against a larger |λ_min|."""
    old, shift, moving = probe
    masked = jax.tree.map(jnp.multiply, moving, old)
    v = normalised(masked, jax.tree.map(jnp.zeros_like, masked))
    product = jax.tree.map(jnp.multiply, moving, hvp(cost, params, v))
    sharpness = tree_inner(v, product)
    shift = jnp.fmax(shift, (tree_norm(product).astype(shift.dtype) - sharpness) / 2)
    return _Probe(power_step(product, v, shift, fallback=old), shift, moving), sharpness
