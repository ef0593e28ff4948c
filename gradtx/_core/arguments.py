"""Checks of arguments that are known when a function is called: integers, real numbers, random keys, functions, ...

Hyper-parameters, which may also be traced or scheduled, are in `hyperparameters.py`.
"""

import inspect
import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .hyperparameters import Range
from .types import GradientTransformation, GradientTransformationExtraArgs, MultiSteps, with_extra_args_support


def is_integer(value: Any) -> bool:
    """Whether the value is a single, known integer: a Python int, or a NumPy or JAX scalar of an integer dtype."""
    try:
        operator.index(value)
    except TypeError:  # a tracer raises a subclass of TypeError
        return False
    return not isinstance(value, bool | np.bool_)


def checked_integer(name: str, argument: str, value: Any, or_else: str = "") -> int:
    """The value as an int. Raises if it is not an integer; `or_else` says which other values the argument takes."""
    if not is_integer(value):
        raise TypeError(f"{name}: {argument} must be an integer{or_else}, got {value!r} ({type(value).__name__}).")
    return operator.index(value)


def checked_count(
    name: str, argument: str, value: Any, least: int = 1, most: float = math.inf, *, or_else: str = ""
) -> int:
    """The value as an int. Raises if it is not an integer, or less than `least`, or more than `most`."""
    number = checked_integer(name, argument, value, or_else)
    if number < least:
        raise ValueError(f"{name}: {argument} must be at least {least}, got {number}.")
    if number > most:
        raise ValueError(f"{name}: {argument} must be at most {most}, got {number}.")
    return number


def check_seed(name: str, seed: Any) -> None:
    """Raises if the seed is not an integer. A traced seed passes."""
    is_traced = isinstance(seed, Tracer) and seed.shape == () and jnp.issubdtype(seed.dtype, jnp.integer)
    if not is_traced:
        checked_integer(name, "seed", seed)


def checked_number(name: str, argument: str, value: Any, allowed: Range) -> float:
    """The value as a float. Raises if it is not a known real number, or if it is out of range."""
    is_array = isinstance(value, np.generic | np.ndarray | jax.Array)
    is_real = isinstance(value, int | float) or (is_array and value.shape == () and not np.iscomplexobj(value))
    if not is_real or isinstance(value, bool | np.bool_ | Tracer):
        raise TypeError(f"{name}: {argument} must be a number, got {value!r} ({type(value).__name__}).")
    number = float(value)
    if number not in allowed:
        raise ValueError(f"{name}: {argument} must be in {allowed.text}, got {number!r}.")
    return number


def check_key(name: str, key: Any) -> None:
    """Raises if `key` is not one JAX random key, typed or raw."""
    is_typed = hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    is_raw = hasattr(key, "dtype") and key.dtype == jnp.uint32 and key.ndim == 1
    if not (is_typed or is_raw):
        raise TypeError(f"{name}: key must be a JAX random key, as jax.random.key(0), got {key!r}.")
    if is_typed and key.shape != ():
        raise ValueError(f"{name}: key must be one key, got an array of keys of shape {key.shape}.")


def check_function(name: str, argument: str, value: Callable[..., Any], of: str, example: str = "") -> None:
    """Raises if `value` is not a function. `of` names its arguments, `example` shows how to pass one."""
    if not callable(value):
        example = example or f"{argument}=lambda params: {_EXAMPLES.get(argument, 'loss')}(params, batch)"
        raise TypeError(f"{name}: {argument} must be a function of {of}, got {described(value)}: pass {example}.")


_EXAMPLES = {"losses_fn": "losses"}


def check_takes_params(name: str, argument: str, function: Callable[..., Any]) -> None:
    """Raises if a function that failed cannot be called with the parameters alone."""
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        example = f"{argument}=lambda params: {_EXAMPLES.get(argument, 'loss')}(params, batch)"
        raise TypeError(
            f"{name}: {argument} must be a function of the parameters alone, but {error}: pass {example}."
        ) from None
    except ValueError:  # a function without a signature
        return


