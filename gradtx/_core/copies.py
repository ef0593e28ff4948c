"""Copies that XLA on a CPU does not merge, for results that are cheaper to compute twice than to keep in memory.

XLA on the CPU writes one array per loop. If two loops need an intermediate with a root or a division in it, it is
computed once and kept between them in a temporary of the parameters' size. Loops that start from their own copies of
the inputs each compute it for themselves. XLA on GPUs and TPUs writes several arrays in one pass: there such a copy is
the array itself, and the compiler merges what is computed from it. This is decided when a program is lowered.

With XLA_FLAGS=--xla_backend_extra_options=xla_cpu_use_multi_output_fusion XLA on the CPU joins loops over the same
arrays. It does not join two loops if one reads the result of the other, so each result is computed from the inputs.

Several functions here select by a comparison that is always true. XLA cannot prove that, so it keeps the order or the
copy. LLVM removes the comparison of floating numbers.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp

from .collectives import varying

Tree = TypeVar("Tree")

# Read only once, because XLA reads its flags only once.
JOINS_LOOPS = "xla_cpu_use_multi_output_fusion" in os.environ.get("XLA_FLAGS", "")


def unmerged(tree: Tree) -> Tree:
    """Returns the arrays unchanged. XLA on a CPU does not merge what it computes from them and from the originals."""
    return _copied(_separated, tree)


def unmerged_on_gpus(tree: Tree) -> Tree:
    """Returns the arrays unchanged. XLA on GPUs does not merge what it computes from them and from the originals.

    A reduction and a computation with its result need two passes. XLA on GPUs would store the values that both read.
    """
    return _copied(_separated_on_gpus, tree)


def _copied(separated: Callable[..., tuple[jax.Array, ...]], tree: Tree) -> Tree:
    leaves, treedef = jax.tree.flatten(tree)
    # Inside `shard_map` a barrier makes all its arrays vary along the same axes, so each set of axes gets its own.
    groups: dict[frozenset[str], list[int]] = {}
    for number, leaf in enumerate(leaves):
        groups.setdefault(varying(jax.typeof(leaf)), []).append(number)
    for numbers in groups.values():
        for number, copy in zip(numbers, separated(*(leaves[i] for i in numbers)), strict=True):
            leaves[number] = copy
    return treedef.unflatten(leaves)


def tagged(tie: int, x: jax.Array) -> jax.Array:
    """Returns `x` unchanged. XLA on a CPU cannot merge results of copies that have different values of `tie`.

    Unlike `unmerged`, this does not prevent XLA from joining loops.
    """
    return _tagged(tie, x)


@jax.jit
def written_after(x: jax.Array, after: jax.Array) -> jax.Array:
    """Returns `x` unchanged. XLA on a CPU does not write it before `after`."""

    def ordered(x: jax.Array, after: jax.Array) -> jax.Array:
        return jnp.where((after == after) | (after != after), x, 0)

    return jax.lax.platform_dependent(x, after, cpu=ordered, default=lambda x, after: x)


def once_known(count: jax.Array, tree: Tree) -> Tree:
    """Returns the tree unchanged. XLA computes it only after `count`, an integer of at least -1."""
    is_known = count >= -1
    return jax.tree.map(lambda x: jnp.where(is_known, x, jnp.zeros((), jnp.asarray(x).dtype)), tree)


def hidden_zero(positive: jax.Array) -> jax.Array:
    """Returns 0. XLA cannot replace it by a constant, because it does not know that the argument is positive."""
    return jnp.where(positive > 0, 0, positive)


@jax.jit
def _separated(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    return jax.lax.platform_dependent(*arrays, cpu=_barrier, default=_same)


@jax.jit
def _separated_on_gpus(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    return jax.lax.platform_dependent(*arrays, cpu=_same, tpu=_same, default=_barrier)


@partial(jax.jit, static_argnums=0)
def _tagged(tie: int, x: jax.Array) -> jax.Array:
    def chosen(x: jax.Array) -> jax.Array:
        return jnp.where((x > tie) | (x <= tie), x, jnp.nan)

    return jax.lax.platform_dependent(x, cpu=chosen, default=lambda x: x)


def _barrier(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    return jax.lax.optimization_barrier(arrays)


def _same(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    return arrays
