"""From a rule on one array to a transformation of a tree, and blocks in a row as one rule.

A method writes three small functions; `lift` does the rest (None and masked leaves, dtypes, shape checks, errors):

- `init(params)` builds the state.
- `scalars(state)` gives this step's scalars (hyper-parameters at step k) and the scalar fields of the next state. A
  block that `reduces` gets the gradients too: `scalars(state, gradients)`, a list with None where there is none. It may
  give a list of scalars, one dict for each leaf.
- `rule(store, g, *buffers, **scalars)` is the formula on one array. It hands each new buffer on through `store`, in the
  order of `buffers`, goes on with what `store` returns, and returns the update. `store(x, after=y)` is for an x whose
  old array y was made from: written first, it would leave y a copy to be made from.

`composed` puts blocks in a row: each leaf goes through all their rules at once, in float32 from the first to the last.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from .collectives import varying_like
from .copies import JOINS_LOOPS, tagged, unmerged, written_after
from .foreign import check_state, foreign_state, optax_state
from .gradients import aligned
from .tracing import is_traced
from .trees import check_params, compute_dtype, widen
from .types import GradientTransformationExtraArgs, Params, Updates

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


class Lifted(GradientTransformationExtraArgs):
    """A transformation that is blocks in a row, and that a wrapper can ask for more than its update."""

    blocks: tuple[Block, ...]
    nest: Nest
    advance: Callable[..., tuple[Updates, Any]]


def lift(
    name: str,
    init: Callable[[Params], Any],
    scalars: Callable[..., tuple[Any, dict[str, Any]]],
    rule: Callable[..., jax.Array],
    buffers: tuple[str, ...] = (),
    *,
    reduces: bool = False,
    allow_complex: bool = True,
) -> Lifted:
    """One block as a transformation."""
    return _transformation(name, Block(init, scalars, rule, buffers, reduces, allow_complex))


def composed(name: str, *lifted: GradientTransformationExtraArgs) -> Lifted:
    """The blocks of all of them in a row; each must be a `Lifted`. The states are a tuple, as `optax.chain` has it."""
    return _transformation(name, tuple(cast(Lifted, tx).nest for tx in lifted))


def _transformation(name: str, nest: Nest) -> Lifted:
    blocks = list(_blocks(nest))
    segments = _segments(blocks)

    def init(params: Params) -> Any:
        check_params(name, params, allow_complex=all(block.allow_complex for block in blocks))
        return _nested(nest, iter([block.init(params) for block in blocks]))

    def advance(
        updates: Updates, state: Any, params: Params | None = None, *, keep: Any = None, plainly: bool = False
    ) -> tuple[Updates, Any]:
        """The update and the new state. Where the boolean `keep` is false, the new state is the old one.

        `plainly` leaves out what is arranged for XLA on CPUs, for a wrapper that arranges more than this step.
        """
        states = list(_flat(name, nest, state))
        trees = (getattr(s, field) for block, s in zip(blocks, states, strict=True) for field in block.buffers)
        gradients, treedef = aligned(name, updates, next(trees, params))
        # Outside jit there is no fusion to help, and nothing to compile.
        is_compiled, new_states = is_traced(gradients), []
        for segment, compiled in segments:
            apply = partial(compiled, not plainly) if is_compiled else partial(_apply, segment, False)
            before = states[len(new_states) : len(new_states) + len(segment)]
            gradients, after = _step(segment, apply, gradients, treedef, before, keep)
            new_states += after
        return treedef.unflatten(gradients), _nested(nest, iter(new_states))

    def update(updates: Updates, state: Any, params: Params | None = None, **extra: Any) -> tuple[Updates, Any]:
        del extra
        return advance(updates, state, params)

    lifted = Lifted(init, update)
    lifted.blocks, lifted.nest, lifted.advance = tuple(blocks), nest, advance
    return lifted


def _segments(blocks: list[Block]) -> list[tuple[list[Block], Any]]:
    """The blocks in runs that can be one rule: a block that reduces needs all leaves of what comes in.

    With each run its rule as a compiled function, so that leaves of the same shape share one trace.
    """
    starts = [i for i, block in enumerate(blocks) if block.reduces or i == 0]
    runs = [blocks[start:end] for start, end in zip(starts, [*starts[1:], len(blocks)], strict=True)]
    return [(run, jax.jit(partial(_apply, run), static_argnums=0)) for run in runs]


def _step(
    blocks: list[Block], apply: Any, gradients: list[Any], treedef: Any, states: list[Any], keep: Any
) -> tuple[list[Any], list[Any]]:
    """One run of blocks on all leaves: the updates, the new states."""
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
    """The rules of all blocks on one leaf: its update and its new buffers.

    Arranged, each result is computed by itself, from copies that XLA on a CPU does not merge.
    """
    if not (is_arranged and row):
        return _run(blocks, values, g, row, keep)
    is_joined = JOINS_LOOPS and keep is None and len({x.dtype for x in (g, *row)}) == 1  # loops that write one dtype
    if is_joined and jnp.issubdtype(g.dtype, jnp.floating):
        each = [_run(blocks, values, tagged(i, g), [tagged(i, x) for x in row], None) for i in range(len(row) + 1)]
        return each[-1][0], [each[i][1][i] for i in range(len(row))]
    # The rule runs once for the buffers, and once more for the update, which reads the new buffers: they are stored
    # anyway. What the first run has for the update, and the second for the buffers, is dead code.
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
    """One rule after the other; `new` are its new buffers, if they are known."""
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


def selected(keep: Any, new: Any, old: Any) -> Any:
    """`new` in the type of `old`, so that a state from elsewhere keeps its types; `old` where `keep` is false."""
    if new is None or new is old:
        return old
    kind = jax.typeof(old)
    new = varying_like(jnp.asarray(new, kind.dtype), kind)
    return new if keep is None else jnp.where(keep, new, old)


def _blocks(nest: Nest) -> Iterator[Block]:
    if isinstance(nest, Block):
        yield nest
    else:
        for part in nest:
            yield from _blocks(part)


def _flat(name: str, nest: Nest, state: Any) -> Iterator[Any]:
    """The states of the blocks. Parameters in the place of the state are the commonest slip."""
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
