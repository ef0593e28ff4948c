"""Arguments that several functions of the lab take, checked once and said once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

MOST = 2**31 - 1  # steps are counted in int32


def checked_keys(caller: str, argument: str, keys: Any, ndim: int) -> jax.Array:
    """Random keys of either kind, as new-style ones; `ndim` 0 for one key, 1 for several."""
    array = keys if isinstance(keys, jax.Array) else jnp.asarray(keys)
    if array.dtype == jnp.uint32 and array.ndim == ndim + 1:
        array = jax.random.wrap_key_data(array)
    if not jnp.issubdtype(array.dtype, jax.dtypes.prng_key) or array.ndim != ndim or not array.size:
        example = "jax.random.key(0)" if ndim == 0 else "jax.random.split(jax.random.key(0), 3)"
        raise TypeError(f"{caller}: {argument} must be {('a key', 'an array of keys')[ndim]}, {example}, got {keys!r}.")
    return array


def checked_count(caller: str, argument: str, value: Any, most: float = MOST) -> int:
    """A whole number of at least 1."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"{caller}: {argument} must be a whole number, got {value!r} ({type(value).__name__}).")
    if value < 1:
        raise ValueError(f"{caller}: {argument} must be at least 1, got {value}.")
    if value > most:
        raise ValueError(f"{caller}: {argument} must be at most {most}, got {value}.")
    return int(value)


def checked_batch_size(caller: str, num_examples: int | None, default: int, batch_size: Any) -> int:
    """The batch size as a number: None is the default, "all" the whole training set of `num_examples`."""
    if batch_size is None:
        return default
    if isinstance(batch_size, str) and batch_size == "all" and num_examples is not None:
        return num_examples
    or_all = "" if num_examples is None else ' or "all"'
    if not isinstance(batch_size, int | np.integer) or isinstance(batch_size, bool):
        got = f"{batch_size!r} ({type(batch_size).__name__})"
        raise TypeError(f"{caller}: batch_size must be a whole number{or_all}, got {got}.")
    if batch_size < 1 or (num_examples is not None and batch_size > num_examples):
        most = "" if num_examples is None else f" and at most {num_examples}, the training set,"
        raise ValueError(f"{caller}: batch_size must be at least 1{most}{or_all}, got {batch_size}.")
    return int(batch_size)
