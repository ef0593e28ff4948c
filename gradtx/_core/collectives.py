"""Sums and maxima across a mesh axis, for code inside `jax.shard_map` (or a `vmap` or `pmap` that names its axis)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

AxisName = str | tuple[str, ...] | None


def summed(x: jax.Array, axis_name: AxisName) -> jax.Array:
    """The sum of `x` over the devices along one or several axes; `x` itself if `axis_name` is None."""
    return x if axis_name is None else jax.lax.psum(x, axis_name)


def shard_axes(x: jax.Array, axis_name: AxisName) -> tuple[str, ...]:
    """Those of the axes along which devices hold different parts of `x`. A sum or maximum has to cover these axes.

    An array that is the same on every device (a replicated bias beside sharded weights) must be counted once. Inside
    `shard_map` JAX tracks this. If it does not (`check_vma=False`, `pmap`, `vmap`), every array is treated as a part.
    """
    names = () if axis_name is None else (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)
    own = varying(jax.typeof(x))
    return tuple(name for name in names if name in own or name not in varying(jax.typeof(jax.lax.axis_index(name))))


def total_over_shards(parts: Sequence[jax.Array], axis_name: AxisName, dtype: Any) -> jax.Array:
    """The sum of scalars, one per leaf, over leaves and devices. Leaves that are sharded alike share an all-reduce."""
    totals: dict[tuple[str, ...], jax.Array] = {}
    for part in parts:
        axes = shard_axes(part, axis_name)
        totals[axes] = jax.lax.add(totals[axes], part) if axes in totals else part  # traced faster than `+`
    return sum((summed(total, axes or None) for axes, total in totals.items()), start=jnp.zeros((), dtype))


def each_over_shards(parts: Sequence[jax.Array], axis_name: AxisName) -> jax.Array:
    """[parts] The scalar of each leaf, summed over the devices. Leaves that are sharded alike share an all-reduce."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, part in enumerate(parts):
        groups.setdefault(shard_axes(part, axis_name), []).append(number)
    rows = [summed(jnp.stack([parts[i] for i in group]), axes or None) for axes, group in groups.items()]
    if len(rows) == 1:
        return rows[0]
    order = sorted(range(len(parts)), key=[i for group in groups.values() for i in group].__getitem__)
    return jnp.concatenate(rows)[jnp.array(order)]


def largest_over_shards(x: jax.Array, axis_name: AxisName) -> jax.Array:
    """The maximum over the devices."""
    axes = shard_axes(x, axis_name)
    return jax.lax.pmax(x, axes) if axes else x


def largest_everywhere(x: jax.Array) -> jax.Array:
    """The maximum over the devices along all axes along which `x` is known to differ."""
    axes = tuple(sorted(varying(jax.typeof(x))))
    return jax.lax.pmax(x, axes) if axes else x


def check_axis_name(transformation: str, axis_name: Any) -> None:
    """Raises unless `axis_name` is None, a name or a tuple of names."""
    is_tuple = isinstance(axis_name, tuple) and all(isinstance(name, str) for name in axis_name)
    if not (axis_name is None or isinstance(axis_name, str) or is_tuple):
        raise TypeError(f"{transformation}: axis_name must be a string, a tuple of strings or None, got {axis_name!r}.")


def varying(kind: Any) -> frozenset[str]:
    """The manual mesh axes along which an array of this type (`jax.typeof(x)`) is known to differ."""
    manual = getattr(kind, "manual_axis_type", None)  # called vma up to JAX 0.9
    return (getattr(kind, "vma", None) or frozenset()) if manual is None else manual.varying


def varying_like(x: jax.Array, like: Any) -> jax.Array:
    """Returns the array, marked as varying along the axes that an array of the type `like` varies along."""
    return made_varying(x, varying(like))


def made_varying(x: jax.Array, axes: frozenset[Any]) -> jax.Array:
    """Returns the array, marked as varying along these mesh axes too."""
    new = tuple(axes - varying(jax.typeof(x)))
    if not new:
        return x
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(x, new, to="varying")
    return jax.lax.pvary(x, new)  # pyright: ignore[reportAttributeAccessIssue]  # its name up to JAX 0.8
