"""Arguments that are no hyper-parameters (integers, fixed numbers, seeds, keys, dtypes), checked once and said once."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .hyperparameters import Range


def check_at_least(name: str, argument: str, value: Any, least: int) -> int:
    """The value as an int; raises where it is no integer, or too small."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: {argument} must be an integer, got {value!r} ({type(value).__name__}).")
    if number < least:
        raise ValueError(f"{name}: {argument} must be at least {least}, got {number}.")
    return number


def checked_number(name: str, argument: str, value: Any, allowed: Range) -> float:
    """The value as a float, if it is a known real number in the range."""
    is_array = isinstance(value, np.generic | np.ndarray | jax.Array)
    is_real = isinstance(value, int | float) or (is_array and value.shape == () and not np.iscomplexobj(value))
    if not is_real or isinstance(value, bool | np.bool_ | Tracer):
        raise TypeError(f"{name}: {argument} must be a number, got {value!r} ({type(value).__name__}).")
    number = float(value)
    if number not in allowed:
        raise ValueError(f"{name}: {argument} must be in {allowed.text}, got {number!r}.")
    return number


def check_seed(name: str, seed: Any) -> None:
    """Raises where `seed` is no integer; one that is traced passes."""
    is_integer = isinstance(seed, int) and not isinstance(seed, bool)
    is_array = isinstance(seed, np.generic | np.ndarray | jax.Array) and jnp.issubdtype(seed.dtype, jnp.integer)
    if not is_integer and not (is_array and np.shape(seed) == ()):
        raise TypeError(f"{name}: seed must be an integer, got {seed!r} ({type(seed).__name__}).")


def check_key(name: str, key: Any) -> None:
    """Raises where `key` is not one JAX random key."""
    is_typed = hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    is_raw = hasattr(key, "dtype") and key.dtype == jnp.uint32 and key.ndim == 1
    if not (is_typed or is_raw):
        raise TypeError(f"{name}: key must be a JAX random key, as jax.random.key(0), got {key!r}.")
    if is_typed and key.shape != ():
        raise ValueError(f"{name}: key must be one key, got an array of keys of shape {key.shape}.")


def check_accumulator_dtype(name: str, dtype: Any) -> None:
    """Raises where `dtype` is neither a floating dtype nor None."""
    try:
        # Under `optax.inject_hyperparams` an explicit `jnp.float32` arrives as an array of that dtype.
        own = dtype.dtype if isinstance(dtype, jax.Array) else dtype
        is_right = dtype is None or jnp.issubdtype(own, jnp.inexact)
    except TypeError:
        is_right = False
    if not is_right:
        raise TypeError(f"{name}: accumulator_dtype must be a floating dtype or None, got {dtype!r}.")
