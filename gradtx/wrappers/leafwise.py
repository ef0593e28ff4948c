"""Tests on a tiny tree whether a transformation treats each leaf by itself.

The tree is trained twice, as it is and packed. A transformation that is element-wise, or uses sums over all entries,
gives the same updates. One that uses a leaf's norm, shape or name does not: clipping by the leaf's norm, trust ratios
(LARS, LAMB), factored moments, masks by the number of axes.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx._core.packing import Layout, layout_of, pack_leaves, unpacked_leaves

# Norms from 1e-7 to 1e14, so that any usual limit on a leaf's norm lies between two of them.
GRADIENT_SIZES = (1e-6, 1.0, 1e12)
TOLERANCE = 1e-4  # sums over all entries are taken in another order


def check_not_leafwise(inner: Any, layout: Layout) -> None:
    """Raises ValueError if packing changes the updates of `inner`.

    With traced hyper-parameters there are no numbers to compare, so nothing is checked.
    """
    packed_shapes = [layout.like[i].shape for group in layout.groups for i in group]
    if not packed_shapes:
        return
    matrix = max((2, 3), *packed_shapes, key=lambda shape: sorted((1, 1, *shape))[-2])  # the widest
    shapes = [matrix, (3,), ()]
    trees = [_random_tree(shapes, (1.0, 100.0, 0.1))]
    trees += [_random_tree(shapes, (size, 0.01 * size, 10.0 * size)) for size in GRADIENT_SIZES]
    with jax.ensure_compile_time_eval(), jax.debug_nans(False), jax.debug_infs(False):
        try:
            largest = _difference(inner, *trees)
            difference = None if isinstance(largest, Tracer) else float(largest)
        except Exception as error:
            raise ValueError(
                f"packed: tx does not run on another tree than its own ({type(error).__name__}: {error}). Masks and "
                "labels belong outside: optax.masked(gradtx.packed(tx), mask)."
            ) from error
    if difference is not None and not difference < TOLERANCE:
        raise ValueError(
            "packed: tx treats each leaf by itself, or is random (packing a small tree changes its updates by "
            f"{difference:.1g} of their size), so it cannot work on packed leaves. Put that part before or after: "
            "optax.chain(gradtx.clip_by_norm(1.0), gradtx.packed(gradtx.adam(1e-3)))."
        )


def _random_tree(shapes: list[tuple[int, ...]], sizes: tuple[float, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [np.asarray(s * random.normal(size=shape), np.float32) for s, shape in zip(sizes, shapes, strict=True)]


def _difference(inner: Any, *trees: Any) -> jax.Array:
    """The largest difference between the two updates of a leaf, relative to the larger one."""
    params, *gradients = jax.tree.map(jnp.asarray, trees)
    tiny = layout_of(params, max(x.size for x in params))
    packed_params = pack_leaves(tiny, params)
    alone, together = inner.init(params), inner.init(packed_params)
    worst = jnp.zeros(())
    for grads in gradients:
        packed_grads = pack_leaves(tiny, grads)
        extra = {"value": _half_square(params), "value_fn": _half_square}
        expected, alone = inner.update(grads, alone, params, grad=grads, **extra)
        got, together = inner.update(packed_grads, together, packed_params, grad=packed_grads, **extra)
        for a, b in zip(expected, unpacked_leaves(got), strict=True):
            largest = jnp.maximum(jnp.max(jnp.abs(a)), jnp.max(jnp.abs(b)))
            gap = jnp.max(jnp.abs(a - b))
            worst = jnp.maximum(worst, gap / jnp.where(largest > 0, largest, 1))
    return worst


def _half_square(params: Any, *args: Any, **kwargs: Any) -> Any:
    del args, kwargs
    return 0.5 * sum(jnp.sum(x * x) for x in jax.tree.leaves(params))
