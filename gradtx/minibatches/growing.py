"""Minibatches that grow during training. The noise falls as σ / √n, and the learning rate can stay the same.

    n_k = min(n_final, round(n_0 γ^⌊k / p⌋))    at step k, from 0

**When**: late in a run, if noise and not curvature keeps the loss from falling. Growing the batch acts like lowering
the learning rate, but takes fewer and larger steps, which devices can run in parallel. It does not help if the gradient
already outweighs the noise (see `gradient_noise_scale`).

**Source**: Byrd et al. 2012 (geometric growth keeps the linear rate of gradient descent on strongly convex costs);
Smith et al. 2018 (growing the batch instead of lowering the learning rate); chapter §4.1.

**Differs from** Optax and torch, which have no schedule of batch sizes. **Costs**: one compilation per stage.
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
    """The schedule that `growing_batch_sizes` returns. Call it with the step."""

    sizes: tuple[int, ...]  # one per stage
    every: int  # steps per stage

    def __call__(self, step: Any) -> Any:
        """The size at a step: an int for a number, an int32 array for an array. Negative steps give the first size."""
        last = len(self.sizes) - 1
        if isinstance(step, jax.Array | np.ndarray):
            return jnp.asarray(self.sizes, jnp.int32)[jnp.clip(step // self.every, 0, last)]
        return self.sizes[min(max(int(step) // self.every, 0), last)]


def growing_batch_sizes(initial: int, final: int, *, every: int, factor: float = 2.0) -> BatchSizes:
    """Makes a schedule that maps the step to its number of examples, or of micro-batches.

    A size stays the same for `every` steps, so a loop that compiles once per size compiles only a few times.
    `accumulate(tx, every=...)` uses the value as the number of micro-batches of each step,
    `lab.run(batch_size_schedule=...)` as the number of examples.

    Args:
        initial: n_0, the size of the first stage, >= 1.
        final: n_final, the largest size, >= n_0.
        every: p, steps per stage, >= 1.
        factor: γ, the ratio of the sizes of successive stages, above 1.

    Raises:
        ValueError: an argument is out of range. TypeError: an argument that must be an integer is not.

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
