"""Minibatches: shuffle the examples, then read them in order.

    standard error of the mean of n independent examples    σ / √n

Halving the error takes four times the examples. That is why minibatches are small.

**Source**: Goodfellow et al. 2016, §8.1.3; chapter §3.2 (minibatches must be independent, so not shuffling does harm)
and §3.3 (minibatch gradients are unbiased for the generalisation error on the first pass, but not on later ones).

**Differs from** torch's `DataLoader`, which draws on the host during training. Here all indices are one array, known
before the first step, so that a scan can run over it and a run can resume at any step.

**When**: `shuffled_epochs` for training; `online_pass` if there is more data than time.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from gradtx._core.arguments import check_key, checked_count

Remainder = Literal["drop", "wrap", "pad"]


def shuffled_epochs(
    key: jax.Array,
    num_examples: int,
    batch_size: int,
    epochs: int,
    *,
    reshuffle: bool = True,
    remainder: Remainder = "drop",
) -> jax.Array:
    """Indices of the examples of each minibatch, with a new shuffle for each epoch.

    No example occurs twice within a minibatch, nor within an epoch (except with "wrap"). All minibatches have
    the same size, so a step is compiled once. Sizes are static: the function works inside jit, and a scan can run over
    its result.

    Args:
        key: a JAX random key; the same key gives the same minibatches.
        num_examples: size of the training set, >= 1.
        batch_size: examples per minibatch, from 1 to `num_examples`.
        epochs: passes over the training set, >= 1.
        reshuffle: False shuffles once. Then every epoch has the order of the first, like a file that was shuffled
            before it was stored.
        remainder: how to treat the last `num_examples % batch_size` examples of an epoch. "drop" leaves them out of
            that epoch (the next shuffle leaves out others). "wrap" fills their minibatch with the first examples of the
            same epoch. "pad" fills it with -1. An index of -1 reads the last example in JAX and NumPy, so multiply its
            loss by `indices >= 0`.

    Returns:
        int32 indices, [epochs * b, batch_size], b = num_examples / batch_size rounded down under "drop", else up.

    Costs: one int32 for each example of each epoch, all at once.

    Raises:
        ValueError: a size is out of range, or `remainder` is unknown. TypeError: a size is not an integer, or `key`
            is not a key.

    >>> import gradtx, jax
    >>> batches = gradtx.shuffled_epochs(jax.random.key(0), num_examples=6, batch_size=3, epochs=2)
    >>> print(batches.shape, sorted(batches[:2].ravel().tolist()))
    (4, 3) [0, 1, 2, 3, 4, 5]
    >>> batches = gradtx.shuffled_epochs(jax.random.key(0), num_examples=5, batch_size=3, epochs=1, remainder="pad")
    >>> print(batches.shape, sorted(batches.ravel().tolist()))
    (2, 3) [-1, 0, 1, 2, 3, 4]
    """
    _check("shuffled_epochs", key, num_examples, batch_size, remainder, ("drop", "wrap", "pad"))
    checked_count("shuffled_epochs", "epochs", epochs)
    if reshuffle:
        return _shuffled(key, num_examples, batch_size, epochs, remainder)
    return jnp.tile(_shuffled(key, num_examples, batch_size, 1, remainder), (epochs, 1))


def online_pass(
    key: jax.Array, num_examples: int, batch_size: int, *, remainder: Literal["drop", "pad"] = "drop"
) -> jax.Array:
    """Indices of the minibatches of one pass. Each example occurs at most once.

    If the examples are independent draws from p_data, each minibatch is too, and the parameters have not seen it
    before. Its gradient is then an unbiased estimate of the gradient of the *generalisation* error. From the second
    pass on (`shuffled_epochs`) it is unbiased for the training error only.

    Args:
        key: a JAX random key for the shuffle, which is needed because stored data may be sorted.
        num_examples, batch_size: as in `shuffled_epochs`.
        remainder: "drop" leaves out the last `num_examples % batch_size`; "pad" adds a minibatch with them and -1.

    Returns:
        int32 indices, [b, batch_size], b = num_examples / batch_size rounded down under "drop", else up.

    Costs: one int32 for each example.

    Raises:
        ValueError: a size is out of range, or `remainder` is unknown. TypeError: a size is not an integer, or `key`
            is not a key.

    >>> import gradtx, jax
    >>> batches = gradtx.online_pass(jax.random.key(0), num_examples=1000, batch_size=10)
    >>> print(batches.shape, len(set(batches.ravel().tolist())))
    (100, 10) 1000
    """
    _check("online_pass", key, num_examples, batch_size, remainder, ("drop", "pad"))
    return _shuffled(key, num_examples, batch_size, 1, remainder)


def _check(
    function: str, key: jax.Array, num_examples: int, batch_size: int, remainder: str, known: tuple[str, ...]
) -> None:
    check_key(function, key)
    checked_count(function, "num_examples", num_examples)
    checked_count(function, "batch_size", batch_size)
    if batch_size > num_examples:
        raise ValueError(f"{function}: batch_size must be at most num_examples = {num_examples}, got {batch_size}.")
    if remainder not in known:
        raise ValueError(f"{function}: remainder must be one of {', '.join(map(repr, known))}, got {remainder!r}.")


@partial(jax.jit, static_argnames=("num_examples", "batch_size", "epochs", "remainder"))
def _shuffled(key: jax.Array, num_examples: int, batch_size: int, epochs: int, remainder: Remainder) -> jax.Array:
    per_epoch = num_examples // batch_size if remainder == "drop" else -(-num_examples // batch_size)
    missing = per_epoch * batch_size - num_examples  # a negative number is dropped

    def one_epoch(epoch_key: jax.Array) -> jax.Array:
        order = jax.random.permutation(epoch_key, jnp.arange(num_examples, dtype=jnp.int32))
        if missing > 0:
            fill = order[:missing] if remainder == "wrap" else jnp.full(missing, -1, jnp.int32)
            order = jnp.concatenate([order, fill])
        return order[: per_epoch * batch_size].reshape(per_epoch, batch_size)

    keys = jax.random.split(key, epochs)
    return jax.lax.map(one_epoch, keys).reshape(epochs * per_epoch, batch_size)
