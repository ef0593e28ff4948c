"""The rules of one or several blocks on one array: the update, and the new buffers in their order."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .apart import tied
from .trees import compute_dtype, widen
from .types import Params

Scalars = dict[str, jax.Array]


class Block(NamedTuple):
    """What `lift` was given; `chain` composes lists of these."""

    init: Callable[[Params], Any]
    scalars: Callable[[Any], tuple[Scalars, dict[str, jax.Array]]]
    rule: Callable[..., jax.Array]
    buffers: tuple[str, ...]
    is_costly: bool
    reads_twice: bool
    allow_complex: bool


def apply_blocks(
    blocks: tuple[Block, ...],
    values: Sequence[Scalars],
    g: jax.Array,
    row: Sequence[jax.Array],
    is_good: jax.Array | None,
    g_again: jax.Array | None,
) -> tuple[jax.Array, list[jax.Array]]:
    """The rules of all blocks on one leaf: its update and its new buffers, the old ones where `is_good` is false.

    With `g_again`, the gradient made a second time, the update is computed from the new buffers.
    """
    dtype = compute_dtype(g.dtype, *(x.dtype for x in row))
    recompute = g_again is not None
    new: list[jax.Array] = []

    def record(x: jax.Array, *, after: jax.Array | None = None) -> jax.Array:
        old = row[len(new)]
        x = x.astype(old.dtype) if is_good is None else jnp.where(is_good, x.astype(old.dtype), old)
        if recompute and after is not None:
            # True of every number, which XLA does not know and LLVM does: an order of writing that costs nothing.
            x = jnp.where((after == after) | (after != after), x, 0)
        new.append(jax.lax.optimization_barrier(x) if recompute else x)
        return widen(new[-1], dtype)

    u = _run(blocks, values, g, row, record)
    # XLA on the CPU writes one output a loop, and an expensive intermediate with two readers becomes a temporary. So
    # the rule runs once for the buffers, and once more for the update, reading the buffers that are stored anyway; what
    # only the first run's update needed is dead code. The barriers keep the two from being merged.
    return _again(blocks, values, g_again, row, list(new)) if recompute else u.astype(g.dtype), new


def output(
    blocks: tuple[Block, ...],
    tie: int,
    number: int,
    values: Sequence[Scalars],
    g: jax.Array,
    row: Sequence[jax.Array],
) -> jax.Array:
    """One of the new buffers, or as the last the update, with nothing in common with the others but what they read."""
    if row or tie:
        g, *row = (tied(x, tie) for x in (g, *row))
    dtype = compute_dtype(g.dtype, *(x.dtype for x in row))
    new: list[jax.Array] = []

    def record(x: jax.Array, *, after: jax.Array | None = None) -> jax.Array:
        del after
        new.append(x.astype(row[len(new)].dtype))
        return widen(new[-1], dtype)

    u = _run(blocks, values, g, row, record)
    return [*new, u.astype(g.dtype)][number]


def recipe_for(
    blocks: tuple[Block, ...],
    values: Sequence[Scalars],
    g: jax.Array | Callable[[], jax.Array],
    row: Sequence[jax.Array],
    stored: list[jax.Array],
) -> Callable[[], jax.Array]:
    """How to make the update again; `g` may be how to make the gradient again."""

    def again() -> jax.Array:
        stored[:] = jax.lax.optimization_barrier(stored)  # one barrier more than the update itself is behind
        return _again(blocks, values, g() if callable(g) else g, row, stored)

    return again


def _again(
    blocks: tuple[Block, ...],
    values: Sequence[Scalars],
    g: jax.Array,
    row: Sequence[jax.Array],
    stored: list[jax.Array],
) -> jax.Array:
    """The update from buffers that are stored."""
    dtype = compute_dtype(g.dtype, *(x.dtype for x in row))
    stored[:] = jax.lax.optimization_barrier(stored)  # the next time behind another one, so that none are merged
    buffers = iter(stored)
    return _run(blocks, values, g, row, lambda _, after=None: widen(next(buffers), dtype)).astype(g.dtype)


def _run(
    blocks: tuple[Block, ...],
    values: Sequence[Scalars],
    g: jax.Array,
    row: Sequence[jax.Array],
    store: Callable[..., jax.Array],
) -> jax.Array:
    """One rule after the other."""
    dtype = compute_dtype(g.dtype, *(x.dtype for x in row))
    u, rest = widen(g, dtype), iter(row)
    for block, scalars in zip(blocks, values, strict=True):
        old = [widen(next(rest), dtype) for _ in block.buffers]
        u = block.rule(store, u, *old, **{key: value.astype(dtype) for key, value in scalars.items()})
    return u
