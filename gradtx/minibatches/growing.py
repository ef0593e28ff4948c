"""Minibatches that grow during training: noise falls as σ / √n while the learning rate may stay.

    n_k = min(n_final, round(n_0 γ^⌊k / p⌋))

| letter       | argument           | range                  |
|--------------|--------------------|------------------------|
| k            | the step           | from 0                 |
| n_0, n_final | `initial`, `final` | 1 <= n_0 <= n_final    |
| γ            | `factor`           | above 1                |
| p            | `every`            | steps of a stage, >= 1 |

**When**: late in a run, where noise rather than the curvature holds the loss up: as a lower rate would, but in fewer
and larger steps, which devices run in parallel. Not where the gradient is already the better part of the batch
(`gradient_noise_scale` tells).

**Source**: Byrd et al. 2012 (a geometric growth keeps the linear rate of gradient descent on strongly convex costs);
Smith et al. 2018 (growing the batch in place of shrinking the learning rate); chapter §4.1.

**Differs from** Optax and torch, which have no schedule of batch sizes. **Costs**: one compilation a stage.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._core.arguments import checked_count, checked_number
from gradtx._core.hyperparameters import ABOVE_ONE


@dataclass(frozen=True)
class BatchSizes:
    """What `growing_batch_sizes` returns: call it with the step."""

    sizes: tuple[int, ...]  # of all stages
    every: int  # steps a stage

    def __call__(self, step: Any) -> Any:
        """The size at a step, before step 0 the first: an int for a number, an int32 array for an array."""
        last = len(self.sizes) - 1
        if isinstance(step, jax.Array | np.ndarray):
            return jnp.asarray(self.sizes, jnp.int32)[jnp.clip(step // self.every, 0, last)]
        return self.sizes[min(max(int(step) // self.every, 0), last)]


def growing_batch_sizes(initial: int, final: int, *, every: int, factor: float = 2.0) -> BatchSizes:
    """A schedule: the step to the number of examples, or of micro-batches, that it takes.

    Sizes stay the same for `every` steps, so that a loop that compiles once a size compiles a handful of times.
    `accumulate(tx, every=...)` takes it as the number of micro-batches of each step, `lab.run(batch_size_schedule=...)`
    as the number of examples.

    Args:
        initial: n_0, the size of the first stage, >= 1.
        final: n_final, where it stops growing.
        every: p, steps a stage.
        factor: γ, what each stage multiplies the size by, above 1.

    Returns:
        The schedule: a number in gives an int, an array or a traced count int32s. Its `sizes` are those of all stages.

    Raises:
        ValueError: an argument out of range. TypeError: an argument is not an integer.

    >>> import gradtx
    >>> sizes = gradtx.growing_batch_sizes(32, 200, every=10)
    >>> print(sizes.sizes, [sizes(step) for step in (0, 9, 10, 25, 1000)])
    (32, 64, 128, 200) [32, 32, 64, 128, 200]
    """
    initial = checked_count("growing_batch_sizes", "initial", initial)
    final = checked_count("growing_batch_sizes", "final", final, initial)
    every = checked_count("growing_batch_sizes", "every", every)
    factor = checked_number("growing_batch_sizes", "factor", factor, ABOVE_ONE)
    sizes = [initial]
    while sizes[-1] < final:
        sizes.append(min(final, round(initial * factor ** len(sizes))))
    return BatchSizes(tuple(sizes), every)
