"""From a rule on one array to a transformation of a tree.

A method writes three small functions; `lift` does the rest (None and masked leaves, dtypes, shape checks, errors):

- `init(params)` builds the state;
- `scalars(state)` gives this step's scalars (hyper-parameters at step k) and the scalar fields of the next state;
- `rule(store, g, *buffers, **scalars)` is the formula on one array. It hands each new buffer on through `store`, in the
  order of `buffers`, goes on with what `store` returns, and returns the update. `store(x, after=y)` for an x that takes
  the place of an array which y was made from: written first, it would leave y a copy to be made from.

`chain` puts lifted blocks one after the other as one rule, with the states of `optax.chain`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from .again import is_repeated, recipe_of, remember, selection
from .aligned import aligned
from .apart import apart, is_apart
from .block import Block, Scalars, apply_blocks, output, recipe_for
from .tracing import is_traced
from .trees import check_params
from .types import GradientTransformationExtraArgs, Params, Updates

MANY_LEAVES = 16  # from here on leaves of one shape share one trace of the rule


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
    alone, one_alone = partial(apply_blocks, blocks), partial(output, blocks)
    shared, one_shared = jax.jit(alone), jax.jit(one_alone, static_argnums=(0, 1))
    is_costly, reads_twice = any(block.is_costly for block in blocks), any(block.reads_twice for block in blocks)
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
        traced = is_traced(updates)
        selected = selection()
        may_recompute = traced and jax.default_backend() == "cpu" and (selected is not None or not is_repeated())
        is_shared = traced and len(gradients) >= MANY_LEAVES
        apply, make_one = (shared, one_shared) if is_shared else (alone, one_alone)

        values = [step_values for step_values, _ in steps]
        is_good = selected.is_good if selected else None
        new_updates, new_rows = [], []
        for g, row in zip(gradients, rows, strict=True):
            if g is None:
                new_updates.append(None)
                new_rows.append(row)
                continue
            recipe = recipe_of(g) if may_recompute else None
            if may_recompute and selected is None and is_apart((g, *row)):
                one = apart(partial(_from_inputs, make_one, values, g if recipe is None else recipe, row))
                new_updates.append(one(len(row)))
                new_rows.append([one(number) for number in range(len(row))])
                remember(new_updates[-1], partial(one, len(row)))
                continue
            is_wanted = bool(trees) if selected else has_temporary or (reads_twice and recipe is not None)
            g_again = (g if recipe is None else recipe()) if may_recompute and is_wanted else None
            u, new_row = apply(values, g, row, is_good, g_again)
            is_stored = any(u is x for x in new_row)  # its recipe would hold it, and keep both for ever
            if may_recompute and (is_costly or recipe is not None) and not is_stored:
                remember(u, recipe_for(blocks, values, g if recipe is None else recipe, row, list(new_row)))
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


def _from_inputs(
    make_one: Callable[..., jax.Array],
    values: list[Scalars],
    g: jax.Array | Callable[[], jax.Array],
    row: tuple[jax.Array, ...],
    tie: int,
    number: int,
) -> jax.Array:
    """`output` with the gradient, or what makes it again."""
    return make_one(tie, number, values, g() if callable(g) else g, row)


def _states(name: str, blocks: tuple[Block, ...], states: Any) -> tuple[Any, ...]:
    """The states, where they can be those of the blocks: parameters in their place are the commonest slip."""
    is_right = isinstance(states, tuple) and len(states) == len(blocks)
    if is_right and all(isinstance(s, tuple) and all(hasattr(s, field) for field in block.buffers)
                        for block, s in zip(blocks, states, strict=True)):  # fmt: skip
        return states
    raise TypeError(f"{name}: the state is not one that its init made: call update(updates, state, params).")
