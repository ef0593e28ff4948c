"""Trees of arrays: their leaves' dtypes and shardings, checks, and constructors that keep both."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from .collectives import varying_like
from .types import FLOAT32, DTypeLike, Params


def leaf_dtype(leaf: Any) -> jnp.dtype:
    """dtype of an array, a `ShapeDtypeStruct` or a Python number; TypeError for anything else."""
    if hasattr(leaf, "dtype") and not isinstance(leaf, type):
        return leaf.dtype
    if isinstance(leaf, bool | int | float | complex):  # JAX would also take a string, for the name of a dtype
        return jnp.result_type(leaf)
    raise TypeError(f"{type(leaf).__name__} has no dtype")


def named_leaves(name: str, argument: str, tree: Any) -> Iterator[tuple[str, Any, jnp.dtype]]:
    """(where, leaf, dtype) for each leaf, `where` as in "params['w']". Raises TypeError if a leaf is not an array."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        where = f"{argument}{jax.tree_util.keystr(path)}"
        try:
            yield where, leaf, leaf_dtype(leaf)
        except TypeError:
            raise TypeError(f"{name}: {where} must be an array, got {type(leaf).__name__}.") from None


def sparse_leaf(tree: Any) -> str | None:
    """The path and the type of the first sparse array, which JAX flattens into its data and indices."""

    def is_sparse(x: Any) -> bool:
        return type(x).__module__.startswith("jax.experimental.sparse")

    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_sparse)
    return next((f"{jax.tree_util.keystr(p)} ({type(x).__name__})" for p, x in leaves if is_sparse(x)), None)


def check_params(name: str, params: Params, *, allow_complex: bool = True) -> None:
    """Raises if the transformation `name` cannot train a leaf of `params`. The message names the leaf."""
    for where, _, dtype in named_leaves(name, "params", params):
        if not jnp.issubdtype(dtype, jnp.inexact):
            if sparse := sparse_leaf(params):
                raise TypeError(f"{name}: params{sparse} is sparse: make it dense with todense().")
            raise TypeError(
                f"{name}: {where} must be of a floating dtype, got {dtype}: take it out of the trained tree (of an "
                "Equinox model, train eqx.filter(model, eqx.is_inexact_array)), or wrap the transformation in "
                "optax.masked."
            )
        if not allow_complex and jnp.issubdtype(dtype, jnp.complexfloating):
            raise ValueError(f"{name}: {where} must be real, got {dtype}: complex parameters are not defined here.")


def is_sharded(leaf: Any) -> bool:
    """Whether an array is split over devices. Under `jit` only explicit sharding shows."""
    spec = getattr(getattr(jax.typeof(leaf), "sharding", None), "spec", ()) if isinstance(leaf, jax.Array) else ()
    if any(axes is not None for axes in spec) or getattr(spec, "unreduced", None):
        return True
    is_concrete = isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer)
    sharding = leaf.sharding if is_concrete else getattr(leaf, "sharding", None)
    return isinstance(sharding, jax.sharding.Sharding) and not sharding.is_fully_replicated


def compute_dtype(*dtypes: jnp.dtype) -> jnp.dtype:
    """The real dtype to compute in: float64 if any of them is that wide, else float32."""
    is_wide = any(jnp.finfo(dtype).bits == 64 for dtype in dtypes)
    return jnp.dtype("float64") if is_wide else jnp.dtype("float32")


def widen(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The array in the real dtype to compute in; a complex one in its complex counterpart."""
    if jnp.iscomplexobj(x):
        return x.astype(jnp.complex128 if dtype == jnp.float64 else jnp.complex64)
    return x.astype(dtype)


def selected(keep: Any, new: Any, old: Any) -> Any:
    """`new` in the type of `old`, so that a state keeps its types from step to step; `old` if `keep` is False.

    The type is the dtype and, inside `shard_map`, the axes that the array varies along. `keep` None always takes `new`.
    """
    if new is None or new is old:
        return old
    kind = jax.typeof(old)
    new = varying_like(jnp.asarray(new, kind.dtype), kind)
    return new if keep is None else jnp.where(keep, new, old)


def accumulator_like(
    leaf: Any, dtype: DTypeLike | None, *, real: bool = False, fill: jax.Array | None = None
) -> jax.Array:
    """Zeros (or `fill`) in the leaf's shape and sharding.

    `dtype` None follows the leaf. Float32 or wider is a lower bound (a float64 leaf keeps float64). Narrower ones are
    used as they are. A complex leaf gets a complex accumulator unless `real`.
    """
    own = leaf_dtype(leaf)
    is_complex = jnp.issubdtype(own, jnp.complexfloating)
    # Under `optax.inject_hyperparams` an explicit `jnp.float32` arrives as an array of that dtype.
    wanted = own if dtype is None else dtype.dtype if isinstance(dtype, jax.Array) else jnp.dtype(dtype)
    if is_complex or jnp.issubdtype(wanted, jnp.complexfloating) or jnp.finfo(wanted).bits >= 32:
        wanted = compute_dtype(own, wanted)
        if is_complex and not real:
            wanted = jnp.dtype("complex128") if wanted == jnp.float64 else jnp.dtype("complex64")
    zeros = jnp.zeros_like(leaf, dtype=wanted)
    return zeros if fill is None else zeros + fill.astype(wanted)


def check_accumulator_dtype(name: str, dtype: Any) -> None:
    """Raises unless it is None, a floating dtype, or an array of one (see `accumulator_like`)."""
    try:
        known = FLOAT32 if dtype is None else dtype.dtype if isinstance(dtype, jax.Array) else jnp.dtype(dtype)
    except TypeError:
        known = jnp.dtype(bool)
    if not jnp.issubdtype(known, jnp.inexact):
        raise TypeError(f"{name}: accumulator_dtype must be a floating dtype or None, got {dtype!r}.")


def accumulators(
    params: Params, dtype: DTypeLike | None, *, real: bool = False, fill: jax.Array | None = None
) -> Params:
    """`accumulator_like` over a tree."""
    return jax.tree.map(lambda leaf: accumulator_like(leaf, dtype, real=real, fill=fill), params)


def restored(state: Any) -> Any:
    """The optimizer state, with each wrapped state that a wrapper keeps in another form converted back.

    The state of such a wrapper is a NamedTuple with a method `restored()`. The result of that method replaces it.
    """

    def keeps_another_form(x: Any) -> bool:
        return isinstance(x, tuple) and hasattr(x, "restored")

    state = without_variables(state)
    return jax.tree.map(lambda x: x.restored() if keeps_another_form(x) else x, state, is_leaf=keeps_another_form)


def without_variables(tree: Any) -> Any:
    """The tree with each flax.nnx variable replaced by its array.

    nnx.Optimizer hands trees of arrays to a transformation, but wraps each array of its own state in a variable. NumPy
    and JAX cannot compute with those. Variables are recognised by their methods, because gradtx does not import Flax.
    """
    if not any(map(_is_variable, jax.tree.leaves(tree, is_leaf=_is_variable))):
        return tree

    def array(x: Any) -> Any:
        if not _is_variable(x):
            return x
        return x.get_value() if hasattr(x, "get_value") else x.value  # its name before Flax 0.12

    return jax.tree.map(array, tree, is_leaf=_is_variable)


def _is_variable(x: Any) -> bool:
    return hasattr(type(x), "get_metadata") and (hasattr(type(x), "get_value") or hasattr(type(x), "value"))
