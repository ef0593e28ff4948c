"""Checks of the arguments that only functions of the lab take. The others are in `_core/arguments.py`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._core.arguments import checked_integer

MOST = 2**31 - 1  # steps are counted in int32


def checked_keys(caller: str, argument: str, keys: Any, ndim: int) -> jax.Array:
    """Random keys, typed or raw, as typed ones; `ndim` is 0 for one key, 1 for several."""
    is_array = isinstance(keys, jax.Array | np.ndarray)
    array = jnp.asarray(keys) if isinstance(keys, np.ndarray) else keys
    if is_array and array.dtype == jnp.uint32 and array.ndim == ndim + 1:
        array = jax.random.wrap_key_data(array)
    is_key = is_array and jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    if not is_key or array.ndim != ndim or not array.size:
        example = "jax.random.key(0)" if ndim == 0 else "jax.random.split(jax.random.key(0), 3)"
        kind = ("a JAX random key", "an array of JAX random keys")[ndim]
        raise TypeError(f"{caller}: {argument} must be {kind}, as {example}, got {keys!r}.")
    return array


def checked_batch_size(caller: str, num_examples: int | None, default: int, batch_size: Any) -> int:
    """The batch size as a number: None is the default, "all" the whole training set of `num_examples`."""
    if batch_size is None:
        return default
    if isinstance(batch_size, str) and batch_size == "all" and num_examples is not None:
        return num_examples
    or_all = "" if num_examples is None else ' or "all"'
    size = checked_integer(caller, "batch_size", batch_size, or_all)
    if not 1 <= size <= (num_examples or MOST):
        most = f" and at most {MOST}" if num_examples is None else f" and at most {num_examples}, the training set,"
        raise ValueError(f"{caller}: batch_size must be at least 1{most}{or_all}, got {size}.")
    return size


def check_kind(caller: str, argument: str, value: Any, kind: type, source: str) -> None:
    """Raises if `value` is not of that class; `source` says where to get one."""
    if not isinstance(value, kind):
        got = f"{value!r} ({type(value).__name__})"
        raise TypeError(f"{caller}: {argument} must be a {kind.__name__}, {source}, got {got}.")
