"""Packs many small arrays of a tree into a few vectors, and unpacks them.

A `Packed` is a tree itself, so that a transformation sees few leaves. It has one vector per kind of leaf (its dtype
and, inside `shard_map`, its axes). The leaves that are not packed are kept by their paths in the user's tree. Only
replicated leaves are packed: cutting a sharded leaf would move it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .trees import is_sharded, leaf_dtype
from .types import Params

LONG = 4096  # from this length on, the compiler's slow path for odd sizes is measurable


@dataclass(frozen=True, eq=False)
class Layout:
    """Where each leaf of a tree is kept. It is static: part of the structure of a state, not one of its arrays."""

    template: Any  # the tree, with the number of each leaf in its place
    like: tuple[jax.ShapeDtypeStruct, ...]  # shape and dtype of each leaf
    groups: tuple[tuple[int, ...], ...]  # the leaves in each vector

    @cached_property
    def treedef(self) -> Any:
        return jax.tree.structure(self.template)

    @cached_property
    def reference(self) -> Any:
        """The tree of shapes and dtypes."""
        return self.treedef.unflatten(self.like)

    @cached_property
    def alone(self) -> tuple[int, ...]:
        """The numbers of the leaves that are in no vector."""
        return tuple(sorted(set(range(len(self.like))) - {i for group in self.groups for i in group}))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The paths of the leaves that are in no vector."""
        paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(self.template)]
        return tuple(paths[i] for i in self.alone)

    @cached_property
    def _key(self) -> Any:
        return self.treedef, tuple((x.shape, x.dtype.name) for x in self.like), self.groups

    @cached_property
    def _hash(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Layout) and self._hash == other._hash and self._key == other._key)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> Any:  # without the cached properties: a tree can be pickled, a treedef cannot
        return Layout, (self.template, self.like, self.groups)

    def __deepcopy__(self, memo: Any) -> "Layout":
        del memo
        return self

    def __call__(self, packed: "Packed") -> Any:
        """The user's tree."""
        return self.treedef.unflatten(unpacked_leaves(packed))

    def sizes(self, group: Sequence[int]) -> list[int]:
        return [self.like[i].size for i in group]


class Packed(NamedTuple):
    """A tree whose small leaves are in vectors. JAX sees the first two fields; the layout is static.

    Flax's msgpack stores the fields of a named tuple, and takes the function of a `Partial` from the target. So the
    layout is inside a `Partial`, and gradtx does not need to import Flax.
    """

    vectors: tuple[Any, ...]  # [sum of sizes] each
    alone: dict[str, Any]  # the leaves that were not packed, by their paths. Packed leaves have no placeholders
    # here, because Python would need longer for a thousand placeholders than for the whole step.
    unpacking: jax.tree_util.Partial  # a `Partial` of the layout, without arguments

    @property
    def layout(self) -> Layout:
        layout = self.unpacking.func
        assert isinstance(layout, Layout)
        return layout

    def __eq__(self, other: object) -> bool:  # two `Partial`s of the same function are not equal
        return isinstance(other, Packed) and self[:2] == other[:2] and self.layout == other.layout

    def __ne__(self, other: object) -> bool:
        return not self == other


def _with_keys(packed: Packed) -> tuple[Any, Layout]:
    keys = map(jax.tree_util.GetAttrKey, Packed._fields)
    return tuple(zip(keys, packed[:2], strict=False)), packed.layout


def _flatten(packed: Packed) -> tuple[Any, Layout]:
    return packed[:2], packed.layout


def _unflatten(layout: Layout, children: Any) -> Packed:
    vectors, alone = children
    return Packed(vectors, alone, jax.tree_util.Partial(layout))


jax.tree_util.register_pytree_with_keys(Packed, _with_keys, _unflatten, _flatten)


