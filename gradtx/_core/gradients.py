"""Checks gradients against the tree that a state was made for, and puts them in the order of its leaves."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .trees import leaf_dtype, sparse_leaf
from .types import Params, Updates


def aligned(name: str, updates: Updates, reference: Params | None) -> tuple[list[Any], Any]:
    """The gradients in the order of the reference tree's leaves (None if missing), and that tree's structure.

    Raises if structure, shape or dtype does not fit. The message names the first leaf that does not.
    """
    if reference is None:
        leaves, treedef = jax.tree.flatten(updates, is_leaf=lambda x: x is None)
        paths = jax.tree_util.tree_leaves_with_path(updates, is_leaf=lambda x: x is None)
        likes = leaves
    else:
        paths = jax.tree_util.tree_leaves_with_path(reference)
        likes, treedef = jax.tree.flatten(reference)
        try:
            leaves = treedef.flatten_up_to(updates)
        except (ValueError, TypeError):
            raise _refused(name, updates, reference) from None
    gradients = []
    for (path, _), leaf, like in zip(paths, leaves, likes, strict=True):
        where = jax.tree_util.keystr(path) or "the only leaf"
        if leaf is None:
            gradients.append(None)
            continue
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | float | int | complex):
            raise _refused(name, updates, reference)
        dtype = leaf_dtype(leaf)
        if not jnp.issubdtype(dtype, jnp.inexact):
            if sparse_leaf(updates):
                raise _refused(name, updates, reference)
            raise TypeError(f"{name}: the gradient of {where} must be of a floating dtype, got {dtype}.")
        if jnp.shape(leaf) != jnp.shape(like):
            raise ValueError(
                f"{name}: the gradient of {where} has shape {jnp.shape(leaf)}, but init saw {jnp.shape(like)}: "
                "call init with the same tree."
            )
        gradients.append(jnp.asarray(leaf))
    return gradients, treedef


def _refused(name: str, updates: Updates, reference: Params) -> Exception:
    if sparse := sparse_leaf(updates):
        return TypeError(f"{name}: the gradient of params{sparse} is sparse: make it dense with todense().")
    return ValueError(_mismatch(name, updates, reference))


def _mismatch(name: str, updates: Updates, reference: Params) -> str:
    seen, got = ({jax.tree_util.keystr(path) or "a leaf without a name"
                  for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
                 for tree in (reference, updates))  # fmt: skip
    extra = sorted(got - seen)
    missing = sorted(seen - got)
    where = (
        f"{extra[0]} is in the gradients only"
        if extra
        else f"{missing[0]} is missing"
        if missing
        else "node types differ"
    )
    return f"{name}: the gradients are not the tree that init saw: {where}. Call init with the same tree."
