"""Staleness: gradients that arrive late, like those of asynchronous workers, inside one program.

    u_k, s' = inner(g_{k-τ}, s)       τ = `delay`, fixed or drawn anew at each step
    0, s                              if k < τ: there is no gradient of that age yet

| letter  | argument  | shape, dtype                                                                 |
|---------|-----------|------------------------------------------------------------------------------|
| g, u    | updates   | any tree of floating (or complex) arrays                                     |
| τ       | `delay`   | int >= 0, or [D + 1] probabilities of 0, 1, ..., D                           |
| g_{k-i} | `pending` | as the parameters, float32 or wider, D times, start 0                        |

**Source**: chapter §3.2 (minibatches applied asynchronously are stale); Mitliagkas et al. 2016.

**Staleness is momentum.** Let P(τ = i) = (1 - μ) μ^i, and d_k = E[θ_{k+1} - θ_k] under SGD with rate ε on a quadratic,
where E ∇J(θ) = ∇J(E θ). Then d_k = -ε (1 - μ) Σ_i μ^i E g_{k-i}. Subtracting μ d_{k-1} gives

    d_k = μ d_{k-1} - ε (1 - μ) E g_k

This is heavy-ball momentum μ with the rate ε (1 - μ). If the time that a gradient takes is memoryless (exponential),
each of M workers writes next with probability 1/M. So P(τ = i) = (1/M) (1 - 1/M)^i and μ = 1 - 1/M. Staleness already
supplies this much momentum, so more workers need less explicit momentum.

**Differs from** real asynchrony: parameters are read whole, never half-written. If delays are drawn, a gradient may be
used twice and another never. Optax and torch have nothing like it.

**Costs**: D numbers per parameter, beside the inner state. Each step moves them on by one place (D reads and writes).

**When**: to test how a method, its rate and its momentum would cope with asynchronous workers, before you use any. Do
not train with it: late gradients have no advantage by themselves.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._core.arguments import check_key, checked_count, inner_transformation, is_integer
from gradtx._core.conditional import update_if
from gradtx._core.foreign import check_state
from gradtx._core.gradients import aligned
from gradtx._core.hyperparameters import first_count, next_count
from gradtx._core.trees import accumulators, check_params, widen
from gradtx._core.types import (
    FLOAT32,
    GradientTransformation,
    GradientTransformationExtraArgs,
    MultiSteps,
    Params,
    Updates,
)


class StaleState(NamedTuple):
    """State of `stale`."""

    stale_state: Any  # state of the inner transformation
    pending: tuple[Updates, ...]  # D trees like the parameters, and sharded like them; the newest first
    delay_key: jax.Array  # [2] uint32, or the length of the key's data: the key for the delays; zeros if fixed
    last_delay: jax.Array  # [] int32: τ of the last step
    stale_count: jax.Array  # [] int32: k


def stale(
    tx: GradientTransformation | MultiSteps,
    delay: int | Sequence[float] | np.ndarray,
    *,
    key: jax.Array | None = None,
) -> GradientTransformationExtraArgs:
    """Gives `tx` the gradient of τ steps ago, as asynchronous workers would.

    Args:
        tx: the transformation that gets the late gradients. Extra arguments and params reach it undelayed.
        delay: τ, the same at every step; or the probabilities of the delays 0, 1, ..., D, drawn independently.
        key: a JAX random key, for delays that are drawn. Step k draws with `fold_in(key, k)`.

    Raises:
        ValueError: a negative delay, probabilities that do not sum to 1, a key that is missing or not used.
        TypeError: an argument of the wrong kind.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.stale(gradtx.sgd(0.1), delay=2)
    >>> state = tx.init(jnp.zeros(()))
    >>> for g in (1.0, 2.0, 3.0, 4.0):
    ...     updates, state = tx.update(jnp.array(g), state)
    ...     print(updates)
    0.0
    0.0
    -0.1
    -0.2
    """
    inner = inner_transformation("stale", tx)
    longest, draw, key_data = _delays(delay, key)

    # This function is long because `init` and `update` need the checked arguments.
    def init(params: Params) -> StaleState:
        check_params("stale", params)
        return StaleState(
            stale_state=inner.init(params),
            pending=tuple(accumulators(params, FLOAT32) for _ in range(longest)),
            delay_key=jnp.array(key_data, jnp.uint32),
            last_delay=first_count(),
            stale_count=first_count(),
        )

    def update(updates: Updates, state: Any, params: Params | None = None, **extra: Any) -> tuple[Updates, StaleState]:
        check_state("stale", state, "pending")
        reference = state.pending[0] if longest else params
        gradients, treedef = aligned("stale", updates, reference)
        columns: list[Any] = [treedef.flatten_up_to(tree) for tree in state.pending]
        queues: Any = zip(*columns, strict=True) if columns else [()] * len(gradients)
        τ = draw(state.delay_key, state.stale_count)
        arrived: list[Any] = []
        moved: list[Any] = []
        for g, queue in zip(gradients, queues, strict=True):
            if g is None or not queue:
                arrived.append(g)
                moved.append(queue)
                continue
            aged = [widen(g, queue[0].real.dtype).astype(queue[0].dtype), *queue]
            arrived.append(jax.lax.select_n(τ, *aged).astype(g.dtype))
            moved.append(tuple(aged[:-1]))
        dtypes = [g.dtype for g in arrived if g is not None]
        new_updates, stale_state = update_if(
            τ <= state.stale_count, inner, treedef.unflatten(arrived), state.stale_state, params, dtypes, extra
        )
        pending = tuple(treedef.unflatten(column) for column in zip(*moved, strict=True)) if moved else state.pending
        return new_updates, StaleState(
            stale_state=stale_state,
            pending=pending,
            delay_key=state.delay_key,
            last_delay=τ,
            stale_count=next_count(state.stale_count),
        )

    return GradientTransformationExtraArgs(init, update)


def _delays(delay: Any, key: Any) -> tuple[int, Callable[[jax.Array, jax.Array], jax.Array], Any]:
    """The longest delay, the function (key data, step) -> τ, and the key's data."""
    if is_integer(delay):
        number = checked_count("stale", "delay", delay, 0)
        if key is not None:
            raise ValueError("stale: a key is not used if the delay is fixed: leave it out.")
        return number, lambda key_data, count: jnp.full((), number, jnp.int32), np.zeros(2)
    try:
        probabilities = np.asarray(delay, np.float64)
    except (TypeError, ValueError):
        probabilities = np.zeros(0)
    if probabilities.ndim != 1 or not probabilities.size:
        raise TypeError(f"stale: delay must be an integer or a list of probabilities, got {delay!r}.")
    if not (np.all(probabilities >= 0) and abs(probabilities.sum() - 1) < 1e-5):
        raise ValueError(f"stale: the probabilities of the delays must be >= 0 and sum to 1, got {delay!r}.")
    if key is None:
        raise ValueError("stale: delays that are drawn need a key: stale(tx, probabilities, key=jax.random.key(0)).")
    check_key("stale", key)
    cumulative = np.cumsum(probabilities)[:-1]
    implementation = jax.random.key_impl(key)

    def draw(key_data: jax.Array, count: jax.Array) -> jax.Array:
        step_key = jax.random.fold_in(jax.random.wrap_key_data(key_data, impl=implementation), count)
        point = jax.random.uniform(step_key, dtype=jnp.float32)
        return jnp.sum(point >= jnp.asarray(cumulative, jnp.float32), dtype=jnp.int32)

    return len(probabilities) - 1, draw, jax.random.key_data(key)