def layout_of(params: Params, max_leaf_size: int) -> Layout:
    """The layout for `params`. Packs replicated leaves of up to `max_leaf_size` entries, if a kind has two or more."""
    leaves, treedef = jax.tree.flatten(params)
    like = tuple(jax.ShapeDtypeStruct(jnp.shape(x), leaf_dtype(x)) for x in leaves)
    kinds: dict[Any, list[int]] = {}
    for i, (leaf, shape) in enumerate(zip(leaves, like, strict=True)):
        if shape.size <= max_leaf_size and not is_sharded(leaf):
            kinds.setdefault((shape.dtype.name, _varying(leaf)), []).append(i)
    groups = tuple(tuple(group) for group in map(partial(_even, like), kinds.values()) if len(group) > 1)
    return Layout(treedef.unflatten(range(len(leaves))), like, groups)


def _even(like: Sequence[jax.ShapeDtypeStruct], group: list[int]) -> list[int]:
    """The group, without its smallest odd leaf if its vector would be long and have an odd number of entries.

    XLA on the CPU is four to six times slower with such a vector (JAX 0.7.2 to 0.12.0): it does not vectorise the loop.
    """
    size = sum(like[i].size for i in group)
    if size < LONG or size % 2 == 0:
        return group
    odd = min((i for i in group if like[i].size % 2), key=lambda i: like[i].size)
    return [i for i in group if i != odd]


def _varying(leaf: Any) -> str:
    """The axes of a `shard_map` along which the leaf varies. They are the same for all leaves of a vector."""
    aval = jax.typeof(leaf) if isinstance(leaf, jax.Array) else None
    return str(getattr(aval, "manual_axis_type", sorted(getattr(aval, "vma", ()))))


def pack_leaves(layout: Layout, leaves: Sequence[Any]) -> Packed:
    """The leaves of a tree of that layout, packed. A None is packed as zeros; a vector of only Nones is None."""
    vectors = []
    for group in layout.groups:
        present = [leaves[i] for i in group if leaves[i] is not None]
        if not present:
            vectors.append(None)
            continue
        dtype = reduce(jnp.promote_types, (leaf_dtype(x) for x in present))
        if any(isinstance(x, jax.ShapeDtypeStruct) for x in present):
            vectors.append(jax.ShapeDtypeStruct((sum(layout.sizes(group)),), dtype))
            continue
        parts = [
            jnp.zeros(layout.like[i].size, dtype)
            if leaves[i] is None
            else lax.reshape(jnp.asarray(leaves[i], dtype), (layout.like[i].size,))
            for i in group
        ]
        vectors.append(lax.concatenate(parts, 0))
    alone = {name: leaves[i] for name, i in zip(layout.names, layout.alone, strict=True)}
    return Packed(tuple(vectors), alone, jax.tree_util.Partial(layout))


def unpacked_leaves(packed: Packed) -> list[Any]:
    """The leaves of the user's tree. Leading axes of the vectors (of `vmap`, of a scan's output) stay in front.

    The reverse-mode derivative of the split is one concatenation.
    """
    layout = packed.layout
    leaves: list[Any] = [None] * len(layout.like)
    for name, i in zip(layout.names, layout.alone, strict=True):
        leaves[i] = packed.alone[name]
    for group, vector in zip(layout.groups, packed.vectors, strict=True):
        if vector is None:
            continue
        axis = vector.ndim - 1
        for i, part in zip(group, lax.split(vector, layout.sizes(group), axis), strict=True):
            leaves[i] = lax.reshape(part, (*vector.shape[:-1], *layout.like[i].shape))
    return leaves


def unpack(packed: Packed) -> Any:
    """The user's tree."""
    return packed.unpacking(packed)


def is_packed(x: Any) -> bool:
    return isinstance(x, Packed)


def unpack_within(tree: Any) -> Any:
    """`tree` with the user's tree in the place of each `Packed`."""
    return jax.tree.map(lambda x: unpack(x) if is_packed(x) else x, tree, is_leaf=is_packed)
