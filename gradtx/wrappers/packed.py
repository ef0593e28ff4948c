"""Packs many small leaves into a few vectors: one kernel and one traced operation instead of a thousand.

    u = unpack(inner(pack(g)))

This is for long runs with hundreds of small leaves. With few or large leaves nothing is gained. There are two ways, and
the second is faster:

- `packed(tx)` around a transformation. Parameters, gradients and updates stay the user's tree; the state is packed.
  Each step packs the gradients and splits the updates.
- `params, unpack = pack(params)`: the parameters are packed too, once. The loss uses `unpack(params)`, whose
  derivative is one concatenation. Any transformation, `packed(tx)` or `tx` itself, then works on a few vectors.

Leaves of more than `max_leaf_size` entries and sharded leaves stay as they are. Leaves of different dtypes are in
different vectors. A vector of 4,096 entries or more gets an even length, by leaving out an odd leaf, because XLA on the
CPU is several times slower if the length is odd.

**Differs from** `optax.flatten`: that puts all leaves in one vector of one dtype, also large and sharded ones. It
silently accepts transformations that treat each leaf by itself. Here `init` tries the transformation on a tiny tree.

**Costs**: each step copies the small gradients and their updates. With `pack` there are no copies. On the CPU splitting
a vector into a thousand leaves takes longer to compile than the thousand updates: use `pack` there
(`tests/benchmarks/leaves.py`).

**The state**: `readings` and `nesterov_eval_params` work as usual. `state.restored()` is the state that `tx` alone
would have, over the user's tree, and `state.replaced(tree_state)` puts such a state back. Save the restored state in
checkpoints if a later run may not use packing. `optax.tree.map_params` sees the vectors, so map a tree of shardings
over `state.restored()`.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx._core.arguments import checked_count, inner_transformation
from gradtx._core.foreign import check_state
from gradtx._core.gradients import aligned
from gradtx._core.packing import (
    Layout,
    Packed,
    is_packed,
    layout_of,
    pack_leaves,
    unpack,
    unpack_within,
    unpacked_leaves,
)
from gradtx._core.trees import check_params, restored, without_variables
from gradtx._core.types import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    MultiSteps,
    Params,
    Updates,
)

from .leafwise import check_not_leafwise


class PackedState(NamedTuple):
    """State of `packed`."""

    packed_state: Any  # state of the inner transformation over a `Packed` tree

    def restored(self) -> Any:
        """The state that the inner transformation itself would have, over the user's tree."""
        return unpack_within(restored(self.packed_state))

    def replaced(self, tree_state: Any) -> "PackedState":
        """This state with the numbers of `tree_state`, which has the form of `restored()`."""

        def pack_like(mine: Any, theirs: Any) -> Any:
            if not is_packed(mine):
                return theirs
            return pack_leaves(mine.layout, mine.layout.treedef.flatten_up_to(theirs))

        mine, theirs = without_variables(self.packed_state), without_variables(tree_state)
        replaced = PackedState(jax.tree.map(pack_like, mine, theirs, is_leaf=is_packed))
        return jax.tree.unflatten(jax.tree.structure(self), jax.tree.leaves(replaced))  # in variables, if self was


def pack(params: Params, max_leaf_size: int = 4096) -> tuple[Packed, Callable[[Packed], Params]]:
    """Returns the parameters with their small leaves in vectors, and the function that restores the tree.

    The packed parameters are a tree like any other: initialise, update, save and map them. A derivative with respect to
    them is packed in the same way. Forward and reverse mode work, to any order.

    Args:
        params: any tree of floating arrays.
        max_leaf_size: entries of the largest leaf to pack, at least 1.

    Returns:
        The packed parameters, and `unpack`: packed tree (parameters, gradients, a moment in a state) -> user's tree.

    Raises:
        ValueError: `max_leaf_size` is less than 1. TypeError: it is not an integer; a leaf is not of a floating dtype.

    >>> import gradtx, jax, jax.numpy as jnp, optax
    >>> params, unpack = gradtx.pack({"b": jnp.zeros(2), "w": jnp.ones((2, 2))})
    >>> def loss(params):
    ...     tree = unpack(params)
    ...     return jnp.sum((tree["w"] @ jnp.ones(2) + tree["b"]) ** 2)
    >>> tx = gradtx.sgd(0.1)
    >>> updates, state = tx.update(jax.grad(loss)(params), tx.init(params), params)
    >>> print(updates.vectors[0], unpack(optax.apply_updates(params, updates))["b"])
    [-0.4 -0.4 -0.4 -0.4 -0.4 -0.4] [-0.4 -0.4]
    """
    checked_count("pack", "max_leaf_size", max_leaf_size)
    check_params("pack", params)
    layout = layout_of(params, max_leaf_size)
    return pack_leaves(layout, jax.tree.leaves(params)), unpack


