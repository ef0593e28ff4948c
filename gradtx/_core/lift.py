"""Turns a rule for one array into a transformation of a tree, and joins several blocks into one rule.

A method defines three small functions; `lift` does the rest (None and masked leaves, dtypes, shape checks, errors):

- `init(params)` builds the state.
- `scalars(state)` gives this step's scalars (hyper-parameters at step k) and the scalar fields of the next state. A
  block that `reduces` gets the gradients too: `scalars(state, gradients)`. The gradients are a list, with None for a
  leaf that has none. Such a block may return a list of dicts of scalars, one per leaf.
- `rule(store, g, *buffers, **scalars)` is the formula on one array. It passes each new buffer to `store`, in the order
  of `buffers`, continues with the array that `store` returns, and returns the update. Use `store(x, after=y)` if y is
  computed from the old array of x: if x were written first, XLA would have to copy the old array for y.

`composed` puts blocks in a row: each leaf goes through all their rules in one pass, and stays in float32 in between.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .copies import JOINS_LOOPS, tagged, unmerged, written_after
from .foreign import check_state, foreign_state, optax_state
from .gradients import aligned
from .tracing import is_traced
from .trees import check_params, compute_dtype, selected, widen
from .types import GradientTransformation, GradientTransformationExtraArgs, Params, Updates

Scalars = dict[str, jax.Array]


class Block(NamedTuple):
    """One rule, with its state."""

    init: Callable[[Params], Any]
    scalars: Callable[..., tuple[Any, dict[str, Any]]]
    rule: Callable[..., jax.Array]
    buffers: tuple[str, ...]  # the fields of the state that are trees like the parameters
    reduces: bool
    allow_complex: bool


Nest = Any  # a Block, or a tuple of Nests: states are nested alike


@dataclass(frozen=True, eq=False)
class Row:
    """Blocks in a row as one transformation. Wrappers call `advance`, which has more options than `update`."""

    name: str
    nest: Nest

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(_blocks(self.nest))

    @cached_property
    def _segments(self) -> list[tuple[list[Block], Any]]:
        """The blocks in runs that can be one rule. A block that reduces begins a run, because it needs all leaves.

        Each run comes with its rule as a compiled function, so that leaves of the same shape share one trace.
        """
        starts = [i for i, block in enumerate(self.blocks) if block.reduces or i == 0]
        runs = [list(self.blocks[a:b]) for a, b in zip(starts, [*starts[1:], len(self.blocks)], strict=True)]
        return [(run, jax.jit(partial(_apply, run), static_argnums=0)) for run in runs]

    def init(self, params: Params) -> Any:
        check_params(self.name, params, allow_complex=all(block.allow_complex for block in self.blocks))
        return _nested(self.nest, iter([block.init(params) for block in self.blocks]))

    def update(self, updates: Updates, state: Any, params: Params | None = None, **extra: Any) -> tuple[Updates, Any]:
        del extra
        return self.advance(updates, state, params)

    def advance(
        self, updates: Updates, state: Any, params: Params | None = None, *, keep: Any = None, plainly: bool = False
    ) -> tuple[Updates, Any]:
        """The update and the new state. If the boolean `keep` is false, the new state is the old one.

        With `plainly` the step has no special code for XLA on CPUs. Wrappers that have such code themselves pass it.
        """
        states = list(_flat(self.name, self.nest, state))
        trees = (getattr(s, field) for block, s in zip(self.blocks, states, strict=True) for field in block.buffers)
        gradients, treedef = aligned(self.name, updates, next(trees, params))
        # Outside jit nothing is fused or compiled, so the special code would not help.
        is_compiled, new_states = is_traced(gradients), []
        for segment, compiled in self._segments:
            apply = partial(compiled, not plainly) if is_compiled else partial(_apply, segment, False)
            before = states[len(new_states) : len(new_states) + len(segment)]
            gradients, after = _step(segment, apply, gradients, treedef, before, keep)
            new_states += after
        return treedef.unflatten(gradients), _nested(self.nest, iter(new_states))

    def transformation(self) -> GradientTransformationExtraArgs:
        return GradientTransformationExtraArgs(self.init, self.update)


def row_of(tx: GradientTransformation) -> Row | None:
    """The row of blocks that a transformation consists of; None if it is of another kind."""
    row = getattr(tx.update, "__self__", None)
    return row if isinstance(row, Row) else None


def lift(
    name: str,
    init: Callable[[Params], Any],
    scalars: Callable[..., tuple[Any, dict[str, Any]]],
    rule: Callable[..., jax.Array],
    buffers: tuple[str, ...] = (),
    *,
    reduces: bool = False,
    allow_complex: bool = True,
) -> GradientTransformationExtraArgs:
    """One block as a transformation."""
    return Row(name, Block(init, scalars, rule, buffers, reduces, allow_complex)).transformation()


def composed(name: str, *parts: GradientTransformation) -> GradientTransformationExtraArgs:
    """The rows of all parts as one row. The state is a tuple of their states, as `optax.chain` has it."""
    rows = [row for row in map(row_of, parts) if row is not None]
    assert len(rows) == len(parts), "every part is a row"
    return Row(name, tuple(row.nest for row in rows)).transformation()


def _step(
    blocks: list[Block], apply: Any, gradients: list[Any], treedef: Any, states: list[Any], keep: Any
) -> tuple[list[Any], list[Any]]:
    """Applies one run of blocks to all leaves. Returns the updates and the new states."""
    steps = [b.scalars(s, gradients) if b.reduces else b.scalars(s) for b, s in zip(blocks, states, strict=True)]
    values = [v if isinstance(v, list) else [v] * len(gradients) for v, _ in steps]
    trees = [getattr(s, field) for b, s in zip(blocks, states, strict=True) for field in b.buffers]
    rows = list(zip(*map(treedef.flatten_up_to, trees), strict=True)) if trees else [()] * len(gradients)
    done = [
        (None, row) if g is None else apply([value[i] for value in values], g, row, keep)
        for i, (g, row) in enumerate(zip(gradients, rows, strict=True))
    ]
    columns = iter(zip(*(row for _, row in done), strict=True) if done else [()] * len(trees))
    new_states = [
        s._replace(
            **{field: treedef.unflatten(next(columns)) for field in b.buffers},
            **{field: selected(keep, new, getattr(s, field)) for field, new in fields.items()},
        )
        for b, s, (_, fields) in zip(blocks, states, steps, strict=True)
    ]
    return [u for u, _ in done], new_states


def _apply(
    blocks: list[Block], is_arranged: bool, values: list[Scalars], g: jax.Array, row: Sequence[jax.Array], keep: Any
) -> tuple[jax.Array, list[jax.Array]]:
    """Applies the rules of all blocks to one leaf. Returns its update and its new buffers.

    If `is_arranged`, each result is computed by itself, from copies that XLA on a CPU does not merge.
    """
    if not (is_arranged and row):
        return _run(blocks, values, g, row, keep)
    is_joined = JOINS_LOOPS and keep is None and len({x.dtype for x in (g, *row)}) == 1  # XLA joins these
    if is_joined and jnp.issubdtype(g.dtype, jnp.floating):
        each = [_run(blocks, values, tagged(i, g), [tagged(i, x) for x in row], None) for i in range(len(row) + 1)]
        return each[-1][0], [each[i][1][i] for i in range(len(row))]
    # The first run of the rule gives the new buffers. The second run gives the update and reads these buffers, which
    # have to be stored anyway. XLA removes the update of the first run and the buffers of the second.
    _, new = _run(blocks, values, g, row, keep, is_apart=True)
    update, _ = _run(blocks, values, g, row, keep, new=iter(unmerged(new)))
    return update, new


def _run(
    blocks: list[Block],
    values: list[Scalars],
    g: jax.Array,
    row: Sequence[jax.Array],
    keep: Any,
    *,
    is_apart: bool = False,
    new: Iterator[jax.Array] | None = None,
) -> tuple[jax.Array, list[jax.Array]]:
    """Applies one rule after the other. `new` holds the new buffers, if they are known."""
    dtype = compute_dtype(g.dtype, *(x.dtype for x in row))
    stored: list[jax.Array] = []

    def store(x: jax.Array, *, after: jax.Array | None = None) -> jax.Array:
        if new is not None:
            x = next(new)
        else:
            x = selected(keep, x, row[len(stored)])
            if is_apart:
                x = unmerged(x if after is None else written_after(x, after))
        stored.append(x)
        return widen(x, dtype)

    u, rest = widen(g, dtype), iter(row)
    for block, scalars in zip(blocks, values, strict=True):
        old = [widen(next(rest), dtype) for _ in block.buffers]
        u = block.rule(store, u, *old, **{key: value.astype(dtype) for key, value in scalars.items()})
    return u.astype(g.dtype), stored


def _blocks(nest: Nest) -> Iterator[Block]:
    if isinstance(nest, Block):
        yield nest
    else:
        for part in nest:
            yield from _blocks(part)


def _flat(name: str, nest: Nest, state: Any) -> Iterator[Any]:
    """The states of the blocks, checked. The commonest mistake is to pass the parameters as the state."""
    if isinstance(nest, Block):
        check_state(name, state, *nest.buffers)
        if optax_state(state):  # Optax's Adam has the same buffers
            raise foreign_state(name, state)
        yield state
    else:
        if not isinstance(state, tuple) or len(state) != len(nest):
            raise foreign_state(name, state)
        for part, its_state in zip(nest, state, strict=True):
            yield from _flat(name, part, its_state)


def _nested(nest: Nest, states: Iterator[Any]) -> Any:
    return next(states) if isinstance(nest, Block) else tuple(_nested(part, states) for part in nest)
