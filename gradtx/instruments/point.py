"""A loss at a point: the checks of `value_fn` and `params` that all functions on a point share.

The point is the list of the leaves of `params`, widened to one dtype (float64 if a leaf is that wide, else float32).
The cost is `value_fn` as a function of that list. So products with the Hessian of a bfloat16 net are computed in
float32, and `value_fn` is called with float32 parameters. `None` leaves stay where they are.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from gradtx._core.arguments import check_function, loss_shape
from gradtx._core.hvp import linear_hvp
from gradtx._core.norms import tree_norm
from gradtx._core.tracing import is_traced
from gradtx._core.trees import compute_dtype, leaf_dtype, named_leaves
from gradtx._core.types import Params

Point = list[jax.Array]


def cost_at(name: str, value_fn: Callable[..., Any], params: Params) -> tuple[Callable[[Point], jax.Array], Point]:
    """The cost as a function of the widened leaves, and those leaves.

    Raises:
        TypeError: `value_fn` is not a function, or does not return an array; a leaf is not a floating array.
        ValueError: `value_fn` returns an array that is not a real scalar; a leaf is complex; there is no parameter.
    """
    check_function(name, "value_fn", value_fn, "the parameters")
    check_leaves(name, params)
    leaves, treedef = jax.tree.flatten(params)
    # Without x64, JAX treats a NumPy float64 array as float32.
    dtype = jax.dtypes.canonicalize_dtype(compute_dtype(*(leaf_dtype(x) for x in leaves)))
    point = [jnp.asarray(x, dtype) for x in leaves]
    loss_shape(name, lambda at: value_fn(treedef.unflatten(at)), point)
    return lambda at: jnp.asarray(value_fn(treedef.unflatten(at))).astype(dtype), point


def check_leaves(name: str, params: Params, argument: str = "params") -> None:
    """Raises if a leaf is not a real floating array, or if there is no number at all."""
    size = 0
    for where, leaf, dtype in named_leaves(name, argument, params):
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(
                f"{name}: {where} must be of a floating dtype, got {dtype}: let value_fn close over it instead."
            )
        if jnp.issubdtype(dtype, jnp.complexfloating):
            raise ValueError(f"{name}: {where} must be real, got {dtype}: give real and imaginary part as two leaves.")
        size += jnp.size(leaf)
    if size == 0:
        raise ValueError(f"{name}: {argument} must hold at least one number, got a tree without any.")


def linearised(name: str, value_fn: Callable[..., Any], params: Params) -> tuple[Point, jax.Array, Point, Partial]:
    """The point, and there the cost, its gradient and the product with its Hessian (`linear_hvp`), compiled."""
    cost, point = cost_at(name, value_fn, params)
    return point, *jax.jit(lambda at: linear_hvp(cost, at))(point)


def checked_finite(name: str, value: jax.Array, gradient: Point, *found: jax.Array) -> tuple[jax.Array, ...]:
    """Returns `found` unchanged. If the loss, its gradient or one of those numbers is not finite, it raises, or inside
    `jit` returns NaN. The loss is checked too, because its Hessian may be finite when the loss is not."""
    norm = tree_norm(gradient)
    is_finite = jnp.stack([jnp.all(jnp.isfinite(x)) for x in (value, norm, *found)]).all()
    if is_traced(is_finite):
        return tuple(jnp.where(is_finite, x, jnp.nan) for x in found)
    if not is_finite:
        raise ValueError(
            f"{name}: the loss, its gradient or its Hessian is not finite here: loss {float(value):.6g}, gradient norm "
            f"{float(norm):.6g}. Call it where they are, such as at the last good parameters of the run."
        )
    return found


def normal_like(key: jax.Array, point: Point) -> Point:
    """Independent standard normal numbers in the shapes and shardings of the point."""
    keys = jax.random.split(key, len(point))
    return [jnp.zeros_like(x) + jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, point, strict=True)]


def signs_like(key: jax.Array, point: Point) -> Point:
    """Independent signs, +1 or -1 (Rademacher), in the shapes of the point."""
    keys = jax.random.split(key, len(point))
    return [jax.random.rademacher(k, x.shape, x.dtype) for k, x in zip(keys, point, strict=True)]


def over(function: Callable[..., Any], xs: jax.Array, *arguments: Any, is_compiled: bool = False) -> Any:
    """Stacks `function(*arguments, x)` for each x along the first axis. It is compiled once, unless it consists of
    compiled functions already.

    This is a Python loop, because XLA compiles convolutions inside a loop badly for CPUs. Under a transformation it is
    a compiled loop, because a Python loop would be compiled at its full length.
    """
    if is_traced((xs, arguments)):
        return jax.lax.map(lambda x: function(*arguments, x), xs)
    compiled = function if is_compiled else jax.jit(function)
    results = [compiled(*arguments, x) for x in xs]
    return jax.tree.map(lambda *rows: jnp.stack(rows), *results)