def check_alone(name: str, argument: str, value: Any) -> None:
    """Raises if a function of the parameters returned something other than one array."""
    what = "an array [batch]" if argument == "losses_fn" else "a scalar"
    if isinstance(value, tuple | list | dict):
        key = next(iter(value), 0) if isinstance(value, dict) else 0
        cure = (
            "return the loss alone, without what comes with it, as in "
            f"{argument}=lambda params: {_EXAMPLES.get(argument, 'loss')}(params)[{key!r}]"
        )
        if argument == "losses_fn" and isinstance(value, list) and all(jnp.shape(x) == () for x in value):
            cure = "end the function with return jnp.stack(losses)"
        raise TypeError(f"{name}: {argument} must return {what}, got {type(value).__name__} of {len(value)}: {cure}.")
    if not isinstance(value, jax.Array | np.ndarray | np.generic | float | int | complex):
        is_shape = hasattr(value, "shape") and hasattr(value, "dtype")
        if not is_shape:
            raise TypeError(
                f"{name}: {argument} must return {what}, got {type(value).__name__}: end the function with "
                "`return loss`."
            )


def check_loss(name: str, value: Any) -> None:
    """Raises if the shape and dtype of a loss are not those of one real number."""
    check_alone(name, "value_fn", value)
    shape, dtype = jnp.shape(value), jnp.result_type(value)
    if shape != () or not jnp.issubdtype(dtype, jnp.floating):
        cure = "take the mean, as in value_fn=lambda params: jnp.mean(losses(params))" if shape else "return a float"
        raise ValueError(
            f"{name}: value_fn must return a real floating scalar, got shape {shape} and dtype {dtype}: {cure}."
        )


def loss_shape(name: str, value_fn: Callable[..., Any], *args: Any) -> Any:
    """Shape and dtype of the loss at these arguments. Raises if the loss is not one real number."""

    def checked(*args: Any) -> Any:
        try:
            value = value_fn(*args)
        except TypeError:
            if len(args) == 1:
                check_takes_params(name, "value_fn", value_fn)
            raise
        check_alone(name, "value_fn", value)  # before JAX sees the result, which may not be an array
        return value

    found = jax.eval_shape(checked, *args)
    check_loss(name, found)
    return found


def scalar(name: str, argument: str, value: Any) -> jax.Array:
    """The value, which may be traced, in JAX's default float dtype. Raises if it is not a number, or if it has axes."""
    is_number = isinstance(value, jax.Array | np.ndarray | np.generic | float | int) or hasattr(value, "__jax_array__")
    if not is_number or jnp.iscomplexobj(value):
        cure = f"pass one number, as {argument}={argument}, or leave it out"
        if callable(value):
            cure = f"call the function first, as {argument}={argument}_fn(params)"
        elif isinstance(value, tuple | list) and value:
            cure = f"pass the number alone, as {argument}={argument}[0]"
        raise TypeError(f"{name}: {argument} must be a number, got {described(value)}: {cure}.")
    x = jnp.asarray(value, jnp.result_type(float))
    if x.shape != ():
        raise ValueError(
            f"{name}: {argument} must be a scalar, got shape {x.shape}: pass one number, such as "
            f"{argument}=jnp.mean({argument})."
        )
    return x


def described(value: Any) -> str:
    """A short description of a value: shape and dtype of an array, type and length of a container."""
    if isinstance(value, jax.Array | np.ndarray):
        return f"Array of shape {value.shape} and dtype {value.dtype}"
    if isinstance(value, tuple | list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    if callable(value):
        return f"a function ({getattr(value, '__name__', type(value).__name__)})"
    return f"{value!r} ({type(value).__name__})" if value is not None else "None"


def inner_transformation(name: str, tx: Any) -> GradientTransformationExtraArgs:
    """The transformation that a wrapper wraps, made to take extra arguments. Raises if `tx` is not a transformation."""
    multi_steps: Any = tx if isinstance(tx, MultiSteps) else getattr(getattr(tx, "update", None), "__self__", None)
    if isinstance(multi_steps, MultiSteps):  # its `gradient_transformation()` loses the extra arguments
        update: Any = multi_steps.update
        tx = GradientTransformationExtraArgs(multi_steps.init, update)
    if not isinstance(tx, GradientTransformation):
        raise TypeError(f"{name}: tx must be a gradient transformation, got {tx!r} ({type(tx).__name__}).")
    return with_extra_args_support(tx)