def packed(tx: GradientTransformation | MultiSteps, max_leaf_size: int = 4096) -> GradientTransformationExtraArgs:
    """Applies `tx` to a few vectors instead of many small leaves. The updates are the same.

    Args:
        tx: any gradtx or Optax transformation that is element-wise or uses sums over all entries. `init` tests that
            on a tiny tree. Put masks, and transformations that treat each leaf by itself, outside. Random ones are
            refused too, because their updates cannot be compared.
        max_leaf_size: entries of the largest leaf to pack, at least 1.

    **Differs from** `optax.flatten`: its `inner` is called `tx` here. Large leaves stay as they are, and each dtype has
    its own vector.

    Raises:
        ValueError: `max_leaf_size` is less than 1; at init, `tx` treats each leaf by itself.
        TypeError: `max_leaf_size` is not an integer, or `tx` not a transformation; at init, a leaf is not floating.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx = gradtx.packed(gradtx.sgd(0.1, momentum=0.9))
    >>> params = {f"layer{i}": jnp.ones(2) for i in range(100)}
    >>> state = tx.init(params)
    >>> updates, state = tx.update(params, state, params)
    >>> print(updates["layer7"], [x.shape for x in jax.tree.leaves(state) if x.ndim])
    [-0.1 -0.1] [(200,)]
    """
    inner: Any = inner_transformation("packed", tx)
    checked_count("packed", "max_leaf_size", max_leaf_size)
    check = cache(partial(check_not_leafwise, inner))

    def init(params: Params) -> PackedState:
        params = without_variables(params)  # flax.nnx gives them to init, but not to update
        if is_packed(params):
            check(params.layout)
            return PackedState(inner.init(params))
        check_params("packed", params)
        leaves = jax.tree.leaves(params)
        if not leaves:
            return PackedState(inner.init(params))
        layout = layout_of(params, max_leaf_size)
        check(layout)
        return PackedState(inner.init(pack_leaves(layout, leaves)))

    def update(updates: Updates, state: Any, params: Params | None = None, **extra: Any) -> tuple[Updates, PackedState]:
        check_state("packed", state, "packed_state")
        arrays, params = without_variables(updates), without_variables(params)
        if arrays is not updates:
            new_updates, new_state = update(arrays, state, params, **extra)
            return jax.tree.unflatten(jax.tree.structure(updates), jax.tree.leaves(new_updates)), new_state
        layout = _layout_in(state.packed_state) or layout_of(updates if params is None else params, max_leaf_size)
        if is_packed(updates) or not layout.like:
            new_updates, inner_state = inner.update(updates, state.packed_state, params, **extra)
            return new_updates, PackedState(inner_state)
        gradients, _ = aligned("packed", updates, layout.reference)
        packed_params = None if params is None else pack_leaves(layout, layout.treedef.flatten_up_to(params))
        new_updates, inner_state = inner.update(
            pack_leaves(layout, gradients), state.packed_state, packed_params, **_packed_extra(layout, extra)
        )
        inner_state = _keep_missing(layout, gradients, inner_state, state.packed_state)
        # Behind a barrier the update is computed once, and not again for each leaf that is split from it.
        new_updates = new_updates._replace(vectors=lax.optimization_barrier(new_updates.vectors))
        leaves = [
            None if g is None else u.astype(g.dtype)
            for g, u in zip(gradients, unpacked_leaves(new_updates), strict=True)
        ]
        return layout.treedef.unflatten(leaves), PackedState(inner_state)

    return GradientTransformationExtraArgs(init, update)


def _layout_in(state: Any) -> Layout | None:
    """The layout of the first packed tree in a state. A state without one does not depend on the layout."""
    return next((x.layout for x in jax.tree.leaves(state, is_leaf=is_packed) if is_packed(x)), None)


def _packed_extra(layout: Layout, extra: dict[str, Any]) -> dict[str, Any]:
    """Adapts the extra arguments: functions of the parameters get the user's tree, and `grad` is packed."""

    def of_the_tree(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda p, *args, **kwargs: function(unpack(p), *args, **kwargs)

    functions = {k: of_the_tree(f) for k, f in extra.items() if k in ("value_fn", "losses_fn") and callable(f)}
    trees = {k: pack_leaves(layout, layout.treedef.flatten_up_to(t)) for k, t in extra.items() if k == "grad"}
    return {**extra, **functions, **trees}


def _keep_missing(layout: Layout, gradients: list[Any], new_state: Any, old_state: Any) -> Any:
    """The new state, with the old numbers for entries whose gradient is None."""
    present = [
        None
        if all((gradients[i] is None) == (gradients[group[0]] is None) for i in group)
        else np.concatenate([np.full(layout.like[i].size, gradients[i] is not None) for i in group])
        for group in layout.groups
    ]
    if all(mask is None for mask in present):
        return new_state

    def keep(new: Any, old: Any) -> Any:
        if not is_packed(new):
            return new
        vectors = zip(present, new.vectors, old.vectors, strict=True)
        return new._replace(vectors=tuple(n if m is None else jnp.where(m, n, o) for m, n, o in vectors))

    return jax.tree.map(keep, new_state, old_state, is_leaf=is_packed)
