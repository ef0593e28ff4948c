"""The loss along a line and over a plane: pictures of the landscape around a run, as numbers to plot.

    line     L((1 - α) θ_0 + α θ_1)
    plane    L(θ + a d + b e),   d, e random, with each filter as long as the same filter of θ

**Source**: Goodfellow, Vinyals & Saxe 2015 (line); Li et al. 2018 (plane, filter normalisation); chapter §2.7.

**Differs from** Li et al.'s code (torch): leaves of one axis, such as biases, move too, and any `value_fn(params)`
works.

**Reads**: if the loss falls all along the line from the start to the end of a run, the line has no barrier (but the
path of the run may have had one). A bump between two solutions is a barrier. A plane shows only two of very many
directions, and random ones. If it shows no way down, that proves nothing; use `critical_point` to look for one.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx._core.arguments import check_key, checked_count, checked_integer, checked_number
from gradtx._core.arithmetic import divide
from gradtx._core.hyperparameters import POSITIVE
from gradtx._core.types import Params

from .point import Point, check_leaves, cost_at, normal_like, over


def line_slice(
    value_fn: Callable[[Params], Any], params: Params, other: Params, *, num_points: int = 51
) -> tuple[jax.Array, jax.Array]:
    """The loss at equal distances on the straight line from `params` to `other`.

    Args:
        value_fn: the loss, `params -> scalar`.
        params: θ_0, at position 0. Dtypes narrower than float32 are widened, and `value_fn` sees float32.
        other: θ_1, at position 1; the same tree.
        num_points: number of points, >= 2; an odd number includes the middle.

    Returns:
        positions α [num_points], 0 to 1, and values [num_points]; the ends are exactly the losses at both points.

    Costs: `num_points` losses, one at a time. Legal inside `jit` and `vmap`.

    Raises:
        ValueError: `num_points` below 2; the trees differ; a loss that is not a real scalar; a complex leaf.
        TypeError: a leaf is not a floating array.

    >>> import gradtx, jax.numpy as jnp
    >>> double_well = lambda x: jnp.sum((x**2 - 1) ** 2)
    >>> positions, values = gradtx.line_slice(double_well, jnp.array([-1.0]), jnp.array([1.0]), num_points=5)
    >>> print(positions, values)
    [0. 0.25 0.5 0.75 1. ] [0. 0.5625 1. 0.5625 0. ]
    """
    checked_count("line_slice", "num_points", num_points, 2)
    cost, start = cost_at("line_slice", value_fn, params)
    check_leaves("line_slice", other, "other")
    end = [jnp.asarray(x, start[0].dtype) for x in jax.tree.leaves(other)]
    is_like = jax.tree.structure(params) == jax.tree.structure(other)
    if not is_like or any(x.shape != y.shape for x, y in zip(start, end, strict=True)):
        shapes, other_shapes = (jax.tree.map(jnp.shape, tree) for tree in (params, other))
        raise ValueError(f"line_slice: other must be a tree like params, {shapes}, got {other_shapes}.")

    def value(start: Point, end: Point, α: jax.Array) -> jax.Array:
        return cost([jnp.where(α == 1, y, (1 - α) * x + α * y) for x, y in zip(start, end, strict=True)])

    positions = jnp.linspace(0, 1, num_points, dtype=start[0].dtype)
    return positions, over(value, positions, start, end)


def plane_slice(
    value_fn: Callable[[Params], Any],
    params: Params,
    *,
    key: jax.Array,
    num_points: int = 25,
    radius: float = 1.0,
    filter_axis: int = -1,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The loss on a square around `params`, in two random directions with filter normalisation.

    A filter holds the weights of one output: it is a slice along `filter_axis` of a leaf of two or more axes. A leaf of
    fewer axes is one filter (Li et al. do not move such leaves). Each filter of a direction gets the length of the same
    filter of the parameters, so that planes of nets with different weight scales can be compared. A filter that is zero
    does not move.

    Args:
        value_fn: the loss, `params -> scalar`.
        params: θ, the middle. Dtypes narrower than float32 are widened, and `value_fn` sees float32.
        key: a JAX random key, for the directions. Use the same key to compare two losses in the same plane.
        num_points: n, the number of points per side, >= 2; with an odd number `params` itself is in the middle.
        radius: a and b go from -radius to radius; in (0, inf). At 1 a direction is as long as the parameters.
        filter_axis: the axis of outputs: last in JAX (flax), first (0) in equinox and torch.

    Returns:
        a [n], b [n] and values [n, n], `values[i, j]` at a[i], b[j].

    Costs: n² losses, one at a time, and two more copies of the parameters. Legal inside `jit` and `vmap`.

    Raises:
        ValueError: a number out of range; a leaf without that axis; a loss that is not a real scalar; a complex leaf.
        TypeError: a leaf is not a floating array, `key` is not a key, or a number is of the wrong kind.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> bowl = lambda x: jnp.sum((x - 3.0) ** 2) / 9
    >>> a, b, values = gradtx.plane_slice(bowl, jnp.array([3.0]), key=jax.random.key(0), num_points=3)
    >>> print(a, b, values[1, 1], values[0, 1])
    [-1. 0. 1.] [-1. 0. 1.] 0.0 1.0
    """
    check_key("plane_slice", key)
    checked_count("plane_slice", "num_points", num_points, 2)
    checked_number("plane_slice", "radius", radius, POSITIVE)
    checked_integer("plane_slice", "filter_axis", filter_axis)
    cost, point = cost_at("plane_slice", value_fn, params)
    for x in point:
        if x.ndim >= 2 and not -x.ndim <= filter_axis < x.ndim:
            raise ValueError(
                f"plane_slice: filter_axis must be an axis of every leaf, got {filter_axis} for {x.shape}."
            )
    d, e = ([_rescaled(v, x, filter_axis) for v, x in zip(normal_like(k, point), point, strict=True)]
            for k in jax.random.split(key))  # fmt: skip

    def value(point: Point, d: Point, e: Point, ab: jax.Array) -> jax.Array:
        return cost([x + ab[0] * u + ab[1] * v for x, u, v in zip(point, d, e, strict=True)])

    ticks = jnp.linspace(-radius, radius, num_points, dtype=point[0].dtype)
    grid = jnp.stack(jnp.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2)
    return ticks, ticks, over(value, grid, point, d, e).reshape(num_points, num_points)


def _rescaled(direction: jax.Array, like: jax.Array, filter_axis: int) -> jax.Array:
    """Scales each filter of the direction to the length of the same filter of `like`."""
    axes = tuple(i for i in range(like.ndim) if like.ndim < 2 or i != filter_axis % like.ndim)

    def norm(x: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.sum(x * x, axis=axes, keepdims=True))

    return direction * divide(norm(like), norm(direction))
