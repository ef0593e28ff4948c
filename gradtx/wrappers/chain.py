"""Applies transformations one after the other. Adjacent gradtx transformations make one pass over the parameters.

    u = t_n( ... t_2(t_1(g)))

**Differs from** `optax.chain`: the same states and, for float32 gradients, the same updates to rounding. Adjacent
methods, blocks and clippings of gradtx become one rule per array: on a CPU no intermediate result is stored in
memory, and wrappers (`skip_nonfinite`, `accumulate`, `stored_as`) treat the whole chain as one. Between such parts
half-precision gradients stay in float32, while `optax.chain` rounds them after each transformation.

**Costs**: none beside those of its parts. A clipping needs all incoming updates first, so it begins a separate pass.
"""

from itertools import groupby
from typing import Any

from gradtx._core.arguments import inner_transformation
from gradtx._core.foreign import foreign_state
from gradtx._core.lift import composed, row_of
from gradtx._core.types import GradientTransformation, GradientTransformationExtraArgs, MultiSteps, Params, Updates


def chain(*transformations: GradientTransformation | MultiSteps) -> GradientTransformationExtraArgs:
    """Applies the transformations in turn. The state is a tuple of their states, as that of `optax.chain`.

    Args:
        transformations: from gradtx, Optax or elsewhere. Extra arguments of `update` reach all of them.

    Raises:
        TypeError: an argument is not a transformation.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.scale_by_learning_rate(0.1), gradtx.nesterov(0.9))
    >>> state = tx.init(jnp.zeros(2))
    >>> updates, state = tx.update(jnp.array([3.0, 4.0]), state)
    >>> print(updates, state[0].global_norm)
    [-0.114 -0.152] 5.0
    """
    parts: list[Any] = [inner_transformation("chain", tx) for tx in transformations]
    if all(row_of(tx) for tx in parts):
        return composed("chain", *parts)
    steps: list[tuple[int, Any]] = []  # the number of parts, and the transformation for them
    for is_row, neighbours in groupby(parts, lambda tx: row_of(tx) is not None):
        alike = list(neighbours)
        steps += [(len(alike), composed("chain", *alike))] if is_row else [(0, tx) for tx in alike]

    def init(params: Params) -> Any:
        return tuple(tx.init(params) for tx in parts)

    def update(updates: Updates, state: Any, params: Params | None = None, **extra: Any) -> tuple[Updates, Any]:
        if not isinstance(state, tuple) or len(state) != len(parts):
            raise foreign_state("chain", state)
        new_state: tuple[Any, ...] = ()
        for count, tx in steps:
            before = state[len(new_state) : len(new_state) + count] if count else state[len(new_state)]
            updates, after = tx.update(updates, before, params, **extra)
            new_state += after if count else (after,)
        return updates, new_state

    return GradientTransformationExtraArgs(init, update)
