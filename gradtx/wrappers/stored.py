"""A state in fewer bytes: in bfloat16, or in 8 bits with a scale for every 256 entries.

    s = load(stored);    u, s' = inner(g, s);    stored' = round(s')

The arithmetic stays in float32; only the state between steps is small. Rounding is stochastic, so that an average of
many small contributions keeps its mean. The random numbers follow from a seed in the state, so a run can be repeated.

| dtype          | bytes / entry  | relative step | for                                                  |
|----------------|----------------|---------------|------------------------------------------------------|
| `jnp.bfloat16` | 2              | 2⁻⁸ to 2⁻⁷    | any state                                            |
| `"8bit"`       | 1.02           | 2⁻⁴ to 2⁻³    | moments and velocities                               |

**Source**: Dettmers et al. 2022 (8 bits in blocks, a dynamic exponent); Croci et al. 2022 (stochastic rounding).

**Differs from** Optax, which rounds first moments to the nearest bfloat16 (`mu_dtype`) but cannot shrink second ones.

**Costs**: more arithmetic for less memory. On a CPU a step takes 1.3 to 3 times as long with bfloat16, and 1.3 to 2.5
times with 8 bits. The step is computed once each for the scales, the codes and the updates (on GPUs once for the scales
and once for the rest). The new state is never written in float32, except on TPUs. The old state is copied in its stored
form, which takes longer if the system provides new memory at every step (`tests/benchmarks/state.py`). A step with
loops, products of matrices or collectives is computed once, and its new state exists in float32. XLA's flag that joins
loops (`_core/copies.py`) speeds up only float32. Derivatives do not pass through the stored state.

**Limits**: a NaN or inf spoils its block of 256; equal entries of a block are rounded alike. Leaves of the state with
fewer than `min_leaf_size` entries, leaves of float64 or a complex dtype and, for `"8bit"`, leaves with an explicit
sharding stay as they are. `state.restored()` is the state in float32, as `nesterov_eval_params` sees it.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.arguments import checked_count, inner_transformation
from gradtx._core.copies import unmerged, unmerged_on_gpus
from gradtx._core.foreign import check_state
from gradtx._core.lift import row_of
from gradtx._core.rounding import from_8bit, mixed, num_blocks, scales_8bit, to_8bit, to_bfloat16
from gradtx._core.trees import check_params, is_sharded, leaf_dtype, restored, without_variables
from gradtx._core.types import (
    DTypeLike,
    GradientTransformation,
    GradientTransformationExtraArgs,
    MultiSteps,
    Params,
    Updates,
)

GOLDEN = 0x9E3779B9  # odd, so that adding it again and again visits every uint32


class StoredState(NamedTuple):
    """State of `stored_as`."""

    stored_state: Any  # state of the inner transformation; large float32 leaves in bfloat16 or as codes, uint8
    stored_scales: jax.Array  # [blocks of all leaves, at least 1] float32: the scales of the codes
    rounding_seed: jax.Array  # [] uint32

    def restored(self) -> Any:
        """The state that the inner transformation itself would have. A stack of states gives a stack."""
        state = without_variables(self)

        def loaded(state: StoredState) -> Any:
            return restored(_loaded(state))

        for _ in range(jnp.ndim(state.rounding_seed)):
            loaded = jax.vmap(loaded)
        return loaded(state)


def stored_as(
    tx: GradientTransformation | MultiSteps, dtype: DTypeLike | str, *, seed: int = 0, min_leaf_size: int = 4096
) -> GradientTransformationExtraArgs:
    """Keeps the large floating arrays of the state of `tx` in bfloat16 or 8 bits between steps.

    Args:
        tx: any gradtx or Optax transformation.
        dtype: `jnp.bfloat16` or `"8bit"`.
        seed: for the rounding, an integer >= 0. The same seed repeats a run bit for bit.
        min_leaf_size: entries of the smallest leaf of the state to store in this way, at least 1.

    Raises:
        ValueError: `dtype` is neither of the two; `seed` or `min_leaf_size` is too small.
        TypeError: an argument is of the wrong kind; at init, a parameter is not of a floating dtype.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx = gradtx.stored_as(gradtx.adam(0.001), "8bit")
    >>> state = tx.init(jnp.zeros(1_000_000))
    >>> print(round(sum(x.nbytes for x in jax.tree.leaves(state)) / 1_000_000, 2))  # bytes per parameter, instead of 8
    2.03
    """
    inner, bits = inner_transformation("stored_as", tx), _checked_bits(dtype)
    row = row_of(inner)
    checked_count("stored_as", "seed", seed, 0)
    checked_count("stored_as", "min_leaf_size", min_leaf_size)

    def init(params: Params) -> StoredState:
        check_params("stored_as", params)
        # Without the barrier the compiler itself would compute the codes of a million zeros, which takes seconds.
        inner_state = jax.lax.optimization_barrier(inner.init(params))
        forms = [_form(x, bits, min_leaf_size) for x in jax.tree.leaves(inner_state)]
        scales = _scales(inner_state, forms)
        return _stored(inner_state, scales, jnp.array(seed & 0xFFFFFFFF, jnp.uint32), forms, jnp.float32)

    def update(updates: Updates, state: Any, params: Params | None = None, **extra: Any) -> tuple[Updates, StoredState]:
        check_state("stored_as", state, "stored_state")
        # Each leaf stays in the form that it has in the state, whatever `min_leaf_size` this transformation has.
        forms = [leaf_dtype(x) for x in jax.tree.leaves(state.stored_state)]
        stored = partial(_stored, seed=state.rounding_seed + jnp.uint32(GOLDEN), forms=forms)
        stored = partial(stored, scale_dtype=state.stored_scales.dtype)
        if row is None:
            new_updates, new_state = inner.update(updates, _loaded(state), params, **extra)
            return new_updates, stored(new_state, _scales(new_state, forms))
        inputs, advance = (updates, state), row.advance

        def again() -> tuple[Updates, Any]:
            """On a CPU this is computed anew for each use, so the new state is never written in float32."""
            nonlocal inputs
            inputs = unmerged(inputs)
            return advance(inputs[0], _loaded(inputs[1]), params, plainly=True)

        scales = _scales(again()[1], forms)
        if scales:  # XLA on GPUs would write the new state in float32, and read it again once the scales are known
            gradients, old = inputs
            inputs = gradients, old._replace(stored_state=unmerged_on_gpus(old.stored_state))
        new_stored = stored(again()[1], scales)
        return again()[0], new_stored

    return GradientTransformationExtraArgs(init, update)


def apply_updates_stochastic(params: Params, updates: Updates, key: jax.Array) -> Params:
    """θ + u; a bfloat16 parameter is rounded up or down by chance, so that its mean is exact.

    `optax.apply_updates` rounds to the nearest: a bfloat16 1.0 always stays 1.0 under updates of -0.001. Pass the
    updates in float32 (a transformation keeps the dtype of the gradients it gets) and a new key at each step.

    Args:
        params: bfloat16 leaves are rounded by chance, others as `optax.apply_updates` does.
        updates: a tree like `params`, with None for a leaf that has no update.
        key: a JAX random key.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> def step(params, key):
    ...     return gradtx.apply_updates_stochastic(params, jnp.full(1000, -1e-3), key), None
    >>> params, _ = jax.lax.scan(step, jnp.ones(1000, jnp.bfloat16), jax.random.split(jax.random.key(0), 100))
    >>> print(round(float(jnp.mean(params.astype(jnp.float32))), 2))  # 1 - 100 · 0.001
    0.9
    """
    seed = jax.random.bits(key, (), jnp.uint32)
    leaves, treedef = jax.tree.flatten(params, is_leaf=lambda x: x is None)
    changes = treedef.flatten_up_to(updates)

    def apply(number: int, p: Any, u: Any) -> Any:
        if p is None or u is None:
            return p
        if leaf_dtype(p) != jnp.bfloat16:
            return jnp.asarray(p + u).astype(leaf_dtype(p))
        return to_bfloat16(p.astype(jnp.float32) + u.astype(jnp.float32), _seed_of_leaf(seed, number))

    return treedef.unflatten([apply(n, p, u) for n, (p, u) in enumerate(zip(leaves, changes, strict=True))])


def _checked_bits(dtype: Any) -> int:
    if isinstance(dtype, str) and dtype == "8bit":
        return 8
    try:
        if jnp.dtype(dtype) == jnp.bfloat16:
            return 16
    except TypeError:
        pass
    raise ValueError(f'stored_as: dtype must be jnp.bfloat16 or "8bit", got {dtype!r}.')


def _seed_of_leaf(seed: jax.Array, number: int) -> jax.Array:
    return mixed(mixed(seed) + jnp.uint32(number))


def _scales(inner_state: Any, forms: list[Any]) -> dict[int, jax.Array]:
    """The scales of the leaves that are stored as codes. uint8 stands for codes."""
    leaves = jax.tree.leaves(inner_state)
    return {i: scales_8bit(jnp.asarray(leaves[i])) for i, form in enumerate(forms) if form == jnp.uint8}


def _stored(
    inner_state: Any, scales: dict[int, jax.Array], seed: jax.Array, forms: list[Any], scale_dtype: Any
) -> StoredState:
    """The state with each leaf in its form."""
    new, treedef = jax.tree.flatten(inner_state)
    for i, form in enumerate(forms):
        x = jnp.asarray(new[i])
        if i in scales:
            new[i] = to_8bit(x, scales[i], _seed_of_leaf(seed, i))
        else:
            new[i] = to_bfloat16(x, _seed_of_leaf(seed, i)) if form == jnp.bfloat16 else x.astype(form)
    every_scale = jnp.concatenate(list(scales.values())) if scales else jnp.zeros(1)
    return StoredState(treedef.unflatten(new), every_scale.astype(scale_dtype), seed)


def _form(x: Any, bits: int, min_leaf_size: int) -> Any:
    """The dtype that a leaf of the inner state is stored in."""
    dtype = leaf_dtype(x)
    if x.size < min_leaf_size or dtype not in (jnp.float32, jnp.bfloat16):
        return dtype
    if bits == 16:
        return jnp.dtype(jnp.bfloat16)
    return dtype if is_sharded(x) else jnp.dtype(jnp.uint8)  # the blocks of 256 would be cut across devices


def _loaded(state: StoredState) -> Any:
    """The inner state in float32."""
    leaves, treedef = jax.tree.flatten(state.stored_state)
    loaded, start = [], 0
    for x in leaves:
        if x.dtype == jnp.uint8:
            end = start + num_blocks(x.size)
            loaded.append(from_8bit(x, state.stored_scales[start:end].astype(jnp.float32)))
            start = end
        else:
            loaded.append(x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x)
    return treedef.unflatten(loaded)
