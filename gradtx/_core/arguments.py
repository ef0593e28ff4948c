"""Arguments that are known when a function is called: whole numbers, real numbers, random keys, functions, ...

Hyper-parameters, which may also be traced or scheduled, are in `hyperparameters.py`.
"""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .hyperparameters import Range
from .types import GradientTransformation, GradientTransformationExtraArgs, MultiSteps, with_extra_args_support


def check_integer(name: str, argument: str, value: Any) -> int:
    """The value as an int; raises where it is no whole number."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: {argument} must be an integer, got {value!r} ({type(value).__name__}).")
    return number


def check_at_least(name: str, argument: str, value: Any, least: int) -> int:
    """The value as an int; raises where it is no whole number, or too small."""
    number = check_integer(name, argument, value)
    if number < least:
        raise ValueError(f"{name}: {argument} must be at least {least}, got {number}.")
    return number


def check_seed(name: str, seed: Any) -> None:
    """Raises where it is no whole number; one that is traced passes."""
    is_traced = isinstance(seed, Tracer) and seed.shape == () and jnp.issubdtype(seed.dtype, jnp.integer)
    if not is_traced:
        check_integer(name, "seed", seed)


def checked_number(name: str, argument: str, value: Any, allowed: Range) -> float:
    """The value as a float; raises where it is no real number that is known, or out of range."""
    is_array = isinstance(value, np.generic | np.ndarray | jax.Array)
    is_real = isinstance(value, int | float) or (is_array and value.shape == () and not np.iscomplexobj(value))
    if not is_real or isinstance(value, bool | np.bool_ | Tracer):
        raise TypeError(f"{name}: {argument} must be a number, got {value!r} ({type(value).__name__}).")
    number = float(value)
    if number not in allowed:
        raise ValueError(f"{name}: {argument} must be in {allowed.text}, got {number!r}.")
    return number


def check_key(name: str, key: Any) -> None:
    """Raises where `key` is not one JAX random key, typed or raw."""
    is_typed = hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    is_raw = hasattr(key, "dtype") and key.dtype == jnp.uint32 and key.ndim == 1
    if not (is_typed or is_raw):
        raise TypeError(f"{name}: key must be a JAX random key, as jax.random.key(0), got {key!r}.")
    if is_typed and key.shape != ():
        raise ValueError(f"{name}: key must be one key, got an array of keys of shape {key.shape}.")


def check_function(name: str, argument: str, value: Callable[..., Any], of: str) -> None:
    """Raises where `value` is no function; `of` says of what it should be one."""
    if not callable(value):
        raise TypeError(f"{name}: {argument} must be a function of {of}, got {value!r}.")


def check_loss(name: str, value: Any) -> None:
    """Raises where the shape and dtype of a loss are not those of one real number."""
    if not hasattr(value, "shape"):
        raise TypeError(f"{name}: value_fn must return a scalar, got {type(value).__name__}.")
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"{name}: value_fn must return a real floating scalar, got shape {value.shape} and dtype {value.dtype}."
        )


def scalar(name: str, argument: str, value: Any) -> jax.Array:
    """The value, which may be traced, in JAX's default float dtype; raises where it has axes."""
    x = jnp.asarray(value, jnp.result_type(float))
    if x.shape != ():
        raise ValueError(f"{name}: {argument} must be a scalar, got shape {x.shape}.")
    return x


def inner_transformation(name: str, tx: Any) -> GradientTransformationExtraArgs:
    """What a wrapper is given to wrap, taking extra arguments; raises where it is no transformation."""
    if isinstance(tx, MultiSteps):  # an object that can become a transformation
        tx = tx.gradient_transformation()
    if not isinstance(tx, GradientTransformation):
        raise TypeError(f"{name}: tx must be a gradient transformation, got {tx!r} ({type(tx).__name__}).")
    return with_extra_args_support(tx)
