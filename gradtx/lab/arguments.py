"""Arguments that several functions of the lab take, checked once and said once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

MOST = 2**31 - 1  # steps are counted in int32


def checked_keys(caller: str, argument: str, keys: Any, ndim: int) -> jax.Array:
    """Random keys of either kind, as new-style ones; `ndim` 0 for one key, 1 for several."""
    is_array = isinstance(keys, jax.Array | np.ndarray)
    array = jnp.asarray(keys) if isinstance(keys, np.ndarray) else keys
    if is_array and array.dtype == jnp.uint32 and array.ndim == ndim + 1:
        array = jax.random.wrap_key_data(array)
    is_key = is_array and jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    if not is_key or array.ndim != ndim or not array.size:
        example = "jax.random.key(0)" if ndim == 0 else "jax.random.split(jax.random.key(0), 3)"
        raise TypeError(f"{caller}: {argument} must be {('a key', 'an array of keys')[ndim]}, {example}, got {keys!r}.")
    return array


def checked_count(caller: str, argument: str, value: Any, least: int = 1, most: float = MOST) -> int:
    """A whole number in a range."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"{caller}: {argument} must be a whole number, got {value!r} ({type(value).__name__}).")
    if value < least:
        raise ValueError(f"{caller}: {argument} must be at least {least}, got {value}.")
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
    if not 1 <= batch_size <= (num_examples or MOST):
        most = f" and at most {MOST}" if num_examples is None else f" and at most {num_examples}, the training set,"
        raise ValueError(f"{caller}: batch_size must be at least 1{most}{or_all}, got {batch_size}.")
    return int(batch_size)


def check_transformation(caller: str, tx: Any) -> None:
    """Raises where `tx` cannot train: `gradtx.sgd` in the place of `gradtx.sgd(0.1)`."""
    if not (callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None))):
        raise TypeError(f"{caller}: tx must be a gradient transformation, such as gradtx.sgd(0.1), got {tx!r}.")


def check_callable(caller: str, argument: str, value: Any, example: str) -> None:
    """Raises where `value` is no function."""
    if not callable(value):
        got = f"{value!r} ({type(value).__name__})"
        raise TypeError(f"{caller}: {argument} must be a function, such as {example}, got {got}.")


def check_kind(caller: str, argument: str, value: Any, kind: type, source: str) -> None:
    """Raises where `value` is not of that class; `source` says where one comes from."""
    if not isinstance(value, kind):
        got = f"{value!r} ({type(value).__name__})"
        raise TypeError(f"{caller}: {argument} must be a {kind.__name__}, {source}, got {got}.")
