"""Minibatches: shuffle, then read in order.

**Source**: Goodfellow et al. 2016, §8.1.3; chapter §3.2 (minibatches must be independent: not shuffling is what hurts).
"""

from functools import partial

import jax
import jax.numpy as jnp


def shuffled_epochs(key: jax.Array, num_examples: int, batch_size: int, epochs: int) -> jax.Array:
    """Indices of the examples of each minibatch, shuffled anew for each epoch.

    Within an epoch no example comes twice. Where `batch_size` does not divide `num_examples`, the last
    `num_examples % batch_size` examples of each shuffle are left out of that epoch, so that all minibatches have one
    size, and one compilation.

    Args:
        key: a JAX random key; the same key gives the same minibatches.
        num_examples: size of the training set, >= 1.
        batch_size: examples a minibatch, from 1 to `num_examples`.
        epochs: passes over the training set, >= 1.

    Returns:
        int32 indices, [epochs * (num_examples // batch_size), batch_size].

    Raises:
        ValueError: a size out of range.

    >>> import gradtx, jax
    >>> batches = gradtx.shuffled_epochs(jax.random.key(0), num_examples=6, batch_size=3, epochs=2)
    >>> print(batches.shape, sorted(batches[:2].ravel().tolist()))
    (4, 3) [0, 1, 2, 3, 4, 5]
    """
    for argument, value in (("num_examples", num_examples), ("batch_size", batch_size), ("epochs", epochs)):
        if value < 1:
            raise ValueError(f"shuffled_epochs: {argument} must be at least 1, got {value}.")
    if batch_size > num_examples:
        raise ValueError(
            f"shuffled_epochs: batch_size must be at most num_examples = {num_examples}, got {batch_size}."
        )
    return _shuffled(key, num_examples, batch_size, epochs)


@partial(jax.jit, static_argnames=("num_examples", "batch_size", "epochs"))
def _shuffled(key: jax.Array, num_examples: int, batch_size: int, epochs: int) -> jax.Array:
    per_epoch = num_examples // batch_size

    def one_epoch(epoch_key: jax.Array) -> jax.Array:
        order = jax.random.permutation(epoch_key, jnp.arange(num_examples, dtype=jnp.int32))
        return order[: per_epoch * batch_size].reshape(per_epoch, batch_size)

    keys = jax.random.split(key, epochs)
    return jax.lax.map(one_epoch, keys).reshape(epochs * per_epoch, batch_size)
