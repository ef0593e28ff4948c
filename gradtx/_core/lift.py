"""From a rule on one array to a transformation of a tree.

A method writes three small functions; `lift` does the rest (None and masked leaves, dtypes, shape checks, errors):

- `init(params)` builds the state;
- `scalars(state)` gives this step's scalars (hyper-parameters at step k) and the scalar fields of the next state;
- `rule(store, g, *buffers, **scalars)` is the formula on one array. It hands each new buffer on through `store`, in the
  order of `buffers`, goes on with what `store` returns, and returns the update. `store(x, after=y)` for an x that takes
  the place of an array which y was made from: written first, it would leave y a copy to be made from.

`chain` puts lifted blocks one after the other as one rule, with the states of `optax.chain`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from .again import is_repeated, selection
from .aligned import aligned
from .trees import check_params, compute_dtype, widen
from .types import GradientTransformationExtraArgs, Params, Updates

Scalars = dict[str, jax.Array]

MANY_LEAVES = 16  # from here on leaves of one shape share one trace of the rule


class Block(NamedTuple):
    """What `lift` was given; `chain` composes lists of these."""

    init: Callable[[Params], Any]
    scalars: Callable[[Any], tuple[Scalars, dict[str, jax.Array]]]
    rule: Callable[..., jax.Array]
    buffers: tuple[str, ...]
    is_costly: bool
    reads_twice: bool
    allow_complex: bool


class Lifted(GradientTransformationExtraArgs):
    """A transformation that still knows the blocks it was lifted from."""

    blocks: tuple[Block, ...]


def lift(
    name: str,
    init: Callable[[Params], Any],
    scalars: Callable[[Any], tuple[Scalars, dict[str, jax.Array]]],
    rule: Callable[..., jax.Array],
    buffers: tuple[str, ...] = (),
    *,
    is_costly: bool = False,
    reads_twice: bool = False,
    allow_complex: bool = True,
) -> Lifted:
    """One block. `is_costly`: its update has a root or a division, which the compiler will not do twice. `reads_twice`:
    its rule needs what comes in (or its own update) both for a buffer and for the update."""
    return _transformation(
        name, (Block(init, scalars, rule, buffers, is_costly, reads_twice, allow_complex),), single=True
    )


def chain(name: str, *lifted: Lifted) -> Lifted:
    """The blocks one after the other, as one rule a leaf; state: a tuple, as `optax.chain` has it."""
    return _transformation(name, tuple(block for tx in lifted for block in tx.blocks), single=False)


def _transformation(name: str, blocks: tuple[Block, ...], *, single: bool) -> Lifted:
    alone = partial(_apply, blocks)
    shared = jax.jit(alone, static_argnums=3)
    has_temporary = any(a.is_costly and b.reads_twice for i, a in enumerate(blocks) for b in blocks[i:])

    def init(params: Params) -> Any:
        check_params(name, params, allow_complex=all(block.allow_complex for block in blocks))
        states = tuple(block.init(params) for block in blocks)
        return states[0] if single else states

    def update(updates: Updates, state: Any, params: Params | None = None, **extra: Any) -> tuple[Updates, Any]:
        del extra
        states = _states(name, blocks, (state,) if single else state)
        trees = [getattr(s, field) for block, s in zip(blocks, states, strict=True) for field in block.buffers]
        gradients, treedef = aligned(name, updates, trees[0] if trees else params)
        rows = zip(*(treedef.flatten_up_to(tree) for tree in trees), strict=True) if trees else [()] * len(gradients)
        steps = [block.scalars(s) for block, s in zip(blocks, states, strict=True)]
        # Outside jit there is no fusion to help, and XLA off the CPU fuses several outputs into one pass by itself.
        is_traced = _traced(updates)
        selected = selection()
        is_wanted = bool(trees) if selected else has_temporary and not is_repeated()
        recompute = is_wanted and is_traced and jax.default_backend() == "cpu"
        is_good = selected.is_good if selected else None
        apply = shared if is_traced and len(gradients) >= MANY_LEAVES else alone

        values = [step_values for step_values, _ in steps]
        new_updates, new_rows = [], []
        for g, row in zip(gradients, rows, strict=True):
            u, new_row = (None, row) if g is None else apply(values, g, row, recompute, is_good)
            new_updates.append(u)
            new_rows.append([selected.made(x) for x in new_row] if selected else new_row)

        columns = iter(treedef.unflatten(column) for column in zip(*new_rows, strict=True)) if new_rows else iter(trees)
        new_states = tuple(
            s._replace(**fields, **{field: next(columns) for field in block.buffers})
            for block, s, (_, fields) in zip(blocks, states, steps, strict=True)
        )
        return treedef.unflatten(new_updates), new_states[0] if single else new_states

    lifted = Lifted(init, update)
    lifted.blocks = blocks
    return lifted


def _states(name: str, blocks: tuple[Block, ...], states: Any) -> tuple[Any, ...]:
    """The states, where they can be those of the blocks: parameters in their place are the commonest slip."""
    is_right = isinstance(states, tuple) and len(states) == len(blocks)
    if is_right and all(isinstance(s, tuple) and all(hasattr(s, field) for field in block.buffers)
                        for block, s in zip(blocks, states, strict=True)):  # fmt: skip
        return states
    raise TypeError(f"{name}: the state is not one that its init made: call update(updates, state, params).")


def _apply(
    blocks: tuple[Block, ...],
    values: Sequence[Scalars],
    g: jax.Array,
    row: Sequence[jax.Array],
    recompute: bool,
    is_good: jax.Array | None,
) -> tuple[jax.Array, list[jax.Array]]:
    """The rules of all blocks on one leaf: its update and its new buffers, the old ones where `is_good` is false."""
    dtype = compute_dtype(g.dtype, *(x.dtype for x in row))

    def run(store: Callable[..., jax.Array]) -> jax.Array:
        u, rest = widen(g, dtype), iter(row)
        for block, scalars in zip(blocks, values, strict=True):
            old = [widen(next(rest), dtype) for _ in block.buffers]
            u = block.rule(store, u, *old, **{key: value.astype(dtype) for key, value in scalars.items()})
        return u

    new: list[jax.Array] = []

    def record(x: jax.Array, *, after: jax.Array | None = None) -> jax.Array:
        old = row[len(new)]
        x = x.astype(old.dtype) if is_good is None else jnp.where(is_good, x.astype(old.dtype), old)
        if recompute and after is not None:
            # True of every number, which XLA does not know and LLVM does: an order of writing that costs nothing.
            x = jnp.where((after == after) | (after != after), x, 0)
        new.append(jax.lax.optimization_barrier(x) if recompute else x)
        return widen(new[-1], dtype)

    u = run(record)
    if recompute:
        # XLA on the CPU writes one output a loop, and an expensive intermediate with two readers becomes a temporary.
        # So the rule runs once for the buffers, and once more for the update, reading the buffers that are stored
        # anyway; what only the first run's update needed is dead code. The barriers keep the two from being merged.
        again = iter(new)
        u = run(lambda _, after=None: widen(jax.lax.optimization_barrier(next(again)), dtype))
    return u.astype(g.dtype), new


def _traced(updates: Updates) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(updates))
