"""Running averages and trends of scalars, in states of a few numbers.

    average     m ← m + w (x - m)
                decay d:     w = 1 / (1 + d + d² + ...), the exponentially weighted mean without bias at the start
                no decay:    w = 9 / (n + 8) at the n-th value: its weight grows as n⁸, so that the mean covers about
                             the last fifth of a run of any length, and forgets the start
    trend       the weighted least-squares line through the values, weights d^age (age in values): slope and its
                standard error

**Source**: Shamir & Zhang 2013, "Stochastic gradient descent for non-smooth optimization" (polynomial-decay averaging;
the power, η = 8, is chosen here). The standard error is that of weighted least squares with independent errors of equal
variance. The variance is estimated without bias: the expected sum of weighted squares about the line is the variance
times the trace of W (I - hat matrix).

Values that are not finite are left out. Otherwise one bad step would spoil the average from then on.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.debugging import unknown

_POWER = 8  # η


def vector_of(*numbers: jax.Array) -> jax.Array:
    """The scalars as one vector, like `jnp.stack`.

    XLA for CPUs computes each number of a stack in a separate loop. For the nine numbers of a trend, that took half as
    long as a step of logistic regression. Selecting them by place takes only one loop.
    """
    place = jnp.arange(len(numbers))
    vector = jnp.broadcast_to(numbers[0], place.shape)
    for i, number in enumerate(numbers):
        vector = jnp.where(place == i, number, vector)
    return vector


def no_average(quantities: int = 1) -> jax.Array:
    """The state of `averaged` before the first value: [quantities + 1]."""
    return jnp.zeros(quantities + 1, jnp.result_type(float))


def averaged(state: jax.Array, decay: jax.Array | float | None, *values: jax.Array) -> jax.Array:
    """Adds one value of each quantity. The state holds the means [quantities], then their common weight."""
    means, weight = state[:-1], state[-1]
    new = vector_of(*(jnp.asarray(value).astype(state.dtype) for value in values))
    weight = weight + 1 if decay is None else decay * weight + 1
    share = (_POWER + 1) / (weight + _POWER) if decay is None else 1 / weight
    is_good = jnp.all(jnp.isfinite(new))
    after = means + share * (jnp.where(is_good, new, 0) - means)
    return jnp.where(is_good, vector_of(*after, weight), state)


def means_of(state: jax.Array) -> jax.Array:
    """The means [quantities], NaN before the first value. Works on stacked states too."""
    return jnp.where(state[..., -1:] > 0, state[..., :-1], unknown())


class Trend(NamedTuple):
    """Weighted moments of (t, y), where t is counted backwards from now. They are centred, so that no digits cancel."""

    weight: jax.Array  # Σ w
    mean_t: jax.Array
    mean_y: jax.Array
    tt: jax.Array  # Σ w (t - mean_t)²
    ty: jax.Array  # Σ w (t - mean_t) (y - mean_y)
    yy: jax.Array  # Σ w (y - mean_y)²
    squared: jax.Array  # Σ w²
    squared_t: jax.Array  # Σ w² t
    squared_tt: jax.Array  # Σ w² t²


def no_trend() -> jax.Array:
    """The state of `trend_with` before the first value: [9]."""
    return jnp.zeros(len(Trend._fields), jnp.result_type(float))


def trend_with(
    state: jax.Array, decay: jax.Array | float, elapsed: jax.Array, y: jax.Array, is_value: jax.Array | bool = True
) -> jax.Array:
    """Adds one value, `elapsed` steps after the last. It is left out if it is not finite or `is_value` is false."""
    old = Trend(*state)
    e = elapsed.astype(state.dtype)
    old = old._replace(
        mean_t=old.mean_t - e,
        squared_t=old.squared_t - e * old.squared,
        squared_tt=old.squared_tt - 2 * e * old.squared_t + e * e * old.squared,
    )
    kept = decay * old.weight
    weight = kept + 1
    y = y.astype(state.dtype)
    off_t, off_y = -old.mean_t, y - old.mean_y
    new = Trend(
        weight=weight,
        mean_t=old.mean_t + off_t / weight,
        mean_y=old.mean_y + off_y / weight,
        tt=decay * old.tt + kept / weight * off_t * off_t,
        ty=decay * old.ty + kept / weight * off_t * off_y,
        yy=decay * old.yy + kept / weight * off_y * off_y,
        squared=decay**2 * old.squared + 1,
        squared_t=decay**2 * old.squared_t,
        squared_tt=decay**2 * old.squared_tt,
    )
    return jnp.where(is_value & jnp.isfinite(y), vector_of(*new), vector_of(*old))


def slope_of(state: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The slope per step (NaN before two values) and its standard error (NaN before three), for stacked states too."""
    s = Trend(*jnp.moveaxis(state, -1, 0))
    is_line = s.tt > 0
    tt, weight = jnp.where(is_line, s.tt, 1), jnp.where(s.weight > 0, s.weight, 1)
    slope = s.ty / tt
    spread = jnp.maximum(0, s.squared_tt - 2 * s.mean_t * s.squared_t + s.mean_t**2 * s.squared)  # Σ w² (t - mean_t)²
    freedom = s.weight - s.squared / weight - spread / tt  # 0 with two values
    has_error = is_line & (freedom > 1e-4 * s.weight)
    variance = jnp.maximum(0, s.yy - slope * s.ty) / jnp.where(has_error, freedom, 1)
    error = jnp.sqrt(variance * spread) / tt
    return jnp.where(is_line, slope, unknown()), jnp.where(has_error, error, unknown())
